"""Where results, their records and the manifest of one run go: into a folder, or, of one scan, under the name of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ct_cncl.pipeline.inference.manifest import MANIFEST
from ct_cncl.pipeline.inference.records import RECORD_SUFFIX
from ct_cncl.transforms.series import ScanError, ScanSource
from ct_cncl.transforms.series.deidentify import has_key
from ct_cncl.transforms.series.results import result_name
from ct_cncl.transforms.series.scan import NIFTI_SUFFIXES
from ct_cncl.transforms.series.slices import Slices, VolumeSlices
from ct_cncl.transforms.series.values import RESULT
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
        records: folder of records and manifest; None puts records beside their results and the manifest into the folder.
    """

    folder: Path
    file: Path | None = None
    records: Path | None = None

    @property
    def manifest(self) -> Path | None:
        """The manifest; a result in a file of its own has none but where a folder for it is named."""
        folder = self.records or (None if self.file else self.folder)
        return folder / MANIFEST if folder else None

    @property
    def key_folder(self) -> Path:
        """Where the key of de-identification lies: beside the manifest, but where results have one already."""
        return self.folder if self.records is None or has_key(self.folder) else self.records

    def targets(self, scan: ScanSource, kinds: Sequence[str]) -> dict[str, Path]:
        """Where the results of a scan go, by kind."""
        if self.file is None:
            return {kind: self.folder / scan.relative / result_name(scan, kind) for kind in kinds}
        suffix = _suffix(self.file)
        stem = self.file.name[: -len(suffix)]
        return {kind: self.file if kind == RESULT else self.file.with_name(f"{stem}_{kind}{suffix}") for kind in kinds}

    def record(self, target: Path) -> Path:
        """Where the record of a result goes."""
        name = f"{target.name}{RECORD_SUFFIX}"
        if self.records is None:
            return target.with_name(name)
        return self.records / target.parent.relative_to(self.folder) / name

    def check(self, scans: Sequence[ScanSource]) -> None:
        """Refuse scans that do not fit into one file, and results that would replace their source.

        Raises:
            ScanError: with what was expected.
        """
        for scan in scans:
            for target in self.targets(scan, (RESULT,)).values():
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
        suffixes = _FILE_SUFFIXES[scans[0].kind]
        if not self.file.name.lower().endswith(suffixes) or len(scans[0].files) != 1:
            what = (
                " or ".join(suffixes) if len(scans[0].files) == 1 else f"a folder for {len(scans[0].files)} DICOM files"
            )
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


def places_of(out: Path, records: Path | None) -> Places:
    """Where results go that are wanted at ``out``: a file where it is named like one and is no folder."""
    if _suffix(out) and not out.is_dir():
        return Places(out.parent, out, records)
    return Places(out, None, records)


def _suffix(path: Path) -> str:
    known = sorted((suffix for suffixes in _FILE_SUFFIXES.values() for suffix in suffixes), key=len, reverse=True)
    return next((path.name[-len(suffix) :] for suffix in known if path.name.lower().endswith(suffix)), "")
