"""The queue's states, editions and memory: every change once, whatever is killed, and tables of older and newer versions."""

import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from ct_cncl.pipeline.node import database as database_module
from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.database import Database, refuse_shares
from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.facts import Facts, Identity
from ct_cncl.pipeline.node.jobs import Jobs
from ct_cncl.pipeline.node.manage import drop, retry, table
from ct_cncl.pipeline.node.retention import Retention
from ct_cncl.pipeline.node.settings import Keep
from ct_cncl.pipeline.node.spool import Spool


@pytest.fixture
def spool(tmp_path):
    made = Spool(tmp_path / "spool")
    made.prepare()
    return made


@pytest.fixture
def jobs(spool):
    return Jobs(Database(spool.folder))


def add(jobs, spool, uid, series="1.2", digest="d"):
    path = spool.folder / spool.place_of(series, uid, digest)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"object")
    identity = Identity(uid, "1.2.840.10008.5.1.4.1.1.2", "1.1", series, "p")
    place = path.relative_to(spool.folder).as_posix()
    return jobs.add_object(identity, Facts(), digest=digest, path=place, size=6, sender="CT1", address="127.0.0.1")


def retention(spool, jobs, **keep):
    return Retention(SimpleNamespace(keep=Keep(**keep)), spool, jobs, Audit(spool.folder))


def made(jobs, number, destinations=("pacs",)):
    jobs.move(number, "received", "complete", action={"do": "denoise"})
    assert jobs.claim("worker1").id == number
    jobs.finish(number, {"files": [{"uid": "9", "path": "results/x"}]}, [], destinations)


def test_objects_of_one_series_are_one_job_until_it_is_under_way(jobs, spool):
    assert [add(jobs, spool, f"1.2.{k}") for k in range(3)] == [1, 1, 1]
    assert add(jobs, spool, "1.3.0", series="1.3") == 2
    jobs.move(1, "received", "complete")
    assert add(jobs, spool, "1.2.3") == 1  # complete, but nobody works on it yet
    assert jobs.get(1).state == "received"
    jobs.move(1, "received", "complete")
    assert jobs.claim("worker1").id == 1
    assert add(jobs, spool, "1.2.4") == 3  # late: another edition, of all that there is
    late = jobs.get(3)
    assert (late.edition, late.state, len(jobs.members(3)), len(jobs.members(1))) == (2, "received", 5, 4)


def test_a_job_is_claimed_once(jobs, spool):
    add(jobs, spool, "1.2.1")
    assert jobs.claim("worker1") is None  # it is not complete
    jobs.move(1, "received", "complete")
    assert jobs.claim("worker1").id == 1
    assert jobs.claim("worker2") is None
    assert jobs.move(1, "complete", "sending") is False
    assert jobs.get(1).state == "denoising"


def test_what_a_killed_node_was_denoising_is_given_back_and_costs_no_try(jobs, spool):
    add(jobs, spool, "1.2.1")
    jobs.move(1, "received", "complete")
    for _ in range(100):
        assert jobs.claim("worker1").tries == 1
        assert jobs.release() == [1]
    assert jobs.get(1).tries == 0


def test_what_a_dead_worker_was_denoising_is_given_back_and_costs_a_try(jobs, spool):
    add(jobs, spool, "1.2.1")
    jobs.move(1, "received", "complete")
    for tries in (1, 2):
        jobs.claim("worker1")
        assert jobs.release("worker2") == []
        assert jobs.release("worker1") == [1]
        assert jobs.get(1).tries == tries


def test_finishing_is_on_to_every_destination_or_done(jobs, spool):
    for number, destinations in ((1, ("pacs", "web")), (2, ())):
        add(jobs, spool, f"1.{number}.1", series=f"1.{number}")
        made(jobs, number, destinations)
    assert [jobs.get(number).state for number in (1, 2)] == ["sending", "done"]
    rows = jobs.database.rows("SELECT job, destination, state FROM deliveries ORDER BY destination")
    assert [tuple(row) for row in rows] == [(1, "pacs", "waiting"), (1, "web", "waiting")]
    assert jobs.finish(1, {}, [], ()) is False  # nobody finishes what is not being denoised


def test_a_transaction_is_all_or_nothing(jobs, spool):
    add(jobs, spool, "1.2.1")

    def half():
        with jobs.database.change() as change:
            change.execute("UPDATE jobs SET state = 'done'")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert jobs.get(1).state == "received"
    assert jobs.database.one("PRAGMA journal_mode") == "wal"
    assert jobs.database.one("PRAGMA synchronous") == 2  # FULL: a commit survives a power cut


