"""A queue with one job whose results wait for one destination, without a node around it."""

import pydicom
from dicom_archive import write_series
from tiny_node import CT, config

from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.database import Database
from ct_cncl.pipeline.node.facts import Facts, Identity
from ct_cncl.pipeline.node.jobs import Jobs
from ct_cncl.pipeline.node.read_settings import read_settings
from ct_cncl.pipeline.node.send import Sending
from ct_cncl.pipeline.node.spool import Spool


class QueuedJob:
    """A queue with one job whose three results wait for one destination."""

    def __init__(self, folder, destination, *, tries=3, number=1):
        path = config(
            folder,
            None,
            "",
            destinations={"there": destination},
            rules=[],
            retry={"first_s": 0.01, "longest_s": 0.01, "tries": tries},
        )
        settings = read_settings(path)
        spool = Spool(settings.spool)
        spool.prepare()
        self.jobs = Jobs(Database(spool.folder))
        self.audit = Audit(spool.folder)
        self.sending = Sending(settings, settings.destinations["there"], self.jobs, self.audit)
        self.hu = write_series(spool.job_results(1), number)
        files = []
        for path in sorted(spool.job_results(1).iterdir()):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            syntax = str(header.file_meta.TransferSyntaxUID)
            files.append({"path": path.relative_to(spool.folder).as_posix(), "uid": str(header.SOPInstanceUID), "sop_class": CT, "syntax": syntax,
                          "series": str(header.SeriesInstanceUID), "kind": "denoised"})  # fmt: skip
        self.uids = [entry["uid"] for entry in files]
        self.jobs.add_object(
            Identity("1.9", CT, "1.1", "1.2", "p"), Facts(), digest="d", path="x", size=1, sender="S", address="a"
        )
        self.jobs.move(1, "received", "complete")
        self.jobs.claim("worker1")
        self.jobs.finish(1, {"files": files}, [], ("there",))

    def look(self, times=1):
        for _ in range(times):
            with self.jobs.database.change() as change:
                change.execute("UPDATE deliveries SET next_try = 0")
            self.sending.look()

    @property
    def state(self):
        return self.jobs.get(1).state

    def delivery(self):
        return self.jobs.database.row("SELECT * FROM deliveries")
