"""The only module that knows DeepSpeed: ZeRO configuration, step, save, restore, gather."""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from e2eft.config import TrainConfig
from e2eft.errors import DamagedError
from e2eft.imports import uncollected
from e2eft.train.errors import TrainingError

# Five hundred million elements, the default, is a gigabyte of bf16 for each bucket.
BUCKET_ELEMENTS = 50_000_000


def zero_config(config: TrainConfig) -> dict[str, Any]:
    """DeepSpeed's configuration: gradients are accumulated, clipped and reduced in fp32."""
    zero: dict[str, Any] = {
        "stage": config.zero.stage,
        "contiguous_gradients": True,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "allgather_bucket_size": BUCKET_ELEMENTS,
    }
    if config.zero.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": config.batch.micro_size,
        "gradient_accumulation_steps": config.accumulation_steps,
        "gradient_clipping": config.optimizer.clip_norm,
        "zero_optimization": zero,
        "steps_per_print": 10**9,
        "zero_force_ds_cpu_optimizer": False,
    }
    if config.zero.precision == "bf16":
        settings |= {
            "bf16": {"enabled": True},
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",
        }
    return settings


@contextmanager
def _weights_only(files: Any) -> Iterator[None]:
    """Lets DeepSpeed's checkpoint engine unpickle tensors, numbers and its own three classes.

    DeepSpeed would run whatever the pickles in a checkpoint ask for.
    """
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    def load(path: str, map_location: Any = None) -> Any:
        try:
            with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
                return torch.load(path, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError as error:
            raise DamagedError(
                f"{path} holds more than a training state and was not loaded; take away this "
                "checkpoint to resume from the one before"
            ) from error

    files.load = load
    try:
        yield
    finally:
        del files.load


class Engine:
    """A module under DeepSpeed. Every method is collective: all ranks call it, or none."""

    def __init__(self, module: nn.Module, config: TrainConfig, device: torch.device) -> None:
        if device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        with uncollected():
            import deepspeed

        # On CPUs DeepSpeed would compile, for minutes, a collective that only inference uses.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

        self.config = config
        settings = config.optimizer
        parameters = [p for p in module.parameters() if p.requires_grad]
        # Not DeepSpeed's own AdamW: that is compiled for minutes on machines without a GPU.
        optimizer = torch.optim.AdamW(
            parameters,
            lr=0.0,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            foreach=device.type != "cpu",
        )
        self.model, self.optimizer, _, _ = deepspeed.initialize(
            model=module,
            model_parameters=parameters,  # type: ignore[arg-type]
            optimizer=optimizer,
            config=zero_config(config),
            dist_init_required=not dist.is_initialized(),
        )

    @property
    def module(self) -> Any:
        """The trained module, its parameters possibly partitioned."""
        return self.model.module

    @property
    def skipped_steps(self) -> int:
        """Optimizer steps that were skipped because a gradient was not finite."""
        return self.model.skipped_steps

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next optimizer step."""
        for group in self.optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = lr

    def backward(self, loss: Tensor) -> None:
        """Gradients of one micro-batch; DeepSpeed divides by the accumulation steps."""
        self.model.backward(loss)

    def step(self) -> Tensor | float | None:
        """To be called after every micro-batch; the last of an accumulation updates the weights.

        Returns:
            The global gradient norm before clipping, at an update; else None.
        """
        boundary = self.model.is_gradient_accumulation_boundary()
        replicated = self.config.zero.stage == 0 and self.config.zero.precision == "fp32"
        norm: Tensor | float | None = None
        if boundary and replicated:
            gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
        self.model.step()
        if boundary and not replicated:
            norm = self.model.get_global_grad_norm()
        return norm

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """The sum of every rank's values, on every rank."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in their order, on every rank."""
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, value)
        return gathered

    def save(self, folder: Path, step: int) -> None:
        """Writes this rank's share of the state."""
        self.model.save_checkpoint(str(folder), tag=f"step-{step}", client_state={"step": step})

    def restore(self, folder: Path) -> int:
        """Loads what `save` wrote with the same number of ranks; returns its step.

        Raises:
            TrainingError: if the folder holds no checkpoint.
            DamagedError: if a file holds anything but what `save` writes; nothing of it is run.
        """
        with _weights_only(self.model.checkpoint_engine):
            path, state = self.model.load_checkpoint(str(folder))
        if path is None or state is None:
            # DeepSpeed only warns, and training would silently start from the beginning.
            raise TrainingError(f"{folder} holds no DeepSpeed checkpoint")
        return int(state["step"])

    def masters(self) -> list[Tensor]:
        """This rank's share of the fp32 master weights, as flat as the optimizer holds it. Not
        collective."""
        if self.config.zero.stage == 3:
            # The optimizer sees these one after the other, and none between two steps.
            return list(self.optimizer.fp32_partitioned_groups_flat)  # type: ignore[union-attr]
        groups = self.optimizer.param_groups  # type: ignore[union-attr]
        return [parameter for group in groups for parameter in group["params"]]

    @torch.no_grad()
    def set_masters(self, weights: dict[str, Tensor]) -> None:
        """Writes full weights, of which every rank has all, into the ranks' master weights. Not
        into what is computed with: that follows at the next step."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

        for name, parameter in self.module.named_parameters():
            if not parameter.requires_grad:
                continue
            full = weights[name].to(parameter.device)
            if hasattr(parameter, "ds_id"):
                # DeepSpeed's own for full ones fails on what its ranks cannot divide evenly.
                safe_set_local_fp32_param(parameter, _share_of(full, parameter.ds_tensor.numel()))
            elif hasattr(parameter, "_hp_mapping"):
                safe_set_full_fp32_param(parameter, full)
            else:
                parameter.copy_(full)

    def weights(self) -> dict[str, Tensor]:
        """The full fp32 master weights on rank 0's CPU, gathered one by one; nothing elsewhere."""
        state: dict[str, Tensor] = {}
        keep = dist.get_rank() == 0
        for name, parameter in self.module.named_parameters():
            full = self._gathered(parameter)
            if keep:
                state[name] = full.detach().float().cpu().clone()
        if keep:
            for name, buffer in self.module.named_buffers():
                state[name] = buffer.detach().cpu().clone()
        return state

    def _gathered(self, parameter: nn.Parameter) -> Tensor:
        from deepspeed import zero
        from deepspeed.utils import safe_get_full_fp32_param

        if parameter.requires_grad:
            full = safe_get_full_fp32_param(parameter)
            return parameter if full is None else full
        if hasattr(parameter, "ds_id"):
            with zero.GatheredParameters([parameter]):
                return parameter.detach().clone()
        return parameter


def _share_of(full: Tensor, size: int) -> Tensor:
    """This rank's share of a parameter that ZeRO-3 has cut into `size` elements for each rank; the
    last ones are padded."""
    share = full.new_zeros(size)
    mine = full.flatten()[dist.get_rank() * size :][:size]
    share[: len(mine)] = mine
    return share
