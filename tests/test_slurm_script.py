"""docs/slurm_train.sh with stand-ins for Slurm's commands and for torchrun: what each machine would be told to run."""

import ast
import os
import subprocess

import pytest
from tiny_runs import ROOT

STAND_INS = {
    "srun": 'case $1 in --cpus-per-task=*) export BOUND=${1#*=}; shift ;; esac\n"$@"',
    "scontrol": "printf 'node1\\nnode2\\n'",
    "torchrun": 'printf \'%s\\n\' "$OMP_NUM_THREADS/$BOUND" "$@"',
}
JOB = {"SLURM_NNODES": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]"}


@pytest.fixture
def told(tmp_path):
    """Run the script with arguments and variables; returns threads, torchrun's options and the bundle's, by name."""
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)

    def run(*arguments, **variables):
        environment = os.environ | JOB | variables | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        command = ["bash", str(ROOT / "docs" / "slurm_train.sh"), *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        threads, *words = done.stdout.splitlines()
        place = words.index("-m")
        assert words[place : place + 4] == ["-m", "monai.bundle", "run", "training"]
        options = dict(word.split("=", 1) for word in words[:place])
        rest = words[place + 4 :]
        return threads, options, dict(zip(rest[::2], rest[1::2]))

    return run


def test_every_machine_is_told_the_same_meeting_point(told):
    threads, options, bundle = told("data/quarter", "runs/fast", SLURM_GPUS_ON_NODE="4", SLURM_CPUS_PER_TASK="32")
    assert threads == "8/32"
    assert options == {
        "--nnodes": "2",
        "--nproc_per_node": "4",
        "--max_restarts": "3",
        "--rdzv_backend": "c10d",
        "--rdzv_id": "7",
        "--rdzv_endpoint": "node1:29500",
    }
    assert (bundle["--dataset_dir"], bundle["--output_dir"], bundle["--resume"]) == (
        "data/quarter",
        "runs/fast",
        "auto",
    )


def test_an_odd_word_is_refused_and_not_dropped(told):
    with pytest.raises(subprocess.CalledProcessError) as refused:
        told("data", "run", "max_epochs=10")
    assert refused.value.returncode == 2
    assert "KEY VALUE" in refused.value.stderr
    assert "max_epochs=10" in refused.value.stderr


def test_its_configs_are_there_and_merge(told):
    from ct_cncl.pipeline.workflow.run import load_config

    _, _, bundle = told("data", "run")
    files = [ROOT / name for name in ast.literal_eval(bundle["--config_file"])]
    merged = load_config(files)
    assert merged["network_def"]["content"]["_target_"].endswith("BlockUNet")
    assert merged["train"]["dataloader"]["num_workers"] == 2


def test_further_settings_are_handed_on_and_one_cpu_is_one_thread(told):
    threads, options, bundle = told("data", "run", "max_epochs", "5", "batch_size", "4")
    assert (threads, options["--nproc_per_node"]) == ("1/1", "1")
    assert (bundle["--max_epochs"], bundle["--batch_size"]) == ("5", "4")
