"""What is handed on of a checkpoint: a folder of weights, their description and a model card; and its way to the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from src.data.trained_on import CHECKPOINT_KEY as KEY
from src.errors import UserError
from src.evaluation.matrices import sha256
from src.files import untrusted
from src.files.atomic import replacing
from src.models.base import Segmenter
from src.networks.weights import offline_at_once
from src.provenance import surroundings
from src.provenance.private import Private
from src.sharing.card import Told, card
from src.storage import checkpoints, published, run_folder
from src.training import build

CARD = "README.md"
FILES = (CARD, published.DESCRIPTION, published.WEIGHTS)


def write(file: Path, output: Path, repo: str, license_key: str | None, trust: Sequence[str]) -> list[str]:
    """Writes the folder of a checkpoint. Weights that were averaged stand for the others; absolute paths and names of this
    machine and its user are taken out.

    Args:
        file: the checkpoint; what its run folder says of it goes into the card.
        output: the folder.
        repo: OWNER/NAME.
        license_key: of the weights.
        trust: packages that the checkpoint's config may name.

    Returns:
        What is missing from the card, one line each.

    Raises:
        UserError: a bad checkpoint, or something private in what would be handed on that cannot be taken out.
        OSError: it cannot be written.
    """
    model, trained = build.model_from_checkpoint(file, trust, scored=True)
    about = {key: value for key, value in checkpoints.read(file)[KEY].items() if key != "gradient_norms"}
    about["config"] = config = dict(trained.plain)
    if model.ema is not None:
        model.network, model.ema = model.ema.module, None
        config["model"] = {**config["model"], "ema_decay": None}  # type: ignore[dict-item]
    run_dir = _run_of(file)
    private = Private.of(run_dir or file.parent, [config])
    about = private.plain(about)
    scores, measured = ({}, {}) if run_dir is None else (_scores(run_dir), _measured(run_dir, file))
    told = _told(model, config, private, repo, license_key, scores, measured, run_dir)
    described = published.description(about, surroundings.program_version())
    texts = {CARD: card(told), published.DESCRIPTION: json.dumps(described, indent=2, ensure_ascii=False) + "\n"}
    for name, text in texts.items():
        if word := private.found_in(text.encode()):
            raise UserError(f"ckpt: {file} has {word!r} in what {name} would say; nothing was written")
        run_folder.write_text(output / name, text)
    _write_weights(model.state_dict(), output / published.WEIGHTS)
    missing = [] if scores else ["scores: the run has no metrics.json of this checkpoint"]
    if scores and not any("data_set" in one for one in measured.values()):
        missing.append("confidence intervals: python -m src.evaluate ckpt=RUN_DIR metrics=[classes] makes them")
    return missing + ([] if license_key else ["a licence: license=…"])


def _write_weights(state: Mapping[str, Tensor], file: Path) -> None:
    from safetensors.torch import save

    content = save({key: value.detach().cpu().contiguous().clone() for key, value in state.items()}, {"format": "pt"})
    with replacing(file) as partial:
        partial.write_bytes(content)


def _run_of(file: Path) -> Path | None:
    """The run folder that a checkpoint is the best one of."""
    run_dir = file.parent.parent
    if file.parent.name != run_folder.CHECKPOINTS or not (run_dir / run_folder.CONFIG).is_file():
        return None
    return run_dir if checkpoints.find(str(run_dir)).resolve() == file.resolve() else None


def _scores(run_dir: Path) -> dict[str, Any]:
    """What metrics.json says of val and test, which are the best checkpoint's. Where val stood for a test split that the data
    do not have, the two are alike to the last digit: then there is no test score."""
    metrics = run_folder.read_metrics(run_dir) or {}
    found = {split: metrics[split] for split in ("val", "test") if isinstance(metrics.get(split), dict)}
    if found.get("val") == found.get("test"):
        found.pop("test", None)
    return found


def _measured(run_dir: Path, file: Path) -> dict[str, Any]:
    """What `src.evaluate metrics=[classes]` has found of these very weights."""
    found: dict[str, Any] = {}
    digest = sha256(file)
    for split in ("val", "test"):
        try:
            content = untrusted.read_json(
                untrusted.inside(run_dir, f"{run_folder.EVALUATION}/{split}/{run_folder.METRICS}")
            )
        except FileNotFoundError:
            continue
        if (
            isinstance(content, dict)
            and content.get("checkpoint_sha256") == digest
            and content.get("as_trained") is True
        ):
            found[split] = content
    return found


def _told(
    model: Segmenter, config: Mapping[str, Any], private: Private, repo: str, license_key: str | None,
    scores: Mapping[str, Any], measured: Mapping[str, Any], run_dir: Path | None,
) -> Told:  # fmt: skip
    network = config["network"]
    data = (config.get("data") or {}).get("dataset") or {}
    root = (config.get("data") or {}).get("root")
    named = str(data.get("_target_", "data of its own")).rpartition(".")[2]
    if isinstance(root, str) and (last := private.plain(str(Path(root).absolute()))).lower() != named.lower():
        named = f"{named} ({last})"
    encoder = network.get("encoder")
    low, high = model.intensity
    kind = "RGB, uint8" if model.channels == 3 and (low, high) == (0.0, 255.0) else f"values {low:g} to {high:g}"
    listed: object = None
    if run_dir is not None and untrusted.inside(run_dir, run_folder.OVERRIDES).is_file():
        listed = untrusted.read_yaml(run_dir / run_folder.OVERRIDES)
    overrides = [str(one) for one in listed] if isinstance(listed, list) else []
    return Told(
        repo, str(network["_target_"]).rpartition(".")[2], encoder if isinstance(encoder, str) else None, named, license_key,
        model.label_set, scores, measured, f"images of {model.channels} channels ({kind}), of any size",
        [private.without(one, paths=True) for one in overrides if not one.startswith(("hydra.", "paths."))],
        surroundings.program_version(),
    )  # fmt: skip


def push(folder: Path, repo: str, private: bool) -> str:
    """Pushes the folder's three files to the hub, into a repository that is made where there is none.

    Returns:
        Where they are.

    Raises:
        UserError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    try:
        with offline_at_once():
            api = HfApi()
            api.create_repo(repo, private=private, exist_ok=True)
            info = api.upload_folder(
                repo_id=repo, folder_path=folder, allow_patterns=list(FILES), commit_message="Published by pixelwise"
            )
    except Exception as error:  # the client fails with errors of several libraries
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(
            f"repo: {repo} was not pushed ({untrusted.shown(reason)}); see that the network is there and that you are "
            f"logged in (hf auth login), and push again: all of it is in {folder}"
        ) from error
    return str(info.commit_url)
