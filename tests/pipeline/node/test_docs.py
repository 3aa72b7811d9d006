"""docs/how-to/node.md and the unit: every configuration there is good, and the sandbox is one."""

import re
import shutil
import subprocess
import textwrap

import pytest
from tiny_runs import ROOT

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from ct_cncl.pipeline.node.read_settings import read_settings

PAGE = (ROOT / "docs/how-to/node.md").read_text(encoding="utf-8")
UNIT = ROOT / "docs/ct-cncl-node.service"


def configurations():
    blocks = re.findall(r"(?:^ {4,}\S.*\n|^ *\n)+", PAGE, re.MULTILINE)
    return [text for block in blocks if (text := textwrap.dedent(block).strip() + "\n").startswith("node:\n")]


def test_there_are_two():
    assert len(configurations()) == 2


@pytest.mark.parametrize("number", [0, 1])
def test_configurations(tmp_path, number):
    text = configurations()[number]
    for name in ("node.crt", "node.key", "hospital.pem"):
        (tmp_path / name).write_text("")
    (tmp_path / "node.yaml").write_text(text)
    settings = read_settings(tmp_path / "node.yaml")
    assert settings.aet == "NODE"
    if number == 1:  # all that can be set has the value that it has without, but for what must be said
        from ct_cncl.pipeline.node import settings as module

        for name, kind in (
            ("complete", "Complete"),
            ("retry", "Retry"),
            ("keep", "Keep"),
            ("limits", "Limits"),
            ("page", "PageSettings"),
        ):
            assert getattr(settings, name) == getattr(module, kind)()
        assert settings.destinations["pacs"].peer.tls == settings.tls


def test_the_first_one_is_the_ten_minutes_one():
    settings_text = configurations()[0]
    assert "shadow: true" in settings_text
    assert "commit: true" in settings_text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_a_sandbox():
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", UNIT],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze is too old to look at a file")
    assert done.returncode == 0, done.stdout[-300:]
    assert "Unknown" not in done.stderr


def test_the_conformance_statement_names_what_is_offered():
    from ct_cncl.transforms.series.headers import CT_CLASSES

    for uid in (*CT_CLASSES, "1.2.840.10008.1.1", "1.2.840.10008.1.20.1"):
        assert f"| {uid} |" in PAGE
    for status in ("0xA700", "0xA900", "0xC000", "0xC111", "0x0124"):
        assert status in PAGE
