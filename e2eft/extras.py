"""What some stages need beside what `pip install e2eft` brings, which labels and serves."""

from importlib.util import find_spec

from e2eft.errors import E2eftError

EXTRAS = {
    "train": ("deepspeed",),
    "render": ("mitsuba",),
    "datasets": ("h5py", "OpenEXR", "scipy", "sklearn"),
}
"""Modules of each extra, of which a stage needs all or none."""


class ExtraError(E2eftError):
    """A stage whose packages are not installed; the message says how to install them."""


def require_extra(extra: str, what: str) -> None:
    """Raises ExtraError unless the modules of an extra can be imported.

    Args:
        what: needs them; the beginning of a sentence.
    """
    missing = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if missing:
        raise ExtraError(f"{what} needs {', '.join(missing)}: pip install 'e2eft[{extra}]'")
