"""Every ZeRO stage runs to a model that loads, in two processes."""

from pathlib import Path

import pytest

from tests.zero_stages import STAGES, combinations, require_exported_models


def test_partitioned_weights_become_a_model_that_loads_and_scores(
    shards_uri: str, tmp_path: Path
) -> None:
    """The stage that parts most, killed and resumed, with a moving average."""
    configs = combinations(shards_uri, [(3, "bf16")])
    require_exported_models(tmp_path, configs)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("objective", "stages"),
    [
        ("end-to-end", STAGES),
        ("autoencoding", [(0, "fp32"), (3, "fp32"), (3, "bf16")]),
        ("diffusion", [(3, "bf16")]),
    ],
)
def test_every_stage_and_precision_becomes_a_model_that_loads_and_scores(
    objective: str, stages: list[tuple[int, str]], shards_uri: str, tmp_path: Path
) -> None:
    """All that is allowed; of other objectives, where their weights and pictures are parted."""
    require_exported_models(tmp_path, combinations(shards_uri, stages, objective))
