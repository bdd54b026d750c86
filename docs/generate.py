"""Writes docs/reference/: every config group with its options, and every key with its type, range, default and meaning.

    python docs/generate.py

Names, defaults and meanings are those of conf/*.yaml and its comments; types and ranges are those that the check of a config
holds a value against: the signatures in the sources (`src.config.signatures`) and the tables of `src.config.check`. Needs no
torch. A test compares the committed pages with what this makes.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from docs.told import comments, described, flat, heading, read, shown, words  # noqa: E402  they lie in the project's folder
from src.config import signatures  # noqa: E402
from src.config.asked import Asked  # noqa: E402
from src.config.parts import types_of  # noqa: E402
from src.config.schema import OURS, REFUSED, RESERVED, TOP_LEVEL, TYPES, given_by_code  # noqa: E402
from src.sweep import plugins  # noqa: E402
from src.sweep.launcher import NAMESPACE  # noqa: E402

# The keys of which parts of a command's config a dataclass has.
_PARTS = {"Where": "trainer.", "ChosenData": "data.", "Measured": "metrics.", "Bootstrap": "bootstrap."}
# Keys that the command line takes before the config is made, so that its check knows them as null only.
_BEFORE = {"resume": "a run folder", "like": "a run folder"}
CONF, OUTPUT = ROOT / "conf", ROOT / "docs" / "reference"
NOTE = "<!-- docs/generate.py made this page of conf/ and src/; change those, then run: python docs/generate.py -->\n\n"
# What each group decides, in the order of a run.
GROUPS = {
    "data": "Which data set, how it is read, cut, changed and put into batches.",
    "model": "How the network learns: alone, or against a discriminator; average of weights, batch norm, unlabelled images.",
    "network": "The network. Each takes any number of classes and image channels, and images of any size; `spade` draws them.",
    "discriminator": "What judges label maps, with `model=gan`, or images by them, with `model=synthesis`.",
    "loss": "What is wrong with the logits, as one number.",
    "optimizer": "How gradients become steps. Any class of `torch.optim` can be named in a file of your own.",
    "scheduler": "The learning rate over the steps.",
    "trainer": "Where and how long: devices, precision, epochs, clipping, accumulation.",
    "tasks": "What the network learns beside the classes of pixels. Without the group: nothing.",
    "metrics": "What is computed beside the scores. Without the group: nothing; your own go by name, `metrics.my._target_=…`.",
    "inference": "How images are predicted to be scored, shown and written: whole or in windows, at which sizes, mirrored.",
    "callbacks": "What watches a run: checkpoints, pictures, the dashboard.",
    "logger": "Where curves are written.",
    "paths": "Folders.",
    "experiment": "Whole recipes: each says only what differs from the defaults.",
    "debug": "Short runs that show whether all parts work.",
    "sweep": "What `-m` runs.",
    "hydra/launcher": "How the jobs of a sweep run; said as `launcher=…`, `launcher.jobs=…`.",
    "hydra/sweeper": "Which jobs a sweep has; `sweep=…` chooses, `sweep.n=…` changes.",
    "hydra/sweeper/sampler": "How `sweep=optuna` draws values; said as `sweep/sampler=…`.",
    "hydra/sweeper/pruner": "Which trials `sweep=optuna` ends early; said as `sweep/pruner=…`.",
}
WHOLE = ("experiment", "debug", "sweep", "hydra/sweeper/sampler", "hydra/sweeper/pruner")  # shown as they are


@dataclass(frozen=True)
class Key:
    """One line of a table.

    Attributes:
        path: as it is said on the command line, `data.augment.flip`.
        default: as YAML.
        type: what values it takes; "" where nothing is known.
        meaning: what its comment says.
    """

    path: str
    default: str
    type: str
    meaning: str


def taken(target: str) -> dict[str, Any]:
    """What a `_target_` takes: the annotation of each key."""
    if target.startswith(f"{NAMESPACE}."):  # launchers and sweepers check their own keys
        return dict(getattr(plugins, target.rpartition(".")[2]).keys)
    signature = signatures.read(target)
    return {name: parameter.annotation for name, parameter in signature.parameters.items()} if signature else {}


def owner(path: str, node: Mapping[str, Any]) -> tuple[str, str]:
    """The `_target_` that takes the key at a path, and the key's name there; an inner part's own name is ""."""
    inner: Any = node
    target, key = str(node.get("_target_", "")), path.partition(".")[0]
    parts = path.split(".")
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        inner = inner.get(part) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping) and "_target_" in inner:
            target, key = inner["_target_"], following
    return target, key


def type_of(path: str, node: Mapping[str, Any], group: str) -> str:
    """What the check of a config holds the value at a path against."""
    own = {**TYPES.get(group, {}), **OURS.get(group, {})}
    if path in own:
        return words(own[path])
    target, key = owner(path, node)
    if not key:
        return "a class with its keys, or null"
    value = node.get(path)
    if isinstance(value, list) and value and all(isinstance(one, Mapping) and "_target_" in one for one in value):
        return "a list of classes with their keys"
    return words(taken(target).get(key, typing.Any)) if target else ""


def meaning_of(path: str, node: Mapping[str, Any]) -> str:
    """What the docstring of the part that takes a key says of it."""
    target, key = owner(path, node)
    return described(target).get(key, "")


def further(group: str, node: Mapping[str, Any]) -> list[str]:
    """Keys that a part takes and its file does not have: they are said with a `+`."""
    found: list[str] = []
    own = {**(TYPES["trainer"] if group == "trainer" else {}), **OURS.get(group, {})}
    found += [
        f"`+{group}.{key}`{_kind(words(kind))}" for key, kind in own.items() if key not in node and group != "model"
    ]
    for where, part in [("", node), *((k, v) for k, v in node.items() if isinstance(v, Mapping))]:
        target = str(part.get("_target_", ""))
        if not target.startswith("src."):
            continue
        path = ".".join(filter(None, (group, where)))
        known = {*part, *given_by_code(path), *RESERVED, *REFUSED.get(path, ())}
        kinds = taken(target).items()
        found += [f"`+{path}.{name}`{_kind(words(kind))}" for name, kind in kinds if name not in known]
    return list(dict.fromkeys(found))


def _kind(text: str) -> str:
    return f" ({text})" if text else ""


# ---------------------------------------------------------------------------------------------- options and pages


def merged(group: str, name: str) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """An option's keys with those of the options that it begins with, their comments, and these options' names."""
    file = CONF / group / f"{name}.yaml"
    content, said = read(file), comments(file.read_text(encoding="utf-8"))
    begins: list[str] = []
    keys: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        if (
            isinstance(entry, str) and entry.startswith("/hydra/base/") and "@_global_" not in entry
        ):  # what its options share
            shared = CONF / f"{entry.removesuffix('@_here_')[1:]}.yaml"
            content = deep(read(shared), content)
            said = {**comments(shared.read_text(encoding="utf-8")), **{key: text for key, text in said.items() if text}}
        elif isinstance(entry, str) and entry != "_self_" and not entry.startswith("/"):
            before, told, _ = merged(group, entry)
            keys, said, begins = deep(keys, before), {**told, **{k: v for k, v in said.items() if v}}, [*begins, entry]
    return deep(keys, content), said, begins


def deep(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with another one's values over it, mappings in it likewise."""
    both = {
        k: deep(under[k], v) for k, v in over.items() if isinstance(v, Mapping) and isinstance(under.get(k), Mapping)
    }
    return {**under, **over, **both}


