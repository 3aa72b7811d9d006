"""A TorchScript file from anywhere: read within limits, judged before torch reads it, and rewritten from what was judged."""

from __future__ import annotations

import ast
import io
import math
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.weights.torchscript_code import CodeError, JudgedCode, fits, judge_code
from ct_cncl.transforms.common.torch_archives import ArchiveError, check_growth

_MOST_CODE = 1 << 20
"""Bytes; the largest of this project's networks has 90 kB of code, and judging takes about 400 times as much memory."""
_MEMBER = re.compile(
    r"code/(?P<module>__torch__(?:/[A-Za-z0-9_]+)*)\.py|(?P<pickle>data|constants)\.pkl|(?:data|constants)/\d+"
    r"|(?:\.data/)?version|byteorder|extra/[^/]+"
)
_LEFT_OUT = re.compile(r"code/.*\.debug_pkl|\.data/[a-z_]+|\.format_version|\.storage_alignment")
"""Other members that torch writes and that a network does not need."""
_OPCODES = frozenset(
    {
        "APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPERSID", "BINPUT", "BINUNICODE", "BUILD",
        "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "GLOBAL", "LONG1", "LONG_BINGET", "LONG_BINPUT", "MARK", "NEWFALSE", "NEWOBJ",
        "NEWTRUE", "NONE", "PROTO", "REDUCE", "SETITEM", "SETITEMS", "STOP", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    }
)  # fmt: skip
_ITEM_SIZES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1
}  # fmt: skip


@dataclass
class Judged:
    """A TorchScript file that has been read but not loaded.

    Attributes:
        doubts: everything in it that is not known to be harmless; empty for a plain network.
        metadata: the text of its ``metadata.json``.
    """

    doubts: list[str]
    metadata: str
    _members: dict[str, bytes]

    def rebuilt(self) -> bytes:
        """The file rewritten from nothing but what was judged, with the same weights and the same network."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in self._members.items():
                archive.writestr(zipfile.ZipInfo(f"model/{name}", (1980, 1, 1, 0, 0, 0)), content)
        return buffer.getvalue()


def judge_torchscript(path: Path) -> Judged:
    """Read and judge a TorchScript file; nothing in it is run or unpickled by torch.

    Raises:
        ArchiveError: the file cannot be read, or would grow beyond the limits.
    """
    members, doubts = _members(path)
    modules = {name: match["module"] for name in members if (match := _MEMBER.fullmatch(name))}
    sources = {module.replace("/", "."): name for name, module in modules.items() if module}
    size = sum(len(members[name]) for name in sources.values())
    if size > _MOST_CODE:
        raise ArchiveError(f"holds {size / 2**20:.1f} MiB of code, where a network has a tenth of one")
    try:
        code = judge_code({module: members[name].decode("ascii") for module, name in sources.items()})
    except (CodeError, UnicodeDecodeError) as error:
        raise ArchiveError(f"cannot be read: {error}") from error
    for module, name in sources.items():
        members[name] = code.texts[module].encode()
    for kind in ("data", "constants"):
        doubts += _pickle_doubts(members, kind, code)
    metadata = members.get("extra/metadata.json", b"").decode("utf-8", "replace")
    return Judged(code.doubts + doubts, metadata, members)


def _members(path: Path) -> tuple[dict[str, bytes], list[str]]:
    """The members by their names below the top folder, and doubts about those that torch does not write."""
    doubts: list[str] = []
    members: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            check_growth(path, archive)
            for member in archive.infolist():
                name = member.filename.partition("/")[2]
                if name in members:
                    doubts.append(f"two parts named {ascii(name)[:60]}")
                elif _MEMBER.fullmatch(name):
                    members[name] = archive.read(member)
                elif not _LEFT_OUT.fullmatch(name):
                    doubts.append(f"a part named {ascii(name)[:60]}")
    except ArchiveError:
        raise
    except Exception as error:  # zipfile and its decoders raise many kinds on damaged archives
        raise ArchiveError(f"cannot be read: {error}") from error
    if "data.pkl" not in members:
        raise ArchiveError("cannot be read: no TorchScript in it")
    return members, doubts


def _class_of(value: Any) -> str:
    return value.full if isinstance(value, _Plain) else ""


def _pickle_doubts(members: dict[str, bytes], kind: str, code: JudgedCode) -> list[str]:
    """Whatever the pickle would make other than the file's own classes, and tensors that reach beyond their bytes."""
    content = members.get(f"{kind}.pkl")
    if content is None:
        return []
    try:
        for op, argument, _ in pickletools.genops(content):
            far = op.name == "LONG_BINPUT" and int(argument or 0) > len(
                content
            )  # Python would allocate memo entries up to this number
            if op.name not in _OPCODES or far:
                return [f"{op.name} in {kind}.pkl"]
        sizes = {name: len(part) for name, part in members.items() if name.startswith(f"{kind}/")}
        reader = _Reader(io.BytesIO(content), kind, sizes, code.classes)
        reader.load()
        reader.compare(code.attributes)
    except Exception as error:  # a damaged pickle raises nearly every built-in exception
        raise ArchiveError(f"cannot be read: {type(error).__name__} in {kind}.pkl") from error
    return reader.doubts


