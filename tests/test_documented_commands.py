"""Every ct-cncl command line of README, docs and docstrings parses: commands, options, overlays and config keys are there."""

import ast
import os
import re
import shlex
import shutil
import subprocess

import pytest
import typer
from pages import PAGES
from tiny_runs import ROOT

from ct_cncl.pipeline.cli.app import app
from ct_cncl.pipeline.training.staged import parse_stage
from ct_cncl.pipeline.workflow.overlays import variant, with_settings
from ct_cncl.pipeline.workflow.run import config_file, merged_config, overlay_file, parse_overrides
from ct_cncl.transforms.common.checksums import file_checksum

USAGE_ERROR = typer.BadParameter.__base__  # click's, which newer versions of typer carry themselves


def documented(text):
    """The command lines of a page's code blocks, as words after ``ct-cncl``; lines that end with a backslash go on."""
    lines = text.replace("\\\n", " ").splitlines()
    for line in lines:
        if not line.startswith("    "):
            continue
        words = shlex.split(re.sub(r"\s#\s.*", "", line)) if "ct-cncl " in line else []
        wrapped = words[:2] == ["torchrun", "--no-python"] and "ct-cncl" in words
        if words[:1] == ["ct-cncl"] or wrapped:
            yield words[words.index("ct-cncl") + 1 :]


def docstrings():
    """Every docstring of the sources, indented as in a page's code block."""
    for path in sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "transforms").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                lines = (ast.get_docstring(node) or "").splitlines()
                yield "\n".join(
                    f"    {line.strip()}" for line in lines if line.strip().startswith(("ct-cncl ", "torchrun "))
                )


TEXTS = [*(page.read_text(encoding="utf-8") for page in PAGES), *docstrings()]
LINES = sorted({tuple(words) for text in TEXTS for words in documented(text)})


def parsed(words):
    """(command, its parameters) as the command line understands them; nothing is run."""
    command = typer.main.get_command(app).commands[words[0]]
    return words[0], command.make_context(words[0], list(words[1:])).params


def check_training(parameters):
    """Recipes, overlays and keys of a training exist and stand in an order that works."""
    for stage in map(parse_stage, parameters["stages"] or [""]):
        names = [*(parameters["overlays"] or ()), *stage.overlays]
        config = merged_config([config_file("train.json"), *map(overlay_file, names)])
        with_settings(config, parse_overrides([*(parameters["overrides"] or ()), *stage.assignments]))


def check_variants(parameters):
    """Every --with of an ablation or a table of models is a variant, and knows the keys that are set for all."""
    for text in parameters["variants"] or ():
        with_settings(variant(text).config(), parse_overrides(parameters.get("overrides") or ()))


def check_pack(parameters):
    """Overlays of weights exist and stand in an order that works."""
    merged_config([config_file("train.json"), *map(overlay_file, parameters["overlays"] or ())])


def check_nothing(_parameters):
    """The command names no overlay."""


CHECKS = {"train": check_training, "ablate": check_variants, "models": check_variants, "pack": check_pack}


