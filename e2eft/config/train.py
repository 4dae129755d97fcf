"""The training stage: model, objective, data, optimizer, and what Ray and DeepSpeed are told."""

from typing import Annotated, Any, Literal, Self, cast

import tyro
from pydantic import Field, model_validator

from e2eft.config.base import (
    INPUT,
    PLACEMENT,
    RESULT,
    ROUNDING,
    ByRecipe,
    Config,
    Count,
    Fraction,
    InitialLatent,
    Positive,
    StageConfig,
    TaskName,
    TrackingConfig,
    flag,
)
from e2eft.config.choices import chosen_from
from e2eft.losses import Loss
from e2eft.targets import LINEAR, DepthTarget

ConvInHalving = Literal["weight-and-bias", "weight"]


class ModelConfig(Config):
    """How the image enters the denoiser and how its output becomes a clean latent."""

    initial_latent: Annotated[InitialLatent, RESULT] = "zeros"
    """What the target latent starts from at t = T-1: zeros (the paper), gaussian, pyramid, or none
    (a UNet
    of 4 input channels that sees the image latent only)."""
    prompt_tokens: Annotated[Literal[2, 77], RESULT] = 2
    """Length of the embedded empty prompt: 2 (BOS, EOS; what inference code uses) or 77
    (padded)."""
    conv_in_halving: Annotated[ConvInHalving, RESULT] = "weight-and-bias"
    """When a 4-channel conv_in is widened to 8: halve weight and bias (E2E-FT) or the weight
    (Marigold)."""
    unet_checkpointing: Annotated[bool, PLACEMENT] = False
    """Recompute UNet activations in the backward pass instead of keeping them."""
    decoder_checkpointing: Annotated[bool, PLACEMENT] = False
    """Recompute VAE decoder activations in the backward pass instead of keeping them."""


class EndToEnd(Config):
    """The paper: one step at t = T-1, decoded, under the task's own loss."""

    kind: Annotated[ByRecipe[Literal["end-to-end"]], RESULT] = "end-to-end"
    losses: Annotated[
        tyro.conf.UseAppendAction[tuple[Annotated[Loss, *chosen_from(Loss)], ...]],
        RESULT,
        flag("loss"),
    ] = ()
    """What is minimized; repeat for a sum, such as affine-invariant and
    gradient-matching:weight=0.5. Default: the paper's, affine-invariant (depth) or angular
    (normals)."""


class Diffusion(Config):
    """Denoising score matching on latents: of the image itself (Stable Diffusion) or of the task's
    target
    given the image (Marigold)."""

    kind: Annotated[ByRecipe[Literal["diffusion"]], RESULT] = "diffusion"
    conditional: Annotated[bool, RESULT] = True
    """True: denoise the task's target given the image (8 channels). False: denoise the image (4
    channels)."""
    noise: Annotated[Literal["gaussian", "annealed-pyramid"], RESULT] = "gaussian"
    """annealed-pyramid is Marigold's multi-resolution noise, strength 0.9 t/T. In Gaussian noise
    the coarsest part of a small latent stays visible up to t = T-1, and the denoiser can read the
    target there instead of in the image."""
    timestep_skew: Annotated[float, RESULT, Field(ge=1)] = 1.0
    """Density of t/T in training is proportional to its power of this minus 1: 1 draws all
    timesteps alike, more draws the noisy end, where the single step happens, more often."""
    single_step_share: Annotated[float, RESULT, Field(ge=0, lt=1)] = 0.0
    """Share of the samples noised to t = T-1 itself, where the single step happens; the others are
    drawn as `timestep_skew` says."""
    latent_cache: Annotated[Count, ROUNDING] = 0
    """Frames (a mirrored one counts anew) whose latents each worker keeps in memory: the frozen VAE
    is then run once a frame, not once an epoch. A resumed run fills it anew, in other batches, and
    may differ from an undisturbed one in the last bits."""


