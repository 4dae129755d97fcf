"""Named complete configurations: what the command line offers. A new variant is a new recipe here.

Fields that are `MISSING` must be filled on the command line. Nothing here needs torch, so `--help`
is instant.
"""

from typing import Any

from tyro import MISSING

from e2eft.config import (
    Autoencoding,
    BatchConfig,
    CheckpointConfig,
    Diffusion,
    EndToEnd,
    EvaluateConfig,
    LabelConfig,
    ModelConfig,
    OptimizerConfig,
    PanelConfig,
    ProtocolName,
    ScalingConfig,
    ScheduleConfig,
    TaskName,
    TrainConfig,
    ZeroConfig,
)
from e2eft.datasets.diode import DiodeSource
from e2eft.datasets.diode_normals import DiodeNormalsSource
from e2eft.datasets.eth3d import Eth3dSource
from e2eft.datasets.hypersim import HypersimSource
from e2eft.datasets.ibims import Ibims1Source
from e2eft.datasets.kitti_eigen import KittiEigenSource
from e2eft.datasets.normal_maps import NormalMapSet, NormalMapSource
from e2eft.datasets.nyuv2 import Nyuv2Source
from e2eft.datasets.scannet import ScanNetSource
from e2eft.datasets.sintel import SintelSource
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.datasets.virtual_kitti import VirtualKittiSource
from e2eft.prepare import PrepareConfig

Recipe = tuple[str, Any]
"""One line of description, and the configuration."""


def _synthetic(family: Any) -> PrepareConfig:
    return PrepareConfig.model_construct(out=MISSING, source=SyntheticSource(family=family))


def _virtual_kitti(selection: Any) -> PrepareConfig:
    source = VirtualKittiSource.model_construct(root=MISSING, selection=selection)
    return PrepareConfig.model_construct(out=MISSING, source=source)


def _benchmark(kind: Any, *needed: str, frames_per_part: int = 64, **fields: Any) -> PrepareConfig:
    """needed: fields besides the root that have to be on the command line."""
    missing = dict.fromkeys(("root", *needed), MISSING)
    return PrepareConfig.model_construct(
        out=MISSING,
        source=kind.model_construct(**missing, **fields),
        frames_per_part=frames_per_part,
    )


def _normal_maps(dataset: NormalMapSet) -> PrepareConfig:
    return _benchmark(NormalMapSource, dataset=dataset)


def _hypersim(**fields: Any) -> PrepareConfig:
    source = HypersimSource.model_construct(root=MISSING, split_csv=MISSING, **fields)
    return PrepareConfig.model_construct(out=MISSING, source=source)


def _train(**fields: Any) -> TrainConfig:
    return TrainConfig.model_construct(**({"base": MISSING, "out": MISSING} | fields))


def _tiny(base: str, task: TaskName, lr: float, batch: BatchConfig, max_steps: int) -> TrainConfig:
    """Small enough for two CPU cores: the laptop's and the demo's fine-tuning."""
    return _train(
        base=base,
        task=task,
        objective=EndToEnd(),
        batch=batch,
        optimizer=OptimizerConfig(lr=lr),
        schedule=ScheduleConfig(max_steps=max_steps, warmup_steps=10, final_lr_ratio=0.1),
        checkpoint=CheckpointConfig(every_steps=100),
        panel=PanelConfig(every_steps=100),
        scaling=ScalingConfig(num_workers=2),
    )


def _paper(base: str, task: TaskName) -> TrainConfig:
    """The paper's recipe: 20,000 steps of 32, AdamW 3e-5, 9:1 mix by --weight."""
    return _train(
        base=base, task=task, objective=EndToEnd(), model=ModelConfig(unet_checkpointing=True)
    )


def _base_model(objective: Any, base: str, **fields: Any) -> TrainConfig:
    """How the packaged small models were made (see e2eft/bases/README.md)."""
    return _train(
        base=base,
        task="depth",
        objective=objective,
        export_half=True,
        zero=ZeroConfig(stage=1, precision="bf16"),
        scaling=ScalingConfig(num_workers=2),
        checkpoint=CheckpointConfig(every_steps=500),
        panel=PanelConfig(every_steps=1000),
        **fields,
    )


