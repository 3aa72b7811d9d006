"""The table of an ablation: every figure once in full, once to read."""

import csv
import io

from ct_cncl.pipeline.ablation.table import COLUMNS, as_csv, as_markdown, headers

ROWS = [
    {
        "variant": "a|b", "psnr": 44.123456, "ssim": 0.965432, "rmse": 25.3149, "psnr_input": 39.54321, "ssim_input": 0.913,
        "rmse_input": 43.96, "gain_psnr": 4.580246, "psnr_content": 43.5, "parameters": 2612345, "seconds_a_slice": 0.19123,
        "iterations": 4000, "patches": 32000, "training_seconds": 599.7, "best_epoch": 19,
        "epochs": 20, "note": "",
    },
    {"variant": "wild", "parameters": 7, "iterations": 0, "patches": 0, "note": "training failed"},
]  # fmt: skip


def test_csv_has_all_figures_in_full():
    rows = list(csv.DictReader(io.StringIO(as_csv(ROWS, data_range=4096.0))))
    assert [row["variant"] for row in rows] == ["input", "a|b", "wild"]
    assert float(rows[0]["PSNR dB (range 4096 HU)"]) == 39.54321
    assert float(rows[0]["RMSE HU"]) == 43.96
    for key, header in zip(COLUMNS, headers(4096.0)):
        assert rows[1][header] == str(ROWS[0].get(key, ""))
    assert rows[2]["PSNR dB (range 4096 HU)"] == ""
    assert rows[2]["iterations"] == "0"


def test_markdown_is_for_people():
    lines = as_markdown(ROWS, data_range=2000.0).splitlines()
    assert "PSNR dB (range 2000 HU)" in lines[0]
    assert "C(y) SSIM" not in lines[0]
    assert lines[2].startswith("| input | 39.54 | 0.9130 | 43.96 |  |")
    assert lines[3].startswith(
        "| a\\|b | 44.12 | 0.9654 | 25.31 | +4.58 | 43.50 |  | 2,612,345 | 0.191 | 4,000 | 32,000 | 19 | 20 | 600 |"
    )
    assert lines[4].endswith("| training failed |")
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_no_column_for_notes_without_a_note():
    assert "note" not in as_markdown(ROWS[:1], data_range=4096.0)
    assert "note" in as_csv(ROWS[:1], data_range=4096.0)


def test_empty_columns_of_noise_spectra_say_why():
    """In the CSV, which has them; people are told once, above the table."""
    why = {"nps_distance": None, "nps_reason": "the reference is a phantom without noise"}
    rows = list(csv.DictReader(io.StringIO(as_csv([ROWS[0] | why, ROWS[1] | why], data_range=4096.0))))
    assert [row["NPS distance to the reference"] for row in rows] == ["", "", ""]
    said = "no NPS distance: the reference is a phantom without noise"
    assert [row["note"] for row in rows] == ["", said, f"training failed; {said}"]


def test_a_table_of_failures_alone():
    rows = list(csv.DictReader(io.StringIO(as_csv(ROWS[1:], data_range=4096.0))))
    assert [row["variant"] for row in rows] == ["input", "wild"]


def test_textures_are_shown_where_there_are_any():
    """Phantoms have a reference without noise."""
    textured = [ROWS[0] | {"nps_distance": 0.12345, "nps_distance_input": 3.0, "nps_distance_content": 0.5}]
    lines = [line.replace("a\\|b", "ab") for line in as_markdown(textured, data_range=4096.0).splitlines()]
    column = lines[0].split(" | ").index("NPS distance to the reference")
    assert [line.split(" | ")[column] for line in lines[2:]] == ["3.000", "0.123"]
    assert "C(y) NPS" not in lines[0]
    assert "NPS" not in as_markdown(ROWS, data_range=4096.0)
    (_, row) = csv.DictReader(io.StringIO(as_csv(textured, data_range=4096.0)))
    assert (row["NPS distance to the reference"], row["C(y) NPS distance"]) == ("0.12345", "0.5")
