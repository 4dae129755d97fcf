"""What datasets declare of protocols: under names that there are, and of the protocol's kind."""

import pytest

from e2eft.datasets import DATASETS, DepthRules, NormalsRules, dataset_of
from e2eft.evaluate.protocols import PROTOCOLS, LeastSquaresDepth, PerImageMean, PooledPixels


@pytest.mark.parametrize("name", DATASETS)
def test_rules_are_of_a_protocol_that_there_is_and_count_the_images(name: str) -> None:
    dataset = DATASETS[name]
    for protocol, rules in dataset.rules.items():
        kind = PROTOCOLS[protocol]
        assert kind.rules(name) is rules and getattr(dataset.modalities, kind.task)
        assert isinstance(rules, DepthRules if kind.task == "depth" else NormalsRules)
        assert rules.images or dataset.images, "a part of it would pass for the whole"


def test_a_protocol_counts_images_only_of_what_it_has_rules_for() -> None:
    assert PooledPixels().expected("oasis-normals") == 10_000
    assert PerImageMean().expected("oasis-normals") == 9_999
    assert PooledPixels().expected("sintel-normals") == 1064
    assert PerImageMean().expected("sintel-normals") is None
    assert LeastSquaresDepth(80).expected("nyuv2") == 654
    assert LeastSquaresDepth(80).expected("nyuv2-normals") is None
    assert LeastSquaresDepth(80).expected("a-new-dataset") is None


def test_of_a_dataset_that_nobody_declared_only_the_name_is_known() -> None:
    unknown = dataset_of("a-new-dataset")
    assert unknown.name == "a-new-dataset" and unknown not in DATASETS.values()
    assert (unknown.supervised_range_m, unknown.dense, unknown.rules) == (80.0, False, {})
