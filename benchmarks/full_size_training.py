"""Training at Stable Diffusion 2's size: speed and memory by settings, in one run.

    python benchmarks/full_size_training.py SHARDS [--settings NAME ...] [--steps N] [--base MODEL]

The base has Stable Diffusion 2's architecture and random weights, on which neither speed nor memory
depends. Every micro-batch ends in an optimizer step. "plain loop" is what one would write with
PyTorch and diffusers: fp32 weights under bf16 autocast, fused AdamW, and always the same batch,
which is on the GPU already. Every speed is given as a ratio to it.
"""

import argparse
import gc
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from latent_cache import Stopwatch
from transformers import CLIPTextConfig, CLIPTextModel

from e2eft import cli
from e2eft.config import TrainConfig
from e2eft.data.batches import FrameReader, iterate_batches
from e2eft.data.shards import ShardIndex, open_shards
from e2eft.model.blank import write_blank_model
from e2eft.model.layout import save_diffusers, save_transformers
from e2eft.model.pretrained import find_model, load_estimator
from e2eft.tasks import get_task
from e2eft.train.engine import Engine
from e2eft.train.loop import Loop, make_plan
from e2eft.train.worker import build

PLAIN = "plain loop"
SETTINGS = {
    PLAIN: "--micro-batch 2",
    "bf16": "--micro-batch 2 --precision bf16",
    "bf16, micro-batch 8": "--micro-batch 8 --precision bf16",
    "bf16, nothing recomputed": "--micro-batch 2 --precision bf16 --model.no-unet-checkpointing",
    "bf16, optimizer in host memory": "--micro-batch 2 --precision bf16 --zero.offload-optimizer",
    "fp32": "--micro-batch 2 --precision fp32",
}


@dataclass
class Measured:
    samples_per_s: float
    peak_gb: float
    waiting: float


def write_full_size_model(folder: Path, device: torch.device) -> Path:
    """Stable Diffusion 2's UNet, VAE and text encoder with random weights, in fp16."""
    write_blank_model(folder)
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=96,
            block_out_channels=(320, 640, 1280, 1280),
            cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20),
            use_linear_projection=True,
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),  # type: ignore[arg-type]
            down_block_types=("DownEncoderBlock2D",) * 4,  # type: ignore[arg-type]
            up_block_types=("UpDecoderBlock2D",) * 4,  # type: ignore[arg-type]
            layers_per_block=2,
            latent_channels=4,
            sample_size=768,
        )
        words = CLIPTextConfig.from_pretrained(folder / "text_encoder").vocab_size
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=words,
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=23,
                num_attention_heads=16,
                eos_token_id=words - 1,
            )
        )
    save_diffusers(unet, folder / "unet", torch.float16)
    save_diffusers(vae, folder / "vae", torch.float16)
    save_transformers(text_encoder, folder / "text_encoder", torch.float16)
    return folder


def config_of(arguments: argparse.Namespace, base: str, settings: str) -> TrainConfig:
    size = settings.split()[1]
    argv = f"sd2-depth --base {base} --data {arguments.shards} --out unused --batch {size} "
    argv += f"{settings} --num-workers 1 --max-steps {arguments.steps + 1} --no-tracking"
    config = cli.parse("train", [*argv.split(), "--panel-frames", "0"])
    assert isinstance(config, TrainConfig)
    return config


def ours(config: TrainConfig, device: torch.device, shards: list[ShardIndex]) -> Measured:
    """The product's loop on the product's engine."""
    objective = build(config, find_model(config.base), device)
    engine = Engine(objective.trainable(), config, device)
    objective.attach(engine.model)
    watch = Stopwatch(device)
    loop = Loop(watch, config, engine, objective, shards, shards)
    loop._save = lambda *_: None  # type: ignore[method-assign]
    loop._restore = lambda: 0  # type: ignore[method-assign]
    engine.weights = dict  # type: ignore[method-assign, assignment]
    loop.run()
    first, last = min(watch.logged), max(watch.logged)
    seconds = watch.logged[last] - watch.logged[first]
    speed = (last - first) * config.batch.global_size / seconds
    engine.model.destroy()
    return Measured(speed, peak_gb(), watch.waited)


def plain(config: TrainConfig, device: torch.device, shards: list[ShardIndex]) -> Measured:
    """A loop without engine, plan or loader."""
    estimator = load_estimator(find_model(config.base), config.model, conditional=True).to(device)
    estimator.codec.compute_dtype = torch.bfloat16
    unet = estimator.denoiser.train()
    task = get_task("depth", max_depth_m=config.data.max_depth_m)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5, fused=device.type == "cuda")
    plan = make_plan(config, shards)
    loaded = next(iterate_batches(plan, FrameReader(shards), iter((0,)), 80.0))
    batch = loaded.batch.to(device)
    started = 0.0
    for step in range(config.schedule.max_steps):
        if step == 1:
            synchronize(device)
            started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            latents = estimator.latent(batch.rgb, initial=config.model.initial_latent)
        loss = task.loss(task.decode(estimator.codec.decode(latents)), batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), config.optimizer.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    synchronize(device)
    seconds = time.perf_counter() - started
    return Measured((config.schedule.max_steps - 1) * len(batch) / seconds, peak_gb(), 0.0)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_gb() -> float:
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else float("nan")


def measure(run: Any, *arguments: Any) -> Measured:
    """Runs with nothing left of the run before."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return run(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--base", help="another model than one of Stable Diffusion 2's size")
    arguments = parser.parse_args()
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shards = [open_shards(arguments.shards)]
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"file://{folder}/rendezvous", rank=0, world_size=1,
        )  # fmt: skip
        base = arguments.base or str(write_full_size_model(Path(folder) / "model", device))
        name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
        print(f"{name}, torch {torch.__version__}, frames of {arguments.shards}", flush=True)
        slowest = None
        for settings in arguments.settings:
            config = config_of(arguments, base, SETTINGS[settings])
            made = measure(plain if settings == PLAIN else ours, config, device, shards)
            slowest = made.samples_per_s if settings == PLAIN else slowest
            ratio = f"{made.samples_per_s / slowest:.2f}" if slowest else "-"
            print(
                f"{settings:32} {made.samples_per_s:7.2f} samples/s  x {ratio}  "
                f"{made.peak_gb:5.1f} GB  waiting for data {made.waiting:.0%}",
                flush=True,
            )
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
