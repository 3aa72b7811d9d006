"""The plan of an ablation: what to compare, whether it can run, and whether a folder already holds it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.workflow.config_checks import about_what_is_there
from ct_cncl.pipeline.workflow.locations import dataset_entries, default_dataset_dir
from ct_cncl.pipeline.workflow.overlays import Variant, distinct, network_without_weights, variant, with_settings
from ct_cncl.pipeline.workflow.run import config_file, load_config, parse_overrides
from ct_cncl.pipeline.workflow.run_values import value_at
from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.file_names import absolute
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.json_values import read_json
from ct_cncl.transforms.dataset.datalist import DATALIST

SHARED_KEYS = (
    *("seed", "batch_size", "patches#size", "patches#per_epoch", "patches#dose_range", "patches#nested_dose_range"),
    *("val_interval", "validate#dataset#max_slices", "validate#data_range_hu"),
)
"""Keys that an overlay cannot change in an ablation. All variants use the values of train.json or of KEY=VALUE."""
OWN = (
    "output_dir",
    "dataset_dir",
    "resume",
    "max_epochs",
    "lr_scheduler",
    "adversarial#lr_scheduler",
    "evaluation_dir",
)
"""Keys that the ablation sets itself."""
VALIDATIONS = 20
"""Epochs, each with a validation, of a run with a budget of iterations, unless ``patches.per_epoch`` is given."""
PATCHES = 640
"""Patches per epoch with a budget of minutes, unless ``patches.per_epoch`` is given. For any network, training on these patches of
64 x 64 costs about as much as denoising 30 slices of 512 x 512, so that validation on 8 slices adds a quarter to the time."""
VALIDATION_SLICES = 8
"""Slices of a validation during training, unless ``validate.dataset.max_slices`` is given. The table is over all slices."""
_RECORD = "ablation.json"


@dataclass(frozen=True)
class Ablation:
    """What to compare, and how.

    Args:
        out: folder of the runs and results.
        variants: each in the form of ``variant`` in ``ct_cncl.pipeline.workflow.overlays``: ``A``, ``A+B``, ``A+key=value``.
        data: data set; None for the default phantoms.
        minutes: budget for each variant in minutes of training, not counting validation, checkpoints and pictures.
        iterations: budget for each variant in iterations, instead of minutes.
        split: the split to evaluate on, "validation" or "test".
        pictures: number of slices on the page.
        assignments: ``KEY=VALUE`` overrides for all variants.
    """

    out: Path
    variants: tuple[str, ...]
    data: Path | None = None
    minutes: float | None = None
    iterations: int | None = None
    split: str = "validation"
    pictures: int = 3
    assignments: tuple[str, ...] = ()

    @property
    def dataset(self) -> Path:
        """Absolute folder of the data set."""
        return Path(default_dataset_dir()) if self.data is None else absolute(self.data)


def checked_plan(ablation: Ablation) -> tuple[list[Variant], dict[str, Any]]:
    """Check an ablation before anything is trained, and return its variants and the overrides that they share.

    Raises:
        ConfigError: the budget, a variant or a key cannot be used.
        DataError: the data set cannot be used.
    """
    if (ablation.minutes is None) == (ablation.iterations is None):
        got = "neither" if ablation.minutes is None else "both"
        raise ConfigError(f"Expected a budget, either --minutes or --iterations, but got {got}.")
    budget = ablation.minutes if ablation.iterations is None else ablation.iterations
    if budget is None or not (budget > 0 and math.isfinite(budget)):
        raise ConfigError(f"Expected a budget above 0, but got {budget}.")
    if ablation.pictures < 1:
        raise ConfigError(f"Expected --pictures of at least 1, but got {ablation.pictures}.")
    if not ablation.variants:
        raise ConfigError(
            "Expected at least one variant, but got none. Name some, for example --with unet_ln_gelu --with paper."
        )
    overrides = shared_overrides(parse_overrides(ablation.assignments), ablation.iterations)
    chosen = distinct([variant(text) for text in ablation.variants])
    for one in chosen:
        _check_variant(one, overrides)
    for split in {"training", "validation", ablation.split}:
        dataset_entries(ablation.dataset, split, verify=False)  # each training and evaluation verifies the checksums
    return chosen, overrides


def shared_overrides(given: Mapping[str, Any], iterations: int | None) -> dict[str, Any]:
    """The overrides for all variants: train.json's values of ``SHARED_KEYS``, overridden by the user's.

    Epochs are short by default, to give curves and a checkpoint to resume from; see ``VALIDATIONS``, ``PATCHES`` and
    ``VALIDATION_SLICES``.

    Raises:
        ConfigError: the ablation sets a key itself, or the batch size cannot be used.
    """
    own = sorted(set(given) & set(OWN))
    if own:
        raise ConfigError(f"{own[0]}=... cannot be set in an ablation, which sets it itself. Omit it.")
    base = load_config([config_file("train.json")])
    batch_size = given.get("batch_size", base["batch_size"])
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"Expected batch_size to be a whole number of at least 1, but got {batch_size!r}.")
    short = PATCHES if iterations is None else math.ceil(iterations / VALIDATIONS) * batch_size
    defaults = {"patches#per_epoch": max(short, batch_size), "validate#dataset#max_slices": VALIDATION_SLICES}
    return {key: value_at(base, key) for key in SHARED_KEYS} | defaults | dict(given)


def _check_variant(one: Variant, overrides: Mapping[str, Any]) -> None:
    """Refuse a variant whose network cannot be built, that lacks a key, or that sets a key which all variants share."""
    fixed = sorted(set(parse_overrides(one.settings)) & {*SHARED_KEYS, *OWN})
    if fixed:
        raise ConfigError(
            f"Expected no {fixed[0].replace('#', '.')}=... in {one.name}, since all variants of an ablation share it. Set it for all "
            "variants, as KEY=VALUE."
        )
    try:
        config = one.config()
        network_without_weights(with_settings(config, about_what_is_there(config, overrides)))
    except ConfigError as error:
        raise ConfigError(f"{one.name}: {error}") from error


def values_lost(one: Variant, overrides: Mapping[str, Any]) -> str:
    """A sentence on the settings of a variant's overlays that the ablation overrides; empty if there are none."""
    base, config = load_config([config_file("train.json")]), one.config()
    asked_for = {key: value_at(config, key) for key in SHARED_KEYS if value_at(config, key) != value_at(base, key)}
    lost = [key for key, value in asked_for.items() if value != overrides.get(key)]
    if not lost:
        return ""
    asked = ", ".join(f"{key.replace('#', '.')}={asked_for[key]} ({overrides[key]} here)" for key in lost)
    return f"{one.name} asks for {asked}, but in an ablation all variants share one value. Change it for all with KEY=VALUE."