class Autoencoding(Config):
    """Trains the small VAE on images and on what tasks encode as images."""

    kind: Annotated[ByRecipe[Literal["autoencoding"]], RESULT] = "autoencoding"
    kl_weight: Annotated[float, RESULT, Field(ge=0)] = 1e-6
    """Weight of the KL divergence to the unit Gaussian, per latent element."""
    value_weight: Annotated[float, RESULT, Field(ge=0)] = 4.0
    """Weight of the squared error."""
    gradient_weight: Annotated[float, RESULT, Field(ge=0)] = 0.2
    """Weight of the L1 distance of image gradients."""
    depth_error_weight: Annotated[float, RESULT, Field(ge=0)] = 0.25
    """Weight of the relative depth error after decoding, so that near surfaces count as in
    AbsRel."""
    depth_share: Annotated[Fraction, RESULT] = 0.45
    """Share of the frames seen as depth images."""
    normals_share: Annotated[Fraction, RESULT] = 0.2
    """Share of the frames seen as normal maps; the rest are colour images."""


def is_conditional(objective: EndToEnd | Diffusion | Autoencoding) -> bool:
    """Whether the denoiser is given the image beside what it denoises."""
    return isinstance(objective, EndToEnd) or (
        isinstance(objective, Diffusion) and objective.conditional
    )


class DataConfig(Config):
    """Which shards are read, in which proportion, and how they are augmented. Every micro-batch
    comes from
    one dataset, as in the paper, so datasets may differ in size."""

    uris: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], PLACEMENT, INPUT, flag("data")] = ()
    """Shards to train on. Repeat for several datasets."""
    weights: Annotated[tyro.conf.UseAppendAction[tuple[float, ...]], RESULT, flag("weight")] = ()
    """Share of the samples drawn from each --data, in the same order. Default: by number of
    frames."""
    flip_probability: Annotated[Fraction, RESULT] = 0.5
    """Horizontal mirror: the only augmentation of the paper."""
    max_depth_m: Annotated[
        tyro.conf.UseAppendAction[tuple[Annotated[float, Field(gt=0)], ...]],
        RESULT,
        flag("max-depth"),
    ] = ()
    """Metres: depth beyond this is not supervised, nor are the normals there. For each --data, in
    the same order, or once for all. Default: as each dataset is trained with in the paper, 65 for
    Hypersim, 80 for Virtual KITTI 2 and all others."""
    shuffle_window: Annotated[Positive, RESULT] = 2048
    """Frames shuffled together: files are read in a random order, rows within windows of this
    size."""
    decode_threads: Annotated[Positive, PLACEMENT] = 2
    """Threads that decode frames ahead of the training step on each worker."""
    keep_gb: Annotated[float, PLACEMENT, Field(ge=0)] = 1.0
    """Decoded frames that each worker keeps in memory for the next epoch, in gigabytes: a small
    dataset is decoded once."""
    limit: Annotated[Positive | None, RESULT, flag("limit")] = None
    """Use only the first frames of every dataset."""

    @model_validator(mode="before")
    @classmethod
    def _one_range_for_all(cls, fields: Any) -> Any:
        """A single range counts for all; a number, as configurations used to have, is one."""
        if not isinstance(fields, dict):
            return fields
        known = cast(dict[str, Any], fields)
        given = known.get("max_depth_m") or ()
        ranges = (given,) if isinstance(given, int | float) else given
        if len(ranges) != 1:
            return known
        return known | {"max_depth_m": tuple(ranges) * max(1, len(known.get("uris", ())))}

    @model_validator(mode="after")
    def _one_range_a_dataset(self) -> Self:
        if self.max_depth_m and len(self.max_depth_m) != max(1, len(self.uris)):
            raise ValueError(
                f"--max-depth is given {len(self.max_depth_m)} times but --data {len(self.uris)} "
                "times; give one for each dataset, one for all, or none"
            )
        return self

    @model_validator(mode="after")
    def _one_weight_a_dataset(self) -> Self:
        if self.weights and len(self.weights) != len(self.uris):
            raise ValueError(
                f"--weight is given {len(self.weights)} times but --data {len(self.uris)} times; "
                "give one weight for each dataset, or none"
            )
        if any(weight <= 0 for weight in self.weights):
            raise ValueError(f"--weight {self.weights} must all be positive")
        return self


