"""What a bundle's configs would execute, found by reading them: no MONAI parser, no import, no evaluation.

MONAI evaluates every string that begins with ``$``, imports and calls whatever ``_target_`` names and opens whatever file
``%`` names, in any config, including the metadata. Here each of these is listed as known or unknown: targets are known if
their exact name is on an allow-list, expressions if the installed release has them word for word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.common.finding import Finding
from ct_cncl.pipeline.workflow.locations import installed_bundle

SUFFIXES = {".json", ".yaml", ".yml"}
_LARGEST = 4 << 20
_MOST_NODES = 200_000

ALLOWED = {
    "Compose",
    "DataLoader",
    "Dataset",
    "LrScheduleHandler",
    "SimpleInferer",
    "SliceInferer",
    "SupervisedEvaluator",
    "TensorBoardStatsHandler",
    "ValidationHandler",
    "monai.networks.nets.PatchDiscriminator",
    "torch.nn.MSELoss",
    "torch.nn.L1Loss",
    "torch.optim.Adam",
    "torch.optim.AdamW",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.optim.lr_scheduler.ConstantLR",
    "torch.optim.lr_scheduler.LinearLR",
    "torch.utils.data.DataLoader",
    "torch.utils.tensorboard.SummaryWriter",
    "ct_cncl.pipeline.common.distributed.data_parallel",
    "ct_cncl.pipeline.engines.placement.training_generator",
    "ct_cncl.pipeline.handlers.loss_terms",
    "ct_cncl.pipeline.handlers.nps_distance.NPSDistance",
    "ct_cncl.pipeline.networks.precision.in_precision",
    "ct_cncl.pipeline.training.trained.trained_network",
    "ct_cncl.pipeline.workflow.locations.DatasetSplit",
}
"""Names allowed as ``_target_``, besides this project's transforms and the public classes of its :data:`_PUBLIC` packages."""
_PUBLIC = ("networks", "losses", "losses.encoders", "handlers", "engines")


class _Pairs(list[tuple[Any, Any]]):
    """A mapping as pairs, which keeps keys that are written twice."""


def review_config(path: Path, name: str) -> list[Finding]:
    """List everything that a JSON or YAML file would execute as part of a MONAI config.

    Args:
        path: the file.
        name: name of the file in the findings.
    """
    try:
        tags: list[str] = []
        tree = _tree(path, tags)
        found = [Finding(name, "", "YAML tag", tag, known=False) for tag in tags]
        return found + list(_walk(tree, "", name))
    except (ValueError, RecursionError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return [Finding(name, "", "unreadable", reason, known=False)]


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON or YAML file as plain values.

    Raises:
        ValueError: the file is neither, or does not hold a mapping.
    """
    content = _plain(_tree(path, []))
    if not isinstance(content, dict):
        raise ValueError(f"Expected a mapping in {path.name}, but got {type(content).__name__}.")
    return content


def expressions(tree: Any) -> set[str]:
    """All strings that begin with ``$``, and all macros, which begin with ``%``."""
    if isinstance(tree, dict):
        return set().union(*map(expressions, tree.values())) if tree else set()
    if isinstance(tree, list):
        return set().union(*map(expressions, tree)) if tree else set()
    return {tree} if isinstance(tree, str) and tree.startswith(("$", "%")) else set()


@cache
def known_expressions() -> frozenset[str]:
    """Expressions and macros of the installed release's configs and overlays; a macro like ``%run`` repeats part of its file."""
    files = sorted((installed_bundle() / "configs").rglob("*.json"))
    return frozenset().union(*(expressions(read_config(file)) for file in files))


@cache
def allowed_targets() -> frozenset[str]:
    """All full names that a ``_target_`` may have; allowing prefixes would also allow whatever those modules import."""
    from importlib import import_module

    found = set(ALLOWED)
    for package in _PUBLIC:
        module = import_module(f"ct_cncl.pipeline.{package}")
        found |= {f"ct_cncl.pipeline.{package}.{name}" for name in module.__all__ if name[0].isupper()}
    found |= {f"ct_cncl.transforms.{name}" for name in import_module("ct_cncl.transforms").__all__}
    return frozenset(found)


def _tree(path: Path, tags: list[str]) -> Any:
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"larger than {_LARGEST >> 20} MiB")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text, object_pairs_hook=_Pairs)
    import yaml

    try:
        tokens = [token for token in yaml.scan(text) if isinstance(token, yaml.TagToken)]
        tags += ["".join(part or "" for part in token.value) for token in tokens]
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {error}") from error
    count = [0]
    trees = [_of_yaml(node, count) for node in nodes]
    return trees[0] if len(trees) == 1 else trees


def _of_yaml(node: Any, count: list[int]) -> Any:
    """A YAML node in the form that the JSON parser returns, with every scalar as text, since only text is executed."""
    count[0] += 1
    if count[0] > _MOST_NODES:  # aliases of aliases can multiply without limit
        raise ValueError(f"more than {_MOST_NODES} values")
    if isinstance(node.value, str):
        return node.value
    if node.id == "mapping":
        return _Pairs((_key(key, count), _of_yaml(value, count)) for key, value in node.value)
    return [_of_yaml(value, count) for value in node.value]


def _key(node: Any, count: list[int]) -> str:
    return str(_of_yaml(node, count))


def _plain(tree: Any) -> Any:
    if isinstance(tree, _Pairs):
        return {key: _plain(value) for key, value in tree}
    return [_plain(value) for value in tree] if isinstance(tree, list) else tree


def _walk(node: Any, key: str, name: str) -> Iterator[Finding]:
    if isinstance(node, _Pairs):
        seen = set()
        for own, value in node:
            where = f"{key}#{own}" if key else str(own)
            if own in seen:
                yield Finding(name, where, "duplicate key", str(own), known=False)
            seen.add(own)
            last = re.split(r"#|::", str(own))[-1].lstrip("+")  # overlays write a#b for the key b in a
            if last == "_target_":
                known = isinstance(value, str) and value in allowed_targets()
                yield Finding(name, where, "target", _text(value), known)
            elif last == "_mode_":
                yield Finding(name, where, "mode", _text(value), value in ("callable", "default"))
            if last != "_target_" or not isinstance(value, str):
                yield from _walk(value, where, name)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _walk(value, f"{key}#{number}" if key else str(number), name)
    elif isinstance(node, str):
        yield from _string(node, key, name)


def _string(text: str, key: str, name: str) -> Iterator[Finding]:
    if text.startswith("$"):
        kind = "import" if re.match(r"\$\s*(?:import|from)\b", text) else "expression"
        yield Finding(name, key, kind, text, text in known_expressions())
    elif text.startswith("%"):
        yield Finding(name, key, "macro", text, text in known_expressions())
    elif re.match(r"[/~]|[A-Za-z]:\\|\\\\|file:", text) or ".." in re.split(r"[/\\]", text):
        yield Finding(name, key, "path", text, known=False)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(_plain(value), default=str)
