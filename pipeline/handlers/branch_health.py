"""Detect a branch that collapses while the result still scores well; report it to the log, metrics.csv and TensorBoard."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter

from ct_cncl.pipeline.common.distributed import is_main_process, mean_over_processes

HEALTH_KEY = "branch_health"
"""Name in ``engine.state``, and of a column of metrics.csv, of an epoch's warnings: a text, empty if all is well."""
METRICS = {"content": "psnr_content", "noise": "psnr_denoised", "fused": "psnr"}
"""Validation metric of each branch."""
MARGIN_DB = 0.1
"""How far below the input a branch may be without a warning: one that starts at the input fluctuates around it."""
TITLES = {"content": "C(y)", "noise": "y - N(y)", "fused": "the result"}

logger = logging.getLogger(__name__)


def branch_warnings(
    psnr: Mapping[str, float],
    *,
    psnr_input: float,
    best: Mapping[str, float],
    supervised: Collection[str],
    max_drop: float,
    patient: bool = False,
) -> list[str]:
    """Warnings about the branches, in words; an empty list if all is well.

    Args:
        psnr: PSNR of "content", "noise" (of y - N(y)) and "fused" in this validation, dB.
        psnr_input: PSNR of the input, dB.
        best: best PSNR of each branch in this and all earlier validations, dB.
        supervised: branches that a pixel loss compares with the reference. The others may have any scale before the fusion, and
            are only compared with their own best.
        max_drop: how far below its own best a branch may be, dB.
        patient: do not warn yet of branches that have never been above the input.

    >>> branch_warnings({"content": 31.0}, psnr_input=40.0, best={"content": 44.0}, supervised=["content"], max_drop=3.0)
    ['C(y) is 9.0 dB below the input', 'C(y) is 13.0 dB below its own best']
    """
    found = []
    for name, value in psnr.items():
        has_been_above = best[name] >= psnr_input
        below = math.isfinite(psnr_input) and value < psnr_input - MARGIN_DB
        if name in supervised and below and (has_been_above or not patient):
            found.append(f"{TITLES[name]} is {psnr_input - value:.1f} dB below the input")
        if best[name] - value > max_drop:
            found.append(f"{TITLES[name]} is {best[name] - value:.1f} dB below its own best")
    return found


