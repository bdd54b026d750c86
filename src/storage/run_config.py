"""The config in a run folder, which may be a stranger's: read once, as plain data, and never composed by Hydra.

Taken from it are the program's own keys with plain values. An interpolation in it must be, word for word, one that this
program's own `conf/` has (`${paths.output_dir}` say), or name another key's plain value; so nothing of a stranger's text is
ever interpreted. Paths in it lead into the run folder, but for where data are read from (see `check_places`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config.hydra_internals import apply_overrides
from src.config.inference import Inference
from src.config.monitored import fill_monitor_mode
from src.config.moved import with_new_names
from src.config.schema import GROUPS, TOP_LEVEL
from src.config.settings import Trained
from src.errors import UserError
from src.files.untrusted import inside, read_yaml, shown
from src.storage import run_folder
from src.storage.trust import Trust, check_targets, own_interpolations, split_packages, texts

_OUTPUT_DIR = "${hydra:runtime.output_dir}"  # as conf/paths has it
_HERE = "<the run folder>"  # stands for the folder until all else is resolved: its name is anyone's too
_REFERENCE = re.compile(r"\$\{([A-Za-z]\w*(?:\.\w+)*)\}")
_BELOW = re.compile(r"\$\{(paths\.output_dir|hydra:runtime\.output_dir)\}[^$\\{}]*")  # what lies in the run folder
_LONGEST = 10_000  # characters of a text that refers to others
_HOPS = 8  # from key to key
_URL = re.compile(r"[A-Za-z][\w+.-]+:|.*(://|::)", re.DOTALL)  # s3:, local:, hf-hub:, zip://x::file://y; not C:
_WRITES = ("callbacks", "logger", "paths")  # groups whose parts write files
_WEIGHTS = ("init_from", "network.encoder_weights")  # names or files
_MOST_PROCESSES = 64  # that a stranger's config may start on a CPU: loaders' workers, or ranks
_NO_PATHS = ("data.dataset.names.", "data.dataset.group", "data.folds.group", "monitor", "optimized_metric", "trust")
_OFFLINE = "offline"  # of a logger that else sends
_HUB = "src.data.formats.huggingface.HuggingFace"


def read_config(run_dir: Path, key: str) -> dict[str, object]:
    """The config that a run was started with, as plain data; left in it are the program's own interpolations.

    Args:
        key: what the user named the folder with, for errors.

    Raises:
        UserError: the folder is no run folder, or its config has more than known keys and plain values.
    """
    file = inside(run_dir, run_folder.CONFIG)
    of = f"{key}: {file}"
    try:
        content = read_yaml(file)
    except FileNotFoundError:
        raise UserError(f"{key}: {run_dir} is no run folder (no {run_folder.CONFIG} in it)") from None
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{of} is damaged (it holds a {type(content).__name__})")
    for name in content:
        if name not in TOP_LEVEL and name not in GROUPS:
            raise UserError(f"{of} has the key {shown(name)}, which is none of a run's; refused")
    content["paths"] = {**(content.get("paths") or {}), "output_dir": _OUTPUT_DIR} if _maps(content, of) else {}
    settings = with_new_names(_referred(content, content, of))
    assert isinstance(settings, dict)
    # A run from before there were protocols predicted by the default one; so that `like=` can change it.
    return {**settings, "inference": {**asdict(Inference()), **(settings.get("inference") or {})}}


def _maps(content: Mapping[str, object], of: str) -> bool:
    for group in GROUPS:
        if not isinstance(content.get(group), dict | None):
            raise UserError(f"{of} is damaged ({group} is a {type(content[group]).__name__})")
    return True


def settled(
    config: Mapping[str, object], run_dir: Path, trust: Trust, overrides: Sequence[str] = (), anew: bool = False
) -> dict[str, object]:
    """A config as `read_config` gives it, with its output folder put in and the user's own overrides applied.

    Args:
        anew: whether a run starts with it, from the weights that it names; else its checkpoint has them.

    Raises:
        UserError: it would build, read or write what a stranger's may not.
    """
    settings = filled(config, run_dir, overrides, str(trust.of))
    check_targets(settings, trust)
    check_places(settings, trust, run_dir, anew)
    return settings


def trust_in(run_dir: Path, key: str, packages: Sequence[str] = (), overrides: Sequence[str] = ()) -> Trust:
    """What may be built of a run folder's config with the user's own overrides of it."""
    return Trust(f"{key}: {run_dir / run_folder.CONFIG}", split_packages(list(packages)), said_by(overrides))


def said_by(overrides: Sequence[str]) -> tuple[str, ...]:
    """Keys whose values overrides give in full. A mapping is merged into what is there, so only the keys in it count; an
    interpolation that is all of a value may stand for what is there."""
    said: list[str] = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if not override.is_delete():
            value = override.value()
            given = value.list if isinstance(value, ChoiceSweep) else [value]
            if len(given) == 1 or not any(isinstance(one, dict) for one in given):
                said += [leaf for one in given for leaf in _leaves(override.key_or_group, one)]
    return tuple(dict.fromkeys(said))


def _leaves(path: str, value: object) -> list[str]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(f"{path}.{key}", inner)]
    text = value.text if isinstance(value, QuotedString) else value
    return [] if isinstance(text, str) and re.fullmatch(r"\$\{.*\}", text.strip(), re.DOTALL) else [path]


def filled(settings: Mapping[str, Any], run_dir: Path, overrides: Sequence[str], of: str) -> dict[str, Any]:
    """A config as `read_config` gives it, the user's overrides applied as Hydra would, all interpolations resolved."""
    paths = {**(settings.get("paths") or {}), "output_dir": _HERE}
    config = overridden({**settings, "paths": paths}, overrides)
    try:
        fill_monitor_mode(config)
        plain = OmegaConf.to_container(config, resolve=True)
    except (OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"{of} is damaged ({shown(' '.join(str(error).split()))})") from error
    assert isinstance(plain, dict)
    return {str(key): _placed(value, str(run_dir)) for key, value in plain.items()}


