"""Validation of CNCL on whole slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import torch
from ignite.metrics import Average, Metric
from monai.engines.evaluator import Evaluator
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer, SimpleInferer
from monai.utils import ForwardMode
from monai.utils.enums import CommonKeys
from torch import nn
from torch.utils.data import DataLoader

from ct_cncl.pipeline.engines.memory import naming_settings
from ct_cncl.pipeline.networks import Branches, centre_slice
from ct_cncl.pipeline.networks.precision import autocast
from ct_cncl.transforms.common.hu import to_hu
from ct_cncl.transforms.common.numbers import counted

_LOSS = "validation_loss"
_ADVICE = (
    "Set precision=bf16 or train.dataset.cache=none, or make validate#inferer a SlidingWindowInferer in an overlay."
)


class CNCLEvaluator(Evaluator):
    """Runs a generator in eval mode on pairs of whole slices, and keeps all branches for metrics and pictures.

    ``engine.state.output`` holds images in HU, (B, 1, H, W): ``image`` (low dose y), ``label`` (reference x), ``content`` C(y),
    ``denoised`` y - N(y) and ``pred`` (the result). If the batches mark scanner padding ("padding", boolean), all three
    predictions keep the input's values there, as denoised files do.

    Args:
        device: the network's device.
        val_data_loader: batches with "image" and "label", (B, 1, H, W), in network units. "image" may also hold neighbouring slices,
            (B, C, H, W), with the slice to denoise in the centre.
        generator: returns ``Branches`` (see ``BranchOutputs``).
        metrics: Ignite metrics by name. The first is the key metric; greater is better.
        pixel_loss: the loss of the training. If given, the sum of its terms, averaged over slices, is the metric ``validation_loss``.
        inferer: calls the generator; MONAI's SimpleInferer by default.
        precision: see :data:`~ct_cncl.pipeline.networks.precision.DTYPES`.
        val_handlers: Ignite handlers.
    """

    def __init__(
        self,
        *,
        device: torch.device,
        val_data_loader: DataLoader,
        generator: nn.Module,
        metrics: dict[str, Metric],
        pixel_loss: Callable[..., dict[str, torch.Tensor]] | None = None,
        inferer: Inferer | None = None,
        precision: str = "fp32",
        val_handlers: Sequence[Any] | None = None,
    ) -> None:
        self.generator = generator
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.precision = precision
        self.pixel_loss = pixel_loss
        if pixel_loss is not None:
            metrics = metrics | {_LOSS: Average(output_transform=itemgetter(_LOSS), device=device)}
        names = list(metrics)
        super().__init__(
            device=device,
            val_data_loader=val_data_loader,
            mode=ForwardMode.EVAL,
            key_val_metric={names[0]: metrics[names[0]]},
            additional_metrics={name: metrics[name] for name in names[1:]},
            val_handlers=val_handlers,
            decollate=False,
            epoch_length=1,
        )
        self.state.epoch_length = None  # set in run(), since it needs the data, which may not be there yet

    def run(self, global_epoch: int = 1) -> None:
        """Validate on all batches.

        Args:
            global_epoch: epoch of the training.
        """
        self.state.epoch_length = len(self.data_loader)
        super().run(global_epoch)

    def _iteration(self, engine: CNCLEvaluator, batchdata: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        image, label = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking)
        with (
            naming_settings(
                f"{counted(len(image), 'slice')} of {image.shape[-2]} x {image.shape[-1]} in validation", _ADVICE
            ),
            engine.mode(self.generator),
            autocast(engine.state.device, self.precision),
        ):
            predicted = self.inferer(image, self.generator)
        predicted = Branches(*(branch.float() for branch in predicted))
        image = centre_slice(image)  # the neighbouring slices were only context for the generator
        output = {
            CommonKeys.IMAGE: image,
            CommonKeys.LABEL: label,
            "content": predicted.content,
            "denoised": image - predicted.noise,
            CommonKeys.PRED: predicted.fused,
        }
        output = {name: to_hu(value) for name, value in output.items()}
        if self.pixel_loss is not None:
            with torch.no_grad():
                output[_LOSS] = torch.stack(list(self.pixel_loss(predicted, image, label).values())).sum()
        if "padding" in batchdata:
            padding = batchdata["padding"].to(engine.state.device)
            for name in ("content", "denoised", CommonKeys.PRED):
                output[name] = torch.where(padding, output[CommonKeys.IMAGE], output[name])
        engine.state.output = output
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return output