def test_retry_goes_back_to_where_it_failed(jobs, spool):
    audit = Audit(spool.folder)
    add(jobs, spool, "1.2.1")
    jobs.move(1, "received", "failed", error="weights are gone", tries=7)
    assert "complete" in retry(jobs, audit, 1)
    assert (jobs.get(1).state, jobs.get(1).tries, jobs.get(1).error) == ("complete", 0, "")
    made_one = jobs.claim("worker1")
    jobs.finish(made_one.id, {"files": [{"uid": "9", "path": "x"}]}, [], ("pacs",))
    with jobs.database.change() as change:
        change.execute("UPDATE deliveries SET state = 'failed', tries = 9")
    jobs.move(1, "sending", "failed", error="pacs: no")
    assert "sending" in retry(jobs, audit, 1)
    assert tuple(jobs.database.row("SELECT state, tries FROM deliveries")) == ("waiting", 0)
    with pytest.raises(NodeError, match="there is no job 5"):
        retry(jobs, audit, 5)
    assert "sending" in "\n".join(table(jobs))


def test_drop_forgets_a_series_so_that_it_can_come_again(jobs, spool):
    audit, keep = Audit(spool.folder), retention(spool, jobs)
    add(jobs, spool, "1.2.1")
    jobs.move(1, "received", "complete")
    jobs.claim("worker1")
    with pytest.raises(NodeError, match="being denoised"):
        drop(jobs, audit, keep, 1)
    jobs.release()
    drop(jobs, audit, keep, 1)
    assert jobs.all() == []
    assert not list(spool.objects.rglob("*.dcm"))
    assert jobs.database.one("SELECT COUNT(*) FROM objects") == 0
    assert add(jobs, spool, "1.2.1") == 2


def test_retention_removes_what_is_done_and_nothing_else(jobs, spool):
    for number in (1, 2, 3):
        add(jobs, spool, f"1.{number}.1", series=f"1.{number}")
        (spool.job_results(number)).mkdir()
        (spool.job_results(number) / "result").write_bytes(b"12345678")
    made(jobs, 1, ())
    made(jobs, 2)
    retention(spool, jobs, hours=1, bytes=0).look()  # too much for bytes: yet only what is done may go
    assert [job.kept for job in reversed(jobs.all())] == [False, True, True]
    assert [jobs.get(number).state for number in (1, 2, 3)] == ["done", "sending", "received"]
    assert sorted(path.name for path in spool.results.iterdir()) == ["00000002", "00000003"]
    assert len(list(spool.objects.rglob("*.dcm"))) == 2
    assert jobs.database.one("SELECT path FROM objects WHERE uid = '1.1.1'") is None
    retention(spool, jobs, hours=0, bytes=2**40, remember_days=0).look()
    assert [job.id for job in jobs.all()] == [3, 2]  # the first is forgotten, and with it its object
    assert jobs.database.one("SELECT COUNT(*) FROM objects") == 2


def test_what_the_queue_remembers_of_a_job_without_files_is_small(jobs, spool):
    add(jobs, spool, "1.2.1")
    jobs.move(1, "received", "complete")
    jobs.claim("worker1")
    files = [{"uid": f"1.{number}", "path": "x"} for number in range(300)]
    jobs.finish(1, {"files": files, "slices": 300, "seconds": 60.0}, [], ())
    with jobs.database.change() as change:
        change.execute("INSERT INTO sent VALUES (1, 'pacs', '1.1')")
    retention(spool, jobs, hours=0).look()
    assert jobs.get(1).outcome == {"slices": 300, "seconds": 60.0}
    assert jobs.database.one("SELECT COUNT(*) FROM sent") == 0
    assert jobs.database.one("SELECT uid FROM objects") == "1.2.1"  # it is known when it comes again


def test_an_object_that_comes_again_after_its_removal_goes_again(jobs, spool):
    """It is stored for whoever asks for its commitment; nothing is made of it, and it must not stay for ever."""
    add(jobs, spool, "1.2.1")
    made(jobs, 1, ())
    place = spool.folder / jobs.database.one("SELECT path FROM objects")
    retention(spool, jobs, hours=0).look()
    assert not place.exists()
    again = place.with_name("again.dcm")
    again.write_bytes(b"x")
    with jobs.database.change() as change:
        values = (again.relative_to(spool.folder).as_posix(), time.time())
        change.execute("UPDATE objects SET path = ?, received = ?", values)
    retention(spool, jobs, hours=1).look()
    assert again.exists()
    retention(spool, jobs, hours=0).look()
    assert not again.exists()
    assert jobs.database.one("SELECT path FROM objects") is None


