"""What ct-cncl ablate refuses before anything is trained."""

import json
import math
import re

import pytest
from tiny_ablation import ablation

from ct_cncl.pipeline.ablation.run import run_ablation
from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.transforms.common.errors import DataError, OutputError


@pytest.fixture
def refused(tiny_dataset, tmp_path, monkeypatch):
    """Run an ablation that must be refused before anything is trained; returns the message."""
    monkeypatch.setattr("ct_cncl.pipeline.ablation.run.train_bundle", None)

    def refuse(error=ConfigError, out=tmp_path / "out", data=tiny_dataset, **options):
        with pytest.raises(error) as caught:
            run_ablation(ablation(out, data, **options))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refuse


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": None}, "either --minutes or --iterations, but got neither"),
        ({"minutes": 1.0}, "either --minutes or --iterations, but got both"),
        ({"iterations": 0}, "a budget above 0, but got 0"),
        ({"iterations": None, "minutes": -1.0}, "a budget above 0, but got -1.0"),
        ({"iterations": None, "minutes": math.nan}, "a budget above 0, but got nan"),
        ({"variants": ()}, "at least one variant"),
        ({"variants": ("unet_ln_gelu", "unet_ln_gelv")}, "overlay, but got 'unet_ln_gelv'; did you mean unet_ln_gelu"),
        ({"variants": ("dual", "unet_ca", "dual")}, "dual and dual are the same"),
        ({"variants": ("width16+ema", "ema+width16")}, "width16.ema and ema.width16 are the same"),
        (
            {"variants": ("width16+unet_ca",)},
            "unet_ca before width16, whose .*content.width it would replace. Name unet_ca first",
        ),
        ({"variants": ("paper", "paper+learning_rate=2e-4")}, "paper and paper.learning_rate=2e-4 are the same"),
        (
            {"variants": ("paper", "redcnn")},
            "redcnn: Expected a key of the config, but got 'network_def.content.width'",
        ),
        ({"extra": {"batch_sise": 1}}, "did you mean batch_size"),
        ({"extra": {"max_epochs": 7}}, "max_epochs=... cannot be set in an ablation"),
        ({"extra": {"batch_size": 0}}, "batch_size to be a whole number"),
        ({"variants": ("unet_ln_gelu+patches.size=16",)}, "no patches.size=... in unet_ln_gelu.patches.size=16"),
        ({"extra": {"network_def#content#norm": "knee"}}, "unet_ln_gelu: Expected a network that can be built"),
        ({"pictures": 0}, "--pictures of at least 1"),
    ],
)
def test_refuses(refused, options, message, tmp_path):
    assert re.search(message, refused(**options))
    assert not (tmp_path / "out").exists()


def test_refuses_missing_data_and_splits(refused, tmp_path):
    assert "no datalist.json" in refused(DataError, data=tmp_path / "nowhere")
    assert "Expected one of the splits" in refused(DataError, split="tst")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 8}, "iterations was 4 and is 8"),
        ({"iterations": None, "minutes": 1.0}, "minutes was None and is 1.0"),
        ({"split": "test"}, "split was validation and is test"),
        ({"extra": {"seed": 1}}, "seed was 0 and is 1"),
        ({"extra": {"learning_rate": 0.1}}, "learning_rate was None and is 0.1"),
    ],
)
def test_refuses_the_folder_of_another_ablation(refused, finished_ablation, options, message):
    before = (finished_ablation / "ablation.json").read_bytes()
    assert message in refused(OutputError, out=finished_ablation, **options)
    assert (finished_ablation / "ablation.json").read_bytes() == before


def test_refuses_other_data_in_the_same_folder(refused, finished_ablation, tiny_dataset, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_dataset.rglob("*"):
        target = other / path.relative_to(tiny_dataset)
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    text = (other / "datalist.json").read_text()
    run_ablation_with = {"out": finished_ablation, "data": other}
    (other / "datalist.json").write_text(text + "\n")
    assert "data_sha256 was" in refused(OutputError, **run_ablation_with)


def test_overlays_may_move_but_not_become_others(refused, finished_ablation, tiny_dataset, tmp_path, monkeypatch):
    record = json.loads((finished_ablation / "ablation.json").read_text())
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.json").write_text(json.dumps({"learning_rate": 0.01 if folder == "c" else 0.1}))
    out = tmp_path / "out"
    out.mkdir()
    (out / "ablation.json").write_text(
        json.dumps(record | {"variants": [["mine", [str(tmp_path / "a" / "mine.json")], []]]})
    )
    assert "overlays of mine in" in refused(OutputError, out=out, variants=(str(tmp_path / "c" / "mine.json"),))
    started = []
    monkeypatch.setattr("ct_cncl.pipeline.ablation.run._train", lambda _ablation, one, *_: started.append(one) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_ablation(ablation(out, tiny_dataset, variants=(str(tmp_path / "b" / "mine.json"),)))
    assert [one.name for one in started] == ["mine"]


def test_refuses_a_folder_with_other_files(refused, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    assert "it holds other files" in refused(OutputError)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
