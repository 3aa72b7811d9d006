"""A small evaluation made by hand, for tests of the page: known pixels, names that try to break it."""

from collections.abc import Sequence

import numpy as np

from ct_cncl.pipeline.evaluation.charts import Chart, Curve, Table
from ct_cncl.pipeline.evaluation.record import (
    ComparisonRow,
    Evaluation,
    KeyFigure,
    Mark,
    Measure,
    Method,
    PatientRow,
    Provenance,
    SliceRow,
    SliceView,
    SummaryRow,
    Verdict,
)

SHAPE = (48, 40)
"""(columns, rows), not square, so that swapped axes are noticed."""
HOSTILE = '<img src=x onerror="window.hacked=1">&"\'</script><script>window.hacked=2</script>'
"""A name that runs as code if it is not escaped."""
METHODS = (
    Method("reference", "reference", "reference", "full dose"),
    Method("input", "input", "input", "a quarter of the dose"),
    Method("candidate1", "cncl", "candidate", "with branches"),
    Method("candidate2", HOSTILE, "candidate"),
)
MEASURES = (
    Measure("psnr_full", "PSNR", "dB", "window full 4096 HU", "higher", 2, "Peak signal to noise.", "image"),
    Measure("psnr_abdomen", "PSNR", "dB", "window abdomen 50/400 HU", "higher", 2, "Peak signal to noise.", "image"),
    Measure("bias_lung", "bias lung", "HU", "mean of result - reference", "zero", 1, "How far HU are off.", "tissue"),
)


def tiny_slice(number: int, shape: tuple[int, int] = SHAPE) -> SliceView:
    """A ramp over all HU along the columns, with steps of 7 HU along the rows, and noise in input and results."""
    rng = np.random.default_rng(number)
    columns, rows = shape
    reference = np.linspace(-1024, 3071, columns)[:, None].round() + 7 * np.arange(rows)[None, :] - 100 * number
    noise = rng.normal(0, 40, shape).round()
    images = {
        "reference": reference,
        "input": reference + noise,
        "candidate1": reference + (noise / 4).round(),
        "candidate2": reference + 10,
    }
    maps = {"candidate1": {"noise": (0.8 * noise).round(), "disagreement": np.abs(noise) / 8}}
    return SliceView(
        slice_name(number),
        f"patient {number + 1}",
        (0.7, 0.7),
        {key: hu.astype(np.float32) for key, hu in images.items()},
        maps,
        sides=("R", "A", "L", "P"),
        position=f"S {3 * number:g} mm",
        marks=[Mark(f"{HOSTILE} 14 HU", 30, 20, 4.0), Mark("5 HU", 10, 12, 6.0)] if number == 1 else [],
    )


def slice_name(number: int) -> str:
    """The label of a slice, with a hostile file name."""
    return f"{HOSTILE}.nii.gz, slice {number}"


def tiny_evaluation(slices: Sequence[SliceView] | None = None, methods: Sequence[Method] = METHODS) -> Evaluation:
    """Everything that a page can show, with invented figures."""
    slices = [tiny_slice(0), tiny_slice(1)] if slices is None else slices
    judged = [method for method in methods if method.role != "reference"]
    figures = {
        (one.key, measure.key): 30.0 + 3 * place + number
        for place, one in enumerate(judged)
        for number, measure in enumerate(MEASURES)
    }
    rows = []
    for view in slices:
        scan, _, number = view.label.rpartition(", slice ")
        for one in judged:
            values = {measure.key: figures[one.key, measure.key] + len(rows) / 100 for measure in MEASURES[:2]}
            rows.append(
                SliceRow(one.key, scan, int(number), view.patient, values, {"bias_lung": f"no lung in {HOSTILE}"})
            )
    patients = [
        PatientRow(one.key, view.patient, 1, {"psnr_full": 33.0}, {"psnr_full": 1}, {"psnr_abdomen": "constant image"})
        for view in slices[:3]
        for one in judged
    ]
    summaries = [
        SummaryRow(one.key, measure.key, value, value - 1, value + 1, len(slices), "slices")
        for one in judged
        for measure in MEASURES
        if (value := figures[one.key, measure.key])
    ]
    comparisons = [
        ComparisonRow("candidate1", "input", measure.key, 3.0, 1.0, 5.0, len(slices), "slices", 0.75)
        for measure in MEASURES
    ]
    return Evaluation(
        title="Tiny evaluation",
        kind="evaluation",
        summary=["cncl is nearest to the reference.", f"Made by {HOSTILE}."],
        methods=methods,
        measures=MEASURES,
        slices=slices,
        slice_rows=rows,
        patient_rows=patients,
        summaries=summaries,
        comparisons=comparisons,
        charts=tiny_charts(judged),
        tables=[Table("extra", "Extra", ["dose fraction", "d'"], [[0.25, 1.234], ["full", None]], [2, 2], "By hand.")],
        provenance=Provenance(
            command=f"ct-cncl evaluate reference '{HOSTILE}'",
            created="2026-11-23T16:00:00+00:00",
            versions={"ct-cncl": "0.0 (abc)", "python": "3.11"},
            data_range="full 4096 HU; window abdomen 50/400 HU",
            seeds={"bootstrap": 0},
            constants={"SSIM": "K1 0.01"},
            files={"cncl": "folder, sha256 0123"},
        ),
        warnings=["Few patients."],
        windows={"full": (1024.0, 4096.0), "abdomen": (50.0, 400.0)},
        verdict=Verdict(
            "cncl and the input against the reference: 2 slices, 1 scan, 1 patient",
            "cncl gains 3.00 dB PSNR on the input, leaves 25 % of its noise (10.0 of 40.0 HU) and has a structure leakage of 0.012 (0 is best).",
            [
                KeyFigure(
                    "Gain in PSNR full",
                    3.0,
                    "dB",
                    2,
                    1.0,
                    5.0,
                    "95 % interval over 7 slices",
                    "range 4096 HU",
                    signed=True,
                ),
                KeyFigure(
                    "Noise left", 10.0, "HU", 1, 9.5, 10.5, "smallest and largest of 2 slices", "in calm soft tissue"
                ),
                KeyFigure("Structure leakage", 0.012, "", 3, None, None, "1 slice, no range", "0 is best"),
            ],
        ),
    )


def tiny_charts(judged: Sequence[Method]) -> list[Chart]:
    """Lines with an interval, and bars with a gap."""
    x = np.linspace(0.05, 0.7, 30)
    lines = [
        Curve(one.key, one.name, x, np.exp(-place * x) * 100, np.exp(-place * x) * 90, np.exp(-place * x) * 110)
        for place, one in enumerate(judged)
    ]
    bars = [
        Curve(one.key, one.name, np.arange(3.0), np.array([1.0 + place, -2.0, np.nan]))
        for place, one in enumerate(judged)
    ]
    return [
        Chart("nps", "Noise power spectrum", "spatial frequency, cycles/mm", "NPS, HU^2 mm^2", lines, note="Radial."),
        Chart("tissue_bias", "Bias by tissue", "", "bias, HU", bars, categories=("air", "lung", "fat")),
    ]
