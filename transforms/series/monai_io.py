"""The reader and writer as MONAI transforms: one turns a path into slices in HU, the other writes such slices to NIfTI."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ct_cncl.transforms.series.find import find_scans, found_scans, resolve
from ct_cncl.transforms.series.nifti import read_nifti_storage
from ct_cncl.transforms.series.orientation import slices_last
from ct_cncl.transforms.series.origin import without_derived
from ct_cncl.transforms.series.rewritten import write_result
from ct_cncl.transforms.series.scan import NIFTI_SUFFIXES, DicomStorage, ScanError, ScanSource, Storage
from ct_cncl.transforms.series.write import WriteReport

logger = logging.getLogger(__name__)
_SOURCE, _FILES = "scan_source", "scan_files"


def scan_datalist(
    path: str | Path, *, key: str = "image", recursive: bool = True, missing_ok: bool = False, derived: bool = True
) -> list[dict[str, ScanSource]]:
    """List every scan under ``path`` as ``[{key: source}, ...]``, a MONAI data list for :class:`LoadScand`.

    Args:
        path: file or folder.
        key: dictionary key of each source.
        recursive: search sub-folders too.
        missing_ok: return an empty list if ``path`` does not exist: MONAI builds workflows before their data exist.
        derived: False skips results of this project and other derived images, as ``ct-cncl denoise`` does; the log names them.

    Raises:
        ScanError: as in :func:`ct_cncl.transforms.series.find_scans`; with ``derived=False``, also if all images are derived.
    """
    if missing_ok and not Path(path).exists():
        return []
    if derived:
        return [{key: source} for source in find_scans(path, recursive=recursive)]
    found = found_scans(path, recursive=recursive)
    scans, refused, left_out = without_derived(found.scans, found.derived)
    for scan, what in refused.items():
        logger.warning("%s: passed over: %s", scan, what)
    for files, texts in left_out.items():
        logger.warning("%s: %s", files[0].parent, "; ".join(texts))
    if not scans:
        kinds = ", ".join(sorted(set(refused.values())))
        raise ScanError(
            f"{path}: expected original scans but got only {kinds}; name the originals, or read these anyway "
            "with derived=True"
        )
    return [{key: source} for source in scans]


class LoadScand(MapTransform):
    """Load a path or source as a MetaTensor (1, columns, rows, slices) of float32 HU with an RAS affine.

    ``meta`` holds only strings, numbers and tensors, so that it survives a DataLoader. :class:`SaveScand` takes from it
    what it needs to write the file back.

    Args:
        keys: entries that hold a path, a ScanSource or its text form.
        check_hu: as for ``read_scan``.
        allow_irregular: as for ``read_scan``.
        slice_axis: stored axis of the slices in volume files; None determines it from the geometry.
        allow_missing_keys: skip missing keys.

    Raises:
        ScanError: when called, as in ``read_scan``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        check_hu: bool = True,
        allow_irregular: bool = False,
        slice_axis: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.check_hu = check_hu
        self.allow_irregular = allow_irregular
        self.slice_axis = slice_axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each key's path by its volume."""
        items = dict(data)
        for key in self.key_iterator(items):
            items[key] = self.load(items[key])
        return items

    def load(self, source: ScanSource | str | Path) -> MetaTensor:
        """Load one scan as (1, columns, rows, slices) float32 HU."""
        from ct_cncl.transforms.series import read_scan

        found = resolve(source)
        scan = read_scan(found, check_hu=self.check_hu, allow_irregular=self.allow_irregular)
        axis = 2 if found.kind == "dicom" else self.slice_axis
        order = slices_last(scan.affine, scan.hu.shape, axis=axis)
        volume = torch.from_numpy(np.ascontiguousarray(order.apply(scan.hu))[None])
        meta = {
            _SOURCE: str(found),
            _FILES: "\0".join(map(str, found.files)),
            "filename_or_obj": str(found.path),
            "scan_kind": found.kind,
            "scan_name": found.name,
            "scan_suffix": found.suffix,
            "scan_relative": found.relative,
            "scan_shape": torch.tensor(scan.hu.shape),
            "scan_axis": order.axis,
            "scan_integral": int(scan.storage.integral) if isinstance(scan.storage, DicomStorage) else 1,
            "original_affine": torch.from_numpy(scan.affine.copy()),
        }
        return MetaTensor(volume, affine=torch.from_numpy(order.affine.copy()), meta=meta)