PREPARE: dict[str, Recipe] = {
    "synthetic-indoor": (
        "Rooms: furniture, thin structures, window and lamp light.",
        _synthetic("indoor"),
    ),
    "synthetic-street": (
        "Streets: facades, poles, trees, cars, sky; depth to 80 m and beyond.",
        _synthetic("street"),
    ),
    "hypersim": (
        "Hypersim's raw HDF5 release, from folders or zip files, read in place.",
        _hypersim(),
    ),
    "hypersim-paper": (
        "Hypersim as the paper trains on it: the same, resized to 480 x 640.",
        _hypersim(height=480, width=640),
    ),
    "virtual-kitti-2": (
        "Virtual KITTI 2, the 21,260 frames of the paper's code: all scenes, five kinds of light.",
        _virtual_kitti("paper"),
    ),
    "virtual-kitti-2-marigold": (
        "Virtual KITTI 2, Marigold's 20,148 training frames: without Scene01, fog and rain.",
        _virtual_kitti("marigold"),
    ),
    "virtual-kitti-2-marigold-val": (
        "Virtual KITTI 2, Marigold's 5,364 validation frames: Scene01.",
        _virtual_kitti("marigold-val"),
    ),
    "virtual-kitti-2-all": (
        "Virtual KITTI 2, all 42,520 frames.",
        _virtual_kitti("all"),
    ),
    "nyuv2": (
        "Evaluation: NYUv2's 654 test images with depth, Marigold's files or the published .mat.",
        _benchmark(Nyuv2Source),
    ),
    "kitti-eigen": (
        "Evaluation: KITTI's 652 Eigen test images with improved depth, benchmark crop.",
        _benchmark(KittiEigenSource, "frame_list"),
    ),
    "eth3d": (
        "Evaluation: ETH3D's 454 images of 24 megapixels with laser depth.",
        _benchmark(Eth3dSource, "frame_list", frames_per_part=4),
    ),
    "scannet": (
        "Evaluation: 800 images of ScanNet's validation scans with depth.",
        _benchmark(ScanNetSource, "frame_list"),
    ),
    "diode": (
        "Evaluation: DIODE's 771 validation images, indoors and outdoors, with laser depth.",
        _benchmark(DiodeSource),
    ),
    "ibims-1": (
        "Evaluation: iBims-1's 100 indoor images with laser depth.",
        _benchmark(Ibims1Source),
    ),
    "sintel": (
        "Evaluation: MPI Sintel's 1,064 training frames with depth, in the film's units.",
        _benchmark(SintelSource),
    ),
    "nyuv2-normals": (
        "Evaluation: NYUv2's 654 test images with normals, DSINE's or Marigold's files.",
        _normal_maps("nyuv2"),
    ),
    "scannet-normals": (
        "Evaluation: ScanNet's 300 images with normals, DSINE's or Marigold's files.",
        _normal_maps("scannet"),
    ),
    "ibims-1-normals": (
        "Evaluation: iBims-1's 100 images with normals, DSINE's or Marigold's files.",
        _normal_maps("ibims-1"),
    ),
    "sintel-normals": (
        "Evaluation: Sintel's 1,064 frames with normals, DSINE's files.",
        _normal_maps("sintel"),
    ),
    "oasis-normals": (
        "Evaluation: OASIS's 10,000 photographs with drawn normals, DSINE's or Marigold's files.",
        _normal_maps("oasis"),
    ),
    "diode-normals": (
        "Evaluation: DIODE's 771 validation images, indoors and outdoors, with normals.",
        _benchmark(DiodeNormalsSource),
    ),
}