class BranchHealth:
    """Watches the branches: their PSNR in each validation, and moving averages of their losses in between.

    A warning goes into the log, into metrics.csv (column ``branch_health``) and to TensorBoard (``branch_health/warnings``, and
    the text) when

    - a supervised branch falls below the input by more than :data:`MARGIN_DB`;
    - any branch falls more than ``max_drop`` below its own best;
    - the moving average of a branch's pixel loss exceeds ``max_rise`` times its lowest value. This is also checked within an
      epoch, because a branch that collapses before the first validation has no better one to be compared with.

    Attach it in every process, after the handler that validates and before those that write and save.

    Args:
        evaluator: a ``CNCLEvaluator``.
        supervised: branches that a pixel loss compares with the reference, out of "content", "noise" and "fused"; or that loss,
            whose attribute ``supervised`` names them.
        start_from: trained weights with which the training begins, if any.
        max_drop: how far below its own best a branch may be, dB.
        patience: number of validations that a branch may need to reach the input, since an untrained network is far below it.
            None is 5, or 1 with ``start_from``.
        max_rise: factor by which a loss may rise; 2 corresponds to 6 dB of PSNR for absolute errors.
        span: iterations that a moving average covers, and between two checks of it.
        stop: end the training after the first epoch that ends with a warning.
        report: write warnings; None writes them in the main process only.
        writer: TensorBoard writer, or None.

    Raises:
        ValueError: a branch is unknown, or a limit is out of range.
    """

    def __init__(
        self,
        evaluator: Engine,
        *,
        supervised: Collection[str] | Any,
        start_from: str | None = None,
        max_drop: float = 3.0,
        patience: int | None = None,
        max_rise: float = 2.0,
        span: int = 100,
        stop: bool = False,
        report: bool | None = None,
        writer: SummaryWriter | None = None,
    ) -> None:
        supervised = list(getattr(supervised, "supervised", supervised))
        patience = (5 if start_from is None else 1) if patience is None else patience
        if set(supervised) - set(METRICS):
            raise ValueError(f"Expected branches out of {', '.join(METRICS)}, but got {', '.join(supervised)}.")
        if max_drop <= 0 or max_rise <= 1 or min(span, patience) < 1:
            raise ValueError(
                f"Expected max_drop above 0, max_rise above 1, span and patience of at least 1, but got {max_drop}, {max_rise}, "
                f"{span}, {patience}."
            )
        self.evaluator = evaluator
        self.supervised = supervised
        self.max_drop = max_drop
        self.patience = patience
        self.max_rise = max_rise
        self.span = span
        self.stop = stop
        self.report = is_main_process() if report is None else report
        self.writer = writer
        self.validations = 0
        self.best: dict[str, float] = {}
        self.averages: dict[str, torch.Tensor] = {}
        self.lowest: dict[str, float] = {}
        self.ratios: dict[str, float] = {}
        self.found: list[str] = []
        self.told: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """Watch every iteration and every validation; the state goes into the engine's checkpoints."""
        if hasattr(engine, "with_state"):
            engine.with_state["branch_health"] = self
        setattr(engine.state, HEALTH_KEY, "")
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def epoch_started(self, engine: Engine) -> None:
        """Clear the warnings of the previous epoch."""
        self.found, self.told = [], set()
        setattr(engine.state, HEALTH_KEY, "")

    def iteration_completed(self, engine: Engine) -> None:
        """Update the averages of the pixel losses on the device; check them every ``span`` iterations."""
        iteration = engine.state.iteration
        for name in METRICS:
            value = engine.state.output.get(f"loss_{name}")
            if value is not None:
                before = self.averages.get(name, value).to(value.device)
                average = torch.lerp(before, value, 1.0 / min(iteration, self.span))
                # Leave out a loss that overflowed, whose step fp16's scaler skips: NaN would stay in the average for ever.
                kept = torch.where(before.isfinite(), before, value)
                self.averages[name] = torch.where(average.isfinite(), average, kept)
        if iteration % self.span == 0:
            self._look_at_averages(engine)

    def _look_at_averages(self, engine: Engine) -> None:
        # Averaged over all processes, which must come to the same conclusion.
        levels = mean_over_processes(self.averages, dict.fromkeys(self.averages, 1))
        before = self._risen()
        for name, level in levels.items():
            self.lowest[name] = min(level, self.lowest.get(name, level))
            self.ratios[name] = level / max(self.lowest[name], 1e-30)
            if self.writer is not None and self.report:
                self.writer.add_scalar(f"branch_health/average_loss_{name}", level, engine.state.iteration)
        new = {name: text for name, text in self._risen().items() if name not in before}
        self.told |= set(new)
        self._warn(engine, list(new.values()))

    def _risen(self) -> dict[str, str]:
        return {
            name: f"the loss of {TITLES[name]} has risen to {ratio:.1f} times its lowest"
            for name, ratio in self.ratios.items()
            if ratio > self.max_rise
        }

    def epoch_completed(self, engine: Engine) -> None:
        """If this epoch was validated, compare the branches with the input and with their own best."""
        found = self._compare() if self._validated(engine) else []
        found += [text for name, text in self._risen().items() if name not in self.told]
        wrong = bool(found or self._risen())
        self._warn(engine, found)
        if self.writer is not None and self.report:
            self.writer.add_scalar("branch_health/warnings", len(self.found), engine.state.epoch)
        if wrong and self.stop:
            logger.error(
                "Stopped after epoch %d because of a warning, since stop_on_collapse is on.", engine.state.epoch
            )
            engine.terminate()

    def _validated(self, engine: Engine) -> bool:
        return self.evaluator.state.epoch == engine.state.epoch and bool(self.evaluator.state.metrics)

    def _compare(self) -> list[str]:
        metrics = self.evaluator.state.metrics
        self.validations += 1
        psnr = {name: float(metrics[metric]) for name, metric in METRICS.items()}
        self.best = {name: max(value, self.best.get(name, value)) for name, value in psnr.items()}
        return branch_warnings(
            psnr,
            psnr_input=float(metrics["psnr_input"]),
            best=self.best,
            supervised=self.supervised,
            max_drop=self.max_drop,
            patient=self.validations < self.patience,
        )

    def _warn(self, engine: Engine, found: list[str]) -> None:
        self.found += found
        setattr(engine.state, HEALTH_KEY, "; ".join(self.found))
        if not found or not self.report:
            return
        text = "; ".join(found)
        logger.warning(
            "Branch health, epoch %d, iteration %d: %s. Check the pictures of the branches; lower the texture, perceptual or "
            "adversarial weight, or raise the pixel weight of that branch.",
            engine.state.epoch,
            engine.state.iteration,
            text,
        )
        if self.writer is not None:
            self.writer.add_text("branch_health", text, engine.state.iteration)

    def state_dict(self) -> dict[str, Any]:
        """The state so far, as tensors and plain values."""
        return {
            "validations": self.validations,
            "best": dict(self.best),
            "averages": dict(self.averages),
            "lowest": dict(self.lowest),
            "ratios": dict(self.ratios),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        self.validations = state["validations"]
        self.best, self.lowest, self.ratios = (dict(state[name]) for name in ("best", "lowest", "ratios"))
        self.averages = dict(state["averages"])