class SaveScand(MapTransform):
    """Write (1, columns, rows, slices) in HU as NIfTI with the source's axes, affine, shape and dtype.

    The file has the source's name with ``postfix``, such as abc.nii.gz -> abc_denoised.nii.gz; for a DICOM series, the name
    consists of its folder and series number. Sub-folders of the searched folder are kept below ``output_dir``.

    Args:
        keys: entries to write, loaded by :class:`LoadScand` or of the same shape.
        output_dir: folder to write to; created if missing.
        postfix: added to the name after an underscore; empty adds nothing.
        overwrite: replace files of earlier runs. Two inputs of one run never write to the same file.
        meta_key: entry whose ``meta`` names the source if a key's own ``meta`` does not.
        dtype: type on disk; None keeps the source's.
        strength: the part of the network's correction that is applied; 0 returns the scan bit for bit.
        allow_missing_keys: skip missing keys.

    Raises:
        ScanError: when called, as in ``write_result``; also if the source is unknown or two inputs share an output.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        *,
        postfix: str = "denoised",
        overwrite: bool = False,
        meta_key: str = "image",
        dtype: Any = None,
        strength: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir = Path(output_dir)
        self.postfix = postfix
        self.overwrite = overwrite
        self.meta_key = meta_key
        self.dtype = dtype
        self.strength = strength
        self.reports: list[WriteReport] = []
        self._written: dict[Path, str] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the volume of each key; the data pass through unchanged."""
        items = dict(data)
        for key in self.key_iterator(items):
            self.save(items[key], self._meta(items, key))
        return items

    def save(self, volume: torch.Tensor, meta: Mapping[str, Any]) -> WriteReport:
        """Write one volume (1, columns, rows, slices) in HU; the report is also appended to ``reports``."""
        source = str(meta[_SOURCE])
        path = self.output_path(meta)
        if path in self._written:
            raise ScanError(
                f"{path}: {source} and {self._written[path]} would both be written there; search their common folder "
                "with find_scans so that sub-folders are kept, or use another postfix"
            )
        shape = tuple(int(length) for length in np.asarray(meta["scan_shape"]).ravel())
        affine = np.asarray(meta["original_affine"], dtype=np.float64).reshape(4, 4)
        axis = int(meta["scan_axis"])
        order = slices_last(affine, shape, axis=axis)
        array = volume.detach().cpu().numpy()
        expected = (1, *(shape[int(axis)] for axis in np.argsort(order.forward[:, 0])))
        if array.shape != expected:
            raise ScanError(f"{path}: expected slices of shape {expected} to write but got {array.shape}; undo crops")
        scan, storage = self._scan(meta), self._storage(meta, affine, shape)
        report = write_result(
            order.undo(array[0]),
            path,
            storage,
            scan,
            axis=axis,
            strength=self.strength,
            dtype=self.dtype,
            overwrite=self.overwrite,
        )
        self._written[path] = source
        self.reports.append(report)
        return report

    @staticmethod
    def _storage(meta: Mapping[str, Any], affine: np.ndarray, shape: tuple[int, ...]) -> Storage:
        if meta["scan_kind"] == "nifti":
            return read_nifti_storage(Path(str(meta[_SOURCE])))
        return DicomStorage(affine, shape, bool(meta["scan_integral"]))

    @staticmethod
    def _scan(meta: Mapping[str, Any]) -> ScanSource:
        """The source of the scan, without another search of its folder."""
        if _FILES not in meta:
            return resolve(str(meta[_SOURCE]))
        files = tuple(map(Path, str(meta[_FILES]).split("\0")))
        return ScanSource(meta["scan_kind"], Path(str(meta["filename_or_obj"])), files, str(meta["scan_name"]))

    def output_path(self, meta: Mapping[str, Any]) -> Path:
        """The path to which the scan described by ``meta`` is written."""
        name = str(meta["scan_name"]) + (f"_{self.postfix}" if self.postfix else "") + str(meta["scan_suffix"])
        if not name.lower().endswith(NIFTI_SUFFIXES):
            raise ScanError(
                f"{name}: expected a scan loaded by LoadScand but got other metadata; load it with LoadScand"
            )
        return self.output_dir / str(meta["scan_relative"]) / name

    def _meta(self, items: Mapping[Hashable, Any], key: Hashable) -> Mapping[str, Any]:
        for name in (key, self.meta_key):
            meta = getattr(items.get(name), "meta", None)
            if meta and _SOURCE in meta:
                return meta
        raise ScanError(
            f"{key}: expected metadata of LoadScand but got none; load the scan with LoadScand or set meta_key"
        )
