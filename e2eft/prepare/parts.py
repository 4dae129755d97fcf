"""One part of a shards artifact: a Parquet file and, written after it, the record that commits it.

A run that was killed finds the committed parts and makes the others. A part that is made again,
since a file was mended, is committed as its next generation; the newest one counts.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from e2eft.artifacts import Claim, FileEntry, Writer
from e2eft.data.sample import RejectedFrame, SampleError, check_sample
from e2eft.data.shards import encode_part, encode_row, part_path
from e2eft.data.survey import Survey
from e2eft.datasets import open_source
from e2eft.prepare.config import PrepareConfig
from e2eft.storage import join, open_store

RECORDS = "parts"
READERS = 8
MENDABLE = ("missing_file", "corrupt_file")
"""Reasons that another download may remove: such frames are tried again until the commit."""


@dataclass(frozen=True)
class PartRecord:
    """What is known of a finished part: its file, the frames that are not in it, and a survey of
    those that are."""

    part: int
    rows: int
    size: int
    sha256: str
    rejects: list[list[str]]
    provenance: dict[str, Any]
    survey: dict[str, Any]
    path: str = ""

    @property
    def file(self) -> FileEntry:
        name = part_path(self.part)
        path = self.path or name
        return FileEntry(path, self.size, self.sha256, "" if path == name else name)


def record_path(claim_id: str, part: int, generation: int) -> str:
    """The JSON that commits a part, for this claim of the folder and no other."""
    return f"{RECORDS}/{claim_id}/part-{part:06d}.{generation}.json"


def read_records(claim: Claim) -> dict[int, tuple[int, PartRecord]]:
    """The newest generation of every part that is committed, and which one that is."""
    found: dict[int, tuple[int, str]] = {}
    if claim.record.identity_version == 1:
        # Version 1 had one generation, and names without the claim.
        for path, _ in claim.store.list(f"{RECORDS}/part-"):
            found[int(path.rpartition("part-")[2].partition(".")[0])] = 0, path
    for path, _ in claim.store.list(f"{RECORDS}/{claim.record.id}/part-"):
        part, generation, _ = path.rpartition("part-")[2].split(".")
        if int(generation) > found.get(int(part), (-1, ""))[0]:
            found[int(part)] = int(generation), path
    with ThreadPoolExecutor(READERS) as pool:
        contents = pool.map(claim.store.read, [path for _, path in found.values()])
        return {
            part: (generation, PartRecord(**json.loads(content)))
            for (part, (generation, _)), content in zip(found.items(), contents, strict=True)
        }


def frames_of_part(config: PrepareConfig, part: int, total: int) -> range:
    """Numbers of the frames in a part: a function of the configuration alone."""
    size = config.frames_per_part
    return range(part * size, min((part + 1) * size, total))


def index_of(claim: Claim) -> str:
    """URI of what a source keeps for its tasks: beside the parts, no part of the artifact, and of
    this claim alone, since it says which frames and cameras there are."""
    folder = join(claim.store.uri, "index")
    return folder if claim.record.identity_version == 1 else join(folder, claim.record.id)


def make_part(
    part: int, generation: int, config: PrepareConfig, writer: Writer, index: str
) -> PartRecord:
    """Decodes, checks, encodes and commits one part; runs in a Ray task. Of two that commit the
    same generation, the first one counts.

    Args:
        index: see `index_of`.
    """
    source = open_source(config.source, open_store(index))
    rows: list[dict[str, Any]] = []
    rejects: list[list[str]] = []
    survey = Survey()
    numbers = frames_of_part(config, part, len(source))
    for sample in source.decode(numbers):
        if isinstance(sample, RejectedFrame):
            rejects.append([sample.key, sample.reason, sample.detail])
            continue
        try:
            rows.append(encode_row(check_sample(sample, source.dataset.modalities)))
        except SampleError as error:
            rejects.append([sample.key, error.reason, error.detail])
        else:
            survey.add(sample)
    file = writer.put(part_path(part), encode_part(rows))
    record = PartRecord(
        part=part,
        rows=len(rows),
        path=file.path,
        size=file.size,
        sha256=file.sha256,
        rejects=rejects,
        provenance=source.provenance(),
        survey=survey.as_json(),
    )
    path = record_path(writer.claim_id, part, generation)
    if not writer.create(path, json.dumps(asdict(record)).encode()):
        return PartRecord(**json.loads(writer.store.read(path)))
    return record


def make_part_row(
    row: dict[str, Any], config: dict[str, Any], writer: Writer, index: str
) -> dict[str, Any]:
    """`make_part` as a Ray Data row function."""
    settings = PrepareConfig.model_validate(config)
    record = make_part(int(row["part"]), int(row["generation"]), settings, writer, index)
    counts = {"frames": record.rows, "rejects": len(record.rejects)}
    return {"part": record.part, "sizes": list(record.survey["sizes"]), **counts}


def parts_to_make(records: dict[int, tuple[int, PartRecord]], parts: int) -> list[dict[str, int]]:
    """Those without a record, and those that lack a frame whose file may have been mended since,
    each with the generation that it will be."""
    missing: list[dict[str, int]] = []
    for part in range(parts):
        generation, record = records.get(part, (0, None))
        if record is None or any(reason in MENDABLE for _, reason, _ in record.rejects):
            missing.append({"part": part, "generation": generation + 1})
    return missing