class _Plain:
    """Stand-in for an object of the file's own classes."""

    full = ""
    built: list[tuple[str, Any]]

    def __setstate__(self, state: Any) -> None:
        self.built.append((self.full, state))


class _Reader(pickle.Unpickler):
    """Reads a pickle in which every name stands for something inert.

    Args:
        stream: the pickle.
        kind: "data" or "constants", the folder of its weights.
        sizes: size of each file of weights, bytes.
        classes: classes that the file's own code defines.
    """

    def __init__(self, stream: io.BytesIO, kind: str, sizes: dict[str, int], classes: set[str]) -> None:
        super().__init__(stream)
        self.kind, self.sizes, self.classes = kind, sizes, classes
        self.doubts: list[str] = []
        self.built: list[tuple[str, Any]] = []

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for the name; nothing is imported."""
        known: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            **{f"torch.jit._pickle.build_{kind}list": list for kind in ("int", "double", "bool", "tensor")},
        }
        full = f"{module}.{name}"
        if full in known:
            return known[full]
        if module == "torch" and name.removesuffix("Storage") in _ITEM_SIZES:
            return name
        if full not in self.classes:
            self.doubts.append(ascii(full)[1:-1][:60])
        return type("_Own", (_Plain,), {"full": full, "built": self.built})

    def compare(self, attributes: Mapping[str, Mapping[str, ast.expr]]) -> None:
        """Doubt objects that are not of their attribute's declared class: torch does not check, and reads past a smaller one."""
        for full, state in self.built:
            for name, kind in attributes.get(full, {}).items():
                if not isinstance(state, dict) or not fits(state.get(name), kind, _class_of):
                    self.doubts.append(f"an attribute {ascii(name)[:30]} of another type than its class says")

    def persistent_load(self, pid: Any) -> int:
        """Number of items in a file of weights, which torch takes from the pickle without a check."""
        _, storage, key, _, count = pid
        item = _ITEM_SIZES[storage.removesuffix("Storage")]
        if not 0 <= count * item <= self.sizes.get(f"{self.kind}/{key}", 0):
            self.doubts.append(f"weights beyond the end of {ascii(key)[:20]}")
        return int(count)

    def _tensor(self, count: int, offset: int, shape: Any, stride: Any, *_: Any) -> None:
        """Doubt a tensor whose last element lies beyond its file; torch's loader does not check this."""
        fine = len(shape) == len(stride) and min((offset, *shape, *stride)) >= 0
        last = offset + sum((length - 1) * step for length, step in zip(shape, stride))
        if not fine or (math.prod(shape) and last >= count):
            self.doubts.append("a tensor beyond the end of its weights")
