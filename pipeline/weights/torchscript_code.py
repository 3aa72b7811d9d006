"""The code inside a TorchScript file: read without running it, judged against a list of what is allowed, and printed again.

Whatever is not on that list is a doubt; there is no list of what is forbidden. Torch does not read the file's own text but
the judged syntax tree, printed again. That removes comments, line breaks, spaces and alternative spellings, which two parsers
might read differently.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ct_cncl.pipeline.weights.torchscript_operators import BUILTINS, PRIM_OPERATORS, TORCH_OPERATORS

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ROOTS = frozenset({"torch", "ops", "CONSTANTS", "__torch__", "range", "print"})
_RESERVED = _ROOTS | BUILTINS
_TYPES = frozenset({"Tensor", "int", "float", "bool", "str", "NoneType", "number"})
_GENERIC_TYPES = frozenset({"List", "Tuple", "Optional", "Final"})
_CLASS_LISTS = frozenset({"__parameters__", "__buffers__"})
_BASES = frozenset({"Module", "NamedTuple"})


class CodeError(ValueError):
    """The text is not TorchScript."""


@dataclass
class JudgedCode:
    """The code of one file after judging.

    Attributes:
        doubts: whatever is not known to be harmless, each thing once, in the order of the text.
        texts: text that torch may read, by module ("__torch__.a.b").
        classes: full names of the classes that the file defines.
        attributes: types of the attributes of each class.
    """

    doubts: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)
    attributes: dict[str, dict[str, ast.expr]] = field(default_factory=dict)


def judge_code(sources: Mapping[str, str]) -> JudgedCode:
    """Judge all modules of a TorchScript file.

    Args:
        sources: text by name of the module, "__torch__.a.b".

    Raises:
        CodeError: Python cannot parse a text, so torch's printer has not written it.
    """
    judged = JudgedCode()
    trees = {name: _parsed(name, text) for name, text in sources.items()}
    functions, methods = set(), set()
    for name, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                judged.classes.add(f"{name}.{node.name}")
                judged.attributes[f"{name}.{node.name}"] = dict(_declared(node))
                methods |= {own.name for own in node.body if isinstance(own, ast.FunctionDef)}
            elif isinstance(node, ast.FunctionDef):
                functions.add(f"{name}.{node.name}")
    try:
        for name, tree in trees.items():
            judge = _Judge(judged.classes, functions, methods)
            judge.module(tree)
            judged.doubts += judge.doubts
            judged.texts[name] = ast.unparse(tree) + "\n"
    except RecursionError as error:
        raise CodeError("code that is nested too deeply") from error
    judged.doubts = list(dict.fromkeys(judged.doubts))
    return judged


def _parsed(name: str, text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CodeError(f"{name} is not what torch's printer writes: {type(error).__name__}") from error


@cache
def _operator_names() -> frozenset[str]:
    """All names that torch would take for methods of a tensor, string or list."""
    import torch

    return frozenset(schema.name.rpartition("::")[2] for schema in torch._C._jit_get_all_schemas())


class _Judge:
    """Walks through one module; whatever it does not know becomes a doubt."""

    def __init__(self, classes: set[str], functions: set[str], methods: set[str]) -> None:
        self.classes, self.functions, self.methods = classes, functions, methods
        self.doubts: list[str] = []
        self._variables: set[str] = set()
        self._paths: set[str] = set()

    def _doubt(self, node: ast.AST | None, text: str = "") -> None:
        self.doubts.append(text or _shown(node))

    def _name(self, text: str, node: ast.AST) -> None:
        if not _NAME.fullmatch(text) or text in _RESERVED:
            self._doubt(node, f"the name {text[:40]!r}")

    def module(self, tree: ast.Module) -> None:
        """Judge a module, which may hold classes and functions only."""
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                self._class(node)
            elif isinstance(node, ast.FunctionDef):
                self._name(node.name, node)
                self._function(node)
            else:
                self._doubt(node)

    def _class(self, node: ast.ClassDef) -> None:
        self._name(node.name, node)
        bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
        if len(node.bases) != 1 or not bases <= _BASES or not bases or node.keywords or node.decorator_list:
            self._doubt(node, f"the kind of class {node.name[:40]!r}")
        for own in node.body:
            if isinstance(own, ast.FunctionDef):
                self._method_name(own)
                self._function(own)
            elif isinstance(own, ast.AnnAssign) and isinstance(own.target, ast.Name):
                self._name(own.target.id, own)
                self._type(own.annotation)
                self._literal(own.value)
            elif isinstance(own, ast.Assign) and len(own.targets) == 1:
                self._class_assignment(own.targets[0], own.value)
            elif not isinstance(own, ast.Pass):
                self._doubt(own)

    def _method_name(self, node: ast.FunctionDef) -> None:
        """Doubt a method with an operator's name: it would let that operator be called on a string or a tensor."""
        if (node.name.startswith("__") and node.name != "__len__") or node.name in _operator_names():
            self._doubt(node, f"a method called {node.name[:40]}")
        self._name(node.name, node)

    def _class_assignment(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name) and target.id in _CLASS_LISTS and isinstance(value, ast.List):
            self._literal(value)
        elif (
            isinstance(target, ast.Subscript)
            and isinstance(target.value, ast.Name)
            and target.value.id == "__annotations__"
            and isinstance(target.slice, ast.Constant)
        ):
            self._literal(target.slice)
            self._type(value)
        else:
            self._doubt(target)

    def _function(self, node: ast.FunctionDef) -> None:
        own = node.args
        if node.decorator_list or own.vararg or own.kwarg or own.kwonlyargs or own.posonlyargs:
            self._doubt(node, f"the arguments of {node.name[:40]}")
        for argument in own.args:
            self._name(argument.arg, argument)
            self._type(argument.annotation)
        for default in own.defaults:
            self._literal(default)
        self._type(node.returns)
        stored = [name for child in ast.walk(node) for name in _stored(child)]
        arguments = {argument.arg for argument in own.args}
        plain = {name for name, value in stored if value is None or not _dotted(value).startswith("__torch__.")}
        self._variables = arguments | {name for name, _ in stored}
        self._paths = {name for name, _ in stored} - plain - arguments
        self._body(node.body)

    def _body(self, body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                self._target(node.targets[0])
                if not self._path(node.value):
                    self._expression(node.value)
            elif isinstance(node, ast.AnnAssign):
                self._target(node.target)
                self._type(node.annotation)
                self._expression(node.value)
            elif isinstance(node, ast.If):
                self._expression(node.test)
                self._body(node.body)
                self._body(node.orelse)
            elif isinstance(node, ast.For) and not node.orelse:
                self._target(node.target)
                self._counted(node.iter)
                self._body(node.body)
            elif isinstance(node, ast.Return) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
                self._expression(node.value)
            elif not isinstance(node, ast.Pass):
                self._doubt(node)

    def _target(self, node: ast.expr) -> None:
        parts = node.elts if isinstance(node, (ast.Tuple, ast.List)) else [node]
        for part in parts:
            if isinstance(part, ast.Name):
                self._name(part.id, part)
            else:
                self._doubt(part)

    def _counted(self, node: ast.expr) -> None:
        counted = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range"
        if not counted or len(node.args) != 1 or node.keywords:  # type: ignore[attr-defined]
            self._doubt(node)
            return
        self._expression(node.args[0])  # type: ignore[attr-defined]

    def _path(self, node: ast.expr) -> bool:
        """Whether the node is the full name of a function or class that the file itself defines."""
        return _dotted(node) in self.functions | self.classes

    def _expression(self, node: ast.expr | None) -> None:
        if node is None or isinstance(node, ast.Constant):
            self._literal(node)
        elif isinstance(node, ast.Name):
            if node.id not in self._variables:
                self._doubt(node)
        elif isinstance(node, ast.Attribute):
            self._attribute(node)
        elif isinstance(node, ast.Subscript):
            self._expression(node.value)
            self._expression(node.slice)
        elif isinstance(node, (ast.Tuple, ast.List)):
            for part in node.elts:
                self._expression(part)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            self._expression(node.operand)
        elif isinstance(node, ast.Call):
            self._call(node)
        else:
            self._doubt(node)

    def _attribute(self, node: ast.Attribute) -> None:
        if re.fullmatch(r"CONSTANTS\.c\d+", _dotted(node)):
            return
        self._name(node.attr, node)
        self._expression(node.value)

    def _call(self, node: ast.Call) -> None:
        arguments = list(node.args)
        if isinstance(node.func, ast.Name) and node.func.id in ("annotate", "unchecked_cast", "uninitialized"):
            kind = arguments.pop(0) if arguments else None
            self._type(kind)
            if node.func.id != "annotate" and not _tagged(kind):
                self._doubt(node, f"{node.func.id} of {_shown(kind)}")
        else:
            self._called(node.func)
        for argument in arguments:
            self._expression(argument)
        for keyword in node.keywords:
            self._name(keyword.arg or "**", node)
            self._expression(keyword.value)

    def _called(self, node: ast.expr) -> None:
        """Allow listed operators, and functions and methods that the file itself defines."""
        dotted = _dotted(node)
        root, _, rest = dotted.partition(".")
        if isinstance(node, ast.Name):
            if node.id not in BUILTINS | self._paths:
                self._doubt(node, node.id)
        elif root == "torch":
            if rest not in TORCH_OPERATORS:
                self._doubt(node, dotted)
        elif root == "ops":
            kind, _, name = rest.partition(".")
            if name not in {"prim": PRIM_OPERATORS, "aten": TORCH_OPERATORS}.get(kind, frozenset()):
                self._doubt(node, dotted)
        elif root == "__torch__":
            if not self._path(node):
                self._doubt(node, dotted)
        elif isinstance(node, ast.Attribute):
            if node.attr not in self.methods:
                self._doubt(node, f"the method {node.attr[:40]}")
            self._expression(node.value)
        else:
            self._doubt(node)

    def _literal(self, node: ast.expr | None) -> None:
        """Allow plain values only, and only strings that are printed again unchanged."""
        for part in () if node is None else ast.walk(node):
            if isinstance(part, ast.Constant):
                text = part.value if isinstance(part.value, str) else ""
                plain = text.isascii() and (text.isprintable() or not text) and "\\" not in text and '"' not in text
                if not isinstance(part.value, (str, bool, int, float, type(None))) or not plain:
                    self._doubt(part)
            elif not isinstance(part, (ast.Tuple, ast.List, ast.UnaryOp, ast.USub, ast.Load)):
                self._doubt(part)

    def _type(self, node: ast.expr | None) -> None:
        if node is None or (isinstance(node, ast.Constant) and node.value is None):
            return
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in _GENERIC_TYPES:
            for part in node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]:
                self._type(part)
        elif not (isinstance(node, ast.Name) and node.id in _TYPES) and _dotted(node) not in self.classes:
            self._doubt(node, f"the type {_shown(node)}")


