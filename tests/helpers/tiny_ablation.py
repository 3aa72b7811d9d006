"""A tiny ablation: two variants, four iterations each."""

import csv

from tiny_runs import TINY, assignments

from ct_cncl.pipeline.ablation.plan import Ablation

OVERRIDES = {
    key: value for key, value in TINY.items() if "norm" not in key and key not in ("max_epochs", "patches#per_epoch")
}
OVERRIDES |= {"network_def#init_std": 0.1, "validate#dataset#max_slices": 1}
NAMES = ("unet_ln_gelu", "unet_ln_relu+dual")
ITERATIONS = 4
MEASURED = ("seconds a slice", "training seconds")


def ablation(out, data, **options):
    """The tiny ablation of these tests, with some options changed."""
    extra = options.pop("extra", {})
    options = {"variants": NAMES, "iterations": ITERATIONS} | options
    return Ablation(out=out, data=data, assignments=tuple(assignments(OVERRIDES | extra)), **options)


def table(out):
    """results.csv by variant, without the columns of measured times."""
    with (out / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {row["variant"]: {key: value for key, value in row.items() if key not in MEASURED} for row in rows}
