"""Checkpoints and shared memory that do not fit: what is full, and what it was for."""

import subprocess
import sys

import pytest
import torch
from small_disk import small_disk
from tiny_runs import TINY, assignments

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.handlers.checkpoints import save_file
from ct_cncl.pipeline.training.run import train_bundle
from ct_cncl.pipeline.workflow import run as workflow
from ct_cncl.pipeline.workflow.run import run_workflow
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.files import replacing


def test_a_checkpoint_that_does_not_fit_names_the_disk_and_the_file(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        with (
            pytest.raises(OutputError, match=f"Expected to write {disk}/last.pt, but got: No space left on device"),
            replacing(disk / "last.pt") as temporary,
        ):
            save_file({"w": torch.zeros(1 << 20)}, temporary)
        assert list(disk.iterdir()) == []


def test_a_training_on_a_full_disk_ends_with_one_line(tmp_path, tiny_dataset):
    with small_disk(tmp_path / "disk", "400k") as disk:
        (disk / "fill").write_bytes(bytes(300_000))
        with pytest.raises(OSError, match="No space left on device") as caught:
            train_bundle(out=disk / "run", data=tiny_dataset, assignments=assignments(TINY))
        assert str(disk / "run") in str(caught.value)
        assert "\n" not in str(caught.value)


def test_errors_of_torch_that_are_of_no_disk_are_told_as_they_are(tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("[enforce fail at x]\nmore")

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(OSError, match=r"torch could not write it \(\[enforce fail at x\]\)"):
        save_file({}, tmp_path / "x")


@pytest.mark.parametrize(
    "said",
    [
        "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory.",
        "unable to write to file </torch_12_34_0>: No space left on device (28)",
        "unable to allocate shared memory(shm) for file </torch_12_34_0>: Resource temporarily unavailable (11)",
    ],
)
def test_shared_memory_that_is_too_small_is_told(said):
    class Fails:
        def initialize(self):
            raise RuntimeError(said)

    with pytest.raises(ConfigError, match=r"/dev/shm.*but it is full\. Start the container with more .*num_workers=0"):
        run_workflow(Fails())
    assert not workflow._SHARED_MEMORY.search("CUDA out of memory")


SMALL = """
mount -t tmpfs -o size=$1 tmpfs "$2" || exit 99
shift 2
exec "$@"
"""


def trained_with_a_small(folder, size, words):
    """``ct-cncl train`` in a mount namespace of its own, where ``folder`` is a file system of ``size``."""
    code = "from ct_cncl.pipeline.cli import main; main()"
    command = ["unshare", "-m", "sh", "-c", SMALL, "sh", size, folder, sys.executable, "-c", code, "train", *words]
    try:
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"needs unshare: {error}")
    if done.returncode == 99 or "unshare failed" in done.stderr:
        pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_shared_memory_that_is_really_too_small(tmp_path, tiny_dataset):
    words = [
        *assignments(TINY | {"train#dataloader#num_workers": 2}),
        "--data",
        tiny_dataset,
        "--out",
        tmp_path / "run",
    ]
    last = trained_with_a_small("/dev/shm", "16k", words)
    assert last.startswith(
        "error: Expected room for the workers' patches in the shared memory /dev/shm, which has 0 MiB"
    )


@pytest.mark.parametrize(("folder", "named"), [("tensorboard", "TensorBoard's events"), ("pictures", "latest.png")])
def test_events_and_pictures_that_do_not_fit_end_a_training_in_one_line(tmp_path, tiny_dataset, folder, named):
    (tmp_path / "run" / folder).mkdir(parents=True)
    words = [*assignments(TINY), "--data", tiny_dataset, "--out", tmp_path / "run"]
    last = trained_with_a_small(tmp_path / "run" / folder, "8k", words)
    assert last.startswith("error: Expected to write ")
    assert named in last
    assert "No space left on device" in last
