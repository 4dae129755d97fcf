"""Training at Stable Diffusion 2's size: speed and memory by settings, in one run.

    python benchmarks/full_size_training.py SHARDS [--settings NAME ...] [--steps N] [--base MODEL]

The base has Stable Diffusion 2's architecture and random weights, on which neither speed nor memory
depends. Every micro-batch ends in an optimizer step. "plain loop" is what one would write with
PyTorch and diffusers: fp32 weights under bf16 autocast, fused AdamW, and always the same batch,
which is on the GPU already. Every speed is given as a ratio to it.
"""

import argparse
import gc
import math
import tempfile
import time
from pathlib import Path

import torch
from timed_run import Timed, one_process, timed_run
from transformers import CLIPTextConfig, CLIPTextModel

from e2eft import cli
from e2eft.config import TrainConfig
from e2eft.data.batches import FrameReader
from e2eft.data.shards import ShardIndex, open_shards
from e2eft.model.blank import (
    stable_diffusion_2_unet,
    stable_diffusion_2_vae,
    write_blank_model,
)
from e2eft.model.layout import save_diffusers, save_transformers
from e2eft.model.pretrained import load_estimator
from e2eft.model.source import find_model
from e2eft.tasks import get_task
from e2eft.train.loop import make_plan
from e2eft.train.mixture import depth_ranges_m
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


def write_full_size_model(folder: Path, device: torch.device) -> Path:
    """Stable Diffusion 2's UNet, VAE and text encoder with random weights, in fp16."""
    write_blank_model(folder)
    with torch.device(device):
        unet, vae = stable_diffusion_2_unet(), stable_diffusion_2_vae()
        words = CLIPTextConfig.from_pretrained(folder / "text_encoder").vocab_size
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=words,
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=23,
                num_attention_heads=16,
                bos_token_id=words - 2,
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


def ours(config: TrainConfig, shards: list[ShardIndex], device: torch.device) -> Timed:
    """The product's loop on the product's engine."""
    return timed_run(config, build(config, find_model(config.base), device), shards, device)


def plain(config: TrainConfig, shards: list[ShardIndex], device: torch.device) -> Timed:
    """The same computation without engine and loader."""
    estimator = load_estimator(find_model(config.base), config.model, conditional=True).to(device)
    estimator.codec.compute_dtype = torch.bfloat16
    unet = estimator.denoiser.train()
    task = get_task("depth", max_depth_m=math.inf)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5, fused=device.type == "cuda")
    frames = make_plan(config, shards).micro_batch(0)
    ranges_m = depth_ranges_m(config.data.max_depth_m, shards)
    batch = FrameReader(shards).batch(frames, ranges_m).to(device)
    steps, started = config.schedule.max_steps, 0.0
    for step in range(steps):
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
    return Timed((steps - 1) * len(batch) / (time.perf_counter() - started), 0.0)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def forget_the_last_run() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak() -> str:
    """Most memory that tensors took at once, if there is a GPU."""
    gpu = torch.cuda.is_available()
    return f"{torch.cuda.max_memory_allocated() / 1e9:5.1f} GB" if gpu else "no GPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--base", help="another model than one of Stable Diffusion 2's size")
    arguments = parser.parse_args()
    shards = [open_shards(arguments.shards)]
    with one_process() as device, tempfile.TemporaryDirectory() as folder:
        base = arguments.base or str(write_full_size_model(Path(folder), device))
        name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
        print(f"{name}, torch {torch.__version__}, frames of {arguments.shards}", flush=True)
        reference = float("nan")
        for settings in arguments.settings:
            config = config_of(arguments, base, SETTINGS[settings])
            forget_the_last_run()
            run = (plain if settings == PLAIN else ours)(config, shards, device)
            reference = run.samples_per_s if settings == PLAIN else reference
            ratio = run.samples_per_s / reference
            print(f"{settings:32} {run}  x {ratio:.2f}  {peak()}", flush=True)


if __name__ == "__main__":
    main()
