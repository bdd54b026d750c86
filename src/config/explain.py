"""What is said of a key that is not there, and of Hydra's and OmegaConf's own errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from src.config.suggest import suggest


def explain(error: Exception, keys: Mapping[str, object] | None) -> str:
    """An error of Hydra's or OmegaConf's own, on a line, with the mend.

    Args:
        error: what composing raised.
        keys: the config as composed without the user's overrides, to suggest keys from; None where unknown.
    """
    text = "\n".join(filter(None, [str(error), str(error.__cause__ or "")]))
    if match := re.search(r"Could not override '([^']+)'", text):
        path, _, key = match[1].rpartition(".")
        if match[1].partition(".")[0] == "discriminator" and "discriminator" not in (keys or {}):
            return f"{match[1]}: this model has no discriminator; take model=gan"
        node: object = keys
        so_far = ""
        for part in path.split(".") if path else []:
            if isinstance(node, Mapping) and node and part not in node:
                return unknown_key(part, so_far, list(node))
            node = node.get(part) if isinstance(node, Mapping) else None
            so_far = f"{so_far}.{part}".lstrip(".")
        return unknown_key(key, path, list(node) if isinstance(node, Mapping) else [])
    if match := re.search(r"Could not find '([^']+)'\n\nAvailable options in '([^']+)':\n((?:\t.*\n?)+)", text):
        options = match[3].split()
        choice = match[1].rpartition("/")[2]
        return f"{match[2]}={choice}: no such option{suggest(choice, options)}; choose one of: {', '.join(options)}"
    if match := re.search(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"{match[1]}: is there already; leave out the '+'"
    if match := re.search(r"No match in the defaults list|Could not override '([^=']+)=", text):
        return " ".join(text.split())
    return " ".join(text.split("\n\n")[0].split())


def unknown_key(key: str, path: str, names: Iterable[str]) -> str:
    """That a node has no such key, with one that is meant perhaps, and those that there are."""
    names = list(names)
    where = f"{path}.{key}" if path else key
    listed = f"; keys of {path or 'the config'}: {', '.join(sorted(names))}" if names else ""
    return f"{where}: no such key{suggest(key, names)}{listed}"
