"""``ct-cncl publish``: publish a packed bundle to a folder, a file server or the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ct_cncl.pipeline.sharing.card import TO_WRITE
from ct_cncl.pipeline.sharing.pack import NAME, checksum_file
from ct_cncl.pipeline.sharing.verify import CARD_CHECK, OK, SKIPPED, opened, review_source
from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.file_names import absolute
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.temporary import temporary_folder

INDEX = "model_info.json"
"""Index of a folder or server, in the model zoo's form: ``{"name_vVERSION": {"source": URL, "checksum": SHA-256}}``."""
TOKEN = "CT_CNCL_PUBLISH_TOKEN"  # noqa: S105
"""Environment variable with the token that a file server expects after "Authorization: Bearer"."""
_SECONDS = 60


class PublishError(ValueError):
    """A bundle cannot be published; the message is one line."""


@dataclass(frozen=True)
class Step:
    """One step of publishing: its description, and the function that does it."""

    said: str
    do: Callable[[], object]


def publish(source: Path, *, to: str, target: str, dry_run: bool = True) -> list[str]:
    """Publish a packed bundle that passes the checks which need no execution.

    Args:
        source: a zip of ``ct-cncl pack``, with its SHA-256 next to it.
        to: "folder", "file-server" (HTTP PUT, as WebDAV servers accept it) or "huggingface".
        target: a folder, a URL, or ``owner/name`` of a repository.
        dry_run: only describe what would be done.

    Returns:
        Descriptions of the steps.

    Raises:
        VerifyError: ``source`` is not a packed bundle.
        PublishError: the bundle has faults or places that are still to be written, the target already has a different bundle of
            this version, or it cannot be reached.
        OutputError: the folder cannot be written.
    """
    if not source.is_file() or not checksum_file(source).is_file():
        raise PublishError(f"Expected a zip with its .sha256 next to it in {source}, but got none. Run `ct-cncl pack`.")
    found = review_source(source)
    card = next((one for one in found.checks if one.name == CARD_CHECK and one.state == SKIPPED), None)
    if card is not None:
        raise PublishError(
            f"Expected a bundle whose texts are complete, but in {source.name} {card.said}. Write them (search for "
            f"{TO_WRITE}), then run `ct-cncl pack --seal`; or pack with --card, --authors, --data-source and --license."
        )
    faults = [one.said for one in found.checks if one.state != OK]
    faults += found.review.doubts
    if faults:
        raise PublishError(f"Expected a bundle without faults, but {source.name} has {len(faults)}: {faults[0]}")
    ways = {"folder": _to_folder, "file-server": _to_server, "huggingface": _to_hub}
    if to not in ways:
        raise PublishError(f"Expected the kind of target to be one of {', '.join(ways)}, but got {to!r}.")
    steps = ways[to](source, target)
    if not dry_run:
        for step in steps:
            step.do()
    return [step.said for step in steps]


def _entry(source: Path, place: str) -> dict[str, Any]:
    return {source.stem: {"source": place, "checksum": file_checksum(source)}}


def _merged(index: Any, source: Path, place: str) -> str:
    """The index with this bundle added. A version must not be replaced by different contents: its users would not notice."""
    if not isinstance(index, dict):
        raise PublishError(f"Expected a mapping in the existing {INDEX}, but got {type(index).__name__}. Correct it.")
    own = _entry(source, place)
    earlier = index.get(source.stem)
    if earlier is not None and (
        not isinstance(earlier, dict) or earlier.get("checksum") != own[source.stem]["checksum"]
    ):
        raise _another(source)
    return json.dumps(dict(sorted((index | own).items())), indent=4) + "\n"


def _another(source: Path) -> PublishError:
    return PublishError(
        f"Expected {source.stem} to be new or identical at the target, but it holds a different one. Raise the version (ct-cncl pack "
        "--version)."
    )


