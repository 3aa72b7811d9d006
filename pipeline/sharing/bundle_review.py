"""List what a bundle from others would run before any of it runs: its configs, the code that it carries, its weights."""

from __future__ import annotations

import configparser
from dataclasses import dataclass, field
from pathlib import Path

from ct_cncl.pipeline.common.checkpoint_file import first_line
from ct_cncl.pipeline.common.finding import Finding
from ct_cncl.pipeline.sharing.config_review import SUFFIXES, review_config
from ct_cncl.pipeline.sharing.pack import carried_code
from ct_cncl.pipeline.sharing.zoo_rules import HUB_CACHE
from ct_cncl.pipeline.weights.review import REVIEWS, review_weights
from ct_cncl.pipeline.workflow.locations import installed_bundle
from ct_cncl.transforms.common.checksums import file_checksum

IDENTICAL, DIFFERENT, UNKNOWN = "identical", "different", "unknown"
"""Result of comparing a code file with the installed release's file of the same name."""
_DATA = {".md", ".txt", ".sha256", ".nii", ".gz", ".png", ".svg", ".jpg", ".csv"}
_PLAIN = {"LICENSE", ".gitignore", ".gitattributes", "CACHEDIR.TAG"}
_HUB_CACHE = {".metadata", ".lock"}
"""Files that a download from the Hugging Face Hub leaves in ``.cache/huggingface``: dates and checksums, which nothing opens."""


@dataclass(frozen=True)
class CodeFile:
    """A file that can be executed.

    Attributes:
        name: path in the bundle.
        sha256: its checksum.
        status: "identical", "different" or "unknown".
    """

    name: str
    sha256: str
    status: str


@dataclass
class Review:
    """What a bundle would execute.

    Attributes:
        findings: findings in configs, logging settings and weights.
        code: files of code, and files of kinds that do not belong in a bundle.
    """

    findings: list[Finding] = field(default_factory=list)
    code: list[CodeFile] = field(default_factory=list)

    @property
    def doubts(self) -> list[str]:
        """Everything that the installed release does not have in the same form, one line each."""
        configs = [f"{one.file} {one.key}: {one.kind} {one.text}" for one in self.findings if not one.known]
        return configs + [f"{one.name}: {one.status} code" for one in self.code if one.status != IDENTICAL]

    def lines(self) -> list[str]:
        """All findings and code files as lines of text; repeated findings are listed once."""
        places: dict[tuple[bool, str, str], list[str]] = {}
        for one in self.findings:
            places.setdefault((one.known, one.kind, one.text), []).append(f"{one.file} {one.key}".strip())
        found = []
        for (known, kind, text), where in sorted(places.items()):
            more = f" and {len(where) - 1} more" if len(where) > 1 else ""
            found.append(f"{'known' if known else 'UNKNOWN':9} {kind:13} {text}   ({where[0]}{more})")
        codes = [
            f"{one.status if one.status == IDENTICAL else one.status.upper():9} code          {one.name}   {one.sha256}"
            for one in sorted(self.code, key=lambda one: (one.status == IDENTICAL, one.name))
        ]
        return found + codes


def review_bundle(bundle: Path) -> Review:
    """List what ``bundle``, a folder, would execute. Nothing of it is executed or unpickled.

    Args:
        bundle: the folder with ``configs`` in it.
    """
    review = Review()
    installed = {name: path for path, name in carried_code().items()}
    for path in sorted(path for path in bundle.rglob("*") if path.is_file() or path.is_symlink()):
        name = path.relative_to(bundle).as_posix()
        if path.is_symlink():
            review.code.append(CodeFile(name, "a link", UNKNOWN))
        elif name in installed:
            digest = file_checksum(path)
            same = digest == file_checksum(installed[name])
            review.code.append(CodeFile(name, digest, IDENTICAL if same else DIFFERENT))
        elif path.suffix in SUFFIXES:
            review.findings += review_config(path, name)
        elif path.suffix == ".conf":
            review.findings += _logging(path, name)
        elif path.suffix in REVIEWS:
            review.findings += review_weights(path, name)
        elif path.suffix not in _DATA and path.name not in _PLAIN and not _of_the_hub(name, path):
            review.code.append(CodeFile(name, file_checksum(path), UNKNOWN))
    return review


def _of_the_hub(name: str, path: Path) -> bool:
    return name.startswith(HUB_CACHE) and path.suffix in _HUB_CACHE


def _logging(path: Path, name: str) -> list[Finding]:
    """Options of a settings file for Python's logging, which evaluates classes, arguments and the like.

    Only an exact copy of the installed release's file is known. Any other file is read with the parser that logging uses, in
    lower case, so that no spelling hides an option.
    """
    own = installed_bundle() / "configs" / "logging.conf"
    known = own.is_file() and path.read_bytes() == own.read_bytes()
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=name)
    except (configparser.Error, ValueError) as error:
        return [Finding(name, "", "logging", f"cannot be read: {first_line(error)}", known=False)]
    found = [
        Finding(name, section, "logging", f"{key}={value}", known)
        for section in parser
        for key, value in parser[section].items()
    ]
    return (
        found
        if known
        else [Finding(name, "", "logging", "settings that differ from the installed release's", known), *found]
    )
