"""``ct-cncl pack``: write the bundle as one zip file with weights, exports and the code it needs, reproducible bit for bit."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ct_cncl.pipeline.common.errors import CheckpointError, ConfigError
from ct_cncl.pipeline.common.extras import require
from ct_cncl.pipeline.sharing.card import CARD, LICENCE_OF_DATA, Texts, stub_card
from ct_cncl.pipeline.sharing.export import export_models
from ct_cncl.pipeline.sharing.zoo_rules import CHECKSUMS, broken_rules
from ct_cncl.pipeline.weights.load import TRAINED_ON_KEY, open_weights
from ct_cncl.pipeline.workflow.definition import network_config, network_definition
from ct_cncl.pipeline.workflow.locations import installed_bundle
from ct_cncl.pipeline.workflow.own_code import CODE
from ct_cncl.pipeline.workflow.run import load_config, merged_config, overlay_file
from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.locks import alone_in
from ct_cncl.transforms.common.temporary import temporary_folder
from ct_cncl.transforms.dataset.datalist import entries, read_datalist

NAME = "ct_cncl"
"""Name of the bundle: of its folder in the zip, of the zip itself, and of the package that it carries."""
_CONFIGS = ("evaluate.json", "multi_gpu_train.json", "logging.conf")
"""Configs that are packed unchanged. Overlays of the paper's network are left out: the shared train.json defines another one."""
CARRIED = ("pipeline", "transforms")
_NOT_CARRIED = ("cli",)  # the command line needs packages that a bundle does not
FINE_TUNE = "fine_tune"
"""Overlay with the settings for fine-tuning, since users of a bundle need not train from scratch."""
_VERSION = re.compile(r"\d+(\.\d+)*[a-z0-9]*(\.[a-z0-9]+)*(\+[A-Za-z0-9]+([._-][A-Za-z0-9]+)*)?", re.ASCII)
"""Allowed versions: a version becomes part of a file's name and of a tag on the Hub."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip file can store
_MODE = 0o100644 << 16


class PackError(ValueError):
    """A bundle cannot be packed; the message is one line."""


def pack(
    out: Path,
    *,
    weights: Path | None = None,
    overlays: Sequence[str] | None = None,
    version: str | None = None,
    changes: str | None = None,
    texts: Texts | None = None,
    trust: bool = False,
) -> Path:
    """Write ``ct_cncl_v<version>.zip``, and its SHA-256 next to it.

    Args:
        out: folder of both files.
        weights: a run's checkpoint; None for the bundle's own.
        overlays: overlays with which the weights were trained; they change the shared train.json. None means ``fine_tune`` and
            those in the metadata for the bundle's own weights, and none for others.
        version: version of the shared bundle; None for the project's.
        changes: what is new in ``version``, if metadata.json does not say so yet.
        trust: import and run the user's own classes that the weights' config names; they go into the zip.
        texts: card, authors, data source and licence of the user's own weights; missing ones become stubs with marked places.

    Returns:
        Path of the zip.

    Raises:
        CheckpointError: there are no weights, or they are of another network.
        ConfigError: an overlay is unknown, or the overlays define another network than that of the weights.
        DataError: the card does not exist.
        PackError: texts are given for the shipped weights, the version is invalid or lacks a line in the changelog, or the bundle
            breaks a rule of the model zoo.
        OutputError: the zip cannot be written, or exists already.
    """
    bundle = installed_bundle()
    own = bundle / "models" / "model.pt"
    if weights is None and not own.is_file():
        raise CheckpointError(
            "Expected --weights, since this version ships none, but got none. Train first: `ct-cncl train`, then pass RUN/best.pt."
        )
    if weights is None and texts not in (None, Texts()):
        raise PackError(
            "Expected --weights with a card, authors, data source or licence, but got none. Pass --weights."
        )
    texts = texts or Texts()
    texts.check()
    metadata = _metadata(bundle, weights or own, version=version, changes=changes, trust=trust)
    if weights is not None:
        metadata |= texts.metadata()
    if overlays is None:
        overlays = [*metadata["weights"]["variant"].split("+"), FINE_TUNE] if weights is None else []
    path = out / f"{NAME}_v{metadata['version']}.zip"
    if path.exists():
        raise OutputError(f"{out} already holds {path.name}. Remove it, or pass --version.")
    metadata["weights"]["variant"] = "+".join(Path(name).stem for name in overlays if name != FINE_TUNE)
    require(
        "jsonschema", extra="verify", purpose="to check metadata.json"
    )  # checked before the export, which takes minutes
    with alone_in(path), temporary_folder() as scratch:
        folder = scratch / NAME
        _write_bundle(
            folder,
            bundle,
            weights or own,
            overlays,
            metadata,
            texts=texts if weights is not None else None,
            trust=trust,
        )
        broken = broken_rules(folder)
        if broken:
            raise PackError(f"Expected a bundle that the model zoo accepts, but {broken[0]}")
        return write_zip(folder, path)


def _metadata(bundle: Path, weights: Path, *, version: str | None, changes: str | None, trust: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    if version is not None:
        if not _VERSION.fullmatch(version):
            raise PackError(f"Expected a version like 0.2.0 or 0.2.0+ours, but got {version!r}.")
        metadata["version"] = version
    if changes is not None:
        metadata["changelog"] = {metadata["version"]: changes} | metadata["changelog"]
    if metadata["version"] not in metadata["changelog"]:
        raise PackError(
            f"Expected a line for version {metadata['version']} in the changelog of metadata.json, but there is none. Describe the "
            'changes with --changes "...".'
        )
    metadata["required_packages_version"].pop("ct-cncl", None)  # the zip carries it
    metadata[TRAINED_ON_KEY] = _trained_on(weights, trust=trust)
    return metadata


def _trained_on(weights: Path, *, trust: bool) -> dict[str, Any]:
    """Properties of the training data: those stored next to the weights, or those of the run's data set if it still exists."""
    found = open_weights(weights, torch.device("cpu"), trust=trust).trained_on
    config = weights.parent / "config.json"
    if found or not config.is_file():
        return found
    folder = json.loads(config.read_text(encoding="utf-8")).get("dataset_dir")
    if not isinstance(folder, str) or not (Path(folder) / "datalist.json").is_file():
        return {}
    from ct_cncl.pipeline.weights.domain import training_domain

    return training_domain(entries(read_datalist(folder), "training"))


