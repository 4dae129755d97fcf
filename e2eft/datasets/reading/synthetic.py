"""Rendered scenes: every frame is a pure function of the source's configuration and its number."""

from collections.abc import Iterator
from typing import Any

from e2eft.data.sample import Sample, storable_depth
from e2eft.datasets.base import Dataset
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.scenes import SceneRenderer, make_scene, renderer_provenance, sample_camera


class SyntheticFrames:
    """The frames of a synthetic dataset, scene by scene."""

    def __init__(self, config: SyntheticSource) -> None:
        self.config = config

    @property
    def dataset(self) -> Dataset:
        return self.config.described

    def __len__(self) -> int:
        return self.config.num_scenes * self.config.frames_per_scene

    def check_present(self, *, thorough: bool = False) -> None:
        """Scenes are made as they are needed."""

    def write_index(self) -> None:
        """There are no files."""

    def telling(self) -> list[str]:
        return []

    def raw_digest(self, name: str) -> str:
        return ""

    def key(self, number: int) -> str:
        """The key of frame `number`; unique over seeds, so that datasets can be mixed."""
        scene, frame = divmod(number, self.config.frames_per_scene)
        return (
            f"{self.dataset.name}/seed-{self.config.seed:04d}/scene-{scene:05d}/frame-{frame:03d}"
        )

    def decode(self, numbers: range) -> Iterator[Sample]:
        """Renders frames in order; a scene is built once for its consecutive frames."""
        config = self.config
        built, renderer, scene = -1, None, None
        for number in numbers:
            index, frame = divmod(number, config.frames_per_scene)
            if renderer is None or index != built:
                scene = make_scene(config.family, config.seed, index)
                built, renderer = index, SceneRenderer(scene)
            assert scene is not None
            rendered = renderer.render(
                sample_camera(scene, config.seed, frame),
                config.height,
                config.width,
                samples_per_pixel=config.samples_per_pixel,
                seed=number,
            )
            key = self.key(number)
            yield Sample(
                key=key,
                source=self.dataset.name,
                scene=key.rsplit("/", 1)[0],
                rgb=rendered.rgb,
                depth_m=storable_depth(rendered.depth_m),
                normals_cam=rendered.normals_cam,
                intrinsics_px=rendered.intrinsics_px,
            )

    def provenance(self) -> dict[str, Any]:
        """Versions that the bytes depend on besides the configuration."""
        return renderer_provenance()
