"""``ct-cncl node demo``: a node, Orthanc if it is installed, the series of a phantom sent through both, and the page."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from pathlib import Path
from typing import Any

import yaml
from pynetdicom import AE, StoragePresentationContexts, evt

from ct_cncl.pipeline.node.calling import called
from ct_cncl.pipeline.node.demo_series import write_phantom_series
from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.settings import Peer
from ct_cncl.transforms.common.numbers import counted
from ct_cncl.transforms.common.terminal import say

_WAIT_S = 300.0
_PLUGINS = Path("/usr/share/orthanc/plugins")
_ROUTE = Path(__file__).parent / "templates" / "orthanc-route.lua"


def run_node_demo(out: Path, *, slices: int, size: int, browser: bool, stay: bool, overwrite: bool) -> None:
    """Run the demo. Everything is written to one folder, and only this machine can connect.

    Args:
        out: the folder.
        slices: number of slices of the phantom.
        size: side of a slice in pixels.
        browser: open the page in a browser.
        stay: keep running until Ctrl-C.
        overwrite: replace an earlier demo.

    Raises:
        NodeError: the folder is not empty, or the series does not arrive.
    """
    out = out.absolute()  # Orthanc runs in another folder
    _make_room(out, overwrite=overwrite)
    ports = dict(zip(("node", "page", "dicom", "http"), _free_ports(4)))
    orthanc = shutil.which("Orthanc")
    config = _write_config(out, ports, orthanc=bool(orthanc))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        if orthanc:
            say(f"1/4  Orthanc on port {ports['dicom']}, its own pages at http://127.0.0.1:{ports['http']}/")
            processes.append(_start_orthanc(orthanc, out, ports))
        else:
            say(f"1/4  Orthanc is not installed (Debian: apt install orthanc): results go to {out / 'received'}")
            _receive(out / "received", ports["dicom"])
        say(f"2/4  The node on port {ports['node']}, configured by {config}")
        processes.append(_start_node(config, out, ports["node"]))
        say(f"3/4  A phantom series of {counted(slices, 'slice')} at quarter dose")
        files = write_phantom_series(out / "phantom", slices, size=size)
        _send(files, Peer("ORTHANC" if orthanc else "NODE", "127.0.0.1", ports["dicom" if orthanc else "node"]))
        page = f"http://127.0.0.1:{ports['page']}"
        _wait(page, out)
        say(
            f"4/4  Done: {page}/jobs/1 shows it"
            + (f"; the study with both series is at http://127.0.0.1:{ports['http']}/" if orthanc else "")
        )
        if browser:
            webbrowser.open(f"{page}/jobs/1")
        if stay:
            say("Press Ctrl-C to stop.")
            while all(process.poll() is None for process in processes):
                time.sleep(0.5)
    except KeyboardInterrupt:
        say("Stopped.")
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(60)


def _make_room(out: Path, *, overwrite: bool) -> None:
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise NodeError(
                f"Expected {out} not to exist or to be empty, but it holds files. Use --overwrite or another --out."
            )
        if not (out / "node.yaml").is_file():
            raise NodeError(f"Expected {out} to hold an earlier demo, but it holds something else. Use another --out.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports


def _write_config(out: Path, ports: dict[str, int], *, orthanc: bool) -> Path:
    here: dict[str, Any] = {"aet": "ORTHANC", "host": "127.0.0.1", "port": ports["dicom"]}
    content = {
        "node": {
            "aet": "NODE",
            "port": ports["node"],
            "spool": "spool",
            "page": {"port": ports["page"]},
            "complete": {"quiet_s": 3},
        },
        "senders": [{"aet": "ORTHANC", "commitment": here, "count": here} if orthanc else {"aet": "DEMO"}],
        "destinations": {"archive": here | {"commit": orthanc}},
        "rules": [{"name": "everything", "send": "archive"}],
    }
    path = out / "node.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def _start_orthanc(program: str, out: Path, ports: dict[str, int]) -> subprocess.Popen[bytes]:
    folder = out / "orthanc"
    folder.mkdir()
    content = {
        "Name": "ct-cncl demo", "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"), "DicomAet": "ORTHANC",
        "DicomPort": ports["dicom"], "HttpPort": ports["http"], "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "StableAge": 2,
        "DicomModalities": {"ct-cncl": ["NODE", "127.0.0.1", ports["node"]]}, "LuaScripts": [str(_ROUTE)],
        "Plugins": [str(path) for path in sorted(_PLUGINS.glob("libOrthancDicomWeb.so"))],
    }  # fmt: skip
    config = folder / "orthanc.json"
    config.write_text(json.dumps(content, indent=2), encoding="utf-8")
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(config)], stdout=log, stderr=log, cwd=folder)  # noqa: S603
    _until_open(ports["dicom"], process, folder / "orthanc.log")
    return process


def _start_node(config: Path, out: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from ct_cncl.pipeline.cli import main; main()", "node", "--config", str(config)]
    with (out / "node.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603
    _until_open(port, process, out / "node.log")
    return process


def _until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise NodeError(f"Expected a program to listen on port {port}, but none does. See {log}.")


def _receive(folder: Path, port: int) -> None:
    """Stand in for an archive: a peer that writes what it receives to a folder."""
    folder.mkdir()

    def stored(event: Any) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        dataset.save_as(folder / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
        return 0x0000

    ae = AE("ORTHANC")
    ae.supported_contexts = StoragePresentationContexts
    ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, stored)])


def _send(files: list[Path], peer: Peer) -> None:
    ae = AE("DEMO")
    ae.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    with called(ae, peer) as assoc:
        for file in files:
            status = assoc.send_c_store(file)
            if not status or status.Status != 0:
                raise NodeError(
                    f"Expected {peer.aet} to store the phantom, but it did not. See the logs in the demo's folder."
                )


def _wait(page: str, out: Path) -> None:
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        with urllib.request.urlopen(f"{page}/metrics", timeout=10) as answer:  # noqa: S310
            values = dict(
                line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#")
            )
        if values['ct_cncl_jobs{state="failed"}'] != "0":
            break
        if values['ct_cncl_jobs{state="done"}'] != "0":
            return
        time.sleep(0.5)
    raise NodeError(f"Expected the series to arrive, but it did not. See {out / 'node.log'}.")
