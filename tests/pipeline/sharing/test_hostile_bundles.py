"""Hostile bundles, each with one trick: nothing of it runs, and it is told."""

import hashlib
import io
import os
import pickle
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from hostile_files import write
from torch import nn

from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.sharing.bundle_review import review_bundle
from ct_cncl.pipeline.sharing.config_review import allowed_targets, review_config
from ct_cncl.pipeline.sharing.verify import VerifyError, review_source, verify
from ct_cncl.pipeline.weights.load import open_weights
from ct_cncl.pipeline.workflow.run import config_file

NETWORK = {"_target_": "ct_cncl.pipeline.networks.UNet", "width": 2, "depth": 1}


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A file that exists only if something of the bundle was executed."""
    path = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(path))
    yield path
    assert not path.exists(), "something of the bundle was executed"


TOUCH = "__import__('pathlib').Path(__import__('os').environ['CANARY']).touch()"
CONFIGS = {
    "expression": {"x": f"${TOUCH}"},
    "expression in metadata": {"version": f"${TOUCH}"},
    "expression in a list of lists": {"x": [[{"y": [f"${TOUCH}"]}]]},
    "expression as an argument of a known class": {"network_def": NETWORK | {"width": f"${TOUCH}"}},
    "disabled by an expression": {"network_def": NETWORK | {"_disabled_": f"${TOUCH}"}},
    "required by a component": {"network_def": NETWORK | {"_requires_": [f"${TOUCH}"]}},
    "import": {"imports": ["$import canary_module"]},
    "import outside of imports": {"whatever": "$from canary_module import x"},
    "import of a known name from elsewhere": {"imports": ["$from evil import bundle_root"]},
    "import with a tab": {"imports": ["$import\tcanary_module"]},
    "os.system": {"x": {"_target_": "os.system", "command": "touch $CANARY"}},
    "a builtin": {"x": {"_target_": "builtins.eval", "source": TOUCH}},
    "exec without module": {"x": {"_target_": "exec"}},
    "torch.load": {"x": {"_target_": "torch.load", "f": "models/evil.pt", "weights_only": False}},
    "torch.hub": {"x": {"_target_": "torch.hub.load", "repo_or_dir": "evil/evil"}},
    "functools.partial": {"x": {"_target_": "functools.partial", "func": "@y"}},
    "another module through an allowed one": {"x": {"_target_": "ct_cncl.pipeline.networks.unet.torch.load"}},
    "a prefix of an allowed one": {"x": {"_target_": "ct_cncl.pipeline.networks.unet.UNet"}},
    "a method of an allowed one": {"x": {"_target_": "ct_cncl.pipeline.networks.UNet.load_state_dict"}},
    "subprocess, to be called later": {"x": {"_target_": "subprocess.Popen", "_mode_": "callable"}},
    "MONAI's Lambda": {"x": {"_target_": "Lambda", "func": "@y"}},
    "a target that is an expression": {"x": {"_target_": f"${TOUCH}"}},
    "a target that is a reference": {"x": {"_target_": "@y"}, "y": "torch.load"},
    "a target that is a mapping": {"x": {"_target_": {"_target_": "os.getcwd"}}},
    "the debugger": {"network_def": NETWORK | {"_mode_": "debug"}},
    "a macro": {"x": "%/etc/passwd"},
    "a macro of another config": {"x": "%configs/more.json#y"},
    "an overlay's key": {"network_def#_target_": "os.system"},
    "an overlay's key, the other sign": {"train::dataset::_target_": "os.system"},
    "an overlay's added key": {"+x#_target_": "os.system"},
    "an absolute path": {"output_dir": "/etc/cron.d"},
    "a path above": {"output_dir": "../../../home"},
    "a home": {"checkpoint": "~/.ssh/id_rsa"},
    "a path on Windows": {"output_dir": "C:\\Windows"},
}


@pytest.mark.parametrize("trick", CONFIGS)
def test_tricks_in_json(trick, tmp_path, canary):
    bundle = tmp_path / "bundle"
    write(bundle, "configs/metadata.json" if "metadata" in trick else "configs/inference.json", CONFIGS[trick])
    write(bundle, "canary_module.py", TOUCH)
    found = [one for one in review_bundle(bundle).findings if not one.known]
    assert found, trick
    assert review_source(bundle).review.doubts
    with pytest.raises(VerifyError, match="--trust"):
        verify(bundle)


def test_what_the_release_itself_says_is_known(tmp_path):
    for name in ("train.json", "inference.json", "evaluate.json", "multi_gpu_train.json"):
        found = review_config(config_file(name), name)
        assert found
        assert [one for one in found if not one.known] == []


def test_a_key_that_is_there_twice_is_told_with_both_values(tmp_path, canary):
    """Python's parser keeps the last one; another may keep the first."""
    path = write(tmp_path, "c.json", f'{{"x": "${TOUCH}", "x": 1}}')
    kinds = {one.kind for one in review_config(path, "c.json") if not one.known}
    assert kinds == {"duplicate key", "expression"}