TRAIN: dict[str, Recipe] = {
    "tiny-depth": (
        "Depth from the packaged small Marigold, on CPUs in minutes.",
        _tiny("tiny-marigold-depth", "depth", 2e-4, BatchConfig(global_size=16, micro_size=8), 100),
    ),
    "tiny-normals": (
        "Normals from the packaged small Stable Diffusion, on CPUs in minutes.",
        # Learned almost from nothing: more steps are worth more than larger ones.
        _tiny("tiny-sd", "normals", 1e-3, BatchConfig(global_size=8, micro_size=4), 600),
    ),
    "marigold-depth": (
        "The paper's best depth model: Marigold v1-0, end to end.",
        _paper("prs-eth/marigold-depth-v1-0", "depth"),
    ),
    "marigold-normals": (
        "Normals from a diffusion-trained normals model, end to end.",
        _paper("prs-eth/marigold-normals-v0-1", "normals"),
    ),
    "sd2-depth": (
        "Depth straight from Stable Diffusion 2.",
        _paper("stabilityai/stable-diffusion-2", "depth"),
    ),
    "sd2-normals": (
        "Normals straight from Stable Diffusion 2.",
        _paper("stabilityai/stable-diffusion-2", "normals"),
    ),
    "base-autoencoder": (
        "Base models 1/3: the small VAE, on images, depth images and normal maps.",
        _base_model(
            Autoencoding(depth_share=0.45, normals_share=0.25, depth_error_weight=0.5),
            "blank",
            batch=BatchConfig(global_size=8, micro_size=4),
            optimizer=OptimizerConfig(lr=2e-3, weight_decay=0.0),
            schedule=ScheduleConfig(max_steps=6000, warmup_steps=100, final_lr_ratio=0.03),
        ),
    ),
    "base-image-diffusion": (
        "Base models 2/3: tiny-sd, an image model in the VAE's latents.",
        _base_model(
            Diffusion(conditional=False, latent_cache=20_000),
            MISSING,
            batch=BatchConfig(global_size=64, micro_size=32),
            optimizer=OptimizerConfig(lr=2e-3),
            schedule=ScheduleConfig(max_steps=1800, warmup_steps=100, final_lr_ratio=0.03),
        ),
    ),
    "base-depth-diffusion": (
        "Base models 3/3: tiny-marigold-depth, from tiny-sd as Marigold was from SD 2.",
        _base_model(
            Diffusion(
                conditional=True,
                noise="annealed-pyramid",
                timestep_skew=2.0,
                single_step_share=0.5,
                latent_cache=20_000,
            ),
            MISSING,
            batch=BatchConfig(global_size=64, micro_size=32),
            optimizer=OptimizerConfig(lr=2e-3, weight_decay=0.1),
            schedule=ScheduleConfig(max_steps=5500, warmup_steps=100, final_lr_ratio=0.064),
            model=ModelConfig(initial_latent="gaussian"),
        ),
    ),
}


def _label(task: TaskName) -> LabelConfig:
    return LabelConfig.model_construct(model=MISSING, images=MISSING, out=MISSING, task=task)


def _evaluate(task: TaskName, protocol: ProtocolName | None = None) -> EvaluateConfig:
    return EvaluateConfig.model_construct(out=MISSING, data=(), task=task, protocol=protocol)


LABEL: dict[str, Recipe] = {
    "depth": ("16-bit depth PNGs, previews and a gallery for a folder of images.", _label("depth")),
    "normals": ("Surface normals as PNG and npy for a folder of images.", _label("normals")),
}

EVALUATE: dict[str, Recipe] = {
    "synthetic-depth": (
        "Affine-invariant depth on rendered scenes: AbsRel, δ1 and friends.",
        _evaluate("depth"),
    ),
    "synthetic-normals": ("Angular error of normals on rendered scenes.", _evaluate("normals")),
    "least-squares-depth": (
        "Depth as the paper, Marigold and GeoWizard score it: fitted to depth.",
        _evaluate("depth", "least-squares-depth"),
    ),
    "least-squares-depth-lapis": (
        "Depth as Lapis scores it: fitted to depth, ETH3D smaller, DIODE without edges.",
        _evaluate("depth", "least-squares-depth-lapis"),
    ),
    "least-squares-disparity": (
        "Labels that are disparity, as Lotus and Depth Anything score them.",
        _evaluate("depth", "least-squares-disparity"),
    ),
    "least-squares-log-depth": (
        "Depth of models of log depth: fitted to its logarithm.",
        _evaluate("depth", "least-squares-log-depth"),
    ),
    "least-squares-own-space": (
        "Depth fitted in whatever space a model predicts it in.",
        _evaluate("depth", "least-squares-own-space"),
    ),
    "ransac-log-depth": (
        "Depth as Pixel-Perfect Depth scores it: RANSAC to log depth.",
        _evaluate("depth", "ransac-log-depth"),
    ),
    "pooled-pixels": (
        "Normals as the paper and DSINE score them: over the pixels of all images.",
        _evaluate("normals", "pooled-pixels"),
    ),
    "per-image-mean": (
        "Normals as Marigold v1-1 scores them: averaged image by image.",
        _evaluate("normals", "per-image-mean"),
    ),
}

STAGES: dict[str, dict[str, Recipe]] = {
    "prepare": PREPARE,
    "train": TRAIN,
    "evaluate": EVALUATE,
    "label": LABEL,
}
