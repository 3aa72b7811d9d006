"""Writes a prepared data set: pairs as memory-mappable volumes, split by patient, with checksums."""

from __future__ import annotations

import json
import math
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ct_cncl.transforms import __version__
from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.errors import DataError, OutputError
from ct_cncl.transforms.common.file_names import absolute
from ct_cncl.transforms.common.files import partial_name
from ct_cncl.transforms.common.json_values import plain
from ct_cncl.transforms.common.locks import alone_in
from ct_cncl.transforms.dataset.datalist import DATALIST, FORMAT, NOISE, SPLITS, TISSUE_LABELS, VOLUMES, check_patients
from ct_cncl.transforms.dataset.patients import hash_patient, rule_that_tells_apart, split_patients
from ct_cncl.transforms.dataset.simulated_cases import Case, Pair
from ct_cncl.transforms.series import voxel_spacing

INT16 = np.iinfo(np.int16)


def split_cases(
    cases: Sequence[Case],
    *,
    validation: Sequence[Case] = (),
    test: Sequence[Case] = (),
    validation_fraction: float = 0.0,
    test_fraction: float = 0.0,
    seed: int = 0,
) -> dict[str, list[Case]]:
    """Assign cases to splits, patient by patient.

    Args:
        cases: cases of the training sources.
        validation: cases of separate validation sources.
        test: cases of separate test sources.
        validation_fraction: share of the patients of ``cases`` that goes to validation; not used with ``validation``.
        test_fraction: share of the patients of ``cases`` that goes to the test; not used with ``test``.
        seed: seed of the shuffle.

    Returns:
        Cases by split.

    Raises:
        DataError: a patient is in two splits, or there are too few patients.
    """
    try:
        assigned = split_patients(
            [case.patient for case in cases],
            validation_fraction=0.0 if validation else validation_fraction,
            test_fraction=0.0 if test else test_fraction,
            seed=seed,
        )
    except DataError as error:
        if len({case.patient for case in cases}) > 1 or not (hint := rule_that_tells_apart(c.source for c in cases)):
            raise
        raise DataError(f"{error} All {len(cases)} scans are taken as one patient's.{hint}") from error
    splits: dict[str, list[Case]] = {split: [] for split in SPLITS}
    for case in cases:
        splits[assigned[case.patient]].append(case)
    splits["validation"] += validation
    splits["test"] += test
    check_patients({split: [{"patient": c.patient, "source": c.source} for c in splits[split]] for split in SPLITS})
    return splits


