"""What libraries print beside our one line, and lines that name the file where memory is short."""

import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from tiny_weights import Add, scripted

HEADS = {
    "of Python 2": "{'descr': '<i2', 'fortran_order': False, 'shape': (2L, 8L, 8L)}",
    "odd Python": "{'descr': '<i2', 'fortran_order': 1if 1else 0, 'shape': (2, 8, 8)}",
    "too large": "{'descr': '<i2', 'fortran_order': False, 'shape': (2000000000, 80000, 80000)}",
}


def npy(path, head):
    text = head.encode() + b" " * (-(len(head) + 11) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 256)
    return path


EACH = """
import sys
from ct_cncl.pipeline.cli import main
out, weights, *scans = sys.argv[1:]
for scan in scans:
    sys.argv = ["ct-cncl", "denoise", scan, "--out", out, "--weights", weights, "--device", "cpu"]
    try:
        main()
    except SystemExit:
        pass
"""


def test_numpy_says_nothing(tmp_path):
    weights = scripted(Add(1.0), tmp_path / "add.ts")
    files = [npy(tmp_path / f"{name}.npy", head) for name, head in HEADS.items()]
    words = map(str, [tmp_path / "out", weights, *files])
    done = subprocess.run([sys.executable, "-c", EACH, *words], capture_output=True, text=True, check=False)
    assert "of Python 2: 2 slices" in done.stdout
    assert [line[:6] for line in done.stderr.splitlines()] == ["error:"] * 2, done.stderr


def test_onnx_runtime_says_nothing(tmp_path, command):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper
    shape = onnx.numpy_helper.from_array(np.array([7, 7], np.int64), "shape")
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["b", "s", "h", "w"])
    result = helper.make_tensor_value_info("result", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["image", "shape"], ["result"])], "g", [image], [result], [shape]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "x.onnx")
    nib.save(nib.Nifti1Image(np.full((16, 16, 2), -50, np.int16), np.eye(4)), tmp_path / "scan.nii")
    code, _, err = command(
        "denoise", tmp_path / "scan.nii", "--out", tmp_path / "out", "--weights", tmp_path / "x.onnx"
    )
    assert code == 1
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: Expected a network in ")


LIMITED = """
import resource, sys
from ct_cncl.pipeline.cli import main
import nibabel, scipy.ndimage, torch
import ct_cncl.pipeline.noise_measurement.run
with open("/proc/self/statm") as stream:
    used = int(stream.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_limit_of_memory_names_the_scan(tmp_path):
    """A scan of 512 MiB in float32 with 300 MiB left, as under ``ulimit -v``."""
    scan = tmp_path / "large.nii"
    head = nib.Nifti1Header()
    head.set_data_shape((1024, 1024, 128)), head.set_data_dtype(np.int16), head.set_zooms((1, 1, 1))
    head["vox_offset"], head["magic"] = 352, b"n+1"
    scan.write_bytes(head.binaryblock + b"\0" * 4)
    os.truncate(scan, 352 + (1 << 28))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "noise", str(scan)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"{scan}: expected the scan to fit into memory but it does not" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr
