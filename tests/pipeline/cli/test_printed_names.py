"""Names that users and strangers give are printed so that a terminal shows them and does nothing."""

import pytest

from ct_cncl.pipeline.ablation import model_table, run
from ct_cncl.pipeline.sharing import card, pack, publish
from ct_cncl.pipeline.training import staged

BAD = "x\x1b]0;owned\x07\nerror: forged\u202e"
SHOWN = "x\\x1b]0;owned\\x07\\nerror: forged\\u202e"


def stops(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["ablate", "train"])
def test_stopped(monkeypatch, command, tmp_path, name):
    monkeypatch.setattr(run, "run_ablation", stops)
    monkeypatch.setattr(staged, "train_run", stops)
    code, out, err = command(name, "--out", tmp_path / BAD)
    assert (code, out) == (130, "")
    assert SHOWN in err
    assert not {"\x1b", "\x07", "\u202e"} & set(err)
    assert not [line for line in err.splitlines() if line.startswith("error")]


def written(monkeypatch, folder):
    """Each command that prints a name, all work taken out."""
    path = folder / f"{BAD}.zip"
    path.touch()
    pack.checksum_file(path).write_text("0123  x")
    monkeypatch.setattr(pack, "pack", lambda *_, **__: path)
    monkeypatch.setattr(card, "places_in_archive", lambda _: 0)
    monkeypatch.setattr(publish, "publish", lambda *_, **__: [f"copy {path}"])
    monkeypatch.setattr(model_table, "model_table", lambda *_, **__: [])
    monkeypatch.setattr(model_table, "format_models", lambda *_, **__: "a table\nof two lines")
    monkeypatch.setattr(model_table, "write_models", lambda path, *_, **__: path)
    return {
        "pack": ["--out", folder],
        "publish": [path, "--to", "folder", "--target", folder],
        "models": ["--csv", path],
    }


@pytest.mark.parametrize("name", ["pack", "publish", "models"])
def test_done(monkeypatch, command, tmp_path, name):
    code, out, err = command(name, *written(monkeypatch, tmp_path)[name])
    assert (code, err) == (0, "")
    assert SHOWN in out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    assert not [line for line in out.splitlines() if line.startswith("error")]
