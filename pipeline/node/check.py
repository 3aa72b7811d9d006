"""``ct-cncl node --check``: validate a configuration, and say what would happen to a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ct_cncl.pipeline.node.database import refuse_shares, refuse_unwritable
from ct_cncl.pipeline.node.errors import NodeError, in_one_line
from ct_cncl.pipeline.node.facts import read_object
from ct_cncl.pipeline.node.read_settings import read_settings
from ct_cncl.pipeline.node.rules import Action, Rule, decide
from ct_cncl.pipeline.node.settings import NodeSettings
from ct_cncl.pipeline.node.tls import server_context
from ct_cncl.transforms.series.headers import CT_CLASSES

if TYPE_CHECKING:
    from ct_cncl.pipeline.weights.load import Weights


def explain(config: Path, files: list[Path], sender: str | None = None) -> list[str]:
    """Validate a configuration, and say for each file what the node would do with it and why.

    Args:
        config: node.yaml.
        files: DICOM files.
        sender: calling AE title; None for that of the first sender.

    Returns:
        Lines of text. They quote DICOM tags, so do not print them raw on a terminal.

    Raises:
        NodeError: the configuration is invalid, or a file cannot be read.
    """
    settings = read_settings(config)
    refuse_shares(settings.spool)
    refuse_unwritable(settings.spool)
    if settings.tls is not None:
        server_context(settings.tls)
    shadow = ", shadow mode" if settings.shadow else ""
    counts = (
        f"senders: {len(settings.senders)}, destinations: {len(settings.destinations)}, rules: {len(settings.rules)}"
    )
    lines = [f"{config}: good. {settings.aet} on {settings.host} port {settings.port}, {counts}{shadow}"]
    if not settings.rules:
        lines.append("There are no rules: everything is stored and ignored.")
    check_rules(settings)
    for file in files:
        lines += _tried(settings, file, sender or settings.senders[0].aet)
    return lines


def check_rules(settings: NodeSettings) -> None:
    """Refuse rules that every job would fail: the weights cannot be opened on the node's devices, or cannot give what the rule asks for.

    Raises:
        NodeError: names the line and the rule.
    """
    rules = [rule for rule in settings.rules if rule.action.do == "denoise"]
    if not rules or not settings.workers:
        return
    opened: dict[tuple[object, ...], Weights] = {}
    for rule in rules:
        _check_rule(rule, settings, opened)


def _check_rule(rule: Rule, settings: NodeSettings, opened: dict[tuple[object, ...], Weights]) -> None:
    from ct_cncl.pipeline.inference.api import chosen_device  # here, since importing torch takes seconds
    from ct_cncl.pipeline.inference.streaming import check_save
    from ct_cncl.pipeline.node.make import options_of
    from ct_cncl.pipeline.weights.load import open_weights

    try:
        options = options_of(rule.action.plain())
        for name in dict.fromkeys(settings.devices[: settings.workers]):
            key = (options.weights, options.precision, name)
            if key not in opened:
                opened[key] = open_weights(options.weights, chosen_device(name), precision=options.precision)
            check_save(opened[key], options.settings(opened[key].trained_on))
    except (ValueError, RuntimeError, OSError) as error:
        raise NodeError(f"{settings.file}, line {rule.line}: rule {rule.name}: {in_one_line(error)}") from error


def _tried(settings: NodeSettings, file: Path, sender: str) -> list[str]:
    if not file.is_file():
        raise NodeError(f"Expected a DICOM file in {file}, but there is none.")
    try:
        identity, facts = read_object(file)
    except NodeError as error:
        raise NodeError(f"{file}: {error}.") from error
    lines = [f"{file}, sent by {sender}:"]
    if sender not in {known.aet for known in settings.senders}:
        return [*lines, f"  refused: {sender} is not among the senders"]
    if identity.sop_class not in CT_CLASSES:
        return [
            *lines,
            f"  {'stored' if settings.others == 'store' else 'refused'}: not a CT image (others: {settings.others})",
        ]
    if facts.modality != "CT":
        return [*lines, f"  refused: a CT image of modality {facts.modality or 'unknown'}"]
    decision = decide(settings.rules, facts, sender)
    lines += [f"  {reason}" for reason in decision.reasons]
    return [*lines, f"  so it would be {_said(decision.action, shadow=settings.shadow)}"]


def _said(action: Action, *, shadow: bool) -> str:
    if action.do != "denoise":
        return {"ignore": "stored and ignored", "refuse": "refused (0x0124)"}[action.do]
    much = f"strength {action.strength}" if action.target_dose is None else f"target dose {action.target_dose}"
    how = [much, action.precision, f"weights {action.weights or 'of the bundle'}"]
    if action.save:
        how.append(f"with {', '.join(action.save)}")
    to = "kept here (shadow mode)" if shadow or action.shadow else f"sent to {', '.join(action.send)}"
    return f"denoised ({'; '.join(how)}) and {to}"