def test_there_are_many():
    assert len(LINES) > 40
    assert {words[0] for words in LINES} >= {
        "prepare",
        "simulate",
        "train",
        "evaluate",
        "denoise",
        "qa",
        "pack",
        "verify",
    }


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_command_line(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("S", "benchmarks/cncl_fast_search")  # as docs/results/networks.md has it
    monkeypatch.setenv("V", "benchmarks/cncl_fast_search/version_0_1.json")
    name, parameters = parsed([os.path.expandvars(word) for word in words if word != "..."])
    CHECKS.get(name, check_nothing)(parameters)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_overlay_that_a_page_names_is_there(page):
    """In prose, too, where no command line is parsed."""
    for text in re.findall(r"--with '?([\w./$=+\[\],-]+)", page.read_text(encoding="utf-8")):
        if text not in {"A", "B", "OVERLAY"}:
            search = str(ROOT / "benchmarks/cncl_fast_search")
            variant(text.replace("$V", f"{search}/version_0_1.json").replace("$S", search).rstrip(".,"))


@pytest.mark.parametrize(
    "line",
    [
        *("denoise scan --strenght 0.5", "evaluate --out report", "train --with narow", "train epochs=3"),
        *("train --with quarter_dose.json", "ablate --with cncl_fast+quarter_dose.json", "models --with narow"),
        *("pack --with quarter_dose.json", "ablate --with width16+nafnet", "ablate --with narrow+texture_weight=1"),
    ],
)
def test_what_is_wrong_is_found(line):
    def check():
        name, parameters = parsed(shlex.split(line))
        CHECKS[name](parameters)

    with pytest.raises((USAGE_ERROR, ValueError)):
        check()


def test_lines_are_found():
    page = "text ct-cncl no --command\n\n    ct-cncl qa --out a   # why\n    ct-cncl pack \\\n      --out 'a b'\n    pip install ct-cncl\n"
    assert list(documented(page)) == [["qa", "--out", "a"], ["pack", "--out", "a b"]]


def weights_recipe(ct):
    """The lines that `make weights` would run for scans under ``ct``."""
    options = ["make", "--no-print-directory", "-n", "--assume-old", ".venv/.installed", "weights", f"CT={ct}"]
    return subprocess.run(options, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_model_cards_recipe_is_what_make_weights_runs():
    """The one command, written out in the card, word by word and in its order."""
    made = [shlex.split(line)[1:] for line in weights_recipe("shared/ct") if line.startswith(".venv/bin/ct-cncl ")]
    card = (ROOT / "bundles/ct_cncl/docs/README.md").read_text(encoding="utf-8")
    assert [list(words) for words in documented(card)][: len(made)] == made
    assert len(made) == 6
    assert "make weights" in card


def test_make_weights_reads_the_scans_of_its_checksums_alone(tmp_path):
    """Scans that came later, beside them or linked by an earlier list, are left out."""
    checksums = "bundles/ct_cncl/docs/data_checksums.txt"
    (tmp_path / checksums).parent.mkdir(parents=True)
    shutil.copy(ROOT / checksums, tmp_path / checksums)
    listed = re.findall("  shared/ct/(.*)", (ROOT / checksums).read_text(encoding="utf-8"))
    for name in [*listed, "train/later.nii.gz", "val/later.nii.gz"]:
        (tmp_path / "ct here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ct here" / name).write_text(name)
    (tmp_path / "data/scans/train").mkdir(parents=True)
    (tmp_path / "data/scans/train/dropped.nii.gz").symlink_to("nowhere")
    recipe = weights_recipe("ct here")
    first = next(number for number, line in enumerate(recipe) if line.startswith(".venv/bin/ct-cncl prepare "))
    linking = "\n".join(line for line in recipe[:first] if "sha256sum" not in line)
    subprocess.run(["sh", "-e", "-c", linking], cwd=tmp_path, check=True)
    scans = tmp_path / "data/scans"
    found = {path.relative_to(scans).as_posix(): path.read_text() for path in scans.glob("*/*")}
    assert found == {name: name for name in listed}
    assert "prepare data/scans/train --validation data/scans/val " in recipe[first]


def test_the_recipes_data_are_named_with_checksums():
    lines = (ROOT / "bundles/ct_cncl/docs/data_checksums.txt").read_text(encoding="utf-8").splitlines()
    files = dict(reversed(line.split("  ")) for line in lines)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in files.values())
    scans = {name for name in files if name.startswith("shared/ct/")}
    assert len(scans) == 94 + 31
    assert set(files) - scans == {"data/weights and data/phantoms"}
    if not (ROOT.parent / "shared" / "ct").is_dir():
        pytest.skip("no real CT beside this checkout (../shared/ct): names alone were looked at")
    assert all(file_checksum(ROOT.parent / name) == files[name] for name in scans)