class OptimizerConfig(Config):
    """AdamW as in the paper, with gradient clipping."""

    lr: Annotated[float, RESULT, flag("lr"), Field(gt=0)] = 3e-5
    """Peak learning rate."""
    beta1: Annotated[float, RESULT, Field(ge=0, lt=1)] = 0.9
    """Decay of the gradient's mean."""
    beta2: Annotated[float, RESULT, Field(ge=0, lt=1)] = 0.999
    """Decay of the gradient's second moment."""
    weight_decay: Annotated[float, RESULT, Field(ge=0)] = 1e-2
    """Decoupled weight decay."""
    eps: Annotated[float, RESULT, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""
    clip_norm: Annotated[float, RESULT, Field(gt=0)] = 1.0
    """Gradients are scaled down to this global norm."""


class ScheduleConfig(Config):
    """Learning rate and length, counted in optimizer steps."""

    max_steps: Annotated[Positive, RESULT, flag("max-steps")] = 20_000
    """Optimizer steps."""
    warmup_steps: Annotated[Count, RESULT, flag("warmup-steps")] = 100
    """Linear warm-up from zero."""
    final_lr_ratio: Annotated[float, RESULT, Field(gt=0, le=1)] = 0.01
    """Exponential decay reaches this fraction of the peak at --max-steps."""


class BatchConfig(Config):
    """Global batch and how it is cut."""

    global_size: Annotated[Positive, RESULT, flag("batch")] = 32
    """Samples of one optimizer step, over all workers."""
    micro_size: Annotated[Positive, RESULT, flag("micro-batch")] = 2
    """Samples in one forward pass on one worker; the rest is accumulated."""


class ZeroConfig(Config):
    """DeepSpeed: what is partitioned, and in which precision."""

    stage: Annotated[Literal[0, 1, 2, 3], ROUNDING, flag("zero-stage")] = 2
    """0: replicated; 1: optimizer states; 2: and gradients; 3: and parameters are partitioned over
    workers."""
    precision: Annotated[Literal["fp32", "bf16"], ROUNDING, flag("precision")] = "fp32"
    """bf16 keeps fp32 master weights, accumulates and reduces gradients in fp32, and computes the
    frozen VAE in bf16 too. Faster on GPUs and on CPUs with AMX, slower on other CPUs."""
    offload_optimizer: Annotated[bool, ROUNDING] = False
    """Keep optimizer states in host memory."""

    @model_validator(mode="after")
    def _accumulates_in_fp32(self) -> Self:
        if self.stage == 0 and self.precision == "bf16":
            raise ValueError(
                "--zero-stage 0 with --precision bf16 would accumulate gradients in bf16; "
                "use --zero-stage 1"
            )
        return self


class ScalingConfig(Config):
    """What Ray reserves, and when it starts anew."""

    num_workers: Annotated[Positive, ROUNDING, flag("num-workers")] = 1
    """Training processes: one GPU each, or CPUs where there is none."""
    cpus_per_worker: Annotated[Positive, ROUNDING, flag("cpus-per-worker")] = 1
    """CPUs reserved for a worker, and its intra-op threads when it trains on CPU."""
    use_gpu: Annotated[Literal["auto", "yes", "no"], ROUNDING, flag("use-gpu")] = "auto"
    """auto: one GPU a worker if the cluster has any."""
    max_failures: Annotated[Count, PLACEMENT] = 3
    """Times the worker group is restarted from the last checkpoint after a failure."""
    hang_timeout_s: Annotated[float, PLACEMENT, Field(gt=0)] = 600.0
    """Seconds a worker may wait for one thing, its data, its base model, or (half as long again)
    a step or a checkpoint with all other workers, before it counts as hung and the worker group is
    restarted."""


class CheckpointConfig(Config):
    """When the state of a run is saved."""

    every_steps: Annotated[Positive, PLACEMENT, flag("checkpoint-every")] = 500
    """Optimizer steps between checkpoints; the last step always has one."""
    keep: Annotated[Positive, PLACEMENT] = 2
    """Most recent checkpoints kept."""
    ema_decay: Annotated[float | None, RESULT, Field(gt=0, lt=1)] = None
    """Keep an fp32 exponential moving average of the weights and export that."""


class PanelConfig(Config):
    """Pictures of fixed validation frames while training."""

    every_steps: Annotated[Positive, PLACEMENT, flag("panel-every")] = 500
    """Optimizer steps between panels."""
    frames: Annotated[Count, PLACEMENT, flag("panel-frames")] = 4
    """Frames in a panel, the first of each dataset in turn. 0: no panels."""
    uris: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], PLACEMENT, flag("panel-data")] = ()
    """Shards of the panel's frames. Default: the training data."""


