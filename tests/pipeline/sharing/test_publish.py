"""Publishing: nothing without being told to, every byte arrives, no version is replaced by another."""

import http.server
import json
import shutil
import sys
import threading
import types

import pytest

from ct_cncl.pipeline.sharing.pack import checksum_file
from ct_cncl.pipeline.sharing.publish import INDEX, PublishError, _request, publish
from ct_cncl.transforms import __version__
from ct_cncl.transforms.common.checksums import file_checksum

STEM = f"ct_cncl_v{__version__}"


@pytest.fixture
def packed(described_tiny):
    return described_tiny


@pytest.fixture
def server(tmp_path):
    """The URL and the folder of a file server that takes PUT, and what it was asked."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def do_PUT(self):
            asked.append(self.path)
            (folder / self.path.strip("/")).write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", folder, asked
        running.shutdown()


def test_a_folder(packed, tmp_path):
    target = tmp_path / "models"
    said = publish(packed, to="folder", target=str(target))
    assert not target.exists()
    assert publish(packed, to="folder", target=str(target), dry_run=False) == said
    for path in (packed, checksum_file(packed)):
        assert (target / path.name).read_bytes() == path.read_bytes()
    index = json.loads((target / INDEX).read_text())
    assert index == {STEM: {"source": (target / packed.name).as_uri(), "checksum": file_checksum(packed)}}


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("way", ["folder", "file-server", "huggingface"])
def test_a_card_with_places_to_be_written_is_not_published(packed_tiny, tmp_path, server, way, dry_run):
    """It used to be: whoever downloads such weights learns nothing of whose they are."""
    url, folder, asked = server
    target = {"folder": str(tmp_path / "models"), "file-server": url, "huggingface": "hospital/ct_cncl"}[way]
    with pytest.raises(PublishError, match=r"whose texts are complete, .* \d+ places .*TO BE WRITTEN.*pack --seal"):
        publish(packed_tiny, to=way, target=target, dry_run=dry_run)
    assert not (tmp_path / "models").exists()
    assert (list(folder.iterdir()), asked) == ([], [])


def test_other_entries_of_an_index_stay(packed, tmp_path):
    other = {"spleen_v1.0.0": {"source": "https://example.org/x.zip", "checksum": "0"}}
    (tmp_path / INDEX).write_text(json.dumps(other))
    publish(packed, to="folder", target=str(tmp_path), dry_run=False)
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["spleen_v1.0.0"] == other["spleen_v1.0.0"]
    assert list(index) == [STEM, "spleen_v1.0.0"]


@pytest.mark.parametrize("way", ["folder", "file-server"])
def test_a_version_is_never_replaced_by_another(packed, tmp_path, server, way):
    url, folder, asked = server
    earlier = json.dumps({STEM: {"source": "x", "checksum": "another"}})
    (folder / INDEX).write_text(earlier)
    with pytest.raises(PublishError, match="Raise the version"):
        publish(packed, to=way, target=url if way == "file-server" else str(folder), dry_run=False)
    assert [path.name for path in folder.iterdir()] == [INDEX]
    assert (folder / INDEX).read_text() == earlier
    assert asked == []


@pytest.mark.parametrize("way", ["folder", "file-server"])
@pytest.mark.parametrize("index", [None, {STEM: "a line"}])
def test_a_file_that_no_index_names_is_not_replaced_either(packed, server, way, index):
    url, folder, asked = server
    (folder / packed.name).write_bytes(b"other")
    if index:
        (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(PublishError, match="Raise the version"):
        publish(packed, to=way, target=url if way == "file-server" else str(folder), dry_run=False)
    assert (folder / packed.name).read_bytes() == b"other"
    assert asked == []


def test_a_folder_that_the_bundle_lies_in(packed, tmp_path):
    for path in (packed, checksum_file(packed)):
        shutil.copy(path, tmp_path)
    publish(tmp_path / packed.name, to="folder", target=str(tmp_path), dry_run=False)
    assert (tmp_path / packed.name).read_bytes() == packed.read_bytes()
    assert STEM in json.loads((tmp_path / INDEX).read_text())


def test_a_server_that_leads_elsewhere_gets_no_token_and_is_not_followed(server, monkeypatch):
    """Over http, as nothing here has certificates; where publish wants https, redirects are refused alike."""
    got = []

    class Redirects(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            got.append(self.headers.get("Authorization"))
            self.send_response(302)
            self.send_header("Location", f"{server[0]}/x")
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.setenv("CT_CNCL_PUBLISH_TOKEN", "secret")
    (server[1] / "x").write_text("{}")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirects) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        with pytest.raises(PublishError, match=f"redirects to {server[0]}/x"):
            _request("GET", f"http://127.0.0.1:{running.server_address[1]}/x")
        running.shutdown()
    assert got == ["Bearer secret"]


def test_a_file_server(packed, server):
    url, folder, asked = server
    publish(packed, to="file-server", target=url)
    assert asked == []
    for _ in range(2):  # the same bits again are no other version
        publish(packed, to="file-server", target=url + "/", dry_run=False)
        assert (folder / packed.name).read_bytes() == packed.read_bytes()
        assert (folder / checksum_file(packed).name).read_bytes() == checksum_file(packed).read_bytes()
        index = json.loads((folder / INDEX).read_text())
        assert index[STEM] == {"source": f"{url}/{packed.name}", "checksum": file_checksum(packed)}


def test_a_token_is_not_sent_in_the_clear(packed, server, monkeypatch):
    monkeypatch.setenv("CT_CNCL_PUBLISH_TOKEN", "secret")
    with pytest.raises(PublishError, match="https") as caught:
        publish(packed, to="file-server", target=server[0], dry_run=False)
    assert "secret" not in str(caught.value)
    assert server[2] == []


def test_a_server_that_is_not_there_is_one_line(packed):
    with pytest.raises(PublishError, match="Expected to reach http://127.0.0.1:1/"):
        publish(packed, to="file-server", target="http://127.0.0.1:1", dry_run=False)


def test_the_hub_gets_the_bundle_through_monai(packed, monkeypatch):
    """The Hub itself stands in; what MONAI does before it is real."""
    calls = {}

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, **options):
            calls["repo"] = options

        def upload_folder(self, *, repo_id, folder_path):
            from pathlib import Path

            root = Path(folder_path)
            calls["files"] = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
            calls["card"] = (root / "README.md").read_text()
            return repo_id

        def create_tag(self, **options):
            calls["tag"] = options

    from monai.bundle import scripts

    stand_in = types.SimpleNamespace(HfApi=Api)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)
    monkeypatch.setattr(scripts, "huggingface_hub", stand_in)
    (said,) = publish(packed, to="huggingface", target="hospital/ct_cncl")
    assert calls == {}
    assert "private" in said
    publish(packed, to="huggingface", target="hospital/ct_cncl", dry_run=False)
    assert calls["repo"] == {"repo_id": "hospital/ct_cncl", "private": True, "exist_ok": True}
    assert calls["tag"]["tag"] == __version__
    assert {"configs/inference.json", "models/model.ts", "docs/README.md"} <= calls["files"]
    assert calls["card"].startswith("---")
    assert "# Model Overview" in calls["card"]


def test_without_the_hubs_package_the_extra_is_named(packed, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PublishError, match=r"pip install 'ct-cncl\[huggingface\]'"):
        publish(packed, to="huggingface", target="a/b", dry_run=False)


@pytest.mark.parametrize(
    ("to", "target", "said"),
    [
        ("hub", "x", "folder, file-server, huggingface"),
        *(("huggingface", target, "owner/name") for target in ("x", "/", "a/", "a b/c?", "a/b/c", "../b")),
        *(
            ("file-server", target, "https://host/folder")
            for target in (
                "x",
                "http://",
                "http://host/x y",
                "http://[bad",
                "https://me:secret@host",
                "ftp://host",
                "http://h/?x",
            )
        ),
        ("folder", "", "Expected a folder"),
        ("folder", __file__, "Expected a folder"),
    ],
)
def test_where_nothing_can_be_published(packed, to, target, said):
    with pytest.raises(PublishError, match=said):
        publish(packed, to=to, target=target)


def test_a_bundle_with_faults_stays(packed, tmp_path):
    for path in (packed, checksum_file(packed)):
        shutil.copy(path, tmp_path)
    with (tmp_path / packed.name).open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"x")
    with pytest.raises(PublishError, match="is not the file that"):
        publish(tmp_path / packed.name, to="folder", target=str(tmp_path / "out"), dry_run=False)
    checksum_file(tmp_path / packed.name).unlink()
    with pytest.raises(PublishError, match="ct-cncl pack"):
        publish(tmp_path / packed.name, to="folder", target=str(tmp_path / "out"), dry_run=False)
    assert not (tmp_path / "out").exists()
