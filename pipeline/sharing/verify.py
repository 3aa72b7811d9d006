"""``ct-cncl verify``: list what a bundle would run before any of it runs, then check that it is complete and works as stated."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ct_cncl.pipeline.sharing.bundle_review import Review, review_bundle
from ct_cncl.pipeline.sharing.card import CARD, is_card_of, places_to_write, same_tensors
from ct_cncl.pipeline.sharing.config_review import read_config
from ct_cncl.pipeline.sharing.pack import checksum_file
from ct_cncl.pipeline.sharing.zoo_rules import CHECKSUMS as LISTING
from ct_cncl.pipeline.sharing.zoo_rules import broken_rules, wrong_checksums
from ct_cncl.pipeline.weights.torchscript_archive import judge_torchscript
from ct_cncl.pipeline.workflow.locations import installed_bundle
from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.temporary import temporary_folder
from ct_cncl.transforms.series.archive_file import unzip
from ct_cncl.transforms.series.scan import ScanError

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
ARCHIVE, CHECKSUMS, READABLE, CARD_CHECK = "archive", "checksums", "configs", "model card"
_MOST_FILES = 5_000
_MOST_BYTES = 2 << 30
_LONGEST_SECONDS = 600


class VerifyError(ValueError):
    """A bundle cannot be inspected, or must not be run; the message is one line."""


class Check(NamedTuple):
    """One check: its name, its state ("ok", "failed" or "skipped") and a remark."""

    name: str
    state: str
    said: str


@dataclass
class Verified:
    """The results of verifying a bundle.

    Attributes:
        review: what the bundle would execute.
        checks: the checks in the order in which they were made.
    """

    review: Review
    checks: list[Check] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing failed."""
        return all(check.state != FAILED for check in self.checks)


def review_source(source: Path) -> Verified:
    """Inspect a bundle without running any of it.

    Args:
        source: a packed bundle (.zip), or a bundle's folder.

    Returns:
        What the bundle would execute, and the checks that need no execution.

    Raises:
        VerifyError: ``source`` is not a bundle, or an archive that must not be unpacked.
    """
    with opened(source) as bundle:
        return _reviewed(source, bundle)


def verify(source: Path, *, trust: bool = False) -> Verified:
    """Inspect a bundle, then run it if it would execute nothing but what the installed release holds.

    Without trust, a bundle whose files do not match its checksums, or whose configs cannot be read, fails and is not run.

    Args:
        source: a packed bundle (.zip), or a bundle's folder.
        trust: run the bundle whatever it holds.

    Raises:
        VerifyError: ``source`` is not a bundle, or an archive that must not be unpacked; or the bundle holds something unknown and
            is not trusted.
    """
    with opened(source) as bundle:
        found = _reviewed(source, bundle)
        doubts = found.review.doubts
        if doubts and not trust:
            raise VerifyError(
                f"Expected to run nothing but what the installed release holds, but {source.name} has {len(doubts)} other things, "
                f"the first of which is {doubts[0]}. List them with --no-exec; run them with --trust if you trust them."
            )
        faults = [
            check.said
            for check in found.checks
            if check.state == FAILED and check.name in (ARCHIVE, CHECKSUMS, READABLE)
        ]
        if faults and not trust:
            found.checks.append(Check("run", SKIPPED, f"nothing was run: {faults[0]}"))
        else:
            found.checks += _executed(bundle, trust=trust)
        return found


@contextmanager
def opened(source: Path) -> Iterator[Path]:
    """The folder of a bundle; a zip is unpacked for the duration of the context.

    Raises:
        VerifyError: ``source`` is not a bundle, or an archive with paths outside it or links, or one that grows beyond the limits.
    """
    if source.is_dir():
        yield _bundle_folder(source, source)
        return
    if not source.is_file():
        raise VerifyError(
            f"Expected a packed bundle or a bundle's folder in {source}, but it does not exist. Name another."
        )
    with temporary_folder() as scratch:
        _check_size(source)
        try:
            unzip(source, scratch)
        except ScanError as error:
            raise VerifyError(str(error)) from error
        tops = sorted(scratch.iterdir())
        if len(tops) != 1:
            raise VerifyError(
                f"Expected one top folder in {source.name}, but got {', '.join(top.name for top in tops[:5]) or 'nothing'}. "
                "Pack it with `ct-cncl pack`."
            )
        yield _bundle_folder(tops[0], source)


def _bundle_folder(folder: Path, source: Path) -> Path:
    if not (folder / "configs").is_dir():
        raise VerifyError(f"Expected a bundle in {source}, but it has no folder configs. Name a bundle.")
    return folder


