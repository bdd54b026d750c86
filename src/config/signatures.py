"""What a `_target_` takes, read from its source file: neither the target nor torch is imported.

A config error must not cost the seconds that torch takes to import, and a new network or data set must not need a
second description of its keys. So the signature in the source is the schema: names, annotated types and, where
`Annotated[..., Field(ge=0)]` or pydantic's `PositiveInt` give them, ranges.
"""

from __future__ import annotations

import ast
import functools
import json
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any

import pydantic
from annotated_types import Ge, Gt, Le, Lt
from pydantic import TypeAdapter, ValidationError

from src.config.sources import DEEPEST, Module, find, parse


class _NeverGiven:
    """Stands for types such as Tensor that no YAML value can be."""


class _Unknown:
    """Stands for a name that cannot be understood without importing; its values are not checked."""


_KNOWN: dict[str, object] = {
    **{t.__name__: t for t in (int, float, str, bool, list, dict, tuple, type(None), object)},
    **{n: getattr(typing, n) for n in ("Any", "Annotated", "Literal", "Optional", "Union")},
    **{n: getattr(typing, n) for n in ("List", "Dict", "Tuple", "Sequence", "Iterable", "Mapping")},
    **{
        n: getattr(pydantic, n) for n in ("PositiveInt", "NonNegativeInt", "PositiveFloat", "NonNegativeFloat", "Field")
    },
    "Ge": Ge,
    "Gt": Gt,
    "Le": Le,
    "Lt": Lt,
    "None": None,
    "True": True,
    "False": False,
    "Path": str,
    "_PATH": str,
    "Tensor": _NeverGiven,
    "torch": None,
    "Callable": _NeverGiven,
    "timedelta": _NeverGiven,
}


class _Names(dict[str, object]):
    """What the names in the annotations of a module stand for, found as they are asked for."""

    def __init__(self, module: Module | None) -> None:
        super().__init__()
        self._module = module

    def __missing__(self, key: str) -> object:
        own = None if self._module is None else _type_named(key, self._module)
        self[key] = _KNOWN.get(key, _Unknown) if own is None else own
        return self[key]


@dataclass(frozen=True)
class Parameter:
    """One parameter: its annotation (None where it cannot be understood) and whether it must be given."""

    annotation: object
    required: bool


@dataclass(frozen=True)
class Signature:
    """The parameters of a function or class, those of them that no plain value can be, and its module's plain constants."""

    parameters: Mapping[str, Parameter]
    takes_any: bool = False
    built: frozenset[str] = frozenset()
    constants: Mapping[str, object] = field(default_factory=dict)


@functools.cache
def read(target: str) -> Signature | None:
    """The signature of a dotted path such as `src.networks.smp_models.unet`.

    Returns None where a package is installed but the name cannot be followed in its source (a compiled module, say).

    Raises:
        LookupError: no such package, module or name; the message says which part is missing.
    """
    found = find(target, 0)
    if found is None:
        return None
    module, node, _ = found
    constants = {
        t.id: _literal(n.value)
        for n in module.body
        if isinstance(n, ast.Assign | ast.AnnAssign) and n.value is not None
        for t in (n.targets if isinstance(n, ast.Assign) else [n.target])
        if isinstance(t, ast.Name)
    }
    taken = _of_class(module, node, target) if isinstance(node, ast.ClassDef) else _of_function(module, node, target)
    parameters, built, takes_any = taken or ({}, set(), False)
    return Signature(parameters, takes_any, frozenset(built), constants)


_Taken = tuple[dict[str, Parameter], set[str], bool]  # parameters, those built of a node, whether any others are taken


def _of_class(module: Module, node: ast.ClassDef, target: str) -> _Taken | None:
    """What a class takes: its constructor's parameters and, where that hands `**rest` on to the base's as it is, those of
    the base's too; without a constructor the base's alone. None where none is found."""
    own = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
    if own is None:
        return _of_bases(node, target)
    parameters, built, takes_any = _of_function(module, own, target)
    parameters.pop(own.args.args[0].arg)  # self
    call = _hands_rest_on(own)
    if call is not None and (inherited := _of_bases(node, target)) is not None:
        # What the call gives the base is no longer anybody else's to give.
        given = {*list(inherited[0])[: len(call.args)], *(keyword.arg for keyword in call.keywords)} - parameters.keys()
        rest = {name: parameter for name, parameter in inherited[0].items() if name not in given}
        return rest | parameters, (inherited[1] - parameters.keys() - given) | built, inherited[2]
    return parameters, built, takes_any


def _of_bases(node: ast.ClassDef, target: str) -> _Taken | None:
    """What the first base of a class that has a constructor takes."""
    module = target.rpartition(".")[0]
    for base in node.bases:
        found = find(f"{module}.{base.id}", 1) if isinstance(base, ast.Name) else None
        if found is not None and isinstance(found[1], ast.ClassDef):
            taken = _of_class(found[0], found[1], found[2])
            if taken is not None:
                return taken
    return None


