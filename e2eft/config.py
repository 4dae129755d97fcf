"""The configuration tree: what a run is, checked before anything heavy is imported.

Every class is frozen and refuses unknown fields. Field docstrings are the command line's help. The
*identity* of a configuration is the part that decides what its artifact contains: where it is
written, how many processes write it and what watches it are left out, so a job may be resumed on
other hardware.
"""

import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal, Self

import tyro
from pydantic import BaseModel, ConfigDict, Field, model_validator

VAE_FACTOR = 8
"""Every supported base model's VAE maps an 8 x 8 pixel block to one latent."""

TaskName = Literal["depth", "normals"]
Spacing = Literal["leading", "trailing", "linspace"]
InitialLatent = Literal["zeros", "gaussian", "pyramid", "none"]
ConvInHalving = Literal["weight-and-bias", "weight"]
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def flag(name: str) -> Any:
    """The field's own name on the command line, without the group it lives in."""
    return tyro.conf.arg(name=name, prefix_name=False)


class Config(BaseModel):
    """Base of every configuration: frozen, strict about unknown fields, JSON round trip exact."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    outside_identity: ClassVar[frozenset[str]] = frozenset()

    def identity(self) -> dict[str, Any]:
        """The fields that decide what the artifact contains, nested as the configuration is."""
        fields: dict[str, Any] = {}
        for name in type(self).model_fields:
            if name in self.outside_identity:
                continue
            value = getattr(self, name)
            fields[name] = value.identity() if isinstance(value, Config) else value
        return json.loads(json.dumps(fields))

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of `identity()`, hexadecimal."""
        canonical = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def require_multiple(name: str, value: int, factor: int = VAE_FACTOR) -> None:
    """Raises ValueError if `value` pixels cannot be encoded by a VAE of this factor."""
    if value % factor:
        low, high = value // factor * factor, -(-value // factor) * factor
        raise ValueError(
            f"--{name} {value} is not a multiple of the VAE's factor {factor}; use {low} or {high}"
        )


class TrackingConfig(Config):
    """MLflow: where runs go and under which experiment."""

    tracking_uri: Annotated[str | None, flag("tracking-uri")] = None
    """MLflow server or database. Default: the MLFLOW_TRACKING_URI variable, else sqlite:///mlflow.db."""
    experiment: Annotated[str, flag("experiment")] = "e2eft"
    """MLflow experiment."""
    enabled: Annotated[bool, flag("tracking")] = True
    """Log to MLflow at all."""


class SyntheticSource(Config):
    """Scenes rendered with Mitsuba 3: a pure function of these fields."""

    places: ClassVar[tuple[str, ...]] = ()

    kind: tyro.conf.Suppress[Literal["synthetic"]] = "synthetic"
    family: tyro.conf.Suppress[Literal["indoor", "street"]]
    num_scenes: Annotated[Positive, flag("num-scenes")] = 64
    """Scenes to generate."""
    frames_per_scene: Annotated[Positive, flag("frames-per-scene")] = 4
    """Viewpoints rendered in each scene."""
    height: Annotated[Positive, flag("height")] = 480
    """Image height in pixels, a multiple of 8."""
    width: Annotated[Positive, flag("width")] = 640
    """Image width in pixels, a multiple of 8."""
    seed: Annotated[int, flag("seed"), Field(ge=0)] = 0
    """Names the scenes: the same seed gives the same bytes. Hold out whole seeds, not frames."""
    samples_per_pixel: Annotated[Positive, flag("samples-per-pixel")] = 32
    """Light paths a pixel of the colour image. Depth and normals always use one ray a pixel
    centre."""

    @model_validator(mode="after")
    def _fits_a_vae(self) -> Self:
        require_multiple("height", self.height)
        require_multiple("width", self.width)
        return self


