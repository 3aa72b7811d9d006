"""TorchScript files with foreign code in them, as an attacker would write them."""

import io
import zipfile
from pathlib import Path

import torch
from tiny_weights import Add


def parts() -> dict[str, bytes]:
    """The parts of a harmless file, by name."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Add(0.0).eval()), buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {n: archive.read(n) for n in archive.namelist() if not n.endswith(".debug_pkl")}


def with_code(path: Path, lines: str, *, result: str = "image", more: str = "") -> Path:
    """A file whose forward runs ``lines`` and returns the sum of ``result`` and the image.

    Args:
        path: to write.
        lines: of TorchScript, joined by newlines.
        result: an expression.
        more: text behind the class.
    """
    own = parts()
    (name,) = (name for name in own if name.endswith(".py"))
    head, _, _ = own[name].decode().partition("    change = self.change")
    body = "".join(f"    {line}\n" for line in lines.split("\n"))
    own[name] = f"{head}{body}    return torch.add(image, torch.mul({result}, 0))\n{more}".encode()
    return zipped(path, own)


def zipped(path: Path, own: dict[str, bytes], packed: int = zipfile.ZIP_STORED) -> Path:
    """Parts as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in own.items():
            archive.writestr(name, content)
    return path
