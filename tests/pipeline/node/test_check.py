"""``ct-cncl node --check``: what would happen to a file, and why, and the command without its packages."""

import json

import pydicom
import pytest
from dicom_archive import write_series
from tiny_weights import tiny_cncl

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

CONFIG = """\
node: {aet: NODE, port: 11112, spool: spool}
senders:
  - aet: CT1
destinations:
  pacs: {aet: PACS, host: 127.0.0.1, port: 104}
rules:
  - name: soft
    match: {kernel: "B3*"}
    strength: 0.7
    send: pacs
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "node.yaml").write_text(CONFIG)
    return tmp_path / "node.yaml"


def test_good_and_tried(tmp_path, config, command):
    write_series(tmp_path / "soft", 1, slices=1, ConvolutionKernel="B30f")
    write_series(tmp_path / "sharp", 2, slices=1, ConvolutionKernel="B70f")
    write_series(
        tmp_path / "scout", 3, slices=1, ConvolutionKernel="B30f", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    files = [tmp_path / name / "000.dcm" for name in ("soft", "sharp", "scout")]
    code, out, err = command("node", "--check", config, *[word for file in files for word in ("--try", file)])
    assert (code, err) == (0, "")
    assert "good. NODE on 127.0.0.1 port 11112, senders: 1, destinations: 1, rules: 1" in out
    soft, sharp, scout = (out.split(str(file))[1] for file in files)
    assert "soft: yes, kernel is B30f, wanted B3*" in soft
    assert "denoised (strength 0.7; fp32; weights of the bundle) and sent to pacs" in soft.split(str(files[1]))[0]
    assert "soft: no, kernel is B70f, wanted B3*" in sharp
    assert "stored and ignored" in sharp
    assert "it is for original, and this is localizer (Image Type LOCALIZER)" in scout
    assert not (tmp_path / "spool").exists()
    assert "Zaphod" not in out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("target_dose: 2", "denoised (target dose 2.0; fp32"),
        ("target_dose: clean", "denoised (target dose clean; fp32"),
        ("strength: low", "denoised (strength low; fp32"),
    ],
)
def test_target_doses_and_names(tmp_path, config, command, line, said):
    config.write_text(CONFIG.replace("strength: 0.7", line))
    write_series(tmp_path / "soft", 1, slices=1, ConvolutionKernel="B30f")
    code, out, _ = command("node", "--check", config, "--try", tmp_path / "soft/000.dcm")
    assert code == 0
    assert said in out


def test_from_another_sender(tmp_path, config, command):
    write_series(tmp_path / "in", 1, slices=1)
    code, out, _ = command("node", "--check", config, "--try", tmp_path / "in/000.dcm", "--from", "OTHER")
    assert code == 0
    assert "refused: OTHER is not among the senders" in out


def test_what_is_no_dicom(tmp_path, config, command):
    (tmp_path / "text.dcm").write_text("no")
    code, _, err = command("node", "--check", config, "--try", tmp_path / "text.dcm")
    assert code == 1
    assert "expected a complete DICOM object" in err
    assert err.count("\n") == 1


def test_what_is_no_ct(tmp_path, config, command):
    write_series(tmp_path / "in", 1, slices=1)
    dataset = pydicom.dcmread(tmp_path / "in/000.dcm")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    dataset.save_as(tmp_path / "mr.dcm")
    code, out, _ = command("node", "--check", config, "--try", tmp_path / "mr.dcm")
    assert code == 0
    assert "refused: not a CT image (others: refuse)" in out


def test_without_the_extra_one_sentence_names_it(config, command, monkeypatch):
    monkeypatch.setattr(
        "ct_cncl.pipeline.common.extras.find_spec", lambda name: None if name == "pynetdicom" else object()
    )
    code, _, err = command("node", "--check", config)
    assert code == 1
    assert "pip install 'ct-cncl[node]'" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("how", ["--check", "--config"])
def test_a_spool_that_cannot_be_written_to(tmp_path, config, command, how):
    (tmp_path / "file").write_text("")
    config.write_text(CONFIG.replace("spool: spool", "spool: file/spool"))
    code, _, err = command("node", how, config)
    assert code == 1
    expected = f"Expected a writable spool in {tmp_path / 'file/spool'}, but {tmp_path / 'file'} is not a folder."
    assert err == f"error: {expected} Choose another node.spool.\n"


def test_no_queue_yet(config, command):
    code, _, err = command("node", "queue", "--config", config)
    assert code == 1
    assert "Start the node first" in err


def test_names_and_tags_of_strangers_are_shown_not_obeyed(tmp_path, config, command):
    write_series(
        tmp_path / "x\nerror: no\x1b[2J",
        1,
        slices=1,
        ConvolutionKernel="B3\u202e0f\x9b31m",
        SpecificCharacterSet="ISO_IR 192",
    )
    code, out, err = command("node", "--check", config, "--try", tmp_path / "x\nerror: no\x1b[2J" / "000.dcm")
    assert code == 0, err
    assert "x\\nerror: no\\x1b[2J" in out
    assert not {"\x1b", "\x9b", "\u202e"} & set(out)
    assert not [line for line in out.splitlines() if line.startswith("error")]


def _trained(folder, **stated):
    """Tiny weights that state how they were trained."""
    weights, _ = tiny_cncl(folder)
    (folder / "trained_on.json").write_text(json.dumps(stated))
    return weights


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("weights: WEIGHTS\n    target_dose: 2", None),
        ("weights: WEIGHTS\n    target_dose: 1000", "rule soft: Expected a target dose that these weights can reach"),
        ("weights: OTHER\n    target_dose: 2", "rule soft: Expected weights that state the dose they were trained for"),
        ("weights: OTHER\n    strength: 0.7\n    precision: bf16", None),
        ("weights: OTHER\n    save: [noise]", None),
        ("weights: DAMAGED", "rule soft: Expected"),
    ],
)
def test_what_no_job_could_follow_is_said_before_one_comes(tmp_path, config, command, lines, expected):
    places = {
        "WEIGHTS": _trained(tmp_path / "known", input_dose=[0.6, 0.6]),
        "OTHER": tiny_cncl(tmp_path / "other")[0],
        "DAMAGED": tmp_path / "damaged.pt",
    }
    places["DAMAGED"].write_bytes(b"no weights")
    for name, path in places.items():
        lines = lines.replace(name, str(path))
    config.write_text(CONFIG.replace("strength: 0.7", lines))
    code, out, err = command("node", "--check", config)
    if expected is None:
        assert (code, err) == (0, "")
        return
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert f"{config}, line 7: {expected}" in err


def test_a_device_that_is_not_there(config, command):
    config.write_text(CONFIG.replace("spool: spool", "spool: spool, device: 'cuda:7'"))
    code, out, err = command("node", "--check", config)
    assert (code, out) == (1, "")
    assert f"{config}, line 7: rule soft: " in err
    assert "cuda:7" in err
    assert len(err.splitlines()) == 1
