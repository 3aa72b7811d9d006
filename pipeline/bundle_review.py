"""What a stranger's bundle would run, before any of it runs: its configs, the code that it carries, its weights."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from ct_cncl.pipeline.bundle import installed_bundle
from ct_cncl.pipeline.config_review import SUFFIXES, Finding, review_config
from ct_cncl.pipeline.pack import carried_code
from ct_cncl.transforms.datalist import file_checksum

IDENTICAL, DIFFERENT, UNKNOWN = "identical", "different", "unknown"
"""How a code file compares with the installed release's file of that name."""
_DATA = {".md", ".txt", ".sha256", ".nii", ".gz", ".png", ".svg", ".jpg", ".csv"}
_PLAIN = {"LICENSE", ".gitignore", ".gitattributes"}
_RUNS_CODE = re.compile(
    rb"\bops\.(?!prim\b|aten\b)\w+\.\w+|\b(?:torch|ops\.\w+)\.(?:from_file|save|load|_save|system)\b"
)
"""TorchScript is no Python: it has no imports and no files but for these."""


@dataclass(frozen=True)
class CodeFile:
    """A file that can be executed.

    Attributes:
        name: path in the bundle.
        sha256: its checksum.
        status: "identical", "different" or "unknown".
    """

    name: str
    sha256: str
    status: str


@dataclass
class Review:
    """What a bundle would execute.

    Attributes:
        findings: in configs, logging settings and weights.
        code: files of code, and files of a kind that has no place in a bundle.
    """

    findings: list[Finding] = field(default_factory=list)
    code: list[CodeFile] = field(default_factory=list)

    @property
    def doubts(self) -> list[str]:
        """Everything that the installed release does not have in the same words, one line each."""
        configs = [f"{one.file} {one.key}: {one.kind} {one.text}" for one in self.findings if not one.known]
        return configs + [f"{one.name}: {one.status} code" for one in self.code if one.status != IDENTICAL]

    def lines(self) -> list[str]:
        """All of it as text; what is found several times, once."""
        places: dict[tuple[bool, str, str], list[str]] = {}
        for one in self.findings:
            places.setdefault((one.known, one.kind, one.text), []).append(f"{one.file} {one.key}".strip())
        found = []
        for (known, kind, text), where in sorted(places.items()):
            more = f" and {len(where) - 1} more" if len(where) > 1 else ""
            found.append(f"{'known' if known else 'UNKNOWN':9} {kind:13} {text}   ({where[0]}{more})")
        codes = [
            f"{one.status if one.status == IDENTICAL else one.status.upper():9} code          {one.name}   {one.sha256[:16]}"
            for one in sorted(self.code, key=lambda one: (one.status == IDENTICAL, one.name))
        ]
        return found + codes


def review_bundle(bundle: Path) -> Review:
    """List what ``bundle``, a folder, would execute. Nothing of it is executed or unpickled.

    Args:
        bundle: the folder with ``configs`` in it.
    """
    review = Review()
    installed = {name: path for path, name in carried_code().items()}
    for path in sorted(path for path in bundle.rglob("*") if path.is_file() or path.is_symlink()):
        name = path.relative_to(bundle).as_posix()
        if path.is_symlink():
            review.code.append(CodeFile(name, "a link", UNKNOWN))
        elif name in installed:
            digest = file_checksum(path)
            same = digest == file_checksum(installed[name])
            review.code.append(CodeFile(name, digest, IDENTICAL if same else DIFFERENT))
        elif path.suffix in SUFFIXES:
            review.findings += review_config(path, name)
        elif path.suffix == ".conf":
            review.findings += _logging(path, name)
        elif path.suffix in _WEIGHTS:
            review.findings += _WEIGHTS[path.suffix](path, name)
        elif path.suffix not in _DATA and path.name not in _PLAIN:
            review.code.append(CodeFile(name, file_checksum(path), UNKNOWN))
    return review


def _logging(path: Path, name: str) -> list[Finding]:
    """Python's logging evaluates what a settings file says for classes and arguments."""
    text = path.read_text(encoding="utf-8", errors="replace")
    own = installed_bundle() / "configs" / "logging.conf"
    known = own.is_file() and text == own.read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if re.match(r"\s*(?:class|args|kwargs)\s*[=:]", line)]
    return [Finding(name, "", "logging", line, known) for line in lines]


def _pickle(path: Path, name: str) -> list[Finding]:
    """Functions that a checkpoint's pickle would call and torch's ``weights_only`` loader would refuse."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        unsafe = get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # another format than torch's zip: nothing that torch has written since 2020
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return [Finding(name, "", "pickle", f"cannot be read: {first}", known=False)]
    return [Finding(name, "", "pickle", text, known=False) for text in unsafe]


def _torchscript(path: Path, name: str) -> list[Finding]:
    try:
        with zipfile.ZipFile(path) as archive:
            found = {
                match.decode()
                for member in archive.infolist()
                if "/code/" in member.filename and member.filename.endswith(".py")
                for match in _RUNS_CODE.findall(archive.read(member))
            }
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        return [Finding(name, "", "TorchScript", f"cannot be read: {error}", known=False)]
    return [Finding(name, "", "TorchScript", text, known=False) for text in sorted(found)]


def _onnx(path: Path, name: str) -> list[Finding]:
    """A graph that names other files or operators of its own; without the package onnx, only that it was not looked into."""
    try:
        import onnx
    except ImportError:
        return [Finding(name, "", "ONNX", "not looked into: pip install 'ct-cncl[onnx]'", known=True)]
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own kinds
        return [Finding(name, "", "ONNX", f"cannot be read: {type(error).__name__}", known=False)]
    others = {one.domain for one in model.opset_import} - {"", "ai.onnx"}
    outside = {t.name for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    found = [Finding(name, "", "ONNX", f"operators of {domain}", known=False) for domain in sorted(others)]
    return found + [Finding(name, "", "ONNX", f"{text} in another file", known=False) for text in sorted(outside)]


_WEIGHTS = {".pt": _pickle, ".ts": _torchscript, ".onnx": _onnx}