class HypersimSource(Config):
    """Hypersim's raw release: HDF5 frames, scenes as folders or as the published zip files, which
    are read in place. Where they are is not part of the configuration's identity."""

    outside_identity = frozenset({"root"})
    places: ClassVar[tuple[str, ...]] = ("root", "split_csv", "camera_csv", "keep_list")

    kind: tyro.conf.Suppress[Literal["hypersim"]] = "hypersim"
    root: Annotated[str, flag("root")]
    """What holds ai_VVV_NNN folders or ai_VVV_NNN.zip files: a folder, file:// or s3:// URI."""
    split_csv: Annotated[str, flag("split-csv")]
    """metadata_images_split_scene_v1.csv of the dataset's repository: a file or its URI."""
    camera_csv: Annotated[str | None, flag("camera-csv")] = None
    """metadata_camera_parameters.csv of the dataset's repository: every scene's own camera. Needed
    unless --intrinsics is marigold."""
    split: Annotated[Literal["train", "val", "test"], flag("split")] = "train"
    """Part of the published split by scenes."""
    keep_list: Annotated[str | None, flag("keep-list")] = None
    """Text file with one frame a line, to keep only those: Marigold's filtered lists, for
    example."""
    scenes: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], flag("scene")] = ()
    """Only these scenes (ai_VVV_NNN). Repeat for several. Default: all of the split."""
    intrinsics: Annotated[Literal["exact", "marigold"], flag("intrinsics")] = "exact"
    """exact: each scene's own camera, tilted lenses included. marigold: focal length 886.81 for
    all, as in that preprocessing, with depth up to 18 % off in some scenes."""


VirtualKittiScene = Literal["Scene01", "Scene02", "Scene06", "Scene18", "Scene20"]
VirtualKittiVariation = Literal[
    "clone", "fog", "morning", "overcast", "rain", "sunset",
    "15-deg-left", "15-deg-right", "30-deg-left", "30-deg-right",
]  # fmt: skip


class VirtualKittiSource(Config):
    """Virtual KITTI 2 as it is published: tar files, read in place, or what was unpacked of them.
    Where they are is not part of the configuration's identity."""

    outside_identity = frozenset({"root"})
    places: ClassVar[tuple[str, ...]] = ("root",)

    kind: tyro.conf.Suppress[Literal["virtual-kitti-2"]] = "virtual-kitti-2"
    root: Annotated[str, flag("root")]
    """What holds vkitti_2.0.3_rgb.tar, _depth.tar and _textgt.tar.gz, or folders of that name, or
    rgb, depth and textgt, or all together: a folder, file:// or s3:// URI."""
    selection: tyro.conf.Suppress[Literal["all", "paper", "marigold", "marigold-val"]] = "all"
    scenes: Annotated[tyro.conf.UseAppendAction[tuple[VirtualKittiScene, ...]], flag("scene")] = ()
    """Only these scenes of the selection. Repeat for several. Default: all of them."""
    variations: Annotated[
        tyro.conf.UseAppendAction[tuple[VirtualKittiVariation, ...]], flag("variation")
    ] = ()
    """Only this weather, time of day, or turn of the camera. Repeat for several. Default: all of
    the selection."""
    frames_per_sequence: Annotated[Positive | None, flag("frames-per-sequence")] = None
    """Only the first frames of every sequence of a scene. Default: all."""
    benchmark_crop: Annotated[bool, flag("benchmark-crop")] = True
    """Crop to KITTI's 1216 x 352 pixels: the bottom rows, the middle columns."""


SourceConfig = SyntheticSource | HypersimSource | VirtualKittiSource


class PrepareConfig(Config):
    """Render or convert a dataset and shard it to object storage."""

    outside_identity = frozenset({"out", "overwrite", "cpus_per_task", "tracking"})

    out: str
    """Where the shards go: a folder, file:// or s3:// URI."""
    source: Annotated[
        SourceConfig,
        Field(discriminator="kind"),
        tyro.conf.arg(name=""),
        tyro.conf.AvoidSubcommands,
    ]
    frames_per_part: Positive = 64
    """Frames in one shard file: the unit of work, of commit and of resuming."""
    max_reject_fraction: Fraction = 0.05
    """Fail if more than this part of the frames is rejected."""
    cpus_per_task: Annotated[float, Field(gt=0)] = 1.0
    """CPUs Ray reserves for one task, which makes one part."""
    overwrite: bool = False
    """Delete what is at --out if it was made with another configuration."""
    tracking: TrackingConfig = TrackingConfig()