def test_escaped_letters_do_not_hide_a_target(tmp_path):
    path = write(tmp_path, "c.json", '{"x": {"\\u005ftarget\\u005f": "os.sys\\u0074em"}, "y": "\\u0024evil()"}')
    assert {(one.kind, one.text) for one in review_config(path, "c.json")} == {
        ("target", "os.system"),
        ("expression", "$evil()"),
    }


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"x: !!python/object/apply:os.system ['touch {os.sep}x']\n", "YAML tag"),
        ("x: !evil 3\n", "YAML tag"),
        (f'x: "${TOUCH}"\n', "expression"),
        ("x: >-\n  $import\n  evil\n", "import"),
        ("base: &b\n  _target_: os.system\nx:\n  <<: *b\n", "target"),
        ("x: {_target_: os.system}\n---\ny: 1\n", "target"),
        ("a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{n}: &{n} [{','.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi")), "unreadable"),
        ("x: [1\n", "unreadable"),
    ],
)  # fmt: skip
def test_tricks_in_yaml(text, kind, tmp_path, canary):
    path = write(tmp_path, "configs/evil.yaml", text)
    assert kind in {one.kind for one in review_config(path, "evil.yaml") if not one.known}


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"[" * 100_000, b" " * (5 << 20)])
def test_what_is_no_config_is_told_and_does_no_harm(content, tmp_path):
    path = write(tmp_path, "c.json", content)
    assert [one.kind for one in review_config(path, "c.json")] == ["unreadable"]


def test_no_allowed_target_runs_what_it_is_given():
    """Classes of torch, MONAI and this project; no function that opens, imports or evaluates."""
    # Of the functions, one loads weights alone, three wrap a network, one makes floats of a dictionary: none calls what a config names.
    functions = {
        "ct_cncl.pipeline.common.distributed.data_parallel",
        "ct_cncl.pipeline.engines.placement.training_generator",
        "ct_cncl.pipeline.handlers.loss_terms",
        "ct_cncl.pipeline.training.trained.trained_network",
        "ct_cncl.pipeline.networks.precision.in_precision",
    }
    for target in allowed_targets() - functions:
        assert target.rsplit(".", 1)[-1][0].isupper(), target
        assert target.split(".")[0] in {"ct_cncl", "torch", "monai"} or "." not in target, target


@pytest.mark.parametrize(
    "name",
    [
        "ct_cncl/pipeline/more.py",
        "torch.py",
        "sitecustomize.py",
        "scripts/__init__.py",
        "evil.so",
        "evil.pth",
        "models/weights.pkl",
        "ct_cncl/pipeline/__pycache__/bundle.cpython-311.pyc",
        "data.npy",
        "install",
        ".hidden",
    ],
)
def test_every_file_of_another_kind_is_told(name, tmp_path, canary):
    bundle = tmp_path / "bundle"
    write(bundle, "configs/inference.json", {})
    write(bundle, name, TOUCH)
    assert [(one.name, one.status) for one in review_bundle(bundle).code] == [(name, "unknown")]


