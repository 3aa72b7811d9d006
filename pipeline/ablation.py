"""``ct-cncl ablate``: train variants alike, one after another, judge them on the same slices, compare them in a table."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.ablation_results import (
    FAILED,
    VariantResult,
    checkpoint_to_judge,
    evaluation_folder,
    variant_result,
)
from ct_cncl.pipeline.bundle import dataset_entries, default_dataset_dir
from ct_cncl.pipeline.handlers.budget import USED_KEY
from ct_cncl.pipeline.handlers.checkpoints import LAST, load_file
from ct_cncl.pipeline.report.ablation_page import ablation_page
from ct_cncl.pipeline.report.ablation_table import as_csv, as_markdown
from ct_cncl.pipeline.training import evaluate_run, train_bundle
from ct_cncl.pipeline.variants import Variant, distinct, network_without_weights, variant
from ct_cncl.pipeline.workflow import ConfigError, check_keys, config_file, load_config, parse_overrides
from ct_cncl.transforms.datalist import DATALIST, file_checksum
from ct_cncl.transforms.files import OutputError, replacing
from ct_cncl.transforms.hu import WINDOWS

ALIKE = (
    *("seed", "batch_size", "patch_size", "patches_per_epoch", "dose_range", "nested_dose_range"),
    *("val_interval", "max_val_slices", "data_range_hu", "picture_window"),
)
"""Keys that an overlay cannot change within an ablation: train.json's values, or those of KEY=VALUE, hold for all."""
OWN = ("output_dir", "dataset_dir", "resume", "max_epochs", "lr_scheduler", "d_lr_scheduler", "evaluation_dir")
"""Keys that the ablation sets itself."""
VALIDATIONS = 20
"""Epochs, each with a validation, of a run with a budget of iterations, where ``patches_per_epoch`` is not given."""
PATCHES = 640
"""Patches in an epoch with a budget of minutes, where ``patches_per_epoch`` is not given. At 64 x 64 they cost a network
about as much as 30 slices of 512 x 512 do, so that validation takes a quarter of the time on top, be it fast or slow."""
VALIDATION_SLICES = 8
"""Slices of the validations during training, where ``max_val_slices`` is not given; the table is about all slices."""
RECORD = "ablation.json"