def test_objects_that_a_later_edition_needs_stay(jobs, spool):
    add(jobs, spool, "1.2.1")
    made(jobs, 1, ())
    add(jobs, spool, "1.2.2")
    retention(spool, jobs, hours=0).look()
    assert jobs.get(1).kept is False
    assert len(list(spool.objects.rglob("*.dcm"))) == 2
    made(jobs, 2, ())
    retention(spool, jobs, hours=0).look()
    assert not list(spool.objects.rglob("*.dcm"))


def test_a_sweep_removes_what_no_sender_was_told_is_safe(jobs, spool):
    add(jobs, spool, "1.2.1")
    (spool.incoming / "half.part").write_bytes(b"x")
    stray = spool.objects / "abc" / "def.dcm"
    stray.parent.mkdir()
    stray.write_bytes(b"x")
    (spool.work / "00000001").mkdir()
    known = [row[0] for row in jobs.database.rows("SELECT path FROM objects")]
    assert spool.sweep(known) == 2
    assert [path.relative_to(spool.folder).as_posix() for path in spool.objects.rglob("*.dcm")] == known
    assert not list(spool.work.iterdir())


def test_one_node_a_spool(spool):
    with spool.lock(), pytest.raises(NodeError, match="another node is using it"):
        spool.lock()
    spool.lock().close()


def test_a_queue_of_an_older_version_is_upgraded_with_its_jobs(jobs, spool, monkeypatch):
    add(jobs, spool, "1.2.1")
    jobs.database.close()
    monkeypatch.setattr(database_module, "VERSION", 3)
    steps = {1: "ALTER TABLE jobs ADD COLUMN first TEXT DEFAULT 'x'", 2: "ALTER TABLE jobs ADD COLUMN second TEXT"}
    monkeypatch.setattr(database_module, "UPGRADES", steps)
    upgraded = Jobs(Database(spool.folder))
    assert upgraded.database.one("PRAGMA user_version") == 3
    assert upgraded.database.row("SELECT first, second FROM jobs")["first"] == "x"
    assert upgraded.get(1).state == "received"
    monkeypatch.setattr(database_module, "VERSION", 2)
    with pytest.raises(NodeError, match="but got version 3"):
        Database(spool.folder)


def test_something_else_called_node_db(spool):
    (spool.folder / "node.db").write_bytes(b"no database" * 100)
    with pytest.raises(NodeError, match="Expected the node's queue"):
        Database(spool.folder)


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export /mnt/share nfs4 rw 0 0
//win/share /mnt/two\\040words cifs rw 0 0
/dev/sdb1 /mnt/share/local xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/mnt/share/spool", "nfs4"),
        ("/mnt/share", "nfs4"),
        ("/mnt/two words/spool", "cifs"),
        ("/mnt/share/local/spool", ""),
        ("/mnt/shared", ""),
    ],
)
def test_network_shares_are_refused(folder, kind, tmp_path, monkeypatch):
    (tmp_path / "mounts").write_text(MOUNTS, encoding="utf-8")
    monkeypatch.setattr(database_module, "MOUNTS", tmp_path / "mounts")
    if kind:
        with pytest.raises(NodeError, match=rf"network share \({kind}\)"):
            refuse_shares(Path(folder))
    else:
        refuse_shares(Path(folder))


def test_a_full_disk_is_an_error_and_loses_nothing(jobs, spool):
    add(jobs, spool, "1.2.1")
    pages = jobs.database.one("PRAGMA page_count")
    jobs.database.connection().execute(f"PRAGMA max_page_count = {pages}")  # as a disk that is full

    def fill():
        for k in range(2, 5000):
            add(jobs, spool, f"1.2.{k}")

    with pytest.raises(sqlite3.OperationalError, match="full"):
        fill()
    count = jobs.database.one("SELECT COUNT(*) FROM objects")
    assert count == jobs.database.one("SELECT COUNT(*) FROM members")
    jobs.database.connection().execute("PRAGMA max_page_count = 1000000")
    add(jobs, spool, "1.2.9999")
    assert jobs.database.one("SELECT COUNT(*) FROM members") == count + 1
