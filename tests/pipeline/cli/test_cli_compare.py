"""The commands that compare variants: what they say, what they print, one line on bad input."""

import re

import pytest


@pytest.mark.parametrize("name", ["ablate", "models"])
def test_help_has_an_example(command, name):
    code, text, _ = command(name, "--help")
    assert code == 0
    assert f"ct-cncl {name} --" in re.sub(r"\s+", " ", text)


def test_models_prints_the_table_and_writes_it(command, tmp_path):
    code, text, errors = command(
        "models", "--no-timing", "--with", "unet_ln_gelu+width16", "--size", "64", "--csv", tmp_path / "models.csv"
    )
    assert (code, errors) == (0, "")
    lines = text.splitlines()
    assert lines[0] == "| variant | parameters | GMAC (64 x 64) |"
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| paper", "| unet_ln_gelu+width16"]
    assert lines[4] == f"written to {tmp_path / 'models.csv'}"
    assert (tmp_path / "models.csv").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "--with", "nothing"], "error: Expected the name or path of an overlay, but got 'nothing'"),
        (["models", "--size", "3"], "error: Expected a size of at least 16"),
        (
            ["models", "--repeats", "0"],
            "error: Expected a size of at least 16, and repeats and threads of at least 1, but got 512, 0",
        ),
        (["ablate", "--with", "dual"], "error: Expected a budget, either --minutes or --iterations, but got neither."),
        (["ablate", "--with", "dual", "--minutes", "0"], "error: Expected a budget above 0, but got 0.0."),
        (["ablate", "--minutes", "1"], "error: Expected at least one variant"),
        (
            ["ablate", "--with", "dual", "--minutes", "1", "--data", "nowhere"],
            "error: Expected a prepared data set in ",
        ),
    ],
)
def test_bad_input_is_one_line(command, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = command(*arguments)
    assert code == 1
    assert errors.startswith(message)
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())
