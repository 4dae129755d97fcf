"""Why an image gets no label, or one with a remark."""

from e2eft.errors import E2eftError

REASONS: dict[str, str] = {
    "empty_file": "the file has no content",
    "name_unsupported": "the name is not UTF-8 or leaves its folder",
    "duplicate_key": "another image of the corpus has the same key",
    "read_missing": "the file was listed but is no longer there",
    "read_denied": "the file may not be read with these permissions",
    "read_failed": "the file could not be read",
    "source_changed": "the file's size is not the one that was listed",
    "file_too_large": "more bytes than an image of --max-pixels can need",
    "decode_unsupported": "not an image, or of a format that is not supported",
    "decode_truncated": "the file ends before the image does",
    "decode_corrupt": "the content is damaged",
    "decode_bomb": "more pixels than --max-pixels, or passes over them than any encoder makes",
    "too_small": "a side is shorter than 8 pixels",
    "aspect_extreme": "so narrow that its short side falls below 8 pixels at the processing size",
    "model_nan": "the model's output is not finite",
    "model_oom": "the image alone does not fit into memory beside the model",
    "model_failed": "the model raised an error on this image alone",
    "process_died": "no process that decoded, labelled or wrote it has survived",
}
"""Every reason for which an image gets no label, and what it says to a person."""

MAY_MEND = frozenset(
    (
        *("read_missing", "read_denied", "read_failed", "source_changed"),
        *("model_oom", "model_failed", "process_died"),
    )
)
"""Reasons that another try may find gone: the image may be fine."""

DEGRADATIONS: dict[str, str] = {
    "first_frame": "animated or of several pages: the first was labelled",
    "alpha_composited": "transparent pixels were laid over mid-grey",
    "cmyk_without_profile": "converted from CMYK without a colour profile",
    "profile_ignored": "its colour profile is unusable and was ignored",
    "taken_as_srgb": "its colours are said to be none of sRGB, without a profile: taken as sRGB",
    "range_scaled": "more than 8 bits a channel: scaled from its own range",
    "panorama": "a panorama: labelled as if it were a pinhole's image",
    "fisheye": "taken through a fisheye: labelled as if it were a pinhole's image",
    "av1_doubtful": "one of two decoders of AV1 refuses it: it may be damaged",
    "exif_unreadable": "its EXIF is damaged, so its orientation is unknown",
}
"""What may be wrong with an image that is labelled all the same."""


class ImageError(E2eftError):
    """An image that gets no label. `reason` is one of `REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.reason, self.detail)
