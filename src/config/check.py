"""Checks a composed config as a whole, before anything is built and without importing torch.

Every error is one `UserError` that names the key, what is wrong and the mend.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import NonNegativeFloat

from src.config import signatures
from src.config.consistency import check_together
from src.config.explain import unknown_key
from src.config.inference import Inference
from src.config.monitored import check_own_names
from src.config.parts import Config
from src.config.schema import GROUPS, OURS, REFUSED, RESERVED, SUM, TOP_LEVEL, TYPES, given_by_code
from src.config.settings import Settings
from src.errors import UserError
from src.files.untrusted import shown
from src.which_src import of_another


def checked(config: Config | Settings) -> Settings:
    """The settings that a config makes, once it is checked; settings are checked already."""
    if isinstance(config, Settings):
        return config
    check(config)
    return Settings.of(config)


def check(config: Config) -> None:
    """Checks the whole config of a training run.

    Args:
        config: plain containers, interpolations resolved.

    Raises:
        UserError: the first thing that is wrong.
    """
    check_keys(config, TOP_LEVEL | dict.fromkeys(GROUPS, object))
    for group in ("data", "model", "network", "loss", "optimizer", "scheduler", "trainer"):
        node = config.get(group)
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise UserError(
                f"{group}: nothing chosen; choose one, e.g. {group}=… (python -m src.train --help lists them)"
            )
        check_node(group, node)
    for group in ("discriminator", "tasks"):
        if (node := config.get(group)) is not None:
            check_node(group, node)
    check_own_names(config)
    for group in ("metrics", "callbacks", "logger"):
        for name, node in _named(config.get(group), group):
            if isinstance(node, Mapping):
                check_node(f"{group}.{name}", node)
            elif node is not None:
                raise UserError(
                    f"{group}.{name}: should be a class with its keys ({{_target_: …}}) or null, not {node!r}"
                )
    if (protocol := config.get("inference")) is not None:
        check_inference(protocol)
    for name, value in _named(config.get("paths"), "paths"):
        _expect(f"paths.{name}", str | None, value)
    check_together(Settings.of(config))


def check_inference(node: object, partly: bool = False) -> None:
    """Checks the keys of `inference`.

    Args:
        partly: of a command in which None means "as in training", so that nothing can be said yet of all keys together.

    Raises:
        UserError: the first thing that is wrong.
    """
    if not isinstance(node, Mapping):
        raise UserError(f"inference: should be keys with values, not {shown(repr(node))}; e.g. inference.flip=true")
    known = TYPES["inference"]
    said = {key: value for key, value in node.items() if value is not None or not partly or key not in known}
    check_keys(said, known, "inference")
    if not partly:
        Inference.of(node).check()


def check_keys(node: Mapping[str, object], keys: Mapping[str, object], path: str = "") -> None:
    """Checks that a node has known keys only, and values that fit their annotations.

    Raises:
        UserError: the first key that is unknown, missing (`???`) or of a wrong type or range.
    """
    for key, value in node.items():
        where = f"{path}.{key}" if path else key
        if key not in keys:
            raise UserError(unknown_key(key, path, list(keys)))
        if value == "???":
            raise UserError(f"{where}: must be given; say {where}=…")
        _expect(where, keys[key], value)


def check_node(path: str, node: object) -> None:
    """Checks one node with a `_target_`, and those inside it, against the target's signature."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping) or not isinstance(target, str):
        raise UserError(f"{path}._target_: should be the dotted path of a class or function, not {target!r}")
    try:
        signature = signatures.read(target)
    except LookupError as error:
        raise UserError(
            f"{path}._target_: {error.args[0]}; check the spelling of '{target}'{of_another(target)}"
        ) from None
    ours = OURS.get(path, {})
    given = given_by_code(path)
    own = {**TYPES.get(path, {}), **ours}
    for key, value in node.items():
        if key in RESERVED:
            continue
        where = f"{path}.{key}"
        if key in given:
            raise UserError(f"{where}: is set by the program; leave it out")
        if mend := REFUSED.get(path, {}).get(key):
            raise UserError(f"{where}: has no place here; {mend}")
        known = signature is None or signature.takes_any or key in signature.parameters or key in ours
        if not known:
            assert signature is not None
            names = [n for n in signature.parameters if n not in given]
            raise UserError(unknown_key(key, path, [*names, *ours]))
        if value == "???":
            raise UserError(f"{where}: must be given; say {where}=…")
        if target == SUM and key == "terms":
            _check_terms(where, value)
        elif isinstance(value, Mapping) and "_target_" in value:
            check_node(where, value)
        elif key in own:
            _expect(where, own[key], value)
        elif signature is not None and key in signature.parameters:
            if value is not None and key in signature.built:
                raise UserError(f"{where}: should be a class with its keys ({{_target_: …}}), not {shown(repr(value))}")
            _expect(where, signature.parameters[key].annotation, value)
    if signature is not None and not node.get("_partial_"):
        for name, parameter in signature.parameters.items():
            if parameter.required and name not in node and name not in given:
                raise UserError(f"{path}.{name}: must be given; say +{path}.{name}=…")


def _check_terms(path: str, terms: object) -> None:
    """Checks the terms of a sum of losses, each of them the node of a loss with a weight beside its keys."""
    if not isinstance(terms, list) or not terms:
        raise UserError(
            f"{path}: should be a list of losses with their keys and weights, not {shown(repr(terms))}; e.g. "
            f"'{path}=[{{_target_: src.losses.ce.CrossEntropy}}, {{_target_: src.losses.dice.Dice, weight: 0.5}}]'"
        )
    for number, term in enumerate(terms):
        where = f"{path}.{number}"
        if not isinstance(term, Mapping) or not isinstance(term.get("_target_"), str):
            raise UserError(f"{where}: should be a loss with its keys ({{_target_: …}}), not {shown(repr(term))}")
        if term["_target_"] == SUM:
            raise UserError(f"{where}: is a sum within a sum; write its terms into {path} themselves")
        _expect(f"{where}.weight", NonNegativeFloat, term.get("weight", 1.0))
        check_node(where, {key: value for key, value in term.items() if key != "weight"})


def _expect(where: str, annotation: object, value: object) -> None:
    reason = signatures.mismatch(annotation, value)
    if reason is not None:
        raise UserError(f"{where}: {reason}, not {value!r}")


def _named(group: object, name: str) -> list[tuple[str, object]]:
    """The parts of a group that has several, by name."""
    if group is None:
        return []
    if not isinstance(group, Mapping):
        raise UserError(f"{name}: should be classes by name, {name}.my={{_target_: …}}, not {group!r}")
    return [(str(key), node) for key, node in group.items()]
