"""Values of a run that would train nothing, judge nothing, or write elsewhere: refused before anything is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.common.errors import ConfigError

_WHOLE = {
    "max_epochs": 1, "val_interval": 1, "patches#per_epoch": 1, "batch_size": 1, "patches#size": 1, "train#trainer#accumulate": 1,
    "adversarial#d_every": 1, "context_slices": 1, "validate#dataset#max_slices": 1, "train#dataloader#num_workers": 0,
    "adversarial#d_start": 0, "adversarial#start": 0, "seed": 0,
}  # fmt: skip
"""Keys of whole numbers, and the least of them."""
_POSITIVE = ("learning_rate", "adversarial#optimizer#lr", "validate#data_range_hu")
_SEPARATORS = ("#", "::")
"""How MONAI's configs write a key within a key, in values too: a path that holds one of them comes out as another path."""


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """What a config has under a key, ``a#b`` for b in a; None where there is nothing.

    >>> value_at({"patches": {"size": 64}}, "patches#size"), value_at({}, "patches#size")
    (64, None)
    """
    node: Any = config
    for part in key.split("#"):
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _written(key: str) -> str:
    """A key as users write it."""
    return key.replace("#", ".")


def check_run_values(config: Mapping[str, Any], *, processes: int = 1) -> None:
    """Refuse values with which a training runs and leaves nothing behind.

    Args:
        config: merged, with overrides; expressions and references may be anything, keys may be missing.
        processes: that share an epoch's patches.

    Raises:
        ConfigError: naming key and value, and what to do.

    >>> check_run_values({"max_epochs": 2, "val_interval": "$@max_epochs", "patches": {"per_epoch": 8}, "batch_size": 4})
    """
    for key, least in _WHOLE.items():
        value = value_at(config, key)
        if isinstance(value, (int, float)) and (isinstance(value, (bool, float)) or value < least):
            raise ConfigError(f"Expected a whole number of at least {least} for {_written(key)}, but got {value}.")
    for key in _POSITIVE:
        value = value_at(config, key)
        if isinstance(value, (int, float)) and not 0 < value < float("inf"):
            raise ConfigError(f"Expected a number above 0 for {_written(key)}, but got {value}.")
    patches, batch, interval, epochs = (
        value_at(config, key) for key in ("patches#per_epoch", "batch_size", "val_interval", "max_epochs")
    )
    if isinstance(patches, int) and isinstance(batch, int) and patches // processes < batch:
        of_each = f" in each of {processes} processes" if processes > 1 else ""
        raise ConfigError(
            f"Expected patches.per_epoch to fill a batch{of_each}, but got {patches} for batch_size {batch}: nothing would be trained. "
            "Raise the one or lower the other."
        )
    if isinstance(interval, int) and isinstance(epochs, int) and interval > epochs:
        raise ConfigError(
            f"Expected val_interval of at most max_epochs, but got {interval} and {epochs}: no epoch would be validated, and no best.pt "
            "written. Lower val_interval."
        )


def check_paths(paths: Iterable[str | Path | None]) -> None:
    """Refuse paths that MONAI's configs would change.

    Raises:
        ConfigError: naming the path.

    >>> check_paths(["runs/a", None, "$@bundle_root + '/models/a.pt'"])
    """
    for path in paths:
        text = str(path or "")
        if text.startswith(("$", "@", "%")):
            continue
        for separator in _SEPARATORS:
            if separator in text:
                raise ConfigError(
                    f"Expected a path without {separator}, which MONAI's configs read as a key within a key, but got {text}. Rename the "
                    "folder, or reach it by a link."
                )
