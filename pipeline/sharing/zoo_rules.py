"""Rules of MONAI's model zoo for a bundle, as far as they can be checked from its files: nothing of the bundle is run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.common.extras import require
from ct_cncl.pipeline.sharing.config_review import read_config
from ct_cncl.transforms.common.checksums import file_checksum

REQUIRED = (
    "LICENSE",
    "configs/metadata.json",
    "configs/inference.json",
    "models/model.pt",
    "docs/README.md",
    "docs/data_license.txt",
)
LARGEST = 25 << 20
"""Largest size of a file that the zoo keeps in git, bytes."""
SECTIONS = (
    "Model Overview",
    "Data",
    "Training configuration",
    "Performance",
    "Bundle Commands",
    "Limitations",
    "Citation",
    "References",
    "License",
)
CHECKSUMS = "checksums.sha256"
"""File in the bundle that lists every other file with its SHA-256, in the format of ``sha256sum --check``."""
HUB_FILES = ("README.md", ".gitattributes")
HUB_CACHE = ".cache/huggingface/"
SUBSECTIONS = ("Input", "Output")
MISSING = object()
"""Stand-in for the value of a missing key."""
METADATA_SCHEMA = Path(__file__).with_name("metadata_schema.json")
_PERSONAL = re.compile(
    rb"/(?:home|Users|root|work|workspace|media|mnt|tmp)/[\w.-]+|[A-Z]:\\\\?Users\\\\?[\w.-]+|[A-Za-z0-9._%+-]+@(?:[\w-]+\.)+(?:com|de|org|edu|net)\b"
)
_TEXT = {".json", ".yaml", ".yml", ".md", ".txt", ".conf", ".py", ".cfg", ".toml", ".sha256", ""}


def broken_rules(bundle: Path) -> list[str]:
    """The zoo's rules that a bundle's folder breaks, one sentence each; empty if it breaks none.

    Args:
        bundle: the folder with ``configs`` in it.
    """
    missing = [f"{name} is missing." for name in REQUIRED if not (bundle / name).is_file()]
    if not (bundle / "configs" / "metadata.json").is_file():
        return missing
    return [*missing, *_metadata(bundle), *_properties(bundle), *_readme(bundle), *_files(bundle)]


def _metadata(bundle: Path) -> Iterator[str]:
    try:
        metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        yield f"configs/metadata.json is not JSON: {error}."
        return
    require("jsonschema", extra="verify", purpose="to check metadata.json")
    from jsonschema import Draft201909Validator

    schema = json.loads(METADATA_SCHEMA.read_text(encoding="utf-8"))
    for wrong in Draft201909Validator(schema).iter_errors(metadata):
        yield f"configs/metadata.json, {wrong.json_path}: {wrong.message}."
    content: dict[str, Any] = metadata if isinstance(metadata, dict) else {}  # the schema has reported anything else
    version, changes = content.get("version"), content.get("changelog")
    if isinstance(version, str) and isinstance(changes, dict) and version not in changes:
        yield f"configs/metadata.json has no line for version {version} in its changelog."


def required_properties(kind: str) -> list[str]:
    """Config keys that MONAI requires of a bundle's "train" or "infer" config."""
    from monai.bundle.properties import InferProperties, TrainProperties
    from monai.bundle.utils import ID_SEP_KEY

    properties: dict[str, dict[str, Any]] = TrainProperties if kind == "train" else InferProperties
    return [str(one["id"]).replace(ID_SEP_KEY, "#") for one in properties.values() if one["required"]]


def _properties(bundle: Path) -> Iterator[str]:
    for kind, name in (("train", "train.json"), ("infer", "inference.json")):
        path = bundle / "configs" / name
        if not path.is_file():
            continue
        try:
            config = read_config(path)
        except (ValueError, RecursionError) as error:
            yield f"configs/{name} cannot be read: {error}."
            continue
        for key in required_properties(kind):
            node: Any = config
            for part in key.split("#"):  # a value may be null, as MONAI's own check allows
                node = node.get(part, MISSING) if isinstance(node, dict) else MISSING
            if node is MISSING:
                yield f"configs/{name} has no {key}, which MONAI requires."
        if "network_def" not in config:
            yield f"configs/{name} has no network_def."


def _readme(bundle: Path) -> Iterator[str]:
    path = bundle / "docs" / "README.md"
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    titles = [title.strip().lower() for title in re.findall(r"^#+\s*(.+)$", text, re.MULTILINE)]
    places = [titles.index(title.lower()) if title.lower() in titles else None for title in SECTIONS]
    for title, place in zip(SECTIONS, places):
        if place is None:
            yield f"docs/README.md has no section {title!r}."
    known = [place for place in places if place is not None]
    if known != sorted(known):
        yield f"docs/README.md has its sections in another order than {', '.join(SECTIONS)}."
    for title in SUBSECTIONS:
        if title.lower() not in titles:
            yield f"docs/README.md does not describe the {title.lower()} (a heading {title!r})."


def _files(bundle: Path) -> Iterator[str]:
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        name = path.relative_to(bundle).as_posix()
        if path.stat().st_size > LARGEST:
            yield f"{name} has {path.stat().st_size / 2**20:.0f} MiB; the zoo accepts at most {LARGEST >> 20} MiB."
        if path.suffix in _TEXT:
            for match in sorted(set(_PERSONAL.findall(path.read_bytes()))):
                yield f"{name} names {match.decode(errors='replace')}: personal paths and addresses do not belong in a bundle."


def wrong_checksums(bundle: Path) -> Iterator[str]:
    """Files that do not match ``checksums.sha256`` or metadata.json, one sentence each; empty if there is no such list.

    Files that a download from the Hugging Face Hub adds are ignored: the model card at the top, ``.gitattributes`` and its cache.
    """
    present = {path.relative_to(bundle).as_posix(): path for path in bundle.rglob("*") if path.is_file()}
    weights = present.get("models/model.pt")
    stated_weights = _stated_weights(bundle)
    if weights and stated_weights and file_checksum(weights) != stated_weights:
        yield "models/model.pt is not the file that configs/metadata.json names."
    listing = present.pop(CHECKSUMS, None)
    if listing is None:
        return
    stated = {}
    for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        stated[name] = digest
    for name in sorted(set(stated) | set(present)):
        if name not in present:
            yield f"{name} is in {CHECKSUMS}, but not in the bundle."
        elif name not in stated:
            if name not in HUB_FILES and not name.startswith(HUB_CACHE):
                yield f"{name} is not in {CHECKSUMS}."
        elif file_checksum(present[name]) != stated[name]:
            yield f"{name} is not the file that {CHECKSUMS} names."


def _stated_weights(bundle: Path) -> Any:
    try:
        return json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))["weights"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