@dataclass(frozen=True)
class Ablation:
    """What to compare, and how.

    Args:
        out: folder of the runs and results.
        variants: each as ``variant`` in ``ct_cncl.pipeline.variants`` takes it: ``A``, ``A+B`` or ``paper``.
        data: data set; None takes the default phantoms.
        minutes: of training for each variant; validation, checkpoints and pictures are not counted.
        iterations: instead of minutes.
        split: "validation" or "test": what the table is about.
        pictures: slices on the page.
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
        return Path(default_dataset_dir()) if self.data is None else self.data.expanduser().absolute()


def run_ablation(ablation: Ablation) -> list[VariantResult]:
    """Train and judge every variant, from where an earlier call stopped, and write the table and the page.

    ``out`` then holds ``runs/NAME`` (usable like those of ``ct-cncl train``), ``results.csv``, ``results.md`` and
    ``results.html``; they are written anew after each variant. A training that fails with a loss that is not finite is noted in
    the table, and the next variant goes on.

    Returns:
        The results of all variants in ``out``, those of earlier calls included.

    Raises:
        ConfigError: a budget or variant that cannot be used, or unknown keys; before anything is trained.
        DataError: the data set cannot be used.
        OutputError: ``out`` holds an ablation of other data, overrides, budget or split, or something else.
    """
    chosen, overrides = _checked(ablation)
    record, chosen = _join_record(ablation, chosen, overrides)
    results: list[VariantResult] = []
    for number, one in enumerate(chosen, start=1):
        run = ablation.out / "runs" / one.name
        _say(f"{number}/{len(chosen)}  {one.name}")
        _train(ablation, one, run, overrides)
        _evaluate(ablation, run)
        results.append(variant_result(one.name, run, split=ablation.split))
        write_results(ablation.out, results, record)
        gc.collect()  # engines and handlers hold each other; free their networks before the next one
    table = (ablation.out / "results.md").read_text(encoding="utf-8")
    _say(f"\n{table}\nwritten to {ablation.out}: results.csv, results.md, results.html")
    return results


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _checked(ablation: Ablation) -> tuple[list[Variant], dict[str, Any]]:
    """All variants and the overrides for all of them, or the error that would come up later."""
    if (ablation.minutes is None) == (ablation.iterations is None):
        got = "neither" if ablation.minutes is None else "both"
        raise ConfigError(f"Expected a budget, either --minutes or --iterations, but got {got}.")
    budget = ablation.minutes if ablation.iterations is None else ablation.iterations
    if budget is None or not (budget > 0 and math.isfinite(budget)):
        raise ConfigError(f"Expected a budget above 0, but got {budget}.")
    if ablation.pictures < 1:
        raise ConfigError(f"Expected --pictures of at least 1, but got {ablation.pictures}.")
    if not ablation.variants:
        raise ConfigError("Expected at least one variant, but got none. Name some: --with unet_ln_gelu --with paper.")
    overrides = alike_overrides(parse_overrides(ablation.assignments), ablation.iterations)
    chosen = distinct([variant(text) for text in ablation.variants])
    for one in chosen:
        _check_variant(one, overrides)
        _say_what_is_alike(one, overrides)
    for split in {"training", "validation", ablation.split}:
        dataset_entries(ablation.dataset, split, verify=False)  # each training and evaluation compares the checksums
    return chosen, overrides


def alike_overrides(given: Mapping[str, Any], iterations: int | None) -> dict[str, Any]:
    """What holds for all variants: train.json's values of ``ALIKE``, over them what the user gave.

    Epochs are short, so that there are curves to see and a checkpoint to go on from: see ``VALIDATIONS``, ``PATCHES`` and
    ``VALIDATION_SLICES``.

    Raises:
        ConfigError: a key that the ablation sets itself, or an unknown window.
    """
    own = sorted(set(given) & set(OWN))
    if own:
        raise ConfigError(f"Expected no {own[0]}=..., which the ablation sets itself, but got it. Leave it out.")
    base = load_config([config_file("train.json")])
    batch_size = given.get("batch_size", base["batch_size"])
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"Expected batch_size to be a whole number of at least 1, but got {batch_size!r}.")
    short = PATCHES if iterations is None else math.ceil(iterations / VALIDATIONS) * batch_size
    defaults = {"patches_per_epoch": max(short, batch_size), "max_val_slices": VALIDATION_SLICES}
    overrides = {key: base[key] for key in ALIKE if key in base} | defaults | dict(given)
    if overrides["picture_window"] not in WINDOWS:
        raise ConfigError(
            f"Expected picture_window to be one of {', '.join(WINDOWS)}, but got {overrides['picture_window']!r}."
        )
    return overrides


def _check_variant(one: Variant, overrides: Mapping[str, Any]) -> None:
    """Refuse a variant whose network cannot be built or that does not know a key."""
    config = one.config()
    try:
        check_keys(config, overrides)
        changed = _with_overrides(config, overrides)
        network_without_weights(changed)
    except ConfigError as error:
        raise ConfigError(f"{one.name}: {error}") from error


def _say_what_is_alike(one: Variant, overrides: Mapping[str, Any]) -> None:
    """Tell of values that the overlays ask for and do not get."""
    base, config = load_config([config_file("train.json")]), one.config()
    lost = [key for key in ALIKE if config.get(key) != base.get(key) and config.get(key) != overrides.get(key)]
    if lost:
        asked = ", ".join(f"{key}={config[key]} ({overrides[key]} here)" for key in lost)
        _say(
            f"{one.name} asks for {asked}; in an ablation all variants have the same. Change it for all with KEY=VALUE."
        )


def _with_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    from monai.bundle import ConfigParser

    parser = ConfigParser(config=dict(config))
    for key, value in overrides.items():
        parser[key] = value
    return dict(parser.get())


def _join_record(
    ablation: Ablation, chosen: Sequence[Variant], overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Variant]]:
    """The ablation's record, written or found equal in all but its variants; and the variants of all calls so far."""
    path = ablation.out / RECORD
    record: dict[str, Any] = {
        "data_sha256": file_checksum(ablation.dataset / DATALIST),
        "minutes": ablation.minutes,
        "iterations": ablation.iterations,
        "split": ablation.split,
        "pictures": ablation.pictures,
        "overrides": dict(overrides),
    }
    earlier: list[list[str]] = []
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        earlier = found.pop("variants")
        _refuse_another(found, json.loads(json.dumps(record)), ablation.out)
    elif ablation.out.is_dir() and any(ablation.out.iterdir()):
        raise OutputError(
            f"Expected {ablation.out} not to exist, to be empty or to hold an ablation, but it holds other files. Use "
            "another --out."
        )
    variants = _joined([Variant(name, tuple(map(Path, overlays))) for name, *overlays in earlier], chosen, ablation.out)
    record["variants"] = [[one.name, *map(str, one.overlays)] for one in variants]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record, variants


