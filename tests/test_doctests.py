"""Every example in a docstring runs."""

import doctest
import importlib
from pathlib import Path

import pytest
from tiny_runs import ROOT


def modules():
    for folder in ("transforms", "pipeline"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if ">>>" in path.read_text(encoding="utf-8"):
                yield ".".join(["ct_cncl", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


@pytest.mark.parametrize("name", modules())
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_module_list_is_not_empty():
    assert "ct_cncl.transforms.common.hu" in list(modules())
    assert Path(ROOT / "transforms").is_dir()