def _check_size(source: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise VerifyError(f"Expected a zip archive in {source}, but got: {error}. Download it again.") from error
    size = sum(member.file_size for member in members)
    if len(members) > _MOST_FILES or size > _MOST_BYTES:
        raise VerifyError(
            f"Expected at most {_MOST_FILES} files and {_MOST_BYTES >> 30} GiB in a bundle, but {source.name} names {len(members)} "
            f"files and {size / 2**30:.1f} GiB. Do not unpack it."
        )
    names = [member.filename.casefold() for member in members]
    if len(set(names)) != len(names):
        raise VerifyError(f"Expected every name once in {source.name}, but some occur twice. Do not trust it.")


def _reviewed(source: Path, bundle: Path) -> Verified:
    found = Verified(review_bundle(bundle))
    if source.is_file():
        found.checks.append(_archive(source, bundle))
    found.checks += [_checksums(source, bundle), _readable(bundle)]
    broken = broken_rules(bundle)
    found.checks += [Check("rules of the model zoo", FAILED, line) for line in broken]
    if not broken:
        said = "schema, files, properties, README, sizes, no personal paths"
        found.checks.append(Check("rules of the model zoo", OK, said))
    found.checks.append(_card(bundle))
    return found


def _card(bundle: Path) -> Check:
    """Check that the card is about these weights, and complete."""
    own = installed_bundle()
    if is_card_of(bundle / CARD, own / CARD) and not same_tensors(
        bundle / "models" / "model.pt", own / "models" / "model.pt"
    ):
        return Check(
            CARD_CHECK,
            FAILED,
            f"{CARD} describes the weights that ct-cncl ships, but the bundle holds others; pack it with --card FILE",
        )
    places = places_to_write(bundle)
    if places:
        return Check(
            CARD_CHECK, SKIPPED, f"{places} places in card, licence and metadata are still marked to be written"
        )
    return Check(CARD_CHECK, OK, "it is about these weights" if (bundle / CARD).is_file() else "there is none")


def _checksums(source: Path, bundle: Path) -> Check:
    if source.is_file() and not (bundle / LISTING).is_file():
        return Check(CHECKSUMS, FAILED, f"a packed bundle must have {LISTING}, but this one has none")
    wrong = list(wrong_checksums(bundle))
    if wrong:
        more = f" And {len(wrong) - 3} more." if len(wrong) > 3 else ""
        return Check(CHECKSUMS, FAILED, f"{' '.join(wrong[:3])}{more}")
    if not (bundle / LISTING).is_file():
        return Check(CHECKSUMS, SKIPPED, f"a folder without {LISTING}")
    return Check(CHECKSUMS, OK, "every file is the one that the bundle names")


def _readable(bundle: Path) -> Check:
    """Check that the configs that MONAI opens are mappings."""
    for name in ("metadata.json", "inference.json", "train.json"):
        path = bundle / "configs" / name
        try:
            if path.is_file():
                read_config(path)
        except (ValueError, RecursionError) as error:
            return Check(READABLE, FAILED, f"configs/{name}: {' '.join(str(error).split())}")
    return Check(READABLE, OK, "configs are mappings")


def _archive(source: Path, bundle: Path) -> Check:
    """Check that the zip's name matches its contents, and its checksum the file next to it."""
    listing = checksum_file(source)
    if listing.is_file() and listing.read_text(encoding="utf-8").split()[:1] != [file_checksum(source)]:
        return Check(ARCHIVE, FAILED, f"it is not the file that {listing.name} names")
    try:
        version = str(json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        version = ""
    expected = f"{bundle.name}_v{version}.zip"
    if source.name != expected and re.fullmatch(r".+_v.+\.zip", source.name):
        return Check(ARCHIVE, FAILED, f"it is named {source.name}, but holds {expected}")
    return Check(
        ARCHIVE, OK, f"SHA-256 {file_checksum(source)}{'' if listing.is_file() else ', no checksum file next to it'}"
    )


def _executed(bundle: Path, *, trust: bool) -> list[Check]:
    """Run the checks of ``verify_run`` in a separate process, on a copy into which they may write.

    Without trust, TorchScript files are replaced by what was judged of them, printed again, since two readers may see different
    things in one file.
    """
    from ct_cncl.pipeline.sharing import verify_run

    script = Path(str(verify_run.__file__)).read_text(encoding="utf-8")
    with temporary_folder() as scratch:
        copy = scratch / bundle.name
        shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("__pycache__"))
        for path in () if trust else copy.rglob("*.ts"):
            path.write_bytes(judge_torchscript(path).rebuilt())
        try:
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-c", script, str(scratch)],
                cwd=copy,
                env=os.environ | {"PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True,
                text=True,
                timeout=_LONGEST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return [Check("run", FAILED, f"not finished after {_LONGEST_SECONDS} seconds")]
    lines = [
        line.removeprefix(verify_run.MARK) for line in done.stdout.splitlines() if line.startswith(verify_run.MARK)
    ]
    checks = [Check(*json.loads(line)) for line in lines]
    missing = [name for name in verify_run.CHECKS if name not in {check.name for check in checks}]
    if missing:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        checks += [Check(name, FAILED, f"not reached: {last}") for name in missing]
    return checks