def _to_folder(source: Path, target: str) -> list[Step]:
    folder = absolute(target)
    if not target or (folder.exists() and not folder.is_dir()):
        raise PublishError(f"Expected a folder, but got {target!r}. Name one; it is created if it does not exist.")
    index = folder / INDEX
    try:
        earlier = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    except ValueError as error:
        raise PublishError(f"Expected JSON in {index}, but got: {error}. Correct it.") from error
    merged = _merged(earlier, source, (folder / source.name).as_uri())
    there = folder / source.name
    if there.is_file() and not there.samefile(source) and file_checksum(there) != file_checksum(source):
        raise _another(source)  # not in the index, but somebody may have downloaded it

    def copy(path: Path) -> Callable[[], None]:
        def do() -> None:
            target = folder / path.name
            if target.exists() and target.samefile(path):
                return
            with replacing(target) as temporary:
                shutil.copyfile(path, temporary)

        return do

    def write_index() -> None:
        with replacing(index) as temporary:
            temporary.write_text(merged, encoding="utf-8")

    return [
        *(Step(f"copy {path.name} to {folder}", copy(path)) for path in (source, checksum_file(source))),
        Step(f"add {source.stem} to {index}", write_index),
    ]


def _to_server(source: Path, target: str) -> list[Step]:
    _check_url(target)
    base = target.rstrip("/")

    def upload() -> None:
        # Only here, since a dry run must not contact the server.
        text = _request("GET", f"{base}/{INDEX}") or b"{}"
        try:
            merged = _merged(json.loads(text), source, f"{base}/{source.name}")
        except ValueError as error:
            if isinstance(error, PublishError):
                raise
            raise PublishError(f"Expected JSON in {base}/{INDEX}, but got: {error}. Correct it.") from error
        there = _request("GET", f"{base}/{source.name}")
        if there is not None and hashlib.sha256(there).hexdigest() != file_checksum(source):
            raise _another(source)  # not in the index, but somebody may have downloaded it
        for path in (source, checksum_file(source)):
            _request("PUT", f"{base}/{path.name}", path.read_bytes())
        _request("PUT", f"{base}/{INDEX}", merged.encode())

    names = f"{source.name}, {checksum_file(source).name}"
    return [Step(f"PUT {names} to {base}, and add {source.stem} to {base}/{INDEX}", upload)]


def _check_url(target: str) -> None:
    try:
        parts = urlsplit(target)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or re.search(r"[\s\x00-\x1f?#@]", target):
        raise PublishError(
            f"Expected a URL like https://host/folder, without user, query or fragment, but got {target!r}."
        )
    if TOKEN in os.environ and parts.scheme != "https":
        raise PublishError(f"Expected an https URL, so that {TOKEN} is sent encrypted, but got {target!r}.")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: urllib would pass the headers on, even to another host, and the token must not go there."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _request(method: str, url: str, content: bytes | None = None) -> bytes | None:
    """Send a request and return the body of the response; None if a GET finds nothing."""
    request = urllib.request.Request(url, data=content, method=method)  # noqa: S310
    if TOKEN in os.environ:
        request.add_unredirected_header("Authorization", f"Bearer {os.environ[TOKEN]}")
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_SECONDS) as answer:
            found: bytes = answer.read()
            return found
    except urllib.error.HTTPError as error:
        if error.code == 404 and method == "GET":
            return None
        if error.code in (301, 302, 303, 307, 308):
            raise PublishError(
                f"Expected {url} to accept {method} itself, but it redirects to {error.headers.get('Location')}. Name "
                "that URL if you trust it."
            ) from error
        raise PublishError(f"Expected {url} to accept {method}, but got: {error.code} {error.reason}.") from error
    except (OSError, http.client.HTTPException) as error:
        raise PublishError(f"Expected to reach {url}, but got: {error}.") from error


def _to_hub(source: Path, target: str) -> list[Step]:
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", target, re.ASCII):
        raise PublishError(f"Expected a repository as owner/name, but got {target!r}.")
    version = source.stem.removeprefix(f"{NAME}_v")

    def push() -> None:
        try:
            import huggingface_hub  # noqa: F401
        except ImportError as error:
            raise PublishError(
                "Expected the package huggingface_hub, but it is not installed. Run `pip install 'ct-cncl[huggingface]'`."
            ) from error
        from monai.bundle import push_to_hf_hub

        with opened(source) as bundle, temporary_folder() as scratch:
            shutil.copytree(bundle, scratch / NAME)
            # MONAI copies docs/README.md to the top as the model card, and adds its tags.
            push_to_hf_hub(repo=target, name=NAME, bundle_dir=str(scratch), version=version)

    return [Step(f"push {source.name} to https://huggingface.co/{target}, private, tagged {version}", push)]
