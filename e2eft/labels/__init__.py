"""Labels of images: their files and index, ours and other programs'."""

from e2eft.labels.index import LabelIndex, open_labels

__all__ = ["LabelIndex", "open_labels"]
