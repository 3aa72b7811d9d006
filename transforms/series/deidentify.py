"""De-identification by the basic profile of DICOM PS3.15, annex E.

The action for each attribute and the replacement values by value representation come from the package dicom-anonymizer (BSD).
Here they also apply to nested items, and UIDs are replaced by a keyed hash, so that the images of one study stay together across
series, processes and runs that share the key. Pixel values are not examined; overlays in the unused bits of the stored words are
dropped by :class:`ct_cncl.transforms.series.dicom_file.DicomFile`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from ct_cncl.transforms.series.body_parts import BODY_PARTS
from ct_cncl.transforms.series.headers import bare_copy
from ct_cncl.transforms.series.reencoding import representation_of
from ct_cncl.transforms.series.scan import ScanError

EDITION = "2026c"
"""Edition of the profile's table."""
_DATES = {"DA": "19000101", "TM": "000000", "DT": "19000101000000"}
_KEY = ".deidentify-key"
_BODY_PART = 0x00180015
_NUMBERS = re.compile(rb"[0-9eE.+\- \\\0]*")
"""Characters of decimal strings (DS) and integer strings (IS)."""
_GRAPHICS = (0x5000, 0x6000)
_REFERENCES = ("SourceImageSequence", "ReferencedImageSequence")
"""Sequences whose items are kept with replaced UIDs (X/Z/U* in the profile)."""
_NEVER_ABSENT = ("AcquisitionContextSequence",)
"""Sequences that an image must have, so that they are emptied; others are removed."""


class Deidentifier:
    """Removes the patient's identity from data sets.

    Args:
        key: a secret; with the same key, equal UIDs and PatientIDs get equal replacements.

    Raises:
        ScanError: the package that holds the profile is not installed.
    """

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._actions, self._replace = _profile()

    def __call__(self, source: Dataset) -> Dataset:
        """Return a de-identified copy of a data set's header, without pixels.

        Raises:
            ScanError: the source states that text which may identify the patient is burned into its pixels.
        """
        if "YES" in str(source.get("BurnedInAnnotation", "")).upper():  # one value, or several by mistake
            raise ScanError(
                "expected pixels without burned-in text but got BurnedInAnnotation YES; de-identification does not change pixels, "
                "leave this series out"
            )
        clean = bare_copy(source)
        clean.file_meta = source.file_meta
        self._walk(clean)
        clean.PatientIdentityRemoved = "YES"
        clean.DeidentificationMethod = f"PS3.15 {EDITION} basic profile"
        clean.LongitudinalTemporalInformationModified = "REMOVED"
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
        code.CodeMeaning = "Basic Application Confidentiality Profile"
        clean.DeidentificationMethodCodeSequence = [code]
        return clean

    def _walk(self, dataset: Dataset) -> None:
        for tag in sorted(dataset.keys()):
            if tag.is_private or tag.group & 0xFF00 in _GRAPHICS:
                del dataset[tag]
                continue
            if tag == _BODY_PART and str(dataset[tag].value).strip().upper() not in BODY_PARTS:
                del dataset[tag]  # the profile keeps it, although it is often free text
                continue
            if _is_text_for_a_number(dataset, tag):
                del dataset[tag]  # damaged, or a name: it is useless as a number, and would be copied unchanged
                continue
            action = self._actions.get((tag.group, tag.element))
            if action is not None:
                self._apply(action, dataset, tag)
            # Text that is kept is not decoded, so that its bytes stay the same even if its character set is not the stated one.
            if (
                tag in dataset
                and representation_of(dataset, dataset.get_item(tag)) in ("SQ", "UN")
                and dataset[tag].VR == "SQ"
            ):
                for item in dataset[tag].value:
                    self._walk(item)

    def _apply(self, action: str, dataset: Dataset, tag: BaseTag) -> None:
        """Replace, empty or remove one attribute.

        The values are the package's dummies, except its dates before 1900 and half-empty items, which other tools refuse.
        """
        element = dataset[tag]
        if element.keyword == "PatientID":
            element.value = self.pseudonym(str(element.value))
        elif element.VR == "UI":
            element.value = self._uids(element.value)
        elif element.keyword in _REFERENCES:
            return
        elif action == "delete" or (element.VR == "SQ" and element.keyword not in _NEVER_ABSENT):
            del dataset[tag]
        elif element.VR == "SQ":
            element.value = []
        elif action in ("empty", "delete_or_empty"):
            element.value = None
        elif element.VR in _DATES:
            element.value = _DATES[element.VR]
        else:
            try:
                self._replace(dataset, (tag.group, tag.element))
            except NotImplementedError:  # no dummy for its value representation
                del dataset[tag]

    def pseudonym(self, patient: str) -> str:
        """The replacement for a PatientID; different patients get different ones."""
        return "anon-" + hmac.new(self.key, patient.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[:12]

    def _uids(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.uid(value)
        return [self.uid(one) for one in value or []]

    def uid(self, value: str) -> UID:
        """The replacement for a UID; UIDs that the standard defines are kept."""
        if not value or value.startswith("1.2.840.10008."):
            return UID(value)
        digest = hmac.new(self.key, value.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
        return UID(f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}")


def _is_text_for_a_number(dataset: Dataset, tag: BaseTag) -> bool:
    element = dataset.get_item(tag)
    raw = getattr(element, "value", None)  # numbers instead of bytes if the element has been decoded
    return (
        isinstance(raw, bytes) and representation_of(dataset, element) in ("DS", "IS") and not _NUMBERS.fullmatch(raw)
    )


def pseudonym_key(folder: Path) -> bytes:
    """The key of a folder of results, created once in ``.deidentify-key``; without it nobody can link results to their sources.

    Raises:
        ScanError: the key cannot be written or read.
    """
    path = folder / _KEY
    part = folder / f".deidentify-key.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            part.write_bytes(secrets.token_bytes(32))
            part.chmod(0o600)
            try:
                os.link(part, path)  # the first process creates the key, the others use it
            except FileExistsError:
                pass
            finally:
                part.unlink()
        return path.read_bytes()
    except OSError as error:
        raise ScanError(
            f"{path}: expected to keep a key there but got {error.strerror or error}; choose another folder"
        ) from error


def has_key(folder: Path) -> bool:
    """Whether a folder of results already has its key."""
    return (folder / _KEY).exists()


def _profile() -> tuple[dict[tuple[int, int], str], Callable[..., None]]:
    """The profile's action for each attribute, and the function that replaces a value; repeating groups are removed as a whole."""
    try:
        from dicomanonymizer.simpledicomanonymizer import initialize_actions, replace
    except ImportError as error:
        raise ScanError(
            "--deidentify: expected the package that holds the profile of DICOM PS3.15 but it is not installed; "
            "pip install 'ct-cncl[deidentify]'"
        ) from error
    actions = initialize_actions(f"dicomfields_{EDITION}")
    return {tag: action.__name__ for tag, action in actions.items() if len(tag) == 2}, replace