def test_code_that_differs_from_the_release_is_told_with_its_checksum(tmp_path):
    from ct_cncl.pipeline.workflow import locations as module

    own = tmp_path / "bundle"
    write(own, "configs/inference.json", {})
    text = Path(module.__file__).read_text()
    write(own, "ct_cncl/pipeline/workflow/locations.py", text)
    assert review_bundle(own).code[0].status == "identical"
    write(own, "ct_cncl/pipeline/workflow/locations.py", text + "\n")
    (changed,) = review_bundle(own).code
    assert changed.status == "different"
    assert len(changed.sha256) == 64


def test_a_link_in_a_folder_is_told(tmp_path):
    write(tmp_path, "bundle/configs/inference.json", {})
    (tmp_path / "bundle" / "docs").symlink_to("/etc")
    assert ("docs", "unknown") in {(one.name, one.status) for one in review_bundle(tmp_path / "bundle").code}


class Evil:
    def __reduce__(self):
        return eval, (TOUCH,)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_that_call_something(legacy, tmp_path, canary):
    bundle = tmp_path / "bundle"
    write(bundle, "configs/inference.json", {})
    (bundle / "models").mkdir()
    torch.save({"w": Evil()}, bundle / "models" / "model.pt", _use_new_zipfile_serialization=not legacy)
    (found,) = review_bundle(bundle).findings
    assert (found.kind, found.known) == ("pickle", False)
    assert legacy or "eval" in found.text
    write(bundle, "models/model.pt", pickle.dumps(Evil()))
    assert not review_bundle(bundle).findings[0].known


class Reads(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.from_file("/etc/passwd", False, 1, dtype=torch.uint8)


def test_torchscript_that_reads_files(tmp_path):
    bundle = tmp_path / "bundle"
    write(bundle, "configs/inference.json", {})
    (bundle / "models").mkdir()
    torch.jit.save(torch.jit.script(Reads()), str(bundle / "models" / "model.ts"))
    assert [(one.kind, one.text) for one in review_bundle(bundle).findings] == [("TorchScript", "torch.from_file")]


class Writes(nn.Module):
    """Maps a file into memory, and so makes it."""

    def __init__(self, path):
        super().__init__()
        self.path = str(path)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + torch.from_file(self.path, True, 4).fill_(1.0).sum() * 0


def test_denoising_does_not_run_torchscript_that_writes_files(tmp_path, canary):
    torch.jit.save(torch.jit.script(Writes(canary)), str(tmp_path / "model.ts"))
    with pytest.raises(CheckpointError, match=r"calls torch.from_file, which can reach files\. Do not use it"):
        open_weights(tmp_path / "model.ts", torch.device("cpu"))


def test_onnx_with_weights_in_another_file_or_operators_of_its_own(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    outside = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    outside.ClearField("float_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../../etc/passwd")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("image", "result")]
    node = helper.make_node("Mine", ["image"], ["result"], domain="evil")
    graph = helper.make_graph([node], "g", value[:1], value[1:], [outside])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("evil", 1)]
    bundle = tmp_path / "bundle"
    write(bundle, "configs/inference.json", {})
    write(bundle, "models/model.onnx", helper.make_model(graph, opset_imports=opsets).SerializeToString())
    texts = {one.text for one in review_bundle(bundle).findings if not one.known}
    assert texts == {"custom operators of evil", "w in another file"}
    assert onnx.__version__


@pytest.mark.parametrize(
    "text",
    [
        "[handler_x]\nclass=StreamHandler\nargs=(TOUCH,)\n",
        "[handler_x]\nCLASS=FileHandler\nArgs : (TOUCH,)\n",
        "[handler_x]\n\x0bclass=FileHandler\n\x0cargs=(TOUCH,)\n",
        "[DEFAULT]\nargs=(TOUCH,)\n[handler_x]\nclass=FileHandler\n",
        "[handler_x\nclass=FileHandler\n",
        "[handler_x]\nclass=FileHandler\nargs=(TOUCH,)\n[handler_x]\n",
    ],
)
def test_logging_settings_that_evaluate(text, tmp_path, canary):
    """Logging's parser takes other spellings than one looks for: whatever is not the release's own file is unknown."""
    bundle = tmp_path / "bundle"
    write(bundle, "configs/inference.json", {})
    write(bundle, "configs/logging.conf", text.replace("TOUCH", TOUCH))
    findings = review_bundle(bundle).findings
    assert findings
    assert not any(one.known for one in findings)
    assert len(findings) == 1 or TOUCH in " ".join(one.text for one in findings)
    with pytest.raises(VerifyError, match="logging"):
        verify(bundle)


