"""Adversarial training of CNCL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from ignite.engine import Events
from monai.engines.trainer import Trainer
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer, SimpleInferer
from monai.utils.enums import CommonKeys
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from ct_cncl.pipeline.common.distributed import unwrapped
from ct_cncl.pipeline.engines.epoch_losses import EpochLosses
from ct_cncl.pipeline.engines.finite_losses import FiniteLosses
from ct_cncl.pipeline.engines.memory import naming_settings
from ct_cncl.pipeline.engines.placement import frozen_statistics
from ct_cncl.pipeline.losses.adversarial import discriminator_accuracy
from ct_cncl.pipeline.networks import Branches, centre_slice
from ct_cncl.pipeline.networks.precision import autocast, gradient_scaler


class Part(NamedTuple):
    """The part of a batch that goes through the networks at once."""

    share: float
    """Fraction of the batch's patches."""
    image: torch.Tensor
    label: torch.Tensor
    weight: torch.Tensor | None


class CNCLTrainer(Trainer):
    """Trains a generator with two branches against a conditional PatchGAN discriminator.

    In each iteration, the generator predicts (content, noise, fused). The discriminator sees real (x, n, y) and fake
    (fused, noise, y), where x is the full-dose image, y the low-dose image and n = y - x, and takes a step in every
    ``d_every``-th iteration. Then the generator takes a step on
    ``pixel losses + extra losses + adversarial_weight * adversarial loss``, with the discriminator frozen.

    ``engine.state.output`` holds every loss term as a detached scalar tensor: ``loss`` (the generator's sum),
    ``loss_content``, ``loss_noise``, ``loss_fused`` (weighted), ``loss_<name>`` for each extra term, ``loss_adversarial``
    (weighted) and, in the iterations in which the discriminator steps, ``loss_discriminator``, ``d_real`` and ``d_fake`` (mean
    logits) and ``d_accuracy`` (0.5: it guesses; 1: it is never fooled). These are the terms of this process;
    ``engine.state.epoch_losses`` holds their means over an epoch and over all processes, once the epoch is complete.

    Args:
        device: device of the networks.
        max_epochs: number of epochs to train.
        train_data_loader: batches with "image" (low dose) and "label" (reference), (B, 1, H, W), in network units. "image" may
            hold more slices, (B, C, H, W), with the slice to denoise in the centre. "weight", (B, 1, H, W), is optional and
            weights the pixel losses. A sampler with ``set_epoch`` is told the epoch.
        generator: returns ``Branches`` (see ``BranchOutputs``); may be wrapped in DistributedDataParallel.
        g_optimizer: the generator's optimizer.
        pixel_loss: called as ``pixel_loss(branches, image, label)``, with ``weight=...`` if the batch has one; returns
            weighted terms by name.
        extra_losses: each is called as ``loss(branches, image, label)``, where the image has all its slices, and returns weighted
            terms by name. None is skipped.
        inferer: calls the generator; MONAI's SimpleInferer by default.
        discriminator: takes (B, 3, H, W) and returns a list whose last item is the logits; None trains without an adversary.
        d_optimizer: the discriminator's optimizer, required with a discriminator.
        adversarial_loss: has ``generator(fake)``, ``discriminator(real, fake)`` and ``boundary`` on logits; required with a
            discriminator.
        adversarial_weight: weight of the adversarial loss in the generator's step.
        adversarial_start: number of initial iterations that train the generator without the adversarial loss.
        d_every: the discriminator steps in every ``d_every``-th iteration.
        d_start: number of initial iterations that do not train the discriminator. From then to ``adversarial_start``, it learns without
            affecting the generator.
        precision: "fp32", "bf16" or "fp16" on CUDA; the CPU computes in float32, unless it is "bf16_any", which is bf16 everywhere.
        clip_grad_norm: largest norm of the generator's gradient; None does not clip.
        accumulate: number of parts to split a batch into, to save memory. Both networks still step once, by the gradients of the
            whole batch. Batch normalisation sees each part separately; in iterations in which the discriminator steps, the
            generator runs twice.
        ema: average of the generator's weights, see ``EMA``. It is updated in every iteration and stored in the checkpoints.
        train_handlers: Ignite handlers.

    Raises:
        ValueError: a discriminator came without optimizer, loss or weight; ``d_every``, ``accumulate`` or ``max_epochs`` is below 1 or not
            a whole number; the starts are negative, or the discriminator would be used before it is trained; the precision is unknown;
            or the data loader is empty.
        MemoryShortageError: while training; names the settings to change.
        FloatingPointError: while training, if a loss is not finite; see ``FiniteLosses``.
    """

    def __init__(
        self,
        *,
        device: torch.device,
        max_epochs: int,
        train_data_loader: DataLoader,
        generator: nn.Module,
        g_optimizer: Optimizer,
        pixel_loss: Callable[..., dict[str, torch.Tensor]],
        extra_losses: Sequence[Callable[[Branches, torch.Tensor, torch.Tensor], dict[str, torch.Tensor]] | None] = (),
        inferer: Inferer | None = None,
        discriminator: nn.Module | None = None,
        d_optimizer: Optimizer | None = None,
        adversarial_loss: Any = None,
        adversarial_weight: float = 1.0,
        adversarial_start: int = 0,
        d_every: int = 1,
        d_start: int = 0,
        precision: str = "fp32",
        clip_grad_norm: float | None = None,
        accumulate: int = 1,
        ema: Any = None,
        train_handlers: Sequence[Any] | None = None,
    ) -> None:
        if discriminator is not None and (d_optimizer is None or adversarial_loss is None):
            raise ValueError("Expected d_optimizer and adversarial_loss for the discriminator, but got None.")
        if min(d_every, accumulate) < 1 or d_every % 1 or accumulate % 1:
            raise ValueError(
                f"Expected d_every and accumulate to be whole numbers of at least 1, but got {d_every} and {accumulate}."
            )
        if adversarial_weight < 0 or (discriminator is not None and adversarial_weight == 0):
            raise ValueError(
                f"Expected an adversarial weight above 0 with a discriminator, but got {adversarial_weight}. Raise it, or train "
                "without an adversary (discriminator=null)."
            )
        if not 0 <= d_start <= adversarial_start:
            raise ValueError(
                f"Expected 0 <= d_start <= adversarial_start, but got {d_start} and {adversarial_start}: the discriminator "
                "must not be used before it is trained."
            )
        if max_epochs < 1 or max_epochs % 1:
            raise ValueError(f"Expected max_epochs to be a whole number of at least 1, but got {max_epochs}.")
        if len(train_data_loader) == 0:
            raise ValueError(
                "Expected patches to fill a batch, but got fewer: nothing would be trained. Raise patches.per_epoch or lower batch_size."
            )
        self.generator = generator
        self.g_optimizer = g_optimizer
        self.pixel_loss = pixel_loss
        self.extra_losses = [loss for loss in extra_losses if loss is not None]
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.discriminator = discriminator
        self.d_optimizer = d_optimizer
        self.adversarial_loss = adversarial_loss
        self.adversarial_weight = adversarial_weight
        self.adversarial_start = adversarial_start
        self.d_every = d_every
        self.d_start = d_start
        self.precision = precision
        self.clip_grad_norm = clip_grad_norm
        self.accumulate = accumulate
        autocast(torch.device(device), precision)  # an unknown precision is refused here, not in the first iteration
        self.g_scaler = gradient_scaler(torch.device(device), precision)
        self.d_scaler = gradient_scaler(torch.device(device), precision)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            non_blocking=True,
            decollate=False,
            handlers=None,
        )
        # Checkpoints hold plain state dicts, so that they load with weights_only=True.
        self._state_dict_user_keys: list[str] = []
        self.add_event_handler(Events.EPOCH_STARTED, self._announce_epoch)
        self.with_state: dict[str, Any] = {}
        """Handlers that have a state, by name. They register here when they are attached."""
        FiniteLosses().attach(self)  # before all handlers that save
        EpochLosses().attach(self)  # before the handlers that read the means
        if ema is not None:
            ema.attach(self)
            self.with_state["ema"] = ema
        self._register_handlers(train_handlers or [])

    @property
    def resumable(self) -> dict[str, Any]:
        """What a checkpoint needs besides networks, optimizers and schedulers: epoch and iteration, scalers, and states of handlers."""
        return {"trainer": self, "g_scaler": self.g_scaler, "d_scaler": self.d_scaler} | self.with_state

    def run(self) -> None:
        """Train up to ``max_epochs``, continuing from a checkpoint if one was loaded."""
        if self.state.iteration > 0 and self.state.epoch >= self.state.max_epochs:
            self.logger.info(
                f"Nothing to train: the run has completed {self.state.epoch} of {self.state.max_epochs} epochs. "
                "Raise max_epochs to continue."
            )
            return
        super().run()

    @staticmethod
    def _announce_epoch(engine: CNCLTrainer) -> None:
        sampler = getattr(engine.data_loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(engine.state.epoch)  # type: ignore[union-attr]

    def _iteration(self, engine: CNCLTrainer, batchdata: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        image, label = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking)
        patches = f"{len(image)} patches of {image.shape[-2]} x {image.shape[-1]}"
        with naming_settings(
            f"a training step of {patches}",
            f"Raise train.trainer.accumulate (now {self.accumulate}), set train.trainer.generator.recompute_activations=true or "
            "train.dataset.cache=none, or lower batch_size or patches.size.",
        ):
            output = self._steps(self._parts(image, label, batchdata.get("weight")))
        engine.state.output = output
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return output

    def _parts(self, image: torch.Tensor, label: torch.Tensor, weight: torch.Tensor | None) -> list[Part]:
        size = -(-len(image) // self.accumulate)
        weights = [None] * self.accumulate if weight is None else weight.to(label.device).split(size)
        columns = zip(image.split(size), label.split(size), weights)
        return [Part(len(own) / len(image), own, target, weights) for own, target, weights in columns]

    def _steps(self, parts: list[Part]) -> dict[str, torch.Tensor]:
        """One step of the generator, and of the discriminator if it is due."""
        self.generator.train()
        iteration = self.state.iteration
        whole = self._predict(parts[0].image) if len(parts) == 1 else None
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        output: dict[str, torch.Tensor] = {}
        if self.discriminator is not None and iteration > self.d_start and iteration % self.d_every == 0:
            output.update(self._discriminator_step(parts, whole))
        return output | self._generator_step(parts, whole)

    def _predict(self, image: torch.Tensor) -> Branches:
        with autocast(self.state.device, self.precision):
            predicted = self.inferer(image, self.generator)
        return Branches(*(branch.float() for branch in predicted))

    def _discriminator_step(self, parts: list[Part], whole: Branches | None) -> dict[str, torch.Tensor]:
        assert self.discriminator is not None and self.d_optimizer is not None  # noqa: PT018 (checked in __init__)
        self.discriminator.train()
        self.d_optimizer.zero_grad(set_to_none=True)
        output: dict[str, torch.Tensor] = {}
        for part in parts:
            with _exchange(self.discriminator, last=part is parts[-1]):
                terms = self._judgement(part, whole or self._fake(part.image))
                self.d_scaler.scale(_shared(terms["loss_discriminator"], part.share)).backward()
            _add(output, terms, part.share)
        self.d_scaler.step(self.d_optimizer)
        self.d_scaler.update()
        return output

    def _fake(self, image: torch.Tensor) -> Branches:
        """A prediction for the discriminator only. It keeps no graph, since a split batch leaves memory for the graph of one part only."""
        with torch.no_grad(), frozen_statistics(self.generator):
            return self._predict(image)

    def _judgement(self, part: Part, predicted: Branches) -> dict[str, torch.Tensor]:
        """The discriminator's loss on one part, with its logits and accuracy."""
        assert self.discriminator is not None
        image, label = centre_slice(part.image), part.label
        real = torch.cat([label, image - label, image], dim=1)
        fake = torch.cat([predicted.fused, predicted.noise, image], dim=1).detach()
        with autocast(self.state.device, self.precision):
            # One forward pass for both: DistributedDataParallel allows one per step, and instance norm treats each separately.
            logits = self.discriminator(torch.cat([real, fake]))[-1]
        real_logits, fake_logits = logits.float().chunk(2)
        return {
            "loss_discriminator": self.adversarial_loss.discriminator(real_logits, fake_logits),
            "d_real": real_logits.detach().mean(),
            "d_fake": fake_logits.detach().mean(),
            "d_accuracy": discriminator_accuracy(
                real_logits.detach(), fake_logits.detach(), boundary=self.adversarial_loss.boundary
            ),
        }

    def _generator_step(self, parts: list[Part], whole: Branches | None) -> dict[str, torch.Tensor]:
        self.g_optimizer.zero_grad(set_to_none=True)
        output: dict[str, torch.Tensor] = {}
        for part in parts:
            with _exchange(self.generator, last=part is parts[-1]):
                terms = self._generator_terms(part, whole or self._predict(part.image))
                terms = {CommonKeys.LOSS: torch.stack(list(terms.values())).sum()} | terms
                self.g_scaler.scale(_shared(terms[CommonKeys.LOSS], part.share)).backward()
            _add(output, terms, part.share)
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)  # gradients of the whole batch, unclipped and scaled
        if self.clip_grad_norm is not None:
            self.g_scaler.unscale_(self.g_optimizer)
            nn.utils.clip_grad_norm_(self.generator.parameters(), self.clip_grad_norm)
        self.g_scaler.step(self.g_optimizer)
        self.g_scaler.update()
        return output

    def _generator_terms(self, part: Part, predicted: Branches) -> dict[str, torch.Tensor]:
        """Pixel, extra and adversarial losses. The extra losses see all slices of the image, the others only the centre slice."""
        weights = {} if part.weight is None else {"weight": part.weight}
        terms = self.pixel_loss(predicted, centre_slice(part.image), part.label, **weights)
        for loss in self.extra_losses:
            terms = terms | loss(predicted, part.image, part.label)
        terms = {f"loss_{name}": term for name, term in terms.items()}
        if self.discriminator is not None and self.state.iteration > self.adversarial_start:
            adversarial = self._adversarial_term(centre_slice(part.image), predicted)
            terms["loss_adversarial"] = self.adversarial_weight * adversarial
        return terms

    def _adversarial_term(self, image: torch.Tensor, predicted: Branches) -> torch.Tensor:
        assert self.discriminator is not None
        # Use the bare module: its parameters are frozen here, so there are no gradients to average over processes.
        judge = unwrapped(self.discriminator)
        judge.requires_grad_(False)
        try:
            with autocast(self.state.device, self.precision):
                logits = judge(torch.cat([predicted.fused, predicted.noise, image], dim=1))[-1]
        finally:
            judge.requires_grad_(True)
        return self.adversarial_loss.generator(logits.float())


def _exchange(network: nn.Module, *, last: bool) -> AbstractContextManager:
    """A context in which processes exchange their gradients only with the last part, so that they average them once per step."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not last else nullcontext()


def _shared(loss: torch.Tensor, share: float) -> torch.Tensor:
    """The contribution of a part to the loss of the batch, which is a mean over its patches."""
    return loss if share == 1 else share * loss


def _add(output: dict[str, torch.Tensor], terms: dict[str, torch.Tensor], share: float) -> None:
    for name, term in terms.items():
        own = _shared(term.detach(), share)
        output[name] = output[name] + own if name in output else own
