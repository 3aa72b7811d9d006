"""Where results, records and the manifest of a run go: into a folder or, for one scan, under a file name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ct_cncl.pipeline.inference.manifest import MANIFEST
from ct_cncl.pipeline.inference.records import RECORD_SUFFIX, ResultVariant
from ct_cncl.transforms.series import ScanError, ScanSource
from ct_cncl.transforms.series.deidentify import has_key
from ct_cncl.transforms.series.results import result_name
from ct_cncl.transforms.series.scan import NIFTI_SUFFIXES
from ct_cncl.transforms.series.slices import Slices, VolumeSlices
from ct_cncl.transforms.series.volume_file import gzipped

_FILE_SUFFIXES = {
    "nifti": NIFTI_SUFFIXES,
    "mha": (".mha",),
    "nrrd": (".nrrd",),
    "tiff": (".tif", ".tiff"),
    "npy": (".npy",),
    "dicom": (".dcm", ".ima", ".dicom"),
}
"""Names that a result of each kind of scan may have where it is one file; formats stay as they are."""


@dataclass(frozen=True)
class Places:
    """Where things go.

    Attributes:
        folder: of the results.
        file: of the only result; None for results that are named after their scans.
        records: folder of records and manifest; None puts records next to their results and the manifest into the folder.
        nifti: results are NIfTI whatever their source is.
    """

    folder: Path
    file: Path | None = None
    records: Path | None = None
    nifti: bool = False

    @property
    def manifest(self) -> Path | None:
        """The manifest; a result in a file of its own has none but where a folder for it is named."""
        folder = self.records or (None if self.file else self.folder)
        return folder / MANIFEST if folder else None

    @property
    def key_folder(self) -> Path:
        """Where the key of de-identification lies: beside the manifest, but where results have one already."""
        return self.folder if self.records is None or has_key(self.folder) else self.records

    def targets(self, scan: ScanSource, endings: Mapping[str, str]) -> dict[str, Path]:
        """Where the results of a scan go, by kind.

        Args:
            scan: the scan.
            endings: by kind, the main one first, what the name of its result ends with.
        """
        if self.file is None:
            folder = self.folder / scan.relative
            return {kind: folder / result_name(scan, end, nifti=self.nifti) for kind, end in endings.items()}
        suffix = _suffix(self.file)
        stem, main = self.file.name[: -len(suffix)], next(iter(endings))
        return {
            kind: self.file if kind == main else self.file.with_name(f"{stem}_{end}{suffix}")
            for kind, end in endings.items()
        }

    def record(self, target: Path) -> Path:
        """Where the record of a result goes."""
        name = f"{target.name}{RECORD_SUFFIX}"
        if self.records is None:
            return target.with_name(name)
        return self.records / target.parent.relative_to(self.folder) / name

    def check(self, scans: Sequence[ScanSource], variants: Sequence[ResultVariant]) -> None:
        """Refuse scans that do not fit into one file, and results that would replace their source.

        Raises:
            ScanError: with what was expected.
        """
        for scan in scans:
            for target in (path for variant in variants for path in self.targets(scan, variant.endings).values()):
                if target.exists() and any(file.exists() and target.samefile(file) for file in scan.files):
                    raise ScanError(
                        f"{target}: the output is the input file itself, which is never replaced; choose another name"
                    )
        if self.file is None:
            return
        if len(scans) != 1:
            raise ScanError(
                f"{self.file}: expected one scan to write into a file but got {len(scans)}; name a folder, or one scan with --series"
            )
        if len(variants) != 1:
            raise ScanError(
                f"{self.file}: expected one result to write into a file but got {len(variants)}; name a folder"
            )
        suffixes = NIFTI_SUFFIXES if self.nifti else _FILE_SUFFIXES[scans[0].kind]
        files = 1 if self.nifti else len(scans[0].files)
        if not self.file.name.lower().endswith(suffixes) or files != 1:
            what = " or ".join(suffixes) if files == 1 else f"a folder for {files} DICOM files"
            raise ScanError(
                f"{self.file}: expected {what} but got another name; results keep the format of their source, name a folder"
            )

    def as_files(self, parts: Mapping[str, Path]) -> dict[str, Path]:
        """Results as they are put in place: of a DICOM series that is one file, the file."""
        if self.file is None:
            return dict(parts)
        return {kind: next(part.iterdir()) if part.is_dir() else part for kind, part in parts.items()}

    def as_named(self, slices: Slices) -> Slices:
        """A scan whose result is packed as the name of the file says."""
        if self.file is not None and isinstance(slices, VolumeSlices) and slices.source.kind == "nifti":
            slices.volume = replace(slices.volume, pack=gzipped if self.file.name.lower().endswith(".gz") else None)
        return slices


def places_of(out: Path, records: Path | None = None, *, nifti: bool = False) -> Places:
    """Where results go that are wanted at ``out``: a file where it is named like one and is no folder."""
    if _suffix(out) and not out.is_dir():
        return Places(out.parent, out, records, nifti)
    return Places(out, None, records, nifti)


def _suffix(path: Path) -> str:
    known = sorted((suffix for suffixes in _FILE_SUFFIXES.values() for suffix in suffixes), key=len, reverse=True)
    return next((path.name[-len(suffix) :] for suffix in known if path.name.lower().endswith(suffix)), "")
