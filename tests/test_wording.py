"""Wordings that were replaced do not come back, in sources, help, docs or README."""

import re

import pytest
from pages import PAGES
from tiny_runs import ROOT

REPLACED = [
    *("leave as they came in", "each made when its turn comes", "so many of these by the direct route"),
    *("what scanners do to starved channels", "random, and forgotten", "so many slices are in the report"),
    *("what is no HU", "do this process's share", "what is done of an archive", "what hangs on the engines"),
    *("beside --resume but got one", "takes back a part", "anew\\.", "mend it", "whose the files are", "realisation"),
]


def texts():
    sources = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "transforms").rglob("*.py")]
    for path in [*sources, *PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]:
        yield path, " ".join(path.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("wording", REPLACED)
def test_replaced_wording_stays_away(wording):
    pattern = re.compile(wording, re.IGNORECASE)
    assert [str(path.relative_to(ROOT)) for path, text in texts() if pattern.search(text)] == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
