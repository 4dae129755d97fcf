"""Every ZeRO stage runs to a model that loads, in two processes."""

from pathlib import Path

import pytest

from tests.zero_stages import combinations, require_exported_models


def test_partitioned_weights_become_a_model_that_loads_and_scores(
    shards_uri: str, tmp_path: Path
) -> None:
    """The stage that parts most, killed and resumed, with a moving average."""
    configs = combinations(shards_uri, [(3, "bf16")])
    require_exported_models(tmp_path, configs)


@pytest.mark.deep
def test_every_stage_and_precision_becomes_a_model_that_loads_and_scores(
    shards_uri: str, tmp_path: Path
) -> None:
    """All that is allowed; of other objectives, where their weights and pictures are parted."""
    configs = (
        combinations(shards_uri)
        | combinations(shards_uri, [(0, "fp32"), (3, "fp32"), (3, "bf16")], "autoencoding")
        | combinations(shards_uri, [(3, "bf16")], "diffusion")
    )
    require_exported_models(tmp_path, configs)
