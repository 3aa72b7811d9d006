"""The page: what it shows, what it lets be done, and who is refused."""

import http.client
import re
from urllib.parse import urlencode, urlsplit

import pytest

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")
pytest.importorskip("starlette", reason="needs ct-cncl[node]")
pytest.importorskip("uvicorn", reason="needs ct-cncl[node]")

from page_of_node import add_job, made_up_node, served
from tiny_node import PATIENCE_S


@pytest.fixture
def node(tmp_path):
    found = made_up_node(tmp_path)
    for number, state in enumerate(("done", "sending", "denoising", "received"), 1):
        add_job(found, number, state)
    add_job(
        found,
        5,
        "failed",
        error="pacs: Expected <PACS> to answer, but it does not.",
        warnings=["noise of 60 HU"],
        sender="CT2",
        deliver="failed",
    )
    return found


@pytest.fixture
def address(node):
    with served(node) as found:
        yield found


class Answer:
    def __init__(self, answer):
        self.status, self.text = answer.status, answer.read().decode("utf-8", "replace")
        self.headers = {name.lower(): value for name, value in answer.getheaders()}


def ask(address, path, method="GET", form=None, **headers):
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE_S)
    body = urlencode(form) if form is not None else None
    sent = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
    connection.request(method, path, body, sent | {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        return Answer(connection.getresponse())
    finally:
        connection.close()


def token(address):
    return re.search(r'name="token" value="([^"]+)"', ask(address, "/jobs/5").text)[1]


def rows(text):
    return [int(number) for number in re.findall(r'<a href="/jobs/(\d+)">', text)]


def test_the_queue_and_its_filters(address):
    answer = ask(address, "/")
    assert (answer.status, rows(answer.text)) == (200, [5, 4, 3, 2, 1])
    assert "34.2 → 14.1" in answer.text
    assert "Thorax &lt;1.5&gt; B30f" in answer.text  # what a header says is text, never markup
    assert rows(ask(address, "/?state=failed").text) == [5]
    assert rows(ask(address, "/?sender=CT1").text) == [4, 3, 2, 1]
    assert rows(ask(address, "/?warned=1").text) == [5]
    assert rows(ask(address, "/?state=nonsense").text) == [5, 4, 3, 2, 1]


def test_a_job_with_its_pictures(address):
    answer = ask(address, "/jobs/1")
    assert "34.2 HU before, 14.1 HU after" in answer.text
    assert "300 slices in 21.4 s" in answer.text
    assert "soft: yes, kernel is B30f, wanted B3*" in answer.text
    for name in ("input", "result", "removed"):
        assert f"/jobs/1/{name}.png" in answer.text
        picture = ask(address, f"/jobs/1/{name}.png")
        assert (picture.status, picture.headers["content-type"]) == (200, "image/png")
    assert "Expected &lt;PACS&gt; to answer" in ask(address, "/jobs/5").text


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/99",
        "/jobs/1/secret.png",
        "/jobs/1/..%2f..%2fnode.png",
        "/files/..%2fpage.py",
        "/files/base.html",
        "/nothing",
    ],
)
def test_what_is_not_there(address, path):
    assert ask(address, path).status == 404


def test_retry_and_drop(address, node):
    own = {"Origin": address}
    answer = ask(address, "/jobs/5/retry", "POST", {"token": token(address)}, **own)
    assert (answer.status, answer.headers["location"]) == (303, "/jobs/5")
    assert node.jobs.get(5).state == "sending"
    answer = ask(address, "/jobs/5/drop", "POST", {"token": token(address)}, **own)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert [job.id for job in node.jobs.all()] == [4, 3, 2, 1]
    answer = ask(address, "/jobs/3/drop", "POST", {"token": token_of(address)}, **own)
    assert answer.status == 409
    assert "being denoised" in answer.text


def token_of(address):
    return re.search(r'name="token" value="([^"]+)"', ask(address, "/jobs/2").text)[1]


@pytest.mark.parametrize(
    ("headers", "form"),
    [
        ({"Origin": "http://evil.example"}, None),
        ({"Origin": "null"}, None),
        ({}, None),
        ({"Origin": "http://127.0.0.1:1"}, None),
        ({"Origin": "own", "Host": "evil.example"}, None),
        ({"Origin": "own"}, {"token": "guess"}),
        ({"Origin": "own"}, {}),
        ({"Origin": "own"}, {"token": "\u00e9"}),
    ],
)
def test_changes_from_elsewhere_are_refused(address, node, headers, form):
    if headers.get("Origin") == "own":
        headers = headers | {"Origin": address}
    answer = ask(address, "/jobs/5/drop", "POST", form if form is not None else {"token": token(address)}, **headers)
    assert answer.status == 403
    assert node.jobs.get(5).state == "failed"


def test_names_under_which_it_is_not_known(address, tmp_path):
    assert ask(address, "/", Host="evil.example").status == 403  # a name that was rebound to this machine
    assert ask(address, "/metrics", Host="evil.example:80").status == 403
    assert ask(address, "/", Host="localhost:1").status == 200
    with served(made_up_node(tmp_path / "more", hosts=["ct.hospital.example"])) as other:
        assert ask(other, "/", Host="ct.hospital.example").status == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods(address, node, method):
    assert ask(address, "/jobs/5/drop", method).status == 403
    assert ask(address, "/jobs/5/drop").status == 405  # GET changes nothing
    assert node.jobs.get(5).state == "failed"


def test_headers_that_keep_other_pages_out(address):
    for path in ("/", "/jobs/1", "/jobs/1/input.png", "/health", "/nothing", "/files/node.js"):
        headers = ask(address, path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_a_form_that_is_too_large(address):
    answer = ask(address, "/jobs/5/drop", "POST", {"token": "x" * 10000}, Origin=address)
    assert answer.status == 413


def test_health_says_what_is_wrong(address, node):
    answer = ask(address, "/health")
    assert answer.status == 503
    assert "failed jobs that need attention: 1" in answer.text
    node.workers.alive = 0
    assert "1 of 1 workers are not running" in ask(address, "/health").text
    values = dict(
        line.rsplit(" ", 1) for line in ask(address, "/metrics").text.splitlines() if not line.startswith("#")
    )
    assert (values['ct_cncl_jobs{state="failed"}'], values["ct_cncl_healthy"]) == ("1", "0")
    assert values['ct_cncl_objects_total{answer="stored"}'] == "12"


def test_names_only_where_they_are_switched_on(tmp_path):
    from dicom_archive import write_series

    for names in (False, True):
        node = made_up_node(tmp_path / str(names), names=names)
        job = add_job(node, 1, "received")
        write_series(node.spool.objects / "x", 1, slices=1)
        with node.jobs.database.change() as change:
            change.execute("UPDATE objects SET path = 'objects/x/000.dcm'")
        with served(node) as address:
            assert ("Zaphod" in ask(address, "/").text) is names
            assert ("Zaphod" in ask(address, f"/jobs/{job}").text) is names