def overridden(settings: Mapping[str, object], overrides: Sequence[str]) -> DictConfig:
    """A config with overrides applied as Hydra would, its interpolations left as they are."""
    config = OmegaConf.create(dict(settings))
    OmegaConf.set_struct(config, True)
    if overrides:
        apply_overrides(config, OverridesParser.create().parse_overrides(list(overrides)))
    return config


def check_places(settings: Mapping[str, Any], trust: Trust, run_dir: Path, anew: bool) -> None:
    """Checks where a stranger's config would read and write.

    Callbacks, loggers and caches write into the run folder only. Data may be read from any plain path of this machine, since a
    run reads what it trained on; all else from the run folder. No URL is taken, nor a data set's name on a hub. What the
    user's own command line says is the user's.

    Raises:
        UserError: the first text that leads elsewhere, with the way to say it oneself.
    """
    check_writes(settings, trust, run_dir)
    for path, text in texts(settings.get("logger")):
        if (path := f"logger.{path}").endswith(".mode") and text != _OFFLINE and not is_said(path, trust):
            raise UserError(
                f"{trust.of} would send the run away ({path}); if that is right, say so: {path}={shown(text)}"
            )
    for path, text in _places(settings, trust):
        group = path.partition(".")[0]
        if path in _WEIGHTS and not anew:  # nor read
            continue
        say = f"if that is right, say so: {path}={shown(text)}"
        if _URL.match(text):
            raise UserError(f"{trust.of} names {shown(text)!r} ({path}), and no URL is taken from there; {say}")
        reads = path in _WEIGHTS and bool(re.search(r"[./\\]", text))
        if group != "data" and (leads_away(text, run_dir) or (reads and not PurePath(text).is_absolute())):
            raise UserError(
                f"{trust.of} names the file {shown(text)!r} ({path}), which is not in the run folder; {say}"
            )
    about = Trained.of(settings)
    for key, count in (("data.num_workers", about.data.num_workers), ("trainer.devices", about.trainer.devices)):
        if isinstance(count, int) and count > _MOST_PROCESSES and key not in trust.said:
            raise UserError(f"{trust.of} asks for {count} processes ({key}); if that is right, say so: {key}={count}")
    root = about.data.root if about.dataset.target == _HUB else None
    if isinstance(root, str) and "data.root" not in trust.said and not Path(root).expanduser().is_dir():
        raise UserError(
            f"{trust.of} names the data set {shown(root)!r} of a hub (data.root); if that is right, say so: "
            f"data.root={shown(root)}"
        )


def check_writes(settings: Mapping[str, object], trust: Trust, run_dir: Path) -> None:
    """Checks that what writes files would write them into a folder only.

    Raises:
        UserError: the first path that leads elsewhere.
    """
    for path, text in _places(settings, trust):
        marks = set("$~") & set(text.removeprefix(str(run_dir)))  # which a logger would fill in
        if path.partition(".")[0] in _WRITES and (leads_away(text, run_dir) or _URL.match(text) or marks):
            raise _not_in_folder(trust, path, text)
        cached = path.rpartition(".")[2] == "cache_dir"
        if cached and (leads_away(text, run_dir) or not PurePath(text).is_absolute()):
            raise _not_in_folder(trust, path, text)


