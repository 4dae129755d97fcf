"""What one training step computes. The loop knows none of them; a run's configuration picks one."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from e2eft.config import Autoencoding, Diffusion, EndToEnd, TrainConfig
from e2eft.data.batch import Batch
from e2eft.data.batches import TrainingBatch
from e2eft.model.card import ModelCard
from e2eft.model.codec import Codec, ScaledCodec
from e2eft.model.estimator import Estimator
from e2eft.model.layout import with_weights
from e2eft.model.prediction import pyramid_noise
from e2eft.model.times import Sigma
from e2eft.tasks.base import GeometryTask

PYRAMID_STRENGTH = 0.9


class Objective(Protocol):
    """One way to train a part of an estimator."""

    estimator: Estimator

    @property
    def modalities(self) -> tuple[str, ...]:
        """Which of a frame's `depth` and `normals` the loss reads."""
        ...

    def trainable(self) -> nn.Module:
        """The module that the engine wraps."""
        ...

    def attach(self, engine_model: Any) -> None:
        """Puts the wrapped module in the place of the bare one."""
        ...

    def loss(self, training: TrainingBatch) -> Tensor:
        """Scalar fp32 loss of a micro-batch, attached to the graph whatever is valid."""
        ...

    def picture(self, batch: Batch, seeds: list[int]) -> tuple[Tensor, Tensor]:
        """(wanted, made) images `[n 3 h w]` in [-1, 1] for the validation panel."""
        ...

    def finish(
        self, weights: dict[str, Tensor], batches: Iterator[TrainingBatch], processing_size: int
    ) -> ModelCard:
        """Puts a bare module with the trained fp32 weights, on the CPU, in the place of the
        wrapped one; returns the model's card."""
        ...