def write_dataset(
    folder: str | Path,
    splits: Mapping[str, Sequence[Case]],
    *,
    salt: str | None = None,
    overwrite: bool = False,
    notes: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Generate every pair and write the data set; it appears under its name only when it is complete.

    Args:
        folder: the new data set; it must not exist or be empty, or be a data set with ``overwrite``.
        splits: cases by split.
        salt: salt of the patients' hashes; None draws one at random, which is stored nowhere.
        overwrite: replace an existing data set.
        notes: further entries of the datalist (seed, rule for the patients' names ...).
        progress: called with the number of finished volumes and of all volumes.

    Returns:
        The datalist.

    Raises:
        DataError: the folder exists, there is no case, or a pair cannot be read or stored.
        OutputError: the disk is full, permission is missing, or another process is writing the folder.
    """
    folder = absolute(folder)
    if not any(splits.values()):
        raise DataError("Expected at least one scan to prepare, but got none. Name a folder with scans.")
    with alone_in(folder) as certain:
        if certain:
            _clean_up(folder)
        _refuse_existing(folder, overwrite=overwrite)
        return _written(folder, splits, salt, notes=notes or {}, progress=progress)


def _written(
    folder: Path,
    splits: Mapping[str, Sequence[Case]],
    salt: str | None,
    *,
    notes: Mapping[str, Any],
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    total = sum(len(cases) for cases in splits.values())
    salt = secrets.token_hex(16) if salt is None else salt
    partial = folder.with_name(partial_name(folder.name))
    datalist: dict[str, Any] = {
        "name": "ct-cncl data set",
        "description": "Low-dose CT (image) and its normal-dose truth (label), int16 HU",
        "format": FORMAT,
        "version": __version__,
        **notes,
    }
    done = 0
    try:
        for split in SPLITS:
            datalist[split] = []
            for number, case in enumerate(splits.get(split, ())):
                datalist[split].append(_write_case(partial, split, number, case, salt))
                done += 1
                if progress is not None:
                    progress(done, total)
        check_patients(datalist)
        (partial / DATALIST).write_text(json.dumps(plain(datalist), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        _put_in_place(partial, folder)
    except OSError as error:
        raise OutputError(
            f"Expected to write the data set {folder}, but got: {error.strerror or error}. Nothing was left behind; free some "
            "space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return datalist


def _clean_up(folder: Path) -> None:
    """Remove unfinished data sets that killed runs left next to ``folder``, and restore one that they were about to replace."""
    own = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{8}}\.(part|old)")
    left = [
        path for path in folder.parent.iterdir() if own.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    ]
    for path in sorted(left):
        if path.suffix == ".old" and not folder.exists() and (path / DATALIST).is_file():
            path.replace(folder)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _put_in_place(partial: Path, folder: Path) -> None:
    """Give the finished data set its name; the one that it replaces is removed afterwards, or restored if this fails."""
    old = partial.with_suffix(".old")
    if folder.exists():
        folder.replace(old)
    try:
        partial.replace(folder)
    except OSError:
        if old.exists():
            old.replace(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _refuse_existing(folder: Path, *, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / DATALIST).is_file():
        raise DataError(
            f"Expected {folder} not to exist or to be empty, but it exists and is not a data set. Choose another folder."
        )
    if not overwrite:
        raise DataError(
            f"Expected {folder} not to exist, but it contains a data set. Choose another folder, or replace it with --overwrite."
        )


def _write_case(partial: Path, split: str, number: int, case: Case, salt: str) -> dict[str, Any]:
    try:
        pair = case.make()
    except OSError as error:
        raise DataError(
            f"Expected to read {case.source}, but got: {error.strerror or error}. Check that file."
        ) from error
    _check_pair(pair, case)
    entry: dict[str, Any] = {
        "patient": hash_patient(case.patient, salt),
        "source": case.source,
        "dose_fraction": case.dose_fraction,
        "shape": list(pair.label.shape),
        "spacing_mm": [round(float(value), 6) for value in voxel_spacing(pair.affine)],
        "provenance": pair.provenance,
        "checksum": {},
    }
    if pair.acquisition is not None:
        entry["acquisition"] = {
            key: value for key, value in asdict(pair.acquisition).items() if value not in (None, "")
        }
    (partial / split).mkdir(parents=True, exist_ok=True)
    for key, hu in zip(VOLUMES, (pair.image, pair.label)):
        entry[key] = f"{split}/{number:04d}_{key}.nii"
        _write_int16(partial / entry[key], hu, pair.affine)
        entry["checksum"][key] = file_checksum(partial / entry[key])
    if pair.tissues is not None and split != "training":  # only results on the other splits are evaluated by tissue
        entry[TISSUE_LABELS] = f"{split}/{number:04d}_{TISSUE_LABELS}.nii"
        _write_labels(partial / entry[TISSUE_LABELS], pair.tissues, pair.affine)
        entry["checksum"][TISSUE_LABELS] = file_checksum(partial / entry[TISSUE_LABELS])
    if split == "training" and pair.noise:  # only training uses random doses
        entry["noise_model"] = pair.noise_model
        entry[NOISE], entry["checksum"][NOISE] = [], []
        for realization, make in enumerate(pair.noise, 1):
            entry[NOISE].append(f"{split}/{number:04d}_noise{realization}.nii")
            _write_noise(partial / entry[NOISE][-1], make(), pair.affine)
            entry["checksum"][NOISE].append(file_checksum(partial / entry[NOISE][-1]))
    return entry


def _check_pair(pair: Pair, case: Case) -> None:
    if pair.image.shape != pair.label.shape:
        raise DataError(
            f"Expected low and full dose of {case.source} to have the same shape, but got {pair.image.shape} and "
            f"{pair.label.shape}. Pair scans of the same slices."
        )
    for hu in (pair.image, pair.label):
        if not np.isfinite(hu).all():
            raise DataError(
                f"Expected finite HU in {case.source}, but got NaN or infinity. Repair or leave out that scan."
            )
        low, high = float(hu.min()), float(hu.max())
        if low < INT16.min or high > INT16.max:
            raise DataError(
                f"Expected HU of {case.source} between {INT16.min} and {INT16.max}, but got {low:g} to {high:g}. Check its rescale."
            )


def _write_int16(path: Path, hu: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(np.rint(hu).astype(np.int16), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _write_labels(path: Path, labels: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(labels.astype(np.uint8), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _write_noise(path: Path, noise: np.ndarray, affine: np.ndarray) -> None:
    """Write noise in HU as int16 with a slope; it is a power of two, so that the slope itself is stored without rounding."""
    largest = float(np.abs(noise).max())
    step = 2.0 ** math.ceil(math.log2(largest / INT16.max)) if largest > 0 else 1.0
    image = nib.Nifti1Image(np.rint(noise / step).astype(np.int16), affine)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(step, 0.0)
    nib.save(image, path)
