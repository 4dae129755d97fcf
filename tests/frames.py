"""Analytic frames and small shards: a ball before a tilted plane, in closed form."""

from typing import Any

import numpy as np

from e2eft.artifacts import Artifact
from e2eft.data.latents import DETAIL
from e2eft.data.sample import Sample, check_sample
from e2eft.data.shards import KIND, SHARD_SCHEMA_VERSION, encode_part, encode_row, part_path
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.prepare import PrepareConfig
from e2eft.storage import open_store
from tests.artifacts import begin


def analytic_frame(number: int, height: int = 64, width: int = 80, sky: bool = False) -> Sample:
    """A shaded ball before a plane; position, tilt and colours follow from `number`."""
    rng = np.random.default_rng(number)
    focal = width * rng.uniform(0.7, 1.2)
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    x = (np.arange(width) + 0.5 - width / 2) / focal
    y = (np.arange(height) + 0.5 - height / 2) / focal
    ray = np.stack([*np.broadcast_arrays(x[None], y[:, None]), np.ones((height, width))], axis=-1)
    plane_normal = np.array([rng.uniform(-0.4, 0.4), rng.uniform(-0.8, -0.2), -1.0])
    plane_normal /= np.linalg.norm(plane_normal)
    plane_z = rng.uniform(3, 6) * plane_normal[2] / (ray @ plane_normal)
    plane_z = np.where((plane_z > 0) & (plane_z < 60), plane_z, np.inf)
    centre = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.4, 0.4), rng.uniform(1.5, 2.5)])
    radius = rng.uniform(0.3, 0.6)
    a, b = (ray**2).sum(-1), ray @ centre
    root = b**2 - a * (centre @ centre - radius**2)
    ball_z = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    depth = np.minimum(plane_z, ball_z)
    on_ball = (ball_z < plane_z)[..., None]
    points = np.where(np.isfinite(depth), depth, 1.0)[..., None] * ray
    normals = np.where(on_ball, (points - centre) / radius, plane_normal)
    if sky:
        depth[: height // 4] = np.inf
    normals[~np.isfinite(depth)] = np.nan
    colours = rng.uniform(60, 220, (3, 3))
    shade = np.clip(-np.nan_to_num(normals) @ np.array([0.3, 0.5, 0.8]), 0.15, 1)[..., None]
    rgb = np.where(on_ball, colours[0], colours[1]) * shade
    rgb = np.where(np.isfinite(depth)[..., None], rgb, colours[2])
    return Sample(
        key=f"analytic/frame-{number:04d}",
        source="synthetic-street" if sky else "synthetic-indoor",
        scene=f"analytic/scene-{number // 4:04d}",
        rgb=np.clip(rgb, 0, 255).astype(np.uint8),
        depth_m=depth.astype(np.float32),
        normals_cam=normals.astype(np.float32),
        intrinsics_px=intrinsics,
    )


def write_shards(
    uri: str,
    samples: list[Sample],
    frames_per_part: int = 8,
    codec: Any = None,
    **more: Any,
) -> Artifact:
    """Commits samples as a shards artifact, without Ray; with latents if there is a codec.

    more: of its details.
    """
    config = PrepareConfig(
        out=uri,
        source=SyntheticSource(family="indoor", num_scenes=len(samples), frames_per_scene=1),
        frames_per_part=frames_per_part,
    )
    chunks = [samples[i : i + frames_per_part] for i in range(0, len(samples), frames_per_part)]
    details: dict[str, Any] = {
        "shard_schema_version": SHARD_SCHEMA_VERSION,
        "rows_of_part": [len(chunk) for chunk in chunks],
        "source": "analytic",
        **more,
    }
    with begin(open_store(uri), KIND, config) as claim:
        files = [
            claim.put(part_path(part), encode_part([encode_row(check_sample(s)) for s in chunk]))
            for part, chunk in enumerate(chunks)
        ]
        if codec is not None:
            from e2eft.prepare.latents import describe, make_latents

            parts = enumerate([file.path for file in files])
            files += [make_latents(codec, claim.writer, part, path).file for part, path in parts]
            named = {"latents_of": "some-model", "vae_digest": codec.digest()}
            details[DETAIL] = describe(config.model_copy(update=named), codec).as_json()
        counts = {"frames": len(samples), "rejected": 0}
        return claim.commit(files=files, counts=counts, details=details)


def write_analytic_shards(uri: str, count: int = 24, height: int = 64, width: int = 80) -> Artifact:
    """Shards of `count` analytic frames."""
    return write_shards(uri, [analytic_frame(number, height, width) for number in range(count)])