def _generators(seeds: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _micro_batch_generator(training: TrainingBatch, device: torch.device) -> torch.Generator:
    """For what a micro-batch draws as a whole, where it is needed: image by image on the CPU it
    would keep a GPU waiting. Which micro-batch a frame is in, the plan says, not the workers."""
    return torch.Generator(device).manual_seed(training.seeds[0])


def _gaussian_like(latent: Tensor, generators: list[torch.Generator]) -> Tensor:
    noise = [torch.randn(latent.shape[1:], generator=generator) for generator in generators]
    return torch.stack(noise).to(latent)


@torch.no_grad()
def image_latents(
    codec: Codec, batch: Batch, rows: list[int] | slice = slice(None)
) -> Float[Tensor, "n c hl wl"]:
    """Latents of the batch's colour images: those that came with it, else encoded now."""
    if batch.rgb_latents is None:
        return codec.encode(batch.rgb[rows])
    return batch.rgb_latents[rows].to(codec.vae.dtype)


class EndToEndObjective:
    """The paper's: one step from sigma = 1, decoded through the frozen VAE, under the task's own
    loss."""

    def __init__(self, estimator: Estimator, task: GeometryTask, config: TrainConfig) -> None:
        self.estimator, self.task, self.config = estimator, task, config
        self._bare = estimator.denoiser

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.task.modalities

    def trainable(self) -> nn.Module:
        return self._bare

    def attach(self, engine_model: Any) -> None:
        self.estimator.denoiser = engine_model

    def _image(self, batch: Batch, seeds: list[int]) -> Float[Tensor, "n 3 h w"]:
        initial = self.config.model.initial_latent
        latents = image_latents(self.estimator.codec, batch)
        clean = self.estimator.clean(latents, initial=initial, seeds=seeds)
        return self.estimator.codec.decode(clean)

    def loss(self, training: TrainingBatch) -> Tensor:
        image = self._image(training.batch, training.seeds)
        return self.task.loss(self.task.decode(image), training.batch)

    def picture(self, batch: Batch, seeds: list[int]) -> tuple[Tensor, Tensor]:
        return self.task.encode_target(batch)[0], self._image(batch, seeds)

    def finish(
        self, weights: dict[str, Tensor], batches: Iterator[TrainingBatch], processing_size: int
    ) -> ModelCard:
        self.estimator.denoiser = with_weights(self._bare, weights)
        return ModelCard(
            task=self.config.task,
            target=self.task.target,
            depth_target=self.config.depth_target,
            initial_latent=self.config.model.initial_latent,
            steps=1,
            prompt_tokens=self.config.model.prompt_tokens,
            processing_size=processing_size,
        )


class DiffusionObjective(EndToEndObjective):
    """Denoising score matching on latents: how the base models came to be.

    Conditional: the task's target given the image, as Marigold. Unconditional: the image itself.
    Latents that cover an unknown target pixel are not supervised. The VAE is frozen, so the latents
    of a frame are kept in memory for its next epoch, as far as `latent_cache` frames go.
    """

    def __init__(
        self, estimator: Estimator, task: GeometryTask, config: TrainConfig, settings: Diffusion
    ) -> None:
        super().__init__(estimator, task, config)
        self.settings = settings
        self._cache: dict[tuple[str, bool], tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.task.modalities if self.settings.conditional else ()

    def _latents(self, training: TrainingBatch) -> tuple[Tensor, Tensor, Tensor]:
        """(image's latent, clean target, supervised mask at latent resolution)."""
        names, cache = training.names, self._cache
        frames = [cache.get(name) for name in names]
        missing = [number for number, frame in enumerate(frames) if frame is None]
        if missing:
            for number, fresh in zip(missing, self._encode(training.batch, missing), strict=True):
                frames[number] = fresh
                if len(cache) < self.settings.latent_cache:
                    cache[names[number]] = fresh
        image, clean, mask = zip(*(frame for frame in frames if frame is not None), strict=True)
        return torch.stack(image), torch.stack(clean), torch.stack(mask)

    @torch.no_grad()
    def _encode(self, batch: Batch, rows: list[int]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """What `_latents` gives, of some frames of the batch, frame by frame."""
        codec = self.estimator.codec
        image = image_latents(codec, batch, rows)
        if not self.settings.conditional:
            return zip(image, image, torch.ones_like(image[:, :1]), strict=True)
        target, known = self.task.encode_target(batch)
        unknown = functional.max_pool2d((~known[rows])[:, None].float(), codec.factor)
        return zip(image, codec.encode(target[rows]), 1 - unknown, strict=True)

    def _times(self, count: int, generator: torch.Generator) -> Sigma:
        """Draws above 1 - `single_step_share` become the time of the single step."""
        settings = self.settings
        draws = torch.rand(count, generator=generator, device=generator.device)
        draws = draws / (1 - settings.single_step_share)
        return self.estimator.schedule.time.drawn(draws ** (1 / settings.timestep_skew))

    def _noise(self, clean: Tensor, sigma: Sigma, generator: torch.Generator) -> Tensor:
        if self.settings.noise == "gaussian":
            return torch.randn(clean.shape, generator=generator, device=sigma.device).to(clean)
        time = self.estimator.schedule.time
        strengths = PYRAMID_STRENGTH * time.argument(sigma) / time.span
        shape = (clean.shape[1], clean.shape[2], clean.shape[3])
        return pyramid_noise(shape, generator.initial_seed() + 1, strengths).to(clean)

    def loss(self, training: TrainingBatch) -> Tensor:
        image, clean, mask = self._latents(training)
        condition = image if self.settings.conditional else None
        schedule = self.estimator.schedule
        generator = _micro_batch_generator(training, clean.device)
        sigma = self._times(len(clean), generator)
        noise = self._noise(clean, sigma, generator)
        x_t = schedule.add_noise(clean, noise, sigma)
        made = self.estimator.denoise(condition, x_t, sigma)
        error = (made - schedule.training_target(clean, noise, sigma, condition)) ** 2
        return (error * mask).sum() / (mask.sum() * error.shape[1]).clamp(min=1)

    def picture(self, batch: Batch, seeds: list[int]) -> tuple[Tensor, Tensor]:
        if self.settings.conditional:
            made = self.estimator(batch.rgb, steps=10, initial="gaussian", seeds=seeds)
            return self.task.encode_target(batch)[0], made
        return batch.rgb, self.estimator.codec.decode(self._partly_denoised(batch, seeds))

    def _partly_denoised(self, batch: Batch, seeds: list[int]) -> Tensor:
        """The image's latent noised to the middle of the schedule and denoised in one step."""
        clean = self.estimator.codec.encode(batch.rgb)
        schedule = self.estimator.schedule
        sigma = schedule.time.drawn(torch.full((len(clean),), 0.5, device=clean.device))
        x_t = schedule.add_noise(clean, _gaussian_like(clean, _generators(seeds)), sigma)
        return schedule.clean_latent(self.estimator.denoise(None, x_t, sigma), x_t, sigma)

    def finish(
        self, weights: dict[str, Tensor], batches: Iterator[TrainingBatch], processing_size: int
    ) -> ModelCard:
        card = super().finish(weights, batches, processing_size)
        if self.settings.conditional:
            return replace(card, initial_latent="gaussian", steps=1)
        return ModelCard(task="image", initial_latent="none", processing_size=processing_size)


class AutoencodingStep(nn.Module):
    """A VAE's training forward pass, as one module for the engine to wrap."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, image: Tensor, noise_seed: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """(reconstruction, mean, log variance); of a sample of the posterior, or of its mean if
        there is no seed."""
        posterior = self.vae.encode(image).latent_dist
        mean = posterior.mean
        if noise_seed is None:
            return self.vae.decode(mean).sample, mean, posterior.logvar
        generator = torch.Generator(mean.device).manual_seed(noise_seed)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device).to(mean)
        latent = mean + posterior.std * noise
        return self.vae.decode(latent).sample, mean, posterior.logvar


class AutoencodingObjective:
    """Trains a small VAE on colour images and on the targets of depth and normals.

    Each frame appears as one of the three, drawn by its seed. The loss is the squared error, L1 on
    gradients, a little KL, and for depth the relative error that AbsRel will see.
    """

    def __init__(
        self,
        estimator: Estimator,
        depth: GeometryTask,
        normals: GeometryTask,
        settings: Autoencoding,
    ) -> None:
        if not isinstance(estimator.codec, ScaledCodec):
            raise ValueError("autoencoding sets the VAE's scale, which this base model's has not")
        self.estimator, self.settings = estimator, settings
        self.depth, self.normals = depth, normals
        self._codec = estimator.codec
        self._codec.vae.requires_grad_(True)
        self._bare = AutoencodingStep(self._codec.vae)
        self._model: Any = self._bare

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.depth.modalities, *self.normals.modalities)))

    def trainable(self) -> nn.Module:
        return self._bare

    def attach(self, engine_model: Any) -> None:
        self._model = engine_model

    def loss(self, training: TrainingBatch) -> Tensor:
        batch = training.batch
        depth, near_share = self._depth_target(batch)
        normals, _ = self.normals.encode_target(batch)
        device = batch.rgb.device
        generator = _micro_batch_generator(training, device)
        draw = torch.rand((len(batch), 1, 1, 1), generator=generator, device=device)
        shares = self.settings
        is_depth = draw < shares.depth_share
        is_normals = ~is_depth & (draw < shares.depth_share + shares.normals_share)
        image = torch.where(is_depth, depth, torch.where(is_normals, normals, batch.rgb))
        dtype = next(self._model.parameters()).dtype
        made, mean, logvar = self._model(image.to(dtype), training.seeds[0] + 1)
        made, mean, logvar = made.float(), mean.float(), logvar.float()
        values = (made - image).square().mean()
        edges = _gradient_distance(made, image)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        relative = ((made.mean(1) - image.mean(1)).abs() * near_share * is_depth[:, 0]).mean()
        settings = self.settings
        return (
            settings.value_weight * values
            + settings.gradient_weight * edges
            + settings.kl_weight * kl
            + settings.depth_error_weight * relative
        )

    def _depth_target(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The depth image, and the relative error in depth that a unit error in it makes, at most
        20."""
        target, _ = self.depth.encode_target(batch)
        known = torch.where(batch.valid, batch.depth_m, torch.nan).flatten(1)
        near, far = torch.nanquantile(known, torch.tensor([0.02, 0.98], device=known.device), dim=1)
        half_range = ((far - near) / 2)[:, None, None]
        sensitivity = half_range / batch.depth_m.clamp(min=1e-3)
        return target, torch.where(batch.valid, sensitivity, 0).nan_to_num(0).clamp(max=20)

    def picture(self, batch: Batch, seeds: list[int]) -> tuple[Tensor, Tensor]:
        depth, _ = self.depth.encode_target(batch)
        normals, _ = self.normals.encode_target(batch)
        wanted = torch.cat([batch.rgb, depth, normals], dim=-1)
        dtype = next(self._model.parameters()).dtype
        images = torch.cat([batch.rgb, depth, normals]).to(dtype)
        # Through the wrapped module, which brings the parameters together where they are parted.
        made = self._model(images, None)[0].float()
        return wanted, torch.cat(made.chunk(3), dim=-1)

    def finish(
        self, weights: dict[str, Tensor], batches: Iterator[TrainingBatch], processing_size: int
    ) -> ModelCard:
        """Also measures the latents' deviation and sets the VAE's scale so that it becomes one."""
        inner = {name.removeprefix("vae."): weight for name, weight in weights.items()}
        vae: Any = with_weights(self._bare.vae, inner)
        self._codec.vae = vae
        latents: list[Tensor] = []
        with torch.no_grad():
            for training in batches:
                target, _ = self.depth.encode_target(training.batch)
                for image in (training.batch.rgb, target):
                    latents.append(vae.encode(image).latent_dist.mean.flatten().cpu())
        self._codec.set_scale(float(1 / torch.cat(latents).std()))
        return ModelCard(task="image", initial_latent="none", processing_size=processing_size)


def _gradient_distance(a: Tensor, b: Tensor) -> Tensor:
    difference = a - b
    along_x = (difference[..., 1:] - difference[..., :-1]).abs().mean()
    along_y = (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
    return along_x + along_y


def build_objective(
    estimator: Estimator, tasks: dict[str, GeometryTask], config: TrainConfig
) -> Objective:
    """The configured objective on this estimator.

    Args:
        tasks: all of them, by name.
    """
    settings = config.objective
    if isinstance(settings, EndToEnd):
        return EndToEndObjective(estimator, tasks[config.task], config)
    if isinstance(settings, Diffusion):
        return DiffusionObjective(estimator, tasks[config.task], config, settings)
    return AutoencodingObjective(estimator, tasks["depth"], tasks["normals"], settings)
