"""Stages: each from the best weights of the one before, one command, resumed wherever it was."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY, assignments

from ct_cncl.pipeline.common.errors import CheckpointError, ConfigError
from ct_cncl.pipeline.training import staged
from ct_cncl.pipeline.training.run import train_bundle
from ct_cncl.pipeline.training.staged import parse_stage, resume_stages, stages_hint, train_run, train_stages
from ct_cncl.transforms.common.errors import OutputError

STAGES = ["pixel_only max_epochs=1", "gan_hinge+d_every_10 learning_rate=1e-5"]
COMMON = assignments(TINY | {"max_epochs": 2})


def weights(folder, name="last.pt"):
    return torch.load(folder / name, weights_only=True)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def finished(tiny_dataset, tmp_path_factory):
    """Both stages, and the two folders."""
    out = tmp_path_factory.mktemp("stages") / "run"
    folders = train_stages(STAGES, out=out, data=tiny_dataset, assignments=COMMON)
    return out, folders


def test_stages_have_runs_of_their_own(finished):
    _, folders = finished
    assert [folder.name for folder in folders] == ["1_pixel_only", "2_gan_hinge+d_every_10"]
    configs = [json.loads((folder / "config.json").read_text()) for folder in folders]
    assert [config["max_epochs"] for config in configs] == [1, 2]
    assert [config["learning_rate"] for config in configs] == [2e-4, 1e-5]
    assert configs[0]["discriminator"] is None
    assert configs[1]["discriminator"]["channels"] == 4  # asked for in all stages; the first has none
    assert configs[1]["start_from"] == str((folders[0] / "best.pt").absolute())
    assert "HingeLoss" in configs[1]["adversarial"]["loss"]["_target_"]


def test_the_second_stage_starts_from_the_best_weights_of_the_first(finished, tiny_dataset, tmp_path):
    """With a learning rate that no weight can see it ends with them."""
    _, folders = finished
    overrides = [*COMMON, "learning_rate=1e-30", "max_epochs=1", f"start_from={folders[0] / 'best.pt'}"]
    train_bundle(out=tmp_path / "run", data=tiny_dataset, assignments=overrides)
    assert same(weights(tmp_path / "run")["network_def"], weights(folders[0], "best.pt")["network_def"])
    assert not same(weights(folders[1])["network_def"], weights(folders[0], "best.pt")["network_def"])


def test_a_resume_is_bit_identical_wherever_it_was(finished, tiny_dataset, tmp_path, monkeypatch):
    """Stopped between the stages, then within the second one."""
    reference = weights(finished[1][1])
    out = tmp_path / "again"
    ran = []

    def once(**options):
        if len(ran) == 1:
            raise KeyboardInterrupt
        ran.append(options["out"])
        return train_bundle(**options)

    monkeypatch.setattr(staged, "train_bundle", once)
    with pytest.raises(KeyboardInterrupt):
        train_run(out=out, stages=STAGES, data=tiny_dataset, assignments=COMMON)
    assert stages_hint(out) == f"Stopped in 1_pixel_only after epoch 1; resume with: ct-cncl train --resume --out {out}"
    monkeypatch.setattr(staged, "train_bundle", train_bundle)

    from ct_cncl.pipeline.engines import CNCLTrainer

    original = CNCLTrainer.run

    def killed_after_an_epoch(self):
        from ignite.engine import Events

        if self.state.max_epochs == 2:

            @self.on(Events.EPOCH_STARTED(once=2))
            def stop(_engine):
                raise KeyboardInterrupt

        original(self)

    monkeypatch.setattr(CNCLTrainer, "run", killed_after_an_epoch)
    with pytest.raises(KeyboardInterrupt):
        train_run(out=out, resume=True)
    monkeypatch.setattr(CNCLTrainer, "run", original)
    assert "2_gan_hinge+d_every_10 after epoch 1" in stages_hint(out)

    monkeypatch.chdir(tmp_path)
    train_run(out=Path(os.path.relpath(out, tmp_path)), resume=True)
    got = weights(out / "2_gan_hinge+d_every_10")
    for part in ("network_def", "discriminator"):
        assert same(got[part], reference[part])


def test_complete_stages_are_left_as_they_are(finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    resume_stages(out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_stage_that_was_stopped_is_the_last(tiny_dataset, tmp_path, monkeypatch):
    """By stop_on_collapse: what comes after it would start from a broken network."""

    def collapse(psnr, **_):
        return ["C(y) collapsed"]

    monkeypatch.setattr("ct_cncl.pipeline.handlers.branch_health.branch_warnings", collapse)
    said = []
    monkeypatch.setattr(staged.logger, "error", lambda text, *values: said.append(text % values))
    train_stages(
        ["pixel_only", "gan_lsgan"],
        out=tmp_path / "run",
        data=tiny_dataset,
        assignments=[*COMMON, "train.stop_on_collapse=true"],
    )
    assert said == ["Stage 1_pixel_only stopped early, so no further stage is started."]
    assert not (tmp_path / "run" / "2_gan_lsgan").exists()


def test_a_folder_with_a_run_is_refused(tiny_run, finished):
    for folder in (tiny_run, finished[0]):
        with pytest.raises(OutputError, match="--resume"):
            train_run(out=folder, stages=["pixel_only"])


def test_stages_cannot_change_while_they_go_on(finished):
    for extra in ({"stages": ["ema"]}, {"overlays": ["ema"]}, {"assignments": ["max_epochs=9"]}):
        with pytest.raises(ConfigError, match="Only --out can be combined with --resume"):
            train_run(out=finished[0], resume=True, **extra)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(ConfigError, match="Start them with --stage"):
        resume_stages(tmp_path)
    with pytest.raises(CheckpointError, match="run to resume"):
        train_run(out=tmp_path, resume=True)


def test_an_unknown_overlay_or_key_ends_it_before_anything_is_trained(tiny_dataset, tmp_path):
    with pytest.raises(ConfigError, match="'gan_lsgann'"):
        train_stages(["pixel_only", "gan_lsgann"], out=tmp_path / "run", data=tiny_dataset, assignments=COMMON)
    with pytest.raises(ConfigError, match="'=3'"):
        train_stages(["pixel_only", "ema =3"], out=tmp_path / "run", data=tiny_dataset, assignments=COMMON)
    with pytest.raises(ConfigError, match="texture_weigth"):
        train_stages(
            ["pixel_only", "gan_lsgan texture_weigth=1"], out=tmp_path / "run", data=tiny_dataset, assignments=COMMON
        )
    assert not (tmp_path / "run").exists()


def test_places_in_stages_are_absolute(tiny_dataset, tmp_path, monkeypatch):
    """A stage may begin when the training is resumed, from another directory."""
    monkeypatch.setattr(staged, "resume_stages", lambda out: [out])
    monkeypatch.chdir(tmp_path)
    stages = ["pixel_only start_from=a/best.pt", "distill teacher_checkpoint=b/best.pt seed=3"]
    train_stages(stages, out=tmp_path / "run", data=tiny_dataset, assignments=["seed=1"])
    record = json.loads((tmp_path / "run" / "stages.json").read_text())
    values = [staged.parse_overrides(assignments) for _, assignments in record["stages"]]
    assert values == [
        {"seed": 1, "start_from": str(tmp_path / "a/best.pt")},
        {"seed": 3, "teacher_checkpoint": str(tmp_path / "b/best.pt")},
    ]


def test_own_overlay_files_are_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "own.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    stage = parse_stage("own.json seed=3")
    assert stage.overlays == (str(tmp_path / "own.json"),)
    assert (stage.name, stage.assignments) == ("own", ("seed=3",))


def test_hint_before_the_first_epoch(tmp_path, tiny_run):
    (tmp_path / "stages.json").write_text(json.dumps({"names": ["1_a"]}))
    assert stages_hint(tmp_path).startswith("Stopped before the first epoch had finished; resume with")
    assert "after epoch 2" in stages_hint(tiny_run)


def test_places_in_the_config_are_absolute(finished, tiny_dataset, tmp_path, monkeypatch):
    shutil.copytree(finished[1][0], tmp_path / "first")
    monkeypatch.chdir(tmp_path)
    overrides = [*COMMON, "max_epochs=1", "start_from=first/best.pt"]
    train_bundle(out=Path("run"), data=tiny_dataset, assignments=overrides)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["start_from"] == str(tmp_path / "first" / "best.pt")
