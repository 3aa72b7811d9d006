"""Where the results, records and manifest of a run go: into a folder or, for one scan, to a file name."""

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
"""For each kind of scan, the suffixes that a result in one file may have. Results keep the format of their source."""


@dataclass(frozen=True)
class Places:
    """Where the files of a run go.

    Attributes:
        folder: folder for the results.
        file: path of the only result; None to name results after their scans.
        records: folder for records and manifest; None puts records next to their results and the manifest into ``folder``.
        nifti: write NIfTI, whatever the format of the source.
    """

    folder: Path
    file: Path | None = None
    records: Path | None = None
    nifti: bool = False

    @property
    def manifest(self) -> Path | None:
        """Path of the manifest; None if a single result goes to ``file`` and no folder for records is given."""
        folder = self.records or (None if self.file else self.folder)
        return folder / MANIFEST if folder else None

    @property
    def key_folder(self) -> Path:
        """Folder of the de-identification key: that of the manifest, unless the results folder already has a key."""
        return self.folder if self.records is None or has_key(self.folder) else self.records

    def targets(self, scan: ScanSource, endings: Mapping[str, str]) -> dict[str, Path]:
        """Paths of a scan's results, by kind.

        Args:
            scan: the scan.
            endings: by kind, what the name of the result ends with; the main kind comes first.
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
        """Path of the record of a result."""
        name = f"{target.name}{RECORD_SUFFIX}"
        if self.records is None:
            return target.with_name(name)
        return self.records / target.parent.relative_to(self.folder) / name

    def check(self, scans: Sequence[ScanSource], variants: Sequence[ResultVariant]) -> None:
        """Refuse scans whose results do not fit into one file, and results that would replace their source.

        Raises:
            ScanError: says what was expected.
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
                f"{self.file}: expected {what} but got another name; results keep the format of their source, so name a folder"
            )

    def as_files(self, parts: Mapping[str, Path]) -> dict[str, Path]:
        """Results as they are put in place. If they go to ``file``, a folder with one DICOM file becomes that file."""
        if self.file is None:
            return dict(parts)
        return {kind: next(part.iterdir()) if part.is_dir() else part for kind, part in parts.items()}

    def as_named(self, slices: Slices) -> Slices:
        """A scan whose result is compressed, or not, as the suffix of ``file`` says."""
        if self.file is not None and isinstance(slices, VolumeSlices) and slices.source.kind == "nifti":
            slices.volume = replace(slices.volume, pack=gzipped if self.file.name.lower().endswith(".gz") else None)
        return slices


def places_of(out: Path, records: Path | None = None, *, nifti: bool = False) -> Places:
    """Decide where results go for an output path. It is a file if it has a suffix of a scan and is not a folder."""
    if _suffix(out) and not out.is_dir():
        return Places(out.parent, out, records, nifti)
    return Places(out, None, records, nifti)


def _suffix(path: Path) -> str:
    known = sorted((suffix for suffixes in _FILE_SUFFIXES.values() for suffix in suffixes), key=len, reverse=True)
    return next((path.name[-len(suffix) :] for suffix in known if path.name.lower().endswith(suffix)), "")
