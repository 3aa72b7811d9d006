"""The card of own weights: facts from the run, marked places, and never the shipped weights' story under another name."""

import csv
import json
import shutil
import zipfile

import pytest
from tiny_weights import tiny_cncl

from ct_cncl.pipeline.sharing.card import CARD, LICENCE_OF_DATA, TO_WRITE, Texts, is_card_of, same_tensors
from ct_cncl.pipeline.sharing.pack import PackError, pack
from ct_cncl.pipeline.sharing.seal import seal
from ct_cncl.pipeline.sharing.verify import FAILED, OK, SKIPPED, review_source
from ct_cncl.pipeline.sharing.zoo_rules import broken_rules
from ct_cncl.pipeline.workflow.locations import installed_bundle
from ct_cncl.transforms.common.errors import DataError, OutputError


@pytest.fixture(scope="module")
def stub(tiny_run, tmp_path_factory):
    """A packed run without own texts, unpacked."""
    folder = tmp_path_factory.mktemp("stub")
    with zipfile.ZipFile(pack(folder, weights=tiny_run / "best.pt")) as archive:
        archive.extractall(folder)
    return folder / "ct_cncl"


def states(source):
    return {check.name: check.state for check in review_source(source).checks}


def test_a_stub_says_what_the_run_knows_and_nothing_of_the_shipped_weights(stub, tiny_run):
    text = (stub / CARD).read_text()
    with (tiny_run / "metrics.csv").open() as stream:
        best = max(csv.DictReader(stream), key=lambda row: float(row["psnr"]))
    assert f"PSNR {best['psnr']} (input {best['psnr_input']})" in text
    assert "- max_epochs: 2" in text
    assert "- training: " in text
    assert "patients" in text
    metadata = json.loads((stub / "configs" / "metadata.json").read_text())
    shipped = json.loads((installed_bundle() / "configs" / "metadata.json").read_text())
    for key in ("authors", "copyright", "data_source"):
        assert metadata[key].startswith(TO_WRITE)
        assert shipped[key] not in json.dumps(metadata)
    assert (stub / LICENCE_OF_DATA).read_text().startswith(TO_WRITE)
    assert sorted(path.name for path in (stub / "docs").iterdir()) == ["README.md", "data_license.txt"]
    assert not is_card_of(stub / CARD, installed_bundle() / CARD)
    assert broken_rules(stub) == []
    assert states(stub)["model card"] == SKIPPED


def test_own_texts_go_in(tiny_run, tmp_path):
    card = tmp_path / "card.md"
    shutil.copyfile(installed_bundle() / CARD, card)
    card.write_text(
        "".join(line for line in card.read_text().splitlines(keepends=True) if len(line) < 60 or line[0] == "#")
    )
    texts = Texts(card, "Jane Doe", "Forty scans of our scanner", "CC BY 4.0, with the patients' consent")
    path = pack(tmp_path / "dist", weights=tiny_run / "best.pt", texts=texts)
    with zipfile.ZipFile(path) as archive:
        metadata = json.loads(archive.read("ct_cncl/configs/metadata.json"))
        assert archive.read(f"ct_cncl/{CARD}") == card.read_bytes()
        assert archive.read(f"ct_cncl/{LICENCE_OF_DATA}").decode() == "CC BY 4.0, with the patients' consent\n"
    assert metadata["authors"] == "Jane Doe"
    assert metadata["copyright"] == "Copyright (c) Jane Doe"
    assert metadata["data_source"] == "Forty scans of our scanner"
    assert states(path)["model card"] == OK


def test_the_shipped_card_beside_other_weights_fails(stub, tmp_path):
    bundle = tmp_path / "ct_cncl"
    shutil.copytree(stub, bundle)
    text = (installed_bundle() / CARD).read_text()
    (bundle / CARD).write_text(text.replace("# Model Overview", "# Model Overview\n\nOurs.", 1))
    found = {check.name: check for check in review_source(bundle).checks}["model card"]
    assert found.state == FAILED
    assert "describes the weights that ct-cncl ships, but the bundle holds others" in found.said
    if (installed_bundle() / "models" / "model.pt").is_file():
        shutil.copyfile(installed_bundle() / "models" / "model.pt", bundle / "models" / "model.pt")
        assert states(bundle)["model card"] != FAILED


def test_an_edited_bundle_is_sealed_again(stub, tmp_path):
    bundle = tmp_path / "ct_cncl"
    shutil.copytree(stub, bundle)
    with (bundle / CARD).open("a") as stream:
        stream.write("\nOne more line.\n")
    assert states(bundle)["checksums"] == FAILED
    path = seal(bundle, tmp_path / "sealed")
    assert states(path)["checksums"] == OK
    assert states(path)["archive"] == OK
    with zipfile.ZipFile(path) as archive:
        assert archive.read(f"ct_cncl/{CARD}").endswith(b"One more line.\n")
    with pytest.raises(OutputError, match="choose another --out"):
        seal(path, tmp_path / "sealed")
    (bundle / "LICENSE").unlink()
    with pytest.raises(PackError, match="LICENSE is missing"):
        seal(bundle, tmp_path / "other")


def test_what_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(DataError, match="model card in .*nothing.md"):
        pack(tmp_path, weights=tiny_cncl(tmp_path / "run")[0], texts=Texts(tmp_path / "nothing.md"))
    if (installed_bundle() / "models" / "model.pt").is_file():
        with pytest.raises(PackError, match="Pass --weights"):
            pack(tmp_path, texts=Texts(authors="Jane Doe"))


def test_tensors_are_compared_without_unpickling(tmp_path):
    one, other, again = (tiny_cncl(tmp_path / name, seed=seed)[0] for name, seed in (("a", 0), ("b", 1), ("c", 0)))
    assert same_tensors(one, again)
    assert not same_tensors(one, other)
    (tmp_path / "no.pt").write_bytes(b"no zip")
    assert not same_tensors(one, tmp_path / "no.pt")
