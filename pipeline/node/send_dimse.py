"""C-STORE to a destination, in the transfer syntax of the results or in one that the destination accepts."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import get_encoder
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from pynetdicom import AE

from ct_cncl.pipeline.node.calling import called
from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.settings import Destination

logger = logging.getLogger("ct_cncl.node")
_SUCCESS, _DUPLICATE = 0x0000, 0x0111
_WARNINGS = range(0xB000, 0xC000)
"""Status codes of objects stored with a warning, such as coerced elements."""
_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_COMPRESSED = (JPEG2000Lossless, RLELossless)


def send_by_c_store(
    aet: str, destination: Destination, files: list[dict[str, Any]], accepted: Callable[[str], None]
) -> None:
    """Send results over one association, for at most the destination's ``turn_s``.

    Args:
        aet: this node's AE title.
        destination: a destination with a peer.
        files: "path", "uid", "sop_class" and "syntax" of each file.
        accepted: called with the UID of each object that the peer has stored.

    Raises:
        NodeError: the peer cannot be reached, refuses, reports a failure, or has not taken all objects when the turn is over.
    """
    peer, until = destination.peer, time.monotonic() + destination.turn_s
    assert peer is not None
    ae = AE(aet)
    for sop_class in sorted({entry["sop_class"] for entry in files}):
        own = {UID(entry["syntax"]) for entry in files if entry["sop_class"] == sop_class}
        for syntax in dict.fromkeys([*_COMPRESSED * (destination.syntax == "compressed"), *sorted(own), *_PLAIN]):
            ae.add_requested_context(sop_class, [syntax])
    with called(ae, peer, within_s=destination.turn_s) as assoc:
        taken: dict[str, list[UID]] = {}
        for context in assoc.accepted_contexts:
            taken.setdefault(str(context.abstract_syntax), []).append(context.transfer_syntax[0])
        for place, entry in enumerate(files):
            if time.monotonic() > until:
                raise turn_over(place, len(files), destination)
            what = _encoded(entry, taken.get(entry["sop_class"], []), destination.syntax)
            status = assoc.send_c_store(what)
            code = status.Status if status else None
            if code not in (_SUCCESS, _DUPLICATE) and code not in _WARNINGS:
                answer = "no answer" if code is None else f"status 0x{code:04X}"
                raise NodeError(f"Expected {peer.aet} to store an object, but got {answer}.")
            if code in _WARNINGS:
                logger.warning("%s stored an object with a warning, 0x%04X", peer.aet, code)
            accepted(entry["uid"])


def turn_over(taken: int, of: int, destination: Destination) -> NodeError:
    """The error for a destination that takes too long."""
    return NodeError(
        f"Expected {destination.name} to take {of} objects within {destination.turn_s:g} s, but it took {taken}; the rest follows in its next turn."
    )


def _encoded(entry: dict[str, Any], taken: list[UID], wanted: str) -> Path | Dataset:
    """The file itself if the peer accepts its syntax; otherwise a data set in a syntax that the peer accepts."""
    own = UID(entry["syntax"])
    if wanted == "compressed":
        compressed = _compressed(entry["path"], [syntax for syntax in taken if syntax in _COMPRESSED])
        if compressed is not None:
            return compressed
    if own in taken:
        return Path(entry["path"])
    plain = [syntax for syntax in taken if syntax in _PLAIN]
    if not plain or own not in _PLAIN:
        raise NodeError(
            "Expected the destination to accept CT images in an uncompressed transfer syntax, but it accepts none. Check its settings."
        )
    return pydicom.dcmread(entry["path"])


def _compressed(path: Path, choices: list[UID]) -> Dataset | None:
    """The file losslessly compressed in the first syntax that an installed encoder can write; None if there is none."""
    usable = [syntax for syntax in choices if get_encoder(syntax).is_available]
    return next((dataset for syntax in usable if (dataset := _in_syntax(path, syntax)) is not None), None)


def _in_syntax(path: Path, syntax: UID) -> Dataset | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            dataset.compress(syntax, generate_instance_uid=False)
    except Exception:  # encoders raise nearly every built-in exception, for example for overlay bits in JPEG 2000
        return None
    return dataset