class TrainConfig(StageConfig):
    """Fine-tune a diffusion model end to end (or build a small base model)."""

    base: Annotated[str, PLACEMENT, INPUT]
    """Model to start from: a packaged name (tiny-sd, tiny-marigold-depth), a folder in Stable
    Diffusion's diffusers layout, an earlier run's artifact, or a hub id (owner/name, or
    owner/name@revision)."""
    out: Annotated[str, PLACEMENT]
    """Where checkpoints and the trained model go: a folder, file:// or s3:// URI."""
    task: Annotated[ByRecipe[TaskName], RESULT]
    depth_target: Annotated[DepthTarget, *chosen_from(DepthTarget), RESULT, flag("target")] = LINEAR
    """What depth is predicted as, up to a scale and a shift of each image: linear (the paper's),
    log:eps_m=..., disparity or sqrt-disparity. Without effect on other tasks."""
    objective: Annotated[
        EndToEnd | Diffusion | Autoencoding,
        Field(discriminator="kind"),
        tyro.conf.AvoidSubcommands,
    ]
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    zero: ZeroConfig = ZeroConfig()
    scaling: ScalingConfig = ScalingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    export_half: Annotated[bool, RESULT] = False
    """Store the trained model's weights as fp16."""
    panel: PanelConfig = PanelConfig()
    tracking: TrackingConfig = TrackingConfig()
    seed: Annotated[Count, RESULT] = 0
    """Names the run: the order of samples, flips, noise and timesteps follow from it."""
    register_as: Annotated[str | None, PLACEMENT, flag("register")] = None
    """Register the trained model in MLflow under this name."""
    overwrite: Annotated[bool, PLACEMENT] = False
    """Delete what is at --out if it was made with another configuration."""
    take_over: Annotated[bool, PLACEMENT] = False
    """Replace a job that holds --out without waiting to see whether it is alive."""
    single_writer: Annotated[bool, PLACEMENT] = False
    """Write to a store that cannot refuse to create what is there. You answer for it that no other
    job writes to --out."""

    @model_validator(mode="after")
    def _losses_are_of_the_task(self) -> Self:
        for loss in self.losses:
            if loss.task != self.task:
                raise ValueError(f"--loss {loss.kind} is one of {loss.task}, not of {self.task}")
        if self.depth_target != LINEAR and self.depth_target.task != self.task:
            raise ValueError(
                f"--target {self.depth_target.kind} is one of {self.depth_target.task}, not of "
                f"{self.task}"
            )
        return self

    @model_validator(mode="after")
    def _batch_is_cut_evenly(self) -> Self:
        if not self.data.uris:
            raise ValueError("--data is missing: give at least one shards URI")
        cut = self.batch.micro_size * self.scaling.num_workers
        if self.batch.global_size % cut:
            raise ValueError(
                f"--batch {self.batch.global_size} is not a multiple of --micro-batch "
                f"{self.batch.micro_size} x --num-workers {self.scaling.num_workers} = {cut}; "
                f"use --batch {-(-self.batch.global_size // cut) * cut}"
            )
        return self

    @property
    def losses(self) -> tuple[Loss, ...]:
        """What end-to-end fine-tuning minimizes; none: the task's own loss."""
        return self.objective.losses if isinstance(self.objective, EndToEnd) else ()

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches of one optimizer step on one worker."""
        return self.batch.global_size // (self.batch.micro_size * self.scaling.num_workers)
