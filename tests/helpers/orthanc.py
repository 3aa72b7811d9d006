"""A real Orthanc (Debian's packages orthanc and orthanc-dicomweb) in its own folder, for the duration of a test."""

import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from tiny_node import PATIENCE_S, free_port, until

ORTHANC = shutil.which("Orthanc")
DICOMWEB = next(iter(Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb.so*")), None)


class Orthanc:
    """Args: folder, and the port at which a node called NODE listens; ``route`` sends stable series there."""

    def __init__(self, folder, node_port, *, route=True):
        folder.mkdir(parents=True)
        self.dicom, self.http = free_port(), free_port()
        script = folder / "route.lua"
        example = Path(__file__).parents[2] / "pipeline" / "node" / "templates" / "orthanc-route.lua"
        script.write_text(example.read_text())
        content = {
            "Name": "test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "index"),
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom,
            "HttpPort": self.http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StableAge": 1,
            "DicomModalities": {"ct-cncl": ["NODE", "127.0.0.1", node_port]},
            "LuaScripts": [str(script)] if route else [],
            "Plugins": [str(DICOMWEB)] if DICOMWEB else [],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(content))
        self.log = folder / "orthanc.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=log)
        assert until(self.answers), self.log.read_text()

    def answers(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return bool(self.get("/system"))
        except OSError:
            return False

    def get(self, path, *, plain=False):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=PATIENCE_S) as answer:
            content = answer.read()
        return content if plain else json.loads(content)

    def post(self, path, body):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{path}", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.loads(answer.read() or b"null")

    def series(self):
        """SeriesInstanceUID to Orthanc's own identifier."""
        return {one["MainDicomTags"]["SeriesInstanceUID"]: one["ID"] for one in self.get("/series?expand")}

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        time.sleep(0.1)
