"""Checks of a run's values. Those with which it would train nothing, or write elsewhere, are refused at the start."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.common.errors import ConfigError

_WHOLE = {
    "max_epochs": 1, "val_interval": 1, "patches#per_epoch": 1, "batch_size": 1, "patches#size": 1, "patches#lesions_most": 1,
    "train#trainer#accumulate": 1,
    "adversarial#d_every": 1, "context_slices": 1, "validate#dataset#max_slices": 1, "train#dataloader#num_workers": 0,
    "adversarial#d_start": 0, "adversarial#start": 0, "seed": 0,
}  # fmt: skip
"""Keys of whole numbers, with the smallest allowed value."""
_POSITIVE = ("learning_rate", "adversarial#optimizer#lr", "validate#data_range_hu", "patches#lesion_weight")
_NUMBERS = (
    "patches#air_weight",
    "patches#lesion_prob",
    "ema#decay",
    "network_def#init_std",
    "texture#weight",
    "perceptual#weight",
)
"""Keys of other numbers. Some are null by default, so that the config does not show their type."""
_RANGES = ("patches#dose_range", "patches#nested_dose_range", "patches#zoom_range", "patches#sharpness_range")
_NEEDED = (
    "max_epochs",
    "val_interval",
    "batch_size",
    "patches#size",
    "patches#per_epoch",
    "learning_rate",
    "context_slices",
)
"""Keys that must not be null."""
_SEPARATORS = ("#", "::")
"""Separators of nested keys in MONAI's configs. MONAI replaces them in values, too, so a path that holds one becomes another path."""


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """The value of a key in a config, with ``a#b`` for b in a; None if there is none.

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
    """A key as users write it, with dots."""
    return key.replace("#", ".")


def check_run_values(config: Mapping[str, Any], *, processes: int = 1) -> None:
    """Refuse values with which a training would run but have no result.

    Args:
        config: the merged config, with overrides. Expressions and references are accepted, and keys may be missing.
        processes: number of processes that share an epoch's patches.

    Raises:
        ConfigError: a value is refused; names the key and the value, and says what to do.

    >>> check_run_values({"max_epochs": 2, "seed": "$1 + 1", "patches": {"per_epoch": 8}, "batch_size": 4})
    """
    _check_kinds(config)
    for key, least in _WHOLE.items():
        value = value_at(config, key)
        if isinstance(value, (int, float)) and (isinstance(value, (bool, float)) or value < least):
            raise ConfigError(f"Expected a whole number of at least {least} for {_written(key)}, but got {value}.")
    for key in _POSITIVE:
        value = value_at(config, key)
        if isinstance(value, (int, float)) and not 0 < value < float("inf"):
            raise ConfigError(f"Expected a number above 0 for {_written(key)}, but got {value}.")
    for key, value in _numbers_in(config):
        if not math.isfinite(value):
            raise ConfigError(f"Expected a finite number for {key}, but got {value}.")
    chance = value_at(config, "patches#lesion_prob")
    if isinstance(chance, (int, float)) and not 0 <= chance <= 1:
        raise ConfigError(f"Expected a number from 0 to 1 for patches.lesion_prob, but got {chance}.")
    patches, batch = (value_at(config, key) for key in ("patches#per_epoch", "batch_size"))
    if isinstance(patches, int) and isinstance(batch, int) and patches // processes < batch:
        of_each = f" in each of {processes} processes" if processes > 1 else ""
        raise ConfigError(
            f"Expected patches.per_epoch to fill a batch{of_each}, but got {patches} for batch_size {batch}: nothing would be trained. "
            "Raise patches.per_epoch or lower batch_size."
        )


def _check_kinds(config: Mapping[str, Any]) -> None:
    """Refuse text and lists instead of numbers, and null where a number is required."""
    for key in (*_WHOLE, *_POSITIVE, *_NUMBERS):
        value = value_at(config, key)
        word = isinstance(value, str) and not value.startswith(("$", "@", "%"))
        if word or isinstance(value, (list, Mapping)) or (value is None and key in _NEEDED and _is_null(config, key)):
            raise ConfigError(f"Expected a number for {_written(key)}, but got {value!r}.")
    for key in _RANGES:
        value = value_at(config, key)
        if isinstance(value, (str, int, float)) and not str(value).startswith(("$", "@", "%")):
            raise ConfigError(f"Expected two numbers for {_written(key)}, for example [0.5, 1], but got {value!r}.")


def _is_null(config: Mapping[str, Any], key: str) -> bool:
    """Whether a key exists. With :func:`value_at`, a missing key looks like one that is null."""
    above, _, name = key.rpartition("#")
    node = value_at(config, above) if above else config
    return isinstance(node, Mapping) and name in node


def _numbers_in(node: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """All floats of a config, each with its key as users write it."""
    if isinstance(node, float):
        yield key, node
    elif isinstance(node, Mapping):
        for name, value in node.items():
            yield from _numbers_in(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _numbers_in(value, f"{key}.{number}")


def check_paths(paths: Iterable[str | Path | None]) -> None:
    """Refuse paths that MONAI's configs would change.

    Raises:
        ConfigError: a path holds one of MONAI's separators; names the path.

    >>> check_paths(["runs/a", None, "$@bundle_root + '/models/a.pt'"])
    """
    for path in paths:
        text = str(path or "")
        if text.startswith(("$", "@", "%")):
            continue
        for separator in _SEPARATORS:
            if separator in text:
                raise ConfigError(
                    f"Expected a path without {separator}, which MONAI's configs read as a separator of keys, but got {text}. Rename the "
                    "folder, or use a symbolic link to it."
                )