def _not_in_folder(trust: Trust, path: str, text: str) -> UserError:
    return UserError(
        f"{trust.of} would write to {shown(text)!r} ({path}), which is not in the run folder; refused; if it is right, say "
        f"so: {path}={shown(text)}"
    )


def _places(settings: Mapping[str, object], trust: Trust) -> Iterator[tuple[str, str]]:
    """Texts of a config that could be taken for places, those left out that the user's own command line has."""
    for path, text in texts(settings):
        no_path = path.startswith(_NO_PATHS) or path.rpartition(".")[2] in ("_target_", "monitor")
        if not no_path and not is_said(path, trust):
            yield path, text


def is_said(path: str, trust: Trust) -> bool:
    """Whether the user's own command line has a key."""
    return any(path == key or path.startswith(f"{key}.") for key in trust.said)


def without_own_interpolations(raw: object, resolved: Any) -> object:
    """A config as it is written down for later: what only the user's machine can resolve (`${oc.env:DATA}`) as the value that
    it had, what `read_config` understands as it was.

    Args:
        raw: plain containers with interpolations.
        resolved: the same without.
    """
    if isinstance(raw, dict):
        return {key: without_own_interpolations(value, resolved[key]) for key, value in raw.items()}
    if isinstance(raw, list):
        return [without_own_interpolations(*both) for both in zip(raw, resolved, strict=True)]
    if not isinstance(raw, str) or "${" not in raw:
        return raw
    return raw if raw in own_interpolations() or _BELOW.fullmatch(raw) is not None else resolved


def find_path(node: object, path: str = "") -> tuple[str, str] | None:
    """The first text that leads out of the folder that it is taken to lie in, or is a URL, and its key."""
    for where, text in texts(node, path):
        if not where.startswith(_NO_PATHS) and (leads_away(text, None) or _URL.match(text)):
            return where, text
    return None


def refuse_places(node: Mapping[str, object], group: str, file: Path) -> None:
    """Refuses a group of a checkpoint's config that names a path or a URL.

    Raises:
        UserError: it does.
    """
    if elsewhere := find_path(node, group):
        raise UserError(
            f"ckpt: {file} has a path in its {group} ({elsewhere[0]}: {shown(elsewhere[1])}), and none is taken out of a "
            f"checkpoint; choose the {group} yourself: {group}=…"
        )


def leads_away(text: str, folder: Path | None) -> bool:
    """Whether a text is a path that leads out of a folder; without one, whether it is absolute or climbs."""
    path = PurePath(text)
    if "\0" in text:
        return True
    if not (path.is_absolute() or ".." in path.parts or text.startswith("~")):
        return False
    return folder is None or not Path(text).expanduser().resolve().is_relative_to(folder.resolve())


def _referred(value: object, root: Mapping[str, object], of: str) -> object:
    """A value with references to other keys replaced by what stands there; the program's own interpolations stay."""
    if isinstance(value, dict):
        return {key: _referred(inner, root, of) for key, inner in value.items()}
    if isinstance(value, list):
        return [_referred(inner, root, of) for inner in value]
    for _ in range(_HOPS):
        if not isinstance(value, str) or "${" not in value or value in own_interpolations() or _BELOW.fullmatch(value):
            return value
        if whole := _REFERENCE.fullmatch(value):
            value = _looked_up(whole[1], root, value, of)
        else:
            value = _REFERENCE.sub(lambda found: str(_looked_up(found[1], root, found[0], of)), value)
            if len(value) > _LONGEST or ("${" in value and not _REFERENCE.search(value)):
                break
    raise UserError(
        f"{of} has {shown(str(value))!r}, which only OmegaConf could resolve, and nothing of a run folder's is; write its "
        "value there"
    )


def _looked_up(key: str, root: Mapping[str, object], text: str, of: str) -> object:
    node: object = root
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    if node is None or isinstance(node, Mapping) or (isinstance(node, list) and any(texts(node))):
        raise UserError(f"{of} has {shown(text)!r}, and no plain value stands there; write its value there")
    return node


def _placed(value: object, run_dir: str) -> object:
    if isinstance(value, dict):
        return {key: _placed(inner, run_dir) for key, inner in value.items()}
    if isinstance(value, list):
        return [_placed(inner, run_dir) for inner in value]
    return value.replace(_HERE, run_dir) if isinstance(value, str) else value


def is_so(config: Mapping[str, object], override: str) -> bool:
    """Whether an override says no more than what a config has."""
    (parsed,) = OverridesParser.create().parse_overrides([override])
    if parsed.is_delete() or parsed.is_sweep_override():
        return False
    node: object = config
    for part in parsed.key_or_group.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    value = parsed.value()
    return node is not None and bool(node == (value.text if isinstance(value, QuotedString) else value))
