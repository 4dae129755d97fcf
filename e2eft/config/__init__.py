"""The configuration tree: what a run is, checked before anything heavy is imported.

Every class is frozen and refuses unknown fields. Field docstrings are the command line's help.
Every field says itself what a change of it means: RESULT decides what the artifact contains and is
its *identity*; ROUNDING may change its last bits, so a job may be resumed on other hardware;
PLACEMENT (where it is written, how often it is tried, what watches it) changes nothing.
"""

from e2eft.config.base import (
    INT64_MAX,
    MAX_PROCESSING_PX,
    TASK_NAMES,
    VAE_FACTOR,
    Config,
    InitialLatent,
    Role,
    StageConfig,
    TaskName,
    TrackingConfig,
    digest_of,
    require_multiple,
)
from e2eft.config.evaluate import EvaluateConfig, LabelsAxes, ProtocolName
from e2eft.config.identity import (
    IDENTITY_VERSION,
    Difference,
    as_begun,
    differences,
    refusal,
    rounding_differences,
)
from e2eft.config.label import LabelConfig, SamplingConfig, Spacing
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
    is_conditional,
)

__all__ = [
    "IDENTITY_VERSION",
    "INT64_MAX",
    "MAX_PROCESSING_PX",
    "TASK_NAMES",
    "VAE_FACTOR",
    "Autoencoding",
    "BatchConfig",
    "CheckpointConfig",
    "Config",
    "ConvInHalving",
    "DataConfig",
    "Difference",
    "Diffusion",
    "EndToEnd",
    "EvaluateConfig",
    "InitialLatent",
    "LabelConfig",
    "LabelsAxes",
    "ModelConfig",
    "OptimizerConfig",
    "PanelConfig",
    "ProtocolName",
    "Role",
    "SamplingConfig",
    "ScalingConfig",
    "ScheduleConfig",
    "Spacing",
    "StageConfig",
    "TaskName",
    "TrackingConfig",
    "TrainConfig",
    "ZeroConfig",
    "as_begun",
    "differences",
    "digest_of",
    "is_conditional",
    "refusal",
    "require_multiple",
    "rounding_differences",
]
