"""When a series is complete, and which of its objects are used."""

import json
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tiny_node import PATIENCE_S, config, until

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from ct_cncl.pipeline.node import complete as module
from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.complete import Watcher, is_complete
from ct_cncl.pipeline.node.database import Database
from ct_cncl.pipeline.node.facts import Facts, Identity
from ct_cncl.pipeline.node.jobs import Jobs
from ct_cncl.pipeline.node.read_settings import read_settings
from ct_cncl.pipeline.node.settings import Complete
from ct_cncl.pipeline.node.spool import Spool

LIMITS = Complete(quiet_s=10, open_s=60, count_s=600)


@pytest.mark.parametrize(
    ("quiet", "carried", "have", "expected", "complete"),
    [
        (9, False, 5, None, False),
        (10, False, 5, None, True),
        (10, True, 5, None, False),
        (60, True, 5, None, True),
        (0, False, 5, 5, True),
        (0, False, 6, 5, True),
        (0, True, 5, 5, False),
        (599, False, 4, 5, False),
        (600, False, 4, 5, True),
    ],
)
def test_quiet_time_association_and_count(quiet, carried, have, expected, complete):
    assert is_complete(quiet, carried=carried, have=have, expected=expected, limits=LIMITS) is complete


class Setup:
    def __init__(self, folder, **changes):
        path = config(folder, None, "", **changes)
        self.settings = replace(read_settings(path), complete=Complete(0.0, 5.0, 5.0))
        spool = Spool(self.settings.spool)
        spool.prepare()
        self.jobs, self.carried = Jobs(Database(spool.folder)), False
        receiver = SimpleNamespace(is_carried=lambda study, series: self.carried)
        self.watcher = Watcher(self.settings, self.jobs, receiver, Audit(spool.folder))

    def add(self, number, **facts):
        identity = Identity(f"1.2.{number}", "1.2.840.10008.5.1.4.1.1.2", "1.1", "1.2", "p")
        own = Facts(instance_number=number, **facts)
        return self.jobs.add_object(identity, own, digest="d", path="x", size=1, sender="SCANNER", address="127.0.0.1")


RULES = [{"name": "shadow", "shadow": True, "match": {"kernel": "B30f"}}]


def test_a_rule_is_found_and_its_action_kept(tmp_path):
    one = Setup(tmp_path, rules=RULES)
    one.add(1, kernel="B30f")
    one.carried = True
    one.watcher.look()
    assert one.jobs.get(1).state == "received"
    one.carried = False
    one.watcher.look()
    job = one.jobs.get(1)
    assert (job.state, job.rule, job.shadow, job.action["do"]) == ("complete", "shadow", True, "denoise")
    line = json.loads((one.settings.spool / "audit.jsonl").read_text())
    assert (line["event"], line["objects"], line["sender"], line["rule"]) == ("received", 1, "SCANNER", "shadow")


def test_what_no_rule_wants_is_done_with(tmp_path):
    one = Setup(tmp_path, rules=RULES)
    one.add(1, kernel="B70f")
    one.watcher.look()
    assert (one.jobs.get(1).state, one.jobs.get(1).ignored) == ("done", True)


def test_objects_of_other_origins_within_a_series_are_left_out_and_said(tmp_path):
    one = Setup(tmp_path, rules=RULES)
    one.add(1, kernel="B30f", origin="localizer")
    one.add(2, kernel="B30f")
    one.add(3, kernel="B30f")
    one.add(4, kernel="B30f", origin="own")
    one.watcher.look()
    assert {row["uid"]: row["used"] for row in one.jobs.members(1)} == {"1.2.1": 0, "1.2.2": 1, "1.2.3": 1, "1.2.4": 0}
    assert one.jobs.get(1).warnings == ["1 objects left out (no rule, localizer)", "1 objects left out (no rule, own)"]


def test_the_objects_own_count(tmp_path):
    one = Setup(tmp_path, rules=RULES)
    one.watcher.settings = replace(one.settings, complete=Complete(0.0, 5.0, 3600.0))
    one.add(1, kernel="B30f", instances=2)
    one.watcher.look()
    assert one.jobs.get(1).state == "received"
    one.add(2, kernel="B30f", instances=2)
    one.watcher.look()
    assert (one.jobs.get(1).state, one.jobs.get(1).warnings) == ("complete", [])


