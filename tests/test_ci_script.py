""".ci/run with stand-ins for the programs that it calls: nothing is installed."""

import os
import re
import subprocess

import pytest
from tiny_runs import ROOT

PROGRAMS = {
    "dpkg": 'test -e "$INSTALLED/$2"',
    "apt-cache": "printf '%s\\n' bash chromium dcmtk dicom3tools orthanc",
    "apt-get": 'echo "apt-get $*" >> "$SAID"; test "$1" = update || touch "$INSTALLED/chromium" "$INSTALLED/dcmtk"',
    "make": 'echo "make $*" >> "$SAID"; exit "${MADE:-0}"',
    "id": "echo 0",
}


@pytest.fixture
def ci(tmp_path):
    """Run the script where some packages are installed; returns (exit code, calls, standard error)."""
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "installed").mkdir()

    def run(*installed, **more):
        for name in installed:
            (tmp_path / "installed" / name).touch()
        own = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "INSTALLED": f"{tmp_path}/installed",
            "SAID": f"{tmp_path}/said",
        }
        done = subprocess.run(
            [ROOT / ".ci/run"], env=os.environ | own | more, capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, (tmp_path / "said").read_text().splitlines(), done.stderr

    return run


def test_what_is_missing_comes_in_one_call_and_what_cannot_be_had_is_said(ci):
    code, calls, said = ci("dicom3tools", "orthanc")
    assert code == 0
    assert calls[:2] == ["apt-get update -qq", "apt-get install -y -qq --no-install-recommends chromium dcmtk"]
    assert calls[2:] == ["make --keep-going lint docs test"]
    assert [line.split()[0] for line in said.splitlines()] == [
        "chromium-driver",
        "orthanc-dicomweb",
        "poppler-utils",
        "strace",
    ]


def test_nothing_is_installed_where_all_is_there(ci):
    names = re.search(r"programs=\((.+)\)", (ROOT / ".ci/run").read_text())[1].split()
    assert ci(*names) == (0, ["make --keep-going lint docs test"], "")


def test_failed_lint_or_tests_fail_the_run(ci):
    assert ci(MADE="2")[0] == 2