def test_the_releases_own_logging_settings_are_known_and_no_others(tmp_path):
    own = config_file("logging.conf").read_bytes()
    bundle = tmp_path / "bundle"
    write(bundle, "configs/logging.conf", own)
    assert all(one.known for one in review_bundle(bundle).findings)
    assert any("class=" in one.text for one in review_bundle(bundle).findings)
    write(bundle, "configs/logging.conf", own + b"\n")
    assert not any(one.known for one in review_bundle(bundle).findings)


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def link(name, target):
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return member, target


CONFIG = ("b/configs/inference.json", "{}")
ARCHIVES = {
    "a name that leads out": [CONFIG, ("b/../../canary", "x")],
    "a name from the root": [CONFIG, ("/tmp/canary-of-ct-cncl", "x")],
    "a name with a drive": [CONFIG, ("C:/canary", "x")],
    "a name with backslashes": [CONFIG, ("b\\..\\..\\canary", "x")],
    "a link": [CONFIG, link("b/docs", "/etc")],
    "a link, then a file through it": [CONFIG, link("b/out", ".."), ("b/out/canary", "x")],
    "one name twice": [CONFIG, CONFIG],
    "one name twice but for its case": [CONFIG, ("b/CONFIGS/inference.json", "{}")],
    "two top folders": [CONFIG, ("c/x", "")],
    "no bundle": [("b/readme", "")],
    "nothing": [],
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("trick", ARCHIVES)
def test_tricks_of_archives(trick, tmp_path, canary):
    path = zipped(tmp_path / "evil.zip", ARCHIVES[trick])
    before = set(tmp_path.rglob("*"))
    with pytest.raises(VerifyError) as caught:
        review_source(path)
    assert "\n" not in str(caught.value)
    assert set(tmp_path.rglob("*")) == before


def test_a_zip_that_grows_beyond_reason(tmp_path, monkeypatch):
    from ct_cncl.pipeline.sharing import verify as module

    monkeypatch.setattr(module, "_MOST_BYTES", 2 << 20)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(*CONFIG)
        for number in range(3):
            archive.writestr(f"b/{number}", bytes(1 << 20))
    with pytest.raises(VerifyError, match="Do not unpack"):
        review_source(path)


def test_a_zip_of_too_many_files(tmp_path):
    path = zipped(tmp_path / "many.zip", [CONFIG, *((f"b/{number}", "") for number in range(5_001))])
    with pytest.raises(VerifyError, match="5002 files"):
        review_source(path)


def test_a_member_that_is_larger_than_it_says(tmp_path):
    """Deflated zeros behind a header that promises ten bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(*CONFIG)
        archive.writestr("b/big", bytes(1 << 20))
    content = bytearray(buffer.getvalue())
    true, false = struct.pack("<L", 1 << 20), struct.pack("<L", 10)
    content = content.replace(true, false).replace(
        struct.pack("<L", zlib.crc32(bytes(1 << 20))), struct.pack("<L", zlib.crc32(bytes(10)))
    )
    path = tmp_path / "liar.zip"
    path.write_bytes(content)
    (big,) = review_source(path).review.code
    assert (big.name, big.sha256) == ("big", hashlib.sha256(bytes(10)).hexdigest())  # no more than it says is unpacked


def test_what_is_no_zip(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(VerifyError, match="zip archive"):
        review_source(tmp_path / "x.zip")
    with pytest.raises(VerifyError, match="it does not exist"):
        review_source(tmp_path / "y.zip")
