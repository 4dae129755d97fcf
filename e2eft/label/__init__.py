"""The labelling stage: depth or normals for every image of a corpus, on one machine or a cluster.

    plan ─▶ decode (CPU tasks) ─▶ estimate (actors, one model each) ─▶ write (CPU tasks) ─▶ index

The plan is frozen first and cut into parts. A part's index is written when all of its images have
come to an end, labelled or rejected with a reason, and commits them. A job that is killed at any
moment and run again skips the parts that are committed. Nothing is lost or labelled twice; at the
end the books must balance: planned = ok + degraded + rejected, every image once. A bad image never
stops the job, not even one that kills its process: such a part is labelled image by image. A store
that does not answer stops it, since that is no image's fault.

The model is resolved once and pinned by its digest: a registry alias that moves, or a folder that
is written over, can't mix two models in one corpus. An image's noise follows from its content, so
its label does not depend on what it is batched with, nor on when or where it is made.

What the files contain and how they are read is in `e2eft.labels.index`, which needs neither a model
nor Ray.
"""

from e2eft.label.job import open_all, run, run_all, run_opened
from e2eft.label.opening import LabelError, Opened
from e2eft.label.told import too_many_rejected

__all__ = ["LabelError", "Opened", "open_all", "run", "run_all", "run_opened", "too_many_rejected"]
