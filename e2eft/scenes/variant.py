"""Which Mitsuba variant this process uses, and what it was: the only place that chooses."""

from __future__ import annotations

import functools
import os
import platform
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

_OLDEST_LLVM = 19
_ENVIRONMENT = "E2EFT_RENDER_VARIANT"
_SUPPORTED = ("llvm_ad_rgb", "scalar_rgb")


def select_variant() -> str:
    """Set Mitsuba's variant for the whole process, once, with one thread, and return its name.

    `llvm_ad_rgb` if a libLLVM of at least version 19 loads, else `scalar_rgb` (the same geometry to
    1e-5, about four times slower) with a warning. The environment variable E2EFT_RENDER_VARIANT set
    to scalar_rgb chooses that without one.

    Raises ValueError if E2EFT_RENDER_VARIANT names anything else.
    """
    return _select_once()


@functools.cache
def _select_once() -> str:
    import drjit
    import mitsuba as mi

    forced = os.environ.get(_ENVIRONMENT, "")
    if forced and forced not in _SUPPORTED:
        raise ValueError(f"{_ENVIRONMENT}={forced!r}: expected {' or '.join(_SUPPORTED)}, or unset")
    # Falls back to the second by itself where no LLVM loads.
    mi.set_variant(*([forced] if forced == "scalar_rgb" else _SUPPORTED))
    found = _llvm_version()
    # An older LLVM aborts the whole process at the first kernel; its version is known before that.
    if forced != "scalar_rgb" and found < (_OLDEST_LLVM,):
        mi.set_variant("scalar_rgb")
        warnings.warn(
            "rendering with scalar_rgb, about four times slower: needed libLLVM >= "
            f"{_OLDEST_LLVM}, found {'.'.join(map(str, found)) or 'none'}. Install "
            f"libllvm{_OLDEST_LLVM}, or set DRJIT_LIBLLVM_PATH to its shared library, or "
            f"{_ENVIRONMENT}=scalar_rgb to silence this.",
            stacklevel=3,
        )
    # With more threads, sums over samples depend on scheduling: the same seed would differ per run.
    drjit.set_thread_count(1)
    return _current()


def _current() -> str:
    import mitsuba as mi

    return str(mi.variant())


def _llvm_version() -> tuple[int, ...]:
    """Of the LLVM that the current variant uses; empty if it uses none."""
    import drjit

    return tuple(drjit.detail.llvm_version()) if _current().startswith("llvm") else ()


def mitsuba() -> Any:
    """The module, with its variant set. Untyped: its stubs describe one variant only."""
    select_variant()
    import mitsuba as module

    return module


def renderer_provenance() -> dict[str, str]:
    """What the pixels depend on besides the seed, for a manifest.

    Depth and normals are reproducible on any x86 CPU at these versions; RGB bytes only on the same
    instruction set.
    """
    return {
        "variant": select_variant(),
        "mitsuba": version("mitsuba"),
        "drjit": version("drjit"),
        "llvm": ".".join(map(str, _llvm_version())) or "none",
        "machine": platform.machine(),
        "cpu_isa": _vector_isa(),
    }


def _vector_isa() -> str:
    """The widest vector extension of this CPU that changes how kernels are compiled."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "unknown"
    return next((isa for isa in ("avx512f", "avx2", "avx", "sse4_2") if isa in flags), "baseline")