class ModelConfig(Config):
    """How the image enters the denoiser and how its output becomes a clean latent."""

    initial_latent: InitialLatent = "zeros"
    """What the target latent starts from at t = T-1: zeros (the paper), gaussian, pyramid, or none
    (a UNet
    of 4 input channels that sees the image latent only)."""
    prompt_tokens: Literal[2, 77] = 2
    """Length of the embedded empty prompt: 2 (BOS, EOS; what inference code uses) or 77
    (padded)."""
    conv_in_halving: ConvInHalving = "weight-and-bias"
    """When a 4-channel conv_in is widened to 8: halve weight and bias (E2E-FT) or the weight
    (Marigold)."""
    unet_checkpointing: bool = False
    """Recompute UNet activations in the backward pass instead of keeping them."""
    decoder_checkpointing: bool = False
    """Recompute VAE decoder activations in the backward pass instead of keeping them."""


class EndToEnd(Config):
    """The paper: one step at t = T-1, decoded, under the task's own loss."""

    kind: tyro.conf.Suppress[Literal["end-to-end"]] = "end-to-end"


class Diffusion(Config):
    """Denoising score matching on latents: of the image itself (Stable Diffusion) or of the task's
    target
    given the image (Marigold)."""

    kind: tyro.conf.Suppress[Literal["diffusion"]] = "diffusion"
    conditional: bool = True
    """True: denoise the task's target given the image (8 channels). False: denoise the image (4
    channels)."""
    noise: Literal["gaussian", "annealed-pyramid"] = "gaussian"
    """annealed-pyramid is Marigold's multi-resolution noise, strength 0.9 t/T. In Gaussian noise
    the coarsest part of a small latent stays visible up to t = T-1, and the denoiser can read the
    target there instead of in the image."""
    timestep_skew: Annotated[float, Field(ge=1)] = 1.0
    """Density of t/T in training is proportional to its power of this minus 1: 1 draws all
    timesteps alike, more draws the noisy end, where the single step happens, more often."""
    latent_cache: Annotated[int, Field(ge=0)] = 0
    """Frames (a mirrored one counts anew) whose latents each worker keeps in memory: the frozen VAE
    is then run once a frame, not once an epoch. A resumed run fills it anew, in other batches, and
    may differ from an undisturbed one in the last bits."""


class Autoencoding(Config):
    """Trains the small VAE on images and on what tasks encode as images."""

    kind: tyro.conf.Suppress[Literal["autoencoding"]] = "autoencoding"
    kl_weight: Annotated[float, Field(ge=0)] = 1e-6
    """Weight of the KL divergence to the unit Gaussian, per latent element."""
    value_weight: Annotated[float, Field(ge=0)] = 4.0
    """Weight of the squared error."""
    gradient_weight: Annotated[float, Field(ge=0)] = 0.2
    """Weight of the L1 distance of image gradients."""
    depth_error_weight: Annotated[float, Field(ge=0)] = 0.25
    """Weight of the relative depth error after decoding, so that near surfaces count as in
    AbsRel."""
    depth_share: Fraction = 0.45
    """Share of the frames seen as depth images."""
    normals_share: Fraction = 0.2
    """Share of the frames seen as normal maps; the rest are colour images."""


class DataConfig(Config):
    """Which shards are read, in which proportion, and how they are augmented. Every micro-batch
    comes from
    one dataset, as in the paper, so datasets may differ in size."""

    outside_identity = frozenset({"decode_threads"})

    uris: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], flag("data")] = ()
    """Shards to train on. Repeat for several datasets."""
    weights: Annotated[tyro.conf.UseAppendAction[tuple[float, ...]], flag("weight")] = ()
    """Share of the samples drawn from each --data, in the same order. Default: by number of
    frames."""
    flip_probability: Fraction = 0.5
    """Horizontal mirror: the only augmentation of the paper."""
    max_depth_m: Annotated[float, Field(gt=0)] = 80.0
    """Depth beyond this is not supervised."""
    shuffle_window: Positive = 2048
    """Frames shuffled together: files are read in a random order, rows within windows of this
    size."""
    decode_threads: Positive = 2
    """Threads that decode frames ahead of the training step on each worker."""
    limit: Annotated[Positive | None, flag("limit")] = None
    """Use only the first frames of every dataset."""

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

    lr: Annotated[float, flag("lr"), Field(gt=0)] = 3e-5
    """Peak learning rate."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the gradient's mean."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the gradient's second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Decoupled weight decay."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this global norm."""


