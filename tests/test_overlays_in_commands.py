"""Every overlay that README or docs name works by that name in all four commands that take overlays."""

import re

import pytest
from pages import PAGES
from tiny_runs import TINY, assignments

from ct_cncl.pipeline.ablation.model_table import model_table
from ct_cncl.pipeline.ablation.plan import Ablation, checked_plan
from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.sharing import pack
from ct_cncl.pipeline.training import run
from ct_cncl.pipeline.workflow.locations import installed_bundle
from ct_cncl.pipeline.workflow.overlays import variant
from ct_cncl.pipeline.workflow.run import config_file, merged_config, overlay_files

WORDS = r"[\w./+=\[\],-]+"
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def named():
    """Overlays by name: after --with, in stages, and wherever a word in code type is one."""
    said = [*re.findall(rf"--with '?({WORDS})", TEXT), *re.findall(rf"--stage '?({WORDS})", TEXT)]
    words = {part for text in said for part in text.split("+")} | set(re.findall(r"`(\w[\w.]*)`", TEXT))
    return sorted(words & set(overlay_files()))


NAMES = named()


def of_train(name, folder, data, monkeypatch):
    """All of ``ct-cncl train`` but the training; a fit for a small machine is no matter of overlays."""
    monkeypatch.setattr(run, "run_workflow", lambda workflow: workflow)
    return run.train_bundle(out=folder / "run", data=data, overlays=[name]).parser.get()


def of_ablate(name, folder, data, _monkeypatch):
    ((one,), _) = checked_plan(Ablation(out=folder / "ablation", variants=(name,), data=data, iterations=1))
    return one.config()


def of_models(name, _folder, _data, _monkeypatch):
    if (
        name != "paper" and variant(name).config() == variant("paper").config()
    ):  # the notes' name for what the paper has
        with pytest.raises(ConfigError, match=f"paper and {name} are the same. Omit one."):
            model_table([name], size=64, timing=False)
        return
    rows = model_table([name], size=64, timing=False)
    assert [row.variant for row in rows] == list(dict.fromkeys(["paper", name]))
    assert rows[-1].parameters > 0


def of_pack(name, _folder, _data, _monkeypatch):
    return pack._training(installed_bundle(), [name])


COMMANDS = {"train": of_train, "ablate": of_ablate, "models": of_models, "pack": of_pack}


def test_many_are_named_and_all_recipes():
    assert len(NAMES) > 40
    assert {"paper", "fast", "quarter_dose", "fine_tune", "demo", "cncl_fast"} <= set(NAMES)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_named_overlay_works(name, command, tmp_path, tiny_dataset, monkeypatch):
    found = COMMANDS[command](name, tmp_path, tiny_dataset, monkeypatch)
    wanted = merged_config([config_file("train.json"), overlay_files()[name]])
    for key in () if found is None else ("network_def", "texture", "adversarial", "discriminator", "optimizer"):
        assert found[key] == wanted[key], key


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_is_nearly_one_is_refused_alike(command, tmp_path, tiny_dataset, monkeypatch):
    with pytest.raises(ValueError, match=r"name or path of an overlay, but got 'narow'; did you mean narrow"):
        COMMANDS[command]("narow", tmp_path, tiny_dataset, monkeypatch)


def test_a_run_takes_what_the_overlay_says(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "run_workflow", lambda workflow: workflow)
    workflow = run.train_bundle(
        out=tmp_path / "run", data=tiny_dataset, overlays=["gan_hinge"], assignments=assignments(TINY)
    )
    assert workflow.parser.get("adversarial#loss") == variant("gan_hinge").config()["adversarial"]["loss"]