def join_record(
    ablation: Ablation, chosen: Sequence[Variant], overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Variant]]:
    """Write the ablation's record, or check that the folder's record is the same except for the variants.

    The record keeps the variants of earlier calls, so that a name always stands for the same variant in this folder.

    Returns:
        The record, and the variants of this call in their order.

    Raises:
        OutputError: the folder holds another ablation, or something else.
    """
    path = ablation.out / _RECORD
    record: dict[str, Any] = {
        "data_sha256": file_checksum(ablation.dataset / DATALIST),
        "minutes": ablation.minutes,
        "iterations": ablation.iterations,
        "split": ablation.split,
        "pictures": ablation.pictures,
        "overrides": dict(overrides),
    }
    earlier: list[tuple[str, list[str], list[str]]] = []
    if path.is_file():
        found = read_json(path)
        earlier = found.pop("variants")
        _refuse_another(found, json.loads(json.dumps(record)), ablation.out)
    elif ablation.out.is_dir() and any(ablation.out.iterdir()):
        raise OutputError(
            f"Expected {ablation.out} not to exist, to be empty or to hold an ablation, but it holds other files. Use "
            "another --out."
        )
    before = [Variant(name, tuple(map(Path, overlays)), tuple(settings)) for name, overlays, settings in earlier]
    variants = _joined(before, chosen, ablation.out)
    record["variants"] = [[one.name, list(map(str, one.overlays)), list(one.settings)] for one in variants]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    names = [one.name for one in chosen]
    return record, sorted((one for one in variants if one.name in names), key=lambda one: names.index(one.name))


def _joined(before: Sequence[Variant], chosen: Sequence[Variant], out: Path) -> list[Variant]:
    """The variants of earlier calls, then the new ones. A variant with the name of an earlier one must be the same."""
    joined = {one.name: one for one in before}
    for one in chosen:
        old = joined.get(one.name, one)
        moved = old.overlays != one.overlays and all(path.is_file() for path in old.overlays)
        if moved and old.config() != one.config():
            raise OutputError(
                f"Expected the overlays of {one.name} in {out} to be unchanged, but they have changed. Give them another name, "
                "or use another --out."
            )
        joined[one.name] = one
    return list(joined.values())


def _refuse_another(found: Mapping[str, Any], record: Mapping[str, Any], out: Path) -> None:
    now, before = ({**all_of, **all_of["overrides"]} for all_of in (record, found))
    for key in {**before, **now}:
        if key != "overrides" and before.get(key) != now.get(key):
            raise OutputError(
                f"Expected the ablation in {out} to keep its settings, but {key} was {before.get(key)} and is {now.get(key)}. "
                "Use the same settings, or another --out."
            )