def keys_of(group: str, name: str) -> list[Key]:
    """The keys of an option, in the order of its file."""
    node, said, _ = merged(group, name)
    prefix = {"hydra/launcher": "launcher", "hydra/sweeper": "sweep"}.get(group, group)
    return [
        Key(f"{prefix}.{path}", shown(value), type_of(path, node, group), said.get(path) or meaning_of(path, node))
        for path, value in flat(node)
        if path.rpartition(".")[2] not in RESERVED and (group, path) != ("data", "dataset")  # its page names it above
    ]


def table(keys: list[Key]) -> str:
    rows = ["| key | default | takes | meaning |", "|---|---|---|---|"]
    rows += [f"| `{k.path}` | {_cell(k.default)} | {_cell(k.type)} | {_cell(_text(k.meaning))} |" for k in keys]
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _text(comment: str) -> str:
    """A comment as Markdown: nothing in it is markup."""
    parts = re.split(r"(`[^`]*`)", comment)
    return "".join(part if part.startswith("`") else re.sub(r"([<>*_\[\]])", r"\\\1", part) for part in parts)


def option(group: str, name: str, common: Mapping[str, Key]) -> str:
    """The part of a page that tells of one option."""
    file = CONF / group / f"{name}.yaml"
    text = file.read_text(encoding="utf-8")
    lines = [f"## {group.removeprefix('hydra/')}={name}", ""]
    if about := heading(text):
        lines += [*(f"> {_text(line)}" for line in about.splitlines()), ""]
    if group in WHOLE:
        body = "\n".join(line for line in text.splitlines() if not line.startswith("#") or "@package" in line)
        return "\n".join([*lines, "```yaml", body.strip() or "{}", "```", ""])
    node, _, begins = merged(group, name)
    if target := node.get("_target_"):
        dataset = (node.get("dataset") or {}).get("_target_") if group == "data" else None
        lines += [f"Is `{dataset or target}`.", ""]
    if begins:
        lines += [f"Begins as {', '.join(f'`{group}={b}`' for b in begins)}; what differs:", ""]
    base = {k.path: k for b in begins for k in keys_of(group, b)} | dict(common)
    own = [k for k in keys_of(group, name) if base.get(k.path) is None or base[k.path].default != k.default]
    lines += [table(own), ""] if own else ["It has no keys of its own.", ""]
    more = [] if begins else [k for k in further(group, node) if k not in _further_of(common, group)]
    return "\n".join([*lines, *([f"Also taken: {', '.join(more)}.", ""] if more else [])])