class ScheduleConfig(Config):
    """Learning rate and length, counted in optimizer steps."""

    max_steps: Annotated[Positive, flag("max-steps")] = 20_000
    """Optimizer steps."""
    warmup_steps: Annotated[int, flag("warmup-steps"), Field(ge=0)] = 100
    """Linear warm-up from zero."""
    final_lr_ratio: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Exponential decay reaches this fraction of the peak at --max-steps."""


class BatchConfig(Config):
    """Global batch and how it is cut."""

    global_size: Annotated[Positive, flag("batch")] = 32
    """Samples of one optimizer step, over all workers."""
    micro_size: Annotated[Positive, flag("micro-batch")] = 2
    """Samples in one forward pass on one worker; the rest is accumulated."""


class ZeroConfig(Config):
    """DeepSpeed: what is partitioned, and in which precision."""

    stage: Annotated[Literal[0, 1, 2, 3], flag("zero-stage")] = 2
    """0: replicated; 1: optimizer states; 2: and gradients; 3: and parameters are partitioned over
    workers."""
    precision: Annotated[Literal["fp32", "bf16"], flag("precision")] = "fp32"
    """bf16 keeps fp32 master weights, accumulates and reduces gradients in fp32, and computes the
    frozen VAE in bf16 too. Faster on GPUs and on CPUs with AMX, slower on other CPUs."""
    offload_optimizer: bool = False
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
    """What Ray reserves."""

    num_workers: Annotated[Positive, flag("num-workers")] = 1
    """Training processes: one GPU each, or CPUs where there is none."""
    cpus_per_worker: Annotated[Positive, flag("cpus-per-worker")] = 1
    """CPUs reserved for a worker, and its intra-op threads when it trains on CPU."""
    use_gpu: Annotated[Literal["auto", "yes", "no"], flag("use-gpu")] = "auto"
    """auto: one GPU a worker if the cluster has any."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Times the worker group is restarted from the last checkpoint after a failure."""


class CheckpointConfig(Config):
    """When the state of a run is saved."""

    every_steps: Annotated[Positive, flag("checkpoint-every")] = 500
    """Optimizer steps between checkpoints; the last step always has one."""
    keep: Positive = 2
    """Most recent checkpoints kept."""
    ema_decay: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Keep an fp32 exponential moving average of the weights and export that."""


class PanelConfig(Config):
    """Pictures of fixed validation frames while training."""

    every_steps: Annotated[Positive, flag("panel-every")] = 500
    """Optimizer steps between panels."""
    frames: Annotated[int, flag("panel-frames"), Field(ge=0)] = 4
    """Frames in a panel, the first of each dataset in turn. 0: no panels."""
    uris: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], flag("panel-data")] = ()
    """Shards of the panel's frames. Default: the training data."""


class TrainConfig(Config):
    """Fine-tune a diffusion model end to end (or build a small base model)."""

    outside_identity = frozenset({"out", "overwrite", "tracking", "panel", "checkpoint"})

    base: str
    """Model to start from: a packaged name (tiny-sd, tiny-marigold-depth), a folder in Stable
    Diffusion's
    diffusers layout, an earlier run's artifact, or a hub id."""
    out: str
    """Where checkpoints and the trained model go: a folder, file:// or s3:// URI."""
    task: tyro.conf.Suppress[TaskName]
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
    export_half: bool = False
    """Store the trained model's weights as fp16."""
    panel: PanelConfig = PanelConfig()
    tracking: TrackingConfig = TrackingConfig()
    seed: Annotated[int, Field(ge=0)] = 0
    """Names the run: the order of samples, flips, noise and timesteps follow from it."""
    register_as: Annotated[str | None, flag("register")] = None
    """Register the trained model in MLflow under this name."""
    overwrite: bool = False
    """Delete what is at --out if it was made with another configuration."""

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
    def accumulation_steps(self) -> int:
        """Micro-batches of one optimizer step on one worker."""
        return self.batch.global_size // (self.batch.micro_size * self.scaling.num_workers)


class SamplingConfig(Config):
    """How the estimator walks from the initial latent to the clean one."""

    steps: Annotated[Positive, flag("steps")] = 1
    """Denoising steps. One is what end-to-end fine-tuned models are made for."""
    spacing: Annotated[Spacing, flag("spacing")] = "trailing"
    """Timestep grid. trailing is right; leading shows the flaw the paper found."""
    initial_latent: Annotated[InitialLatent | None, flag("initial-latent")] = None
    """Default: what the model's card says (gaussian for a model without a card)."""
    seed: Annotated[int, flag("noise-seed")] = 0
    """Seeds the initial noise of each image together with the image's own content."""


