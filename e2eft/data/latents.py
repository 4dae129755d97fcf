"""RGB latents of a frozen VAE, cached beside the shards: one file a part, in its row groups.

    latents  float16, little endian, [2 c h/f w/f] with the VAE's channels c and factor f: of the
             image as it is, then of its mirror image. Computed in float32; rounding changes a value
             by at most 2^-11 of it, below 6.1e-5 by at most 3.0e-8

They are a shortcut and no part of the frames: whoever encodes the images with the same VAE gets the
same but for that rounding, whoever has another VAE ignores them.
"""

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from e2eft.config import VAE_FACTOR

DTYPE = np.dtype("<f2")
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("latents", pa.binary(), nullable=False),
    ]
)
DETAIL = "rgb_latents"
"""Where a shards artifact's details describe them."""


@dataclass(frozen=True)
class RgbLatents:
    """What a shards artifact says of its cached latents.

    vae_digest: `Codec.digest` of what made them; model: what that was called when it did.
    channels, factor: of a latent, and image pixels a latent's side.
    """

    vae_digest: str
    model: str
    channels: int
    factor: int
    dtype: str = "float16"
    shape: str = "2 (as it is, mirrored) x channels x height / factor x width / factor"

    @classmethod
    def of(cls, details: dict[str, Any]) -> "RgbLatents | None":
        """From an artifact's details; None if there are none."""
        return cls(**details[DETAIL]) if DETAIL in details else None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def decode(self, content: bytes, height: int, width: int) -> np.ndarray:
        """float16 `[2 c hl wl]` of an image of height x width pixels."""
        shape = (2, self.channels, height // self.factor, width // self.factor)
        return np.frombuffer(content, DTYPE).reshape(shape)


def require_encodable(sizes: Iterable[str]) -> None:
    """Raises ValueError if frames of a size, `HEIGHT x WIDTH`, cannot be encoded."""
    for size in sizes:
        if any(int(side) % VAE_FACTOR for side in size.split(" x ")):
            raise ValueError(
                f"--latents-of: frames of {size} pixels cannot be encoded, both sides must be "
                f"multiples of {VAE_FACTOR}, for training too; prepare them at another size"
            )


def latents_path(part: int) -> str:
    """The name of the latents of a part."""
    return f"latents/part-{part:06d}.parquet"


def encode_latents(latents: np.ndarray) -> bytes:
    """float32 `[2 c hl wl]` as float16.

    Raises:
        ValueError: if one is not finite, or is not in float16.
    """
    with np.errstate(over="ignore"):
        rounded = latents.astype(DTYPE)
    if not np.isfinite(rounded).all():
        raise ValueError(
            f"latents from {latents.min():.4g} to {latents.max():.4g} are not finite in float16"
        )
    return rounded.tobytes()


def encode_latents_part(keys: list[str], latents: list[bytes], rows_per_group: int) -> bytes:
    """The Parquet file beside a part; equal rows give equal bytes."""
    sink = io.BytesIO()
    pq.write_table(
        pa.table([keys, latents], schema=SCHEMA),
        sink,
        row_group_size=rows_per_group,
        compression="none",  # fp16 latents hardly shrink
        use_dictionary=False,
        write_statistics=False,
    )
    return sink.getvalue()
