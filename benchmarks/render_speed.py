"""CPU-seconds per rendered frame, and where they go.

    python benchmarks/render_speed.py [--scenes 6] [--frames 4] [--height 128] [--width 160]

One thread; the first scene of each family compiles the kernels and is not counted.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, get_args

from e2eft import scenes
from e2eft.scenes import mitsuba_scene, render

STAGES = {
    "geometry": (render, "trace_geometry"),
    "light": (render, "_trace_light"),
    "edges": (render, "_trace_fine"),
    "denoise": (render, "denoise"),
    "tone map": (render, "tone_map"),
}


def timed(spent: dict[str, float], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        start = time.process_time()
        result = function(*arguments, **named)
        spent[name] += time.process_time() - start
        return result

    return call


def measure(family: scenes.Family, first: int, options: argparse.Namespace) -> dict[str, float]:
    """CPU-seconds in all by stage, over `options.scenes` scenes from number `first`."""
    spent: dict[str, float] = defaultdict(float)
    originals = {name: getattr(module, attribute) for name, (module, attribute) in STAGES.items()}
    generate = timed(spent, "generate", scenes.make_scene)
    build = timed(spent, "build", mitsuba_scene.built)
    aim = timed(spent, "camera", scenes.sample_camera)
    for index in range(first, first + options.scenes):
        scene = generate(family, 0, index)
        build(scene)
        cameras = [aim(scene, 0, frame) for frame in range(options.frames)]
        for name, (module, attribute) in STAGES.items():
            setattr(module, attribute, timed(spent, name, originals[name]))
        renderer = scenes.SceneRenderer(scene)
        for frame, camera in enumerate(cameras):
            renderer.render(
                camera, options.height, options.width, samples_per_pixel=options.samples, seed=frame
            )
        for name, (module, attribute) in STAGES.items():
            setattr(module, attribute, originals[name])
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("scenes", 6), ("frames", 4), ("height", 128), ("width", 160)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--samples", type=int, default=16)
    options = parser.parse_args()
    print(" ".join(f"{key}={value}" for key, value in scenes.renderer_provenance().items()))
    print(
        f"{options.width}x{options.height}, {options.samples} samples per pixel, "
        f"{options.frames} frames a scene; CPU-seconds per frame"
    )
    columns = ["generate", "build", "camera", *STAGES]
    print(f"{'family':8s}" + "".join(f"{name:>10s}" for name in columns) + f"{'total':>10s}")
    for family in get_args(scenes.Family):
        warm_up = argparse.Namespace(**{**vars(options), "scenes": 1, "frames": 1})
        measure(family, 0, warm_up)
        spent = measure(family, 1, options)
        per_frame = [spent[name] / (options.scenes * options.frames) for name in columns]
        row = [*per_frame, sum(per_frame)]
        print(f"{family:8s}" + "".join(f"{seconds:10.3f}" for seconds in row))


if __name__ == "__main__":
    main()