def test_a_count_from_upstream_and_what_is_missing_is_said(tmp_path, monkeypatch):
    upstream = {"aet": "PACS", "host": "127.0.0.1", "port": 1}
    one = Setup(tmp_path, rules=RULES, senders=[{"aet": "SCANNER", "count": upstream}])
    monkeypatch.setattr(module, "_asked", lambda *_: 3)
    one.add(1, kernel="B30f")
    one.watcher.look()
    one.watcher.look()  # within the quiet time nobody is asked again
    assert one.jobs.get(1).state == "received"
    one.watcher.settings = replace(one.settings, complete=Complete(0.0, 5.0, 0.0))
    assert until(lambda: one.watcher.look() or one.jobs.get(1).state == "complete")
    assert one.jobs.get(1).warnings == ["3 objects were expected and 1 came"]


def test_an_upstream_that_does_not_answer_holds_up_its_own_series_only(tmp_path, monkeypatch):
    upstream, answered = {"aet": "PACS", "host": "127.0.0.1", "port": 1}, threading.Event()
    one = Setup(tmp_path, rules=RULES, senders=[{"aet": "SCANNER", "count": upstream}, {"aet": "OTHER"}])
    ended = []

    def silent(*_):
        answered.wait(PATIENCE_S)
        ended.append(1)

    monkeypatch.setattr(module, "_asked", silent)
    one.add(1, kernel="B30f")
    with one.jobs.database.change() as change:
        change.execute("UPDATE jobs SET series = '1.77', study = '1.7'")
        change.execute("UPDATE objects SET series = '1.77', study = '1.7'")
    one.add(2, kernel="B30f")
    with one.jobs.database.change() as change:
        change.execute("UPDATE jobs SET sender = 'OTHER' WHERE id = 2")
    one.watcher.look()
    assert not ended
    assert [one.jobs.get(number).state for number in (1, 2)] == ["received", "complete"]
    answered.set()
    assert until(lambda: one.watcher.look() or one.jobs.get(1).state == "complete")


def test_an_object_that_comes_while_it_is_decided_is_not_left_behind(tmp_path, monkeypatch):
    one = Setup(tmp_path, rules=RULES)
    one.add(1, kernel="B30f")
    say = one.watcher.audit.say

    def late(event, **content):
        if content["objects"] == 1:
            one.add(2, kernel="B30f")
        say(event, **content)

    monkeypatch.setattr(one.watcher.audit, "say", late)
    one.watcher.look()
    assert one.jobs.get(1).state == "received"
    one.watcher.look()
    assert one.jobs.get(1).state == "complete"
    assert sum(row["used"] for row in one.jobs.members(1)) == 2


def test_a_clock_that_is_set_back_delays_but_does_not_lose(tmp_path):
    one = Setup(tmp_path, rules=RULES)
    one.add(1, kernel="B30f")
    one.jobs.move(1, "received", "received", latest=4e9)
    one.watcher.look()
    assert one.jobs.get(1).state == "received"
    one.watcher.look()
    assert one.jobs.get(1).state == "complete"


def test_a_late_edition_whose_earlier_slices_are_gone_fails_until_they_come_again(tmp_path):
    one = Setup(tmp_path, rules=RULES)
    one.add(1, kernel="B30f")
    one.watcher.look()
    one.jobs.claim("worker1")
    one.jobs.finish(1, {}, [], ())
    with one.jobs.database.change() as change:
        change.execute("UPDATE objects SET path = NULL")
    one.add(2, kernel="B30f")
    one.watcher.look()
    late = one.jobs.get(2)
    assert (late.state, late.edition) == ("failed", 2)
    assert "send it again, then retry" in late.error
    assert late.warnings == ["slices came late: this result replaces edition 1"]


def test_shadow_mode_of_the_node_sends_nothing(tmp_path):
    target = {"pacs": {"aet": "PACS", "host": "127.0.0.1", "port": 1}}
    one = Setup(tmp_path, rules=[{"send": ["pacs"]}], destinations=target, shadow=True)
    one.add(1)
    one.watcher.look()
    assert (one.jobs.get(1).shadow, one.jobs.get(1).action["send"]) == (True, [])


def test_associations_that_have_ended_are_forgotten(tmp_path):
    from ct_cncl.pipeline.node.receive import Receiver

    one = Setup(tmp_path, rules=RULES)
    receiver = Receiver(one.settings, Spool(one.settings.spool), one.jobs, Audit(one.settings.spool))
    for series, alive in (("1", True), ("2", False), ("3", False)):
        receiver._carriers["1.1", series] = {_Association(alive)}
    assert [receiver.is_carried("1.1", series) for series in "123"] == [True, False, False]
    assert list(receiver._carriers) == [("1.1", "1")]


class _Association:
    def __init__(self, alive):
        self.is_alive = lambda: alive