class LabelConfig(Config):
    """Label a corpus of images with depth or normals."""

    outside_identity = frozenset(
        {"out", "overwrite", "tracking", "batch_size", "actors", "gallery_images", "decode_cpus"}
        | {"max_reject_fraction"}
    )

    model: str
    """Folder, run artifact, packaged name, hub id, or models:/name@alias."""
    images: str
    """A folder of images (searched recursively), or shards whose colour images are labelled."""
    out: str
    """Where labels go: a folder, file:// or s3:// URI."""
    task: tyro.conf.Suppress[TaskName]
    sampling: SamplingConfig = SamplingConfig()
    processing_size: Annotated[Positive | None, flag("processing-size")] = None
    """Longest side in pixels at which the model sees an image. Default: the model's own; 0 is not
    allowed,
    use --native-size."""
    native_size: Annotated[bool, flag("native-size")] = False
    """Process every image at its own size, padded to the VAE's multiple."""
    save_npy: bool = False
    """Also write float32 .npy arrays."""
    save_previews: bool = True
    """Also write colour previews."""
    images_per_part: Positive = 64
    """Images in one part: the unit of work, of commit and of resuming."""
    batch_size: Positive = 8
    """Images of equal size in one forward pass."""
    actors: Annotated[Positive, flag("num-workers")] = 1
    """Model replicas: one GPU each, or one CPU where there is none."""
    decode_cpus: Annotated[float, Field(gt=0)] = 0.25
    """CPUs Ray reserves for one decoding or writing task."""
    max_pixels: Positive = 64_000_000
    """Larger images are rejected before they are decoded."""
    max_reject_fraction: Fraction = 1.0
    """Fail at the end if more than this part of the images is rejected."""
    gallery_images: Annotated[int, Field(ge=0)] = 24
    """Images shown in the HTML gallery. 0: no gallery."""
    overwrite: bool = False
    """Delete what is at --out if it was made with another configuration."""
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.native_size and self.processing_size:
            raise ValueError(
                f"--native-size and --processing-size {self.processing_size} exclude each other"
            )
        return self


class EvaluateConfig(Config):
    """Score a model, or labels already there, against shards with ground truth."""

    outside_identity = frozenset(
        {"out", "overwrite", "tracking", "actors", "batch_size", "register_as"}
    )

    out: str
    """Where scores go: a folder, file:// or s3:// URI."""
    task: tyro.conf.Suppress[TaskName]
    data: tyro.conf.UseAppendAction[tuple[str, ...]]
    """Shards with ground truth. Repeat for several."""
    model: str | None = None
    """Model to label them with first: folder, run artifact, packaged name, hub id, or
    models:/name@alias."""
    labels: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Label artifacts to score instead of a model, one for each --data."""
    sampling: SamplingConfig = SamplingConfig()
    protocol: Literal["least-squares-depth", "per-image-angular"] | None = None
    """Named protocol; default by task. Scores of different protocols are never compared."""
    max_depth_m: Annotated[float, Field(gt=0)] = 80.0
    """Depth beyond this is not scored, and predictions are clipped to it after alignment."""
    bootstrap: Positive = 2000
    """Resamples of the bootstrap interval over images."""
    batch_size: Positive = 8
    """Images in one forward pass when a model is scored."""
    actors: Annotated[Positive, flag("num-workers")] = 1
    """Model replicas when a model is scored."""
    panels: Annotated[int, Field(ge=0)] = 4
    """Worst and median images shown as panels."""
    register_as: Annotated[str | None, flag("register")] = None
    """Register the model under this name and move the alias `champion` to it if it is better than
    the
    current champion under the same protocol and data."""
    overwrite: bool = False
    """Delete what is at --out if it was made with another configuration."""
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _something_to_score(self) -> Self:
        if not self.data:
            raise ValueError("--data is missing: give at least one shards URI with ground truth")
        if (self.model is None) == (not self.labels):
            raise ValueError("give either --model or --labels (one for each --data)")
        if self.labels and len(self.labels) != len(self.data):
            raise ValueError(
                f"--labels is given {len(self.labels)} times but --data {len(self.data)} times"
            )
        if self.register_as and self.model is None:
            raise ValueError("--register needs --model: labels alone cannot be registered")
        return self


StageConfig = PrepareConfig | TrainConfig | LabelConfig | EvaluateConfig