def _further_of(common: Mapping[str, Key], group: str) -> list[str]:
    return further(group, merged(group, "shapes")[0]) if common else []


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def group_page(group: str) -> str:
    """One group: what it decides, its options, their keys."""
    names = options(group)
    lines = [NOTE + f"# {group.removeprefix('hydra/')}", "", GROUPS[group], ""]
    if len(names) > 1:
        lines += [f"Options: {', '.join(f'[`{n}`](#{anchor(group, n)})' for n in names)}.", ""]
    common: dict[str, Key] = {}
    if group == "data":  # each of its options is the same datamodule over another format
        first, *others = [{k.path: k for k in keys_of(group, n)} for n in names if n != "shapes"]
        shapes = {k.path: k for k in keys_of(group, "shapes")}
        shared = [p for p in shapes if p in first and all(p in o for o in others) and ".dataset." not in p]
        usual = {p: max((o[p] for o in (first, *others)), key=lambda k: _votes(k, (first, *others))) for p in shared}
        common = {p: Key(p, k.default, k.type, shapes[p].meaning or k.meaning) for p, k in usual.items()}
        lines += [
            "## Keys of every option",
            "",
            "An option's own table lists its further keys, and other defaults.",
            "",
        ]
        lines += [table(list(common.values())), ""]
        lines += [f"Also taken: {', '.join(_further_of(common, group))}.", ""] if _further_of(common, group) else []
    return "\n".join([*lines, *(option(group, n, common) for n in names)]).rstrip() + "\n"


def _votes(key: Key, tables: tuple[dict[str, Key], ...]) -> int:
    return sum(t[key.path].default == key.default for t in tables)


def anchor(group: str, name: str) -> str:
    """What a heading `## group=name` is called in the site and on code hosts alike."""
    return re.sub(r"[^\w-]", "", f"{group.removeprefix('hydra/')}={name}".lower())


def commands() -> list[str]:
    return sorted(file.stem for file in CONF.glob("*.yaml"))


def command_keys(command: str) -> list[Key]:
    """The keys outside the groups of one command."""
    file = CONF / f"{command}.yaml"
    content, said = read(file), comments(file.read_text(encoding="utf-8"))
    content.pop("defaults", None)
    known = tables_of(command)
    return [
        Key(path, shown(value), _BEFORE.get(path) or words(known.get(path, typing.Any)), said.get(path, ""))
        for path, value in flat(content)
    ]


def tables_of(command: str) -> dict[str, Any]:
    """What a command's check holds its keys against, by path."""
    if command == "train":
        return dict(TOP_LEVEL)
    module = importlib.import_module(f"src.{command}")
    found: dict[str, Any] = {f"inference.{key}": kind for key, kind in TYPES["inference"].items()}
    classes = [it for it in vars(module).values() if isinstance(it, type) and dataclasses.is_dataclass(it)]
    homes = {it.__module__ for it in classes if issubclass(it, Asked)} - {module.__name__}
    classes += [it for home in sorted(homes) for it in vars(importlib.import_module(home)).values()]
    for it in classes:
        if isinstance(it, type) and dataclasses.is_dataclass(it) and (issubclass(it, Asked) or it.__name__ in _PARTS):
            found |= {f"{_PARTS.get(it.__name__, '')}{key}": kind for key, kind in types_of(it).items()}
    return found


def commands_page() -> str:
    lines = [NOTE + "# Commands and their keys", ""]
    lines += ["`python -m src.COMMAND key=value …`; `--help` prints the same. Groups have pages of their own.", ""]
    for command in commands():
        about = ast.get_docstring(ast.parse((ROOT / "src" / f"{command}.py").read_text(encoding="utf-8"))) or ""
        lines += [f"## src.{command}", "", *about.split("\n\n")[0].splitlines(), "", table(command_keys(command)), ""]
    return "\n".join(lines).rstrip() + "\n"


def index_page() -> str:
    lines = [NOTE + "# Every key", ""]
    lines += [
        "A config group is a folder of `conf/`: `group=option` chooses a file of it, `group.key=value` changes a key. The "
    ]
    lines[-1] += (
        "pages below are made from the files and the signatures that check them, so they say what this version takes."
    )
    lines += ["", "| group | options | decides |", "|---|---|---|"]
    for group, about in GROUPS.items():
        page = f"{group.replace('/', '-')}.md"
        names = ", ".join(f"`{n}`" for n in options(group))
        lines.append(f"| [{group.removeprefix('hydra/')}]({page}) | {names} | {about} |")
    lines += ["", "Keys outside the groups, command by command: [commands](commands.md)."]
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """Every page of the reference, by its file name."""
    of_groups = {f"{group.replace('/', '-')}.md": group_page(group) for group in GROUPS}
    return {"index.md": index_page(), "commands.md": commands_page(), **of_groups}


def main() -> None:
    """Writes the pages, and removes those of groups that are no more."""
    OUTPUT.mkdir(exist_ok=True)
    made = pages()
    for file in OUTPUT.glob("*.md"):
        if file.name not in made:
            file.unlink()
    for name, text in made.items():
        (OUTPUT / name).write_text(text, encoding="utf-8")
    print(f"written: {len(made)} pages in {OUTPUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