def _write_bundle(
    folder: Path,
    bundle: Path,
    weights: Path,
    overlays: Sequence[str],
    metadata: dict[str, Any],
    *,
    texts: Texts | None,
    trust: bool,
) -> None:
    definition = network_config(weights, trust=trust)
    train = _training(bundle, overlays)
    if overlays and any(train.get(key) != value for key, value in definition.items()):
        raise ConfigError(
            f"Expected the overlays with which {weights.name} was trained, but {', '.join(overlays)} define another network. "
            "Omit --with to keep the training settings of train.json."
        )
    inference = load_config([bundle / "configs" / "inference.json"])
    for name, config in (("train.json", train), ("inference.json", inference)):
        kept = {key: value for key, value in config.items() if key != "_meta_"}
        _write_json(folder / "configs" / name, kept | {"context_slices": 1} | definition)
    for name in _CONFIGS:
        _copy(bundle / "configs" / name, folder / "configs" / name)
    _copy(bundle / "LICENSE", folder / "LICENSE")
    _write_texts(folder, bundle, weights, metadata, texts)
    if (bundle / "models" / "ct_encoder.pt").is_file():
        _copy(bundle / "models" / "ct_encoder.pt", folder / "models" / "ct_encoder.pt")
    for path, name in carried_code().items():
        _copy(path, folder / name)
    if trust and (weights.parent / CODE).is_dir():
        shutil.copytree(weights.parent / CODE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    export_models(weights, folder, metadata=metadata, trust=trust)
    metadata["weights"]["sha256"] = file_checksum(folder / "models" / "model.pt")
    _write_json(folder / "configs" / "metadata.json", metadata)
    write_checksums(folder)


def _write_texts(folder: Path, bundle: Path, weights: Path, metadata: Mapping[str, Any], texts: Texts | None) -> None:
    """Write card and licence: the bundle's own for its own weights, otherwise the given texts or stubs."""
    if texts is None:
        for path in sorted((bundle / "docs").iterdir()):
            _copy(path, folder / path.relative_to(bundle))
        return
    card = stub_card(weights, metadata) if texts.card is None else texts.card.read_text(encoding="utf-8")
    for name, text in ((CARD, card), (LICENCE_OF_DATA, texts.licence_text())):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def write_checksums(folder: Path) -> None:
    """Write a list of the SHA-256 of every file of a bundle into the bundle."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / CHECKSUMS)
    lines = [f"{file_checksum(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _training(bundle: Path, overlays: Sequence[str]) -> dict[str, Any]:
    """The shared train.json with the overlays applied; ``fine_tune``, if it comes last, keeps the network of the others."""
    files = [bundle / "configs" / "train.json", *map(overlay_file, overlays)]
    merged = merged_config(files)
    if list(overlays[1:]) and overlays[-1] == FINE_TUNE:
        merged |= network_definition(merged_config(files[:-1]))
    return {key: value for key, value in merged.items() if key != "_meta_"}


def carried_code() -> dict[Path, str]:
    """The installed code that a bundle needs: each file with its path in the bundle, ``ct_cncl/pipeline/...``."""
    from ct_cncl import pipeline, transforms

    found = {}
    for name, package in zip(CARRIED, (pipeline, transforms)):
        root = Path(str(package.__file__)).parent
        for path in sorted((*root.rglob("*.py"), *root.rglob("*.json"))):
            inside = path.relative_to(root)
            if inside.parts[0] not in _NOT_CARRIED:
                found[path] = f"{NAME}/{name}/{inside.as_posix()}"
    return found


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def write_zip(folder: Path, path: Path) -> Path:
    """Write a zip with one top folder, reproducibly: sorted names, one date, one mode, and no compression.

    The output of zlib depends on its version.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            member = zipfile.ZipInfo(file.relative_to(folder.parent).as_posix(), _EPOCH)
            member.create_system, member.external_attr = 3, _MODE
            archive.writestr(member, file.read_bytes())
    with replacing(checksum_file(path)) as temporary:
        temporary.write_text(f"{file_checksum(path)}  {path.name}\n", encoding="utf-8")
    return path


def checksum_file(path: Path) -> Path:
    """Path of the file with the SHA-256 of a packed bundle."""
    return path.with_name(path.name + ".sha256")
