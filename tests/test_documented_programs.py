"""Every other command line of README, docs and model card: configs, keys, scripts, options and targets are there, from the folder it is for."""

import argparse
import ast
import itertools
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES
from tiny_runs import ROOT

from ct_cncl.pipeline.workflow.overlays import with_settings
from ct_cncl.pipeline.workflow.run import merged_config, parse_overrides

BUNDLE = ROOT / "bundles/ct_cncl"
BUNDLE_PAGES = {BUNDLE / "docs/README.md", ROOT / "docs/how-to/sharing.md"}
"""Their commands are for the bundle's folder, and say so; all others are for the repository's."""


def lines(page):
    """The lines of a page's code blocks as words; a backslash at the end joins lines, a comment ends one."""
    for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line.startswith("    ") and re.search(r"(^|\s)(python3?|torchrun|make)\s", line):
            try:
                yield shlex.split(re.sub(r"\s#\s.*", "", line))
            except ValueError:  # prose with an apostrophe
                continue


def found(wanted):
    """(page, words) of the lines that hold a word, once each."""
    each = {(page, tuple(words)) for page in PAGES for words in lines(page) if wanted in words}
    return sorted(each, key=str)


MONAI = found("monai.bundle")
SCRIPTS = sorted(
    {
        (tuple(shlex.split(text)))
        for page in PAGES
        for text in re.findall(r"(benchmarks/\w+\.py[^`\n|#)]*)", page.read_text(encoding="utf-8"))
        if "'" not in text and "," not in text
    }
)


def test_there_are_many():
    assert len(MONAI) > 10
    assert len(SCRIPTS) > 15


@pytest.mark.parametrize(("page", "words"), MONAI, ids=lambda value: getattr(value, "stem", None) or " ".join(value))
def test_monai_command(page, words, monkeypatch):
    monkeypatch.chdir(BUNDLE if page in BUNDLE_PAGES else ROOT)
    rest = list(words[words.index("monai.bundle") + 1 :])
    assert rest[0] in {"run", "download", "ckpt_export"}
    if "..." in rest or rest[0] == "download":
        return
    options = dict(itertools.pairwise(rest))
    given = options["--config_file"]
    configs = ast.literal_eval(given) if given.startswith("[") else [given]
    config = merged_config([Path(each) for each in configs])
    if rest[0] == "run":
        given = [
            f"{name.removeprefix('--')}={options[name]}"
            for name in rest
            if name.startswith("--") and name != "--config_file"
        ]
        keys = parse_overrides(given)
        with_settings(config, keys)
        assert rest[1].startswith("--") or rest[1] in config
    else:
        assert rest[1] in config
        assert (BUNDLE / options["--ckpt_file"]).is_file()
        assert (BUNDLE / options["--meta_file"]).is_file()


class ParsedError(Exception):
    """A script's options were understood; nothing is run."""


@pytest.mark.parametrize("words", SCRIPTS, ids=" ".join)
def test_script(words, monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def stop(self, *arguments, **options):
        parse(self, *arguments, **options)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [str(ROOT / words[0]), *words[1:]])
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    text = (ROOT / words[0]).read_text(encoding="utf-8")
    if len(words) == 1 or "argparse" not in text:
        ast.parse(text)
        return
    with pytest.raises(ParsedError):
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")


def test_make_targets():
    named = {name for page in PAGES for name in re.findall(r"`?\bmake ([a-z]+)`", page.read_text(encoding="utf-8"))}
    assert {"demo", "test", "docs", "bench", "weights"} <= named
    for name in named:
        subprocess.run(
            ["make", "-n", "--assume-old", ".venv/.installed", name], cwd=ROOT, check=True, capture_output=True
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_files_that_a_page_names_are_there(page):
    """Sources, tests and configs in backticks, from the repository's root, or from the bundle's folder on pages about it."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|pipeline|transforms|benchmarks|bundles|docs)/[\w./-]+\.\w+)", text)
    places = [ROOT, BUNDLE] if page in BUNDLE_PAGES else [ROOT]
    assert [name for name in named if not any((place / name).exists() for place in places)] == []