def _joined(before: Sequence[Variant], chosen: Sequence[Variant], out: Path) -> list[Variant]:
    """The variants of earlier calls, then those that are new; one of the same name must be the same."""
    joined = {one.name: one for one in before}
    for one in chosen:
        old = joined.get(one.name, one)
        moved = old.overlays != one.overlays and all(path.is_file() for path in old.overlays)
        if moved and old.config() != one.config():
            raise OutputError(
                f"Expected {one.name} to be what it was in {out}, but its overlays are others now. Give them another name, "
                "or use another --out."
            )
        joined[one.name] = one
    return list(joined.values())


def _refuse_another(found: Mapping[str, Any], record: Mapping[str, Any], out: Path) -> None:
    now, before = ({**all_of, **all_of["overrides"]} for all_of in (record, found))
    for key in {**before, **now}:
        if key != "overrides" and before.get(key) != now.get(key):
            raise OutputError(
                f"Expected the ablation in {out} to go on as it began, but {key} was {before.get(key)} and is {now.get(key)}. "
                "Give the same again, or another --out."
            )


def _train(ablation: Ablation, one: Variant, run: Path, overrides: Mapping[str, Any]) -> None:
    """Train from the start or from the run's last checkpoint; do nothing where the budget is used."""
    if (run / FAILED).is_file():
        return
    resume = (run / LAST).is_file()
    if resume and load_file(run / LAST)["trainer"][USED_KEY] >= 1.0:
        return
    if not resume:
        (run / "config.json").unlink(
            missing_ok=True
        )  # of a start before the first checkpoint, perhaps with another overlay
    budget = {"budget_minutes": ablation.minutes, "budget_iterations": ablation.iterations}
    values = {} if resume else {**overrides, **budget}
    try:
        train_bundle(
            out=run,
            data=ablation.dataset,
            overlays=[] if resume else [*map(str, one.overlays), str(config_file("budget.json"))],
            resume=resume,
            assignments=[f"{key}={json.dumps(value)}" for key, value in values.items()],
        )
    except FloatingPointError as error:
        with replacing(run / FAILED) as temporary:
            temporary.write_text(json.dumps({"error": str(error)}, indent=2) + "\n", encoding="utf-8")
        _say(f"     {error} The next variant goes on.")


def _evaluate(ablation: Ablation, run: Path) -> None:
    """Judge the run's best checkpoint, unless that is done."""
    folder = evaluation_folder(run, ablation.split)
    judged = checkpoint_to_judge(run)
    if judged is None or all((folder / name).is_file() for name in ("summary.json", "seconds.json", "slices.npz")):
        return
    evaluate_run(
        judged,
        data=ablation.dataset,
        split=ablation.split,
        out=folder,
        overwrite=True,
        overlays=[str(config_file("keep_slices.json"))],
        assignments=[f"kept_slices={ablation.pictures}", "max_val_slices=null"],  # the table is about all slices
    )


def write_results(out: Path, results: Sequence[VariantResult], record: Mapping[str, Any]) -> None:
    """Write ``results.csv``, ``results.md`` and ``results.html``.

    Args:
        out: folder.
        results: of the variants so far.
        record: of the ablation, as in its ``ablation.json``.
    """
    data_range = float(record["overrides"]["data_range_hu"])
    rows = [result.row for result in results]
    pages = {
        "results.csv": as_csv(rows, data_range=data_range),
        "results.md": f"{conditions(record, rows)}\n\n{as_markdown(rows, data_range=data_range)}",
        "results.html": ablation_page(results, conditions=conditions(record, rows), record=record),
    }
    for name, text in pages.items():
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def conditions(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """What is the same for all variants, in a few sentences."""
    values = record["overrides"]
    budget = (
        f"{record['iterations']} iterations"
        if record["iterations"] is not None
        else f"{record['minutes']:g} min of training (validation and checkpoints not counted)"
    )
    timed = sorted({row["timed_on"] for row in rows if row.get("timed_on")})
    return (
        f"Each variant: {budget}, seed {values['seed']}, batches of {values['batch_size']} patches of {values['patch_size']} x "
        f"{values['patch_size']}, learning rate falling from its own start to 0 by a half cosine over the budget. Means over "
        f"all slices of the {record['split']} split, best.pt of each run, range {values['data_range_hu']:g} HU. Seconds a slice: "
        f"median of forward passes of one slice at a time ({'; '.join(timed) or 'none'})."
    )