def _stored(node: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    """Names that a node binds, with the value if a single name is assigned."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
        if len(targets) == 1 and isinstance(targets[0], ast.Name):
            yield targets[0].id, node.value
            return
    elif isinstance(node, (ast.For, ast.AnnAssign)):
        targets = [node.target]
    for target in targets:
        for part in ast.walk(target):
            if isinstance(part, ast.Name):
                yield part.id, None


def _declared(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """Attributes of a class and their types."""
    for own in node.body:
        if isinstance(own, ast.AnnAssign) and isinstance(own.target, ast.Name):
            yield own.target.id, own.annotation
        elif isinstance(own, ast.Assign) and isinstance(own.targets[0], ast.Subscript):
            place = own.targets[0].slice
            if isinstance(place, ast.Constant) and isinstance(place.value, str):
                yield place.value, own.value


def _tagged(kind: ast.expr | None) -> bool:
    """Whether torch checks the type of such a value at each use; objects and tuples of another size are read past their end."""
    parts = () if kind is None else ast.walk(kind)
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    return names <= (_TYPES | _GENERIC_TYPES) - {"Tuple"}


def fits(value: Any, kind: ast.expr, class_of: Callable[[Any], str]) -> bool:
    """Whether a pickled value has the class that its attribute declares; torch itself tells other types apart.

    Args:
        value: value from a pickle.
        kind: the declared type.
        class_of: function that returns the full name of an object's class; empty for other values.
    """
    if isinstance(kind, ast.Subscript) and isinstance(kind.value, ast.Name):
        parts = kind.slice.elts if isinstance(kind.slice, ast.Tuple) else [kind.slice]
        if kind.value.id == "List":
            return not isinstance(value, list) or all(fits(one, parts[0], class_of) for one in value)
        if kind.value.id == "Tuple":
            same = isinstance(value, tuple) and len(value) == len(parts)
            return same and all(fits(one, part, class_of) for one, part in zip(value, parts))
        return value is None or fits(value, parts[0], class_of)
    if isinstance(kind, ast.Attribute):
        return class_of(value) == _dotted(kind)
    return True


def _dotted(node: ast.AST) -> str:
    """The dotted name, such as "a.b.c", of a name or of an attribute of names; otherwise empty."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _shown(node: ast.AST | None) -> str:
    """A short piece of the text for a message, in characters that are safe on a terminal."""
    try:
        text = ast.unparse(node) if node is not None else ""
    except (RecursionError, ValueError):
        text = ""
    return (
        ascii(f"{text[:40]}...".replace("\n", " ") if len(text) > 40 else text.replace("\n", " "))[1:-1]
        or type(node).__name__
    )
