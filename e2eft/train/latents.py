"""Whether a run can train on cached latents of its colour images instead of encoding them."""

from dataclasses import dataclass

from e2eft.config import Autoencoding, TrainConfig
from e2eft.data.shards import ShardIndex
from e2eft.model.codec import Codec

SHOWN = 12
"""Characters of a digest that people are shown."""


@dataclass(frozen=True)
class LatentsChoice:
    """Whether the cached latents are used, and a line that says so; empty if there are none."""

    cached: bool
    line: str = ""

    @property
    def tags(self) -> dict[str, str]:
        """For the run's record."""
        return {"e2eft.rgb_latents": "cached" if self.cached else "encoded"}


def choose_latents(config: TrainConfig, shards: list[ShardIndex], codec: Codec) -> LatentsChoice:
    """Cached latents are used if all shards have those of this very codec, and if the objective
    does not train it."""
    cached = [index.latents for index in shards]
    if isinstance(config.objective, Autoencoding) or not any(cached):
        return LatentsChoice(False)
    mine = codec.digest()
    for index, latents in zip(shards, cached, strict=True):
        uri = index.artifact.uri
        if latents is None:
            return LatentsChoice(False, f"{uri} has no cached RGB latents: encoding images")
        if latents.vae_digest != mine:
            theirs = latents.vae_digest
            return LatentsChoice(
                False,
                f"cached RGB latents of {uri} are of another VAE ({theirs[:SHOWN]} != "
                f"{mine[:SHOWN]}): encoding images",
            )
    models = dict.fromkeys(latents.model for latents in cached if latents is not None)
    return LatentsChoice(
        True, f"using cached RGB latents of {', '.join(models)} (VAE {mine[:SHOWN]})"
    )
