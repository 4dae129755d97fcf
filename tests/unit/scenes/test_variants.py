"""Each variant in a process of its own: a process chooses once."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import e2eft.scenes as scenes

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
OLD_LLVM = sorted(Path("/usr/lib").glob("*/libLLVM-1[4-8].so.1"))


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("E2EFT_RENDER_VARIANT", "PYTHONPATH")}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def frame_digests() -> list[str]:
    """Of one small frame of each family."""
    digests: list[str] = []
    for family in ("indoor", "street"):
        scene = scenes.make_scene(family, 3, 5)
        renderer, camera = scenes.SceneRenderer(scene), scenes.sample_camera(scene, 3, 1)
        frame = renderer.render(camera, 32, 40, samples_per_pixel=5, seed=11)
        parts = (frame.rgb, frame.depth_m, frame.normals_cam, frame.intrinsics_px)
        joined = b"".join(part.tobytes() for part in parts)
        digests.append(hashlib.sha256(joined).hexdigest())
    return digests


def test_same_seed_same_bytes_in_another_process():
    here = frame_digests()
    code = "import test_variants as t; print(*t.frame_digests())"
    fresh = run("-c", code, PYTHONPATH=f"{ROOT}{os.pathsep}{HERE}")
    assert fresh.returncode == 0, fresh.stderr
    assert fresh.stdout.split() == here
    assert len(set(here)) == 2
    assert frame_digests() == here, "what was rendered before must not matter"


def test_seed_changes_the_picture_and_not_the_geometry():
    scene = scenes.make_scene("indoor", 3, 5)
    renderer, camera = scenes.SceneRenderer(scene), scenes.sample_camera(scene, 3, 1)
    first, second = (
        renderer.render(camera, 32, 40, samples_per_pixel=5, seed=seed) for seed in (1, 2)
    )
    assert (first.rgb != second.rgb).any()
    assert (first.depth_m == second.depth_m).all()


def test_scalar_variant_passes_the_geometry_tests():
    result = run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "test_geometry.py"),
        E2EFT_RENDER_VARIANT="scalar_rgb",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout and "failed" not in result.stdout


GUARD = """
import warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from e2eft import scenes
    print(scenes.select_variant(), scenes.select_variant())
    print([str(w.message) for w in caught if "libLLVM" in str(w.message)])
scene = scenes.make_scene("indoor", 0, 1)
camera = scenes.sample_camera(scene, 0, 0)
frame = scenes.SceneRenderer(scene).render(camera, 8, 10, samples_per_pixel=1, seed=0)
print(np.isfinite(frame.depth_m).any(), scenes.renderer_provenance()["variant"])
"""


@pytest.mark.parametrize("library", ["/nonexistent/libLLVM.so", *map(str, OLD_LLVM)])
def test_guard_falls_back_where_llvm_is_missing_or_too_old(library: str):
    result = run("-c", GUARD, DRJIT_LIBLLVM_PATH=library)
    assert result.returncode == 0, result.stderr
    variants, messages, rendered = result.stdout.splitlines()[-3:]
    assert variants == "scalar_rgb scalar_rgb"
    assert messages.count("needed libLLVM >= 19") == 1
    assert rendered == "True scalar_rgb"


def test_unknown_forced_variant_is_refused():
    code = "from e2eft import scenes; scenes.select_variant()"
    result = run("-c", code, E2EFT_RENDER_VARIANT="cuda_rgb")
    assert "ValueError" in result.stderr and "cuda_rgb" in result.stderr
    assert "scalar_rgb" in result.stderr


def test_importing_scenes_does_not_import_mitsuba():
    code = (
        "import sys, e2eft.scenes as s; s.make_scene('street', 0, 0); "
        "print([m for m in sys.modules if m.split('.')[0] in ('mitsuba', 'drjit', 'torch')])"
    )
    result = run("-c", code)
    assert result.stdout.strip() == "[]", result.stderr


def test_provenance_names_what_the_bytes_depend_on():
    provenance = scenes.renderer_provenance()
    assert set(provenance) == {"variant", "mitsuba", "drjit", "llvm", "machine", "cpu_isa"}
    assert all(provenance.values())