def _of_function(module: Module, node: ast.FunctionDef, target: str) -> _Taken:
    """A function's parameters, those of them that are built of a node, and whether it takes any others."""
    names, arguments, place = _Names(module), node.args, target.rpartition(".")[0]
    named = [*arguments.posonlyargs, *arguments.args]
    optional = len(arguments.defaults)
    pairs: list[tuple[ast.arg, bool]] = [(a, i < len(named) - optional) for i, a in enumerate(named)]
    pairs += [(a, d is None) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    parameters = {a.arg: Parameter(_evaluate(a.annotation, names), required) for a, required in pairs}
    built = {a.arg for a, _ in pairs if target.startswith("src.") and _is_built(a.annotation, place)}
    return parameters, built, arguments.kwarg is not None


def _type_named(name: str, module: Module, depth: int = 0) -> object:
    """The type, `Share = Annotated[…]` say, that a module defines by a name or imports from another one of `src`; None where
    it does not."""
    for value in reversed(module.types.get(name, [])):
        if isinstance(value, ast.Subscript):
            return _evaluate(value, _Names(None))
        file, there = value
        if depth < DEEPEST and (found := _type_named(there, parse(file), depth + 1)) is not None:
            return found
    return None


def _hands_rest_on(constructor: ast.FunctionDef) -> ast.Call | None:
    """The call `super().__init__(…, **rest)`, where that is all that a constructor does with its `**rest`; else None."""
    rest = constructor.args.kwarg
    if rest is None:
        return None
    uses = [n for n in ast.walk(constructor) if isinstance(n, ast.Name) and n.id == rest.arg]
    for call in ast.walk(constructor):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__":
            handed = [keyword.value for keyword in call.keywords if keyword.arg is None]
            if len(uses) == 1 and uses[0] in handed:
                return call
    return None


def own_signature(target: str) -> Signature | None:
    """The signature of what the named module itself defines; None for a name that it only imports, or has not."""
    try:
        found = find(target, depth=DEEPEST)
    except LookupError:
        return None
    return read(target) if found is not None else None


def mismatch(annotation: Any, value: object) -> str | None:
    """Why `value` (plain YAML data) does not fit `annotation`, in words; None where it fits or cannot be judged."""
    if annotation is _Unknown or annotation is object or _is_plainly(annotation, value) or _is_open(annotation):
        return None
    config = pydantic.ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        TypeAdapter[object](annotation, config=config).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        possible = [
            e["msg"] for e in error.errors() if "_NeverGiven" not in str(e["loc"]) and e["type"] != "none_required"
        ]
        # each once, in order: one for every alternative of a union
        return f"should be {' or '.join(dict.fromkeys(map(_in_words, possible)))}" if possible else "should be left out"
    except Exception:  # an annotation that pydantic cannot turn into a check
        return None
    return None


def _is_plainly(annotation: object, value: object) -> bool:
    """Whether a value is of the very type, or of one of a union's, with nothing more to ask: pydantic's check of most takes
    longer to build than all else."""
    if isinstance(value, str) and not value.isascii():  # it may not be text
        return False
    union = typing.get_origin(annotation) in (typing.Union, UnionType)
    return any(type(value) is kind for kind in (typing.get_args(annotation) if union else [annotation]))


def _in_words(message: str) -> str:
    message = message.removeprefix("Input should be ").replace("a valid array", "a list")
    length = re.fullmatch(r"List should have at (least|most) (\d+) items? after validation, not \d+", message)
    return f"a list of at {length[1]} {length[2]}" if length else message


def _is_open(annotation: object) -> bool:
    """Whether the annotation has a part that was not understood, so that nothing can be said against a value."""
    if annotation is _Unknown:
        return True
    arguments: Iterable[object] = typing.get_args(annotation) if not isinstance(annotation, str) else ()
    return any(_is_open(a) for a in arguments if isinstance(a, type | UnionType) or typing.get_origin(a) is not None)


def _is_built(annotation: ast.expr | None, module: str) -> bool:
    """Whether an annotation names classes (or None) only, or a function: what is built of a node with a `_target_`."""
    kinds, found = [annotation], []
    while kinds:
        kind = kinds.pop()
        if isinstance(kind, ast.BinOp) and isinstance(kind.op, ast.BitOr):
            kinds += [kind.left, kind.right]
        elif not (isinstance(kind, ast.Constant) and kind.value is None):
            found.append(kind)
    return bool(found) and all(_is_class(kind, module) for kind in found)


def _is_class(kind: ast.expr | None, module: str) -> bool:
    if isinstance(kind, ast.Subscript) and isinstance(kind.value, ast.Name):
        return kind.value.id == "Callable"
    if isinstance(kind, ast.Name) and kind.id in _KNOWN:
        return kind.id == "Tensor"
    try:
        found = find(f"{module}.{kind.id}", 0) if isinstance(kind, ast.Name) else None
    except LookupError:
        return False
    return found is not None and isinstance(found[1], ast.ClassDef)


def _literal(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _evaluate(node: ast.expr | None, names: _Names) -> object:
    if node is None:
        return _Unknown
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            node = ast.parse(node.value, mode="eval").body
        except SyntaxError:
            return _Unknown
    if isinstance(node, ast.Name):
        return names[node.id]
    try:  # only names from the table above can be reached: attributes and foreign calls fail or give _Unknown
        if any(isinstance(n, ast.Attribute | ast.Lambda | ast.NamedExpr) for n in ast.walk(node)):
            return _Unknown
        code = compile(ast.Expression(node), "<annotation>", "eval")
        return eval(code, {"__builtins__": {}}, names)
    except Exception:
        return _Unknown
