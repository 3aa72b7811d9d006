"""Reading YAML with errors that name the line and the key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ct_cncl.pipeline.node.errors import NodeError

_T = TypeVar("_T")
_MISSING: Any = object()
_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


class Section:
    """One mapping of a YAML file, read key by key.

    Args:
        file: the file, named in errors.
        where: the path of keys to the mapping, joined by dots.
        node: the mapping.
    """

    def __init__(self, file: Path, where: str, node: yaml.Node) -> None:
        self.file, self.where, self.line = file, where, node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            raise self.error("", "keys with values (key: value)", _plain(node))
        self._left: dict[str, yaml.Node] = {}
        self._known: list[str] = []
        for key, value in node.value:
            name = str(_plain(key))
            if name in self._left:
                raise NodeError(
                    f"{file}, line {key.start_mark.line + 1}: {self._path(name)}: expected the key once, but got it twice."
                )
            self._left[name] = value

    def _path(self, key: str) -> str:
        return ".".join(part for part in (self.where, key) if part)

    def error(self, key: str, expected: str, got: Any, line: int | None = None) -> NodeError:
        """The error for a value: where it is, what was expected and what came."""
        place = f"{self.file}, line {line or self.line}: {self._path(key) or 'the file'}"
        return NodeError(f"{place}: expected {expected}, but got {got!r}.")

    def take(self, key: str, convert: Callable[[Any], _T], default: Any = _MISSING) -> _T:
        """Take the value of ``key``.

        Args:
            key: the key.
            convert: converts the YAML value; raises ValueError with what it expects ("a number above 0").
            default: the result if the key is missing. Without a default, the key is required.

        Raises:
            NodeError: a required key is missing, or the value is invalid.
        """
        self._known.append(key)
        node = self._left.pop(key, None)
        if node is None:
            if default is _MISSING:
                raise NodeError(
                    f"{self.file}, line {self.line}: {self._path(key)}: expected a value, but the key is missing."
                )
            return default
        value = _plain(node)
        try:
            return convert(value)
        except (ValueError, TypeError) as error:
            raise self.error(key, str(error), value, node.start_mark.line + 1) from error

    def line_of(self, key: str) -> int:
        """The line of a key's value, or of the section if the key is missing. Ask before taking the value."""
        node = self._left.get(key)
        return self.line if node is None else node.start_mark.line + 1

    def section(self, key: str) -> Section | None:
        """Take the mapping under ``key``; None if the key is missing."""
        self._known.append(key)
        node = self._left.pop(key, None)
        return None if node is None else Section(self.file, self._path(key), node)

    def sections(self, key: str) -> list[Section]:
        """Take the mappings in the list under ``key``."""
        self._known.append(key)
        node = self._left.pop(key, None)
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise self.error(key, "a list whose items begin with '- '", _plain(node), node.start_mark.line + 1)
        return [Section(self.file, f"{self._path(key)}.{k + 1}", item) for k, item in enumerate(node.value)]

    def named_sections(self, key: str) -> Iterator[tuple[str, Section]]:
        """Take the mappings under ``key``, each with its name."""
        holder = self.section(key)
        for name in [] if holder is None else list(holder._left):
            assert holder is not None
            found = holder.section(name)
            assert found is not None
            yield name, found

    def close(self) -> None:
        """Refuse keys that have not been taken.

        Raises:
            NodeError: names the first such key, and the key that was probably meant.
        """
        for name, node in self._left.items():
            near = difflib.get_close_matches(name, self._known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(self._known)}."
            line = node.start_mark.line + 1
            raise NodeError(
                f"{self.file}, line {line}: {self._path(name)}: expected a known key, but got this one; {hint}"
            )


def _plain(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError) as error:
        raise NodeError(f"line {node.start_mark.line + 1}: expected plain YAML, but got: {error}") from error
    finally:
        loader.dispose()


def read_yaml(file: Path) -> Section:
    """Read the top level of a YAML file.

    Raises:
        NodeError: the file cannot be read, or is not YAML.
    """
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "text that is not UTF-8"
        raise NodeError(
            f"Expected the node's configuration in {file}, but got: {reason}. Pass --config FILE."
        ) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise NodeError(f"{file}, line {line}: expected YAML, but got: {error.problem}.") from error
    if node is None:
        raise NodeError(f"Expected the node's configuration in {file}, but the file is empty.")
    return Section(file, "", node)


def text(value: Any) -> str:
    """Convert to text that is not empty. Numbers become text, too."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or not str(value).strip():
        raise ValueError("text")
    return str(value).strip()


def flag(value: Any) -> bool:
    """Convert to a bool from true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def number(low: float, high: float = float("inf")) -> Callable[[Any], float]:
    """A converter that takes a number from ``low`` to ``high``."""

    def convert(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ValueError(
                f"a number from {low:g} to {high:g}" if high < float("inf") else f"a number of at least {low:g}"
            )
        return float(value)

    return convert


def whole(low: int, high: int = 2**63) -> Callable[[Any], int]:
    """A converter that takes a whole number from ``low`` to ``high``."""

    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(
                f"a whole number from {low} to {high}" if high < 2**63 else f"a whole number of at least {low}"
            )
        return value

    return convert


def size(value: Any) -> int:
    """Convert to a number of bytes, from a number with or without a unit.

    >>> size("1.5 GiB"), size(4096)
    (1610612736, 4096)
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", str(value)) if not isinstance(value, bool) else None
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError("a number of bytes, as in 500 MiB")
    try:
        return int(float(match[1]) * _UNITS[match[2].upper()])
    except ValueError:
        raise ValueError("a number of bytes, as in 500 MiB") from None


def choice(*names: str) -> Callable[[Any], str]:
    """A converter that takes one of some words."""

    def convert(value: Any) -> str:
        if value not in names:
            raise ValueError(f"one of {', '.join(names)}" if names else "one that is defined (none is)")
        return str(value)

    return convert


def list_of(convert: Callable[[Any], _T]) -> Callable[[Any], tuple[_T, ...]]:
    """A converter that takes a list or a single value, and returns a tuple."""

    def each(value: Any) -> tuple[_T, ...]:
        return tuple(convert(item) for item in (value if isinstance(value, list) else [value]))

    return each
