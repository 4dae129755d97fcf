"""The configuration tree: what a run is, checked before anything heavy is imported.

Every class is frozen and refuses unknown fields. Field docstrings are the command line's help. The
*identity* of a configuration is the part that decides what its artifact contains: where it is
written, how many processes write it and what watches it are left out, so a job may be resumed on
other hardware.
"""

from e2eft.config.base import (
    VAE_FACTOR,
    Config,
    InitialLatent,
    TaskName,
    TrackingConfig,
    require_multiple,
)
from e2eft.config.benchmarks import (
    BenchmarkSource,
    DiodeSource,
    Eth3dSource,
    Ibims1Source,
    KittiEigenSource,
    NormalMapSet,
    NormalMapSource,
    Nyuv2Source,
    ScanNetSource,
    SintelSource,
)
from e2eft.config.evaluate import EvaluateConfig, ProtocolName
from e2eft.config.label import LabelConfig, SamplingConfig, Spacing
from e2eft.config.prepare import PrepareConfig, SourceConfig
from e2eft.config.sources import (
    HypersimSource,
    SyntheticSource,
    VirtualKittiSource,
    VirtualKittiVariation,
)
from e2eft.config.train import (
    Autoencoding,
    BatchConfig,
    CheckpointConfig,
    ConvInHalving,
    DataConfig,
    Diffusion,
    EndToEnd,
    ModelConfig,
    OptimizerConfig,
    PanelConfig,
    ScalingConfig,
    ScheduleConfig,
    TrainConfig,
    ZeroConfig,
)

StageConfig = PrepareConfig | TrainConfig | LabelConfig | EvaluateConfig

__all__ = [
    "VAE_FACTOR",
    "Autoencoding",
    "BatchConfig",
    "BenchmarkSource",
    "CheckpointConfig",
    "Config",
    "ConvInHalving",
    "DataConfig",
    "Diffusion",
    "DiodeSource",
    "EndToEnd",
    "Eth3dSource",
    "EvaluateConfig",
    "HypersimSource",
    "Ibims1Source",
    "InitialLatent",
    "KittiEigenSource",
    "LabelConfig",
    "ModelConfig",
    "NormalMapSet",
    "NormalMapSource",
    "Nyuv2Source",
    "OptimizerConfig",
    "PanelConfig",
    "PrepareConfig",
    "ProtocolName",
    "SamplingConfig",
    "ScalingConfig",
    "ScanNetSource",
    "ScheduleConfig",
    "SintelSource",
    "SourceConfig",
    "Spacing",
    "StageConfig",
    "SyntheticSource",
    "TaskName",
    "TrackingConfig",
    "TrainConfig",
    "VirtualKittiSource",
    "VirtualKittiVariation",
    "ZeroConfig",
    "require_multiple",
]
