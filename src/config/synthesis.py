"""What `model=synthesis` and `data.synthetic` need of the rest of a config."""

from __future__ import annotations

from src.config import signatures
from src.config.inference import Inference
from src.config.settings import Settings
from src.errors import UserError


def trains_on(target: str) -> object:
    """What a network gives to be trained on, a loss takes, or a model learns: a module says it in `TRAINS_ON`; most do not, and
    mean logits."""
    signature = signatures.read(target)
    return signature.constants.get("TRAINS_ON", "logits") if signature is not None else "logits"


def check_synthesis(settings: Settings) -> None:
    """Checks that what draws images stands together, and without what only segmenters have.

    Raises:
        UserError: the first thing that does not fit, with the mend.
    """
    model, data = settings.model, settings.data
    if data.synthetic is not None and settings.use_depth:
        raise UserError("data.synthetic: drawn images have no depth; leave it out, or set tasks.depth=0")
    if trains_on(model.target) != "images":
        for group, part, instead in (
            ("network", settings.network, "network=small"),
            ("loss", settings.loss, "loss=ce_dice"),
        ):
            if trains_on(part.target) == "images":
                raise UserError(f"{group}: {part.name} is for drawing images; take model=synthesis, or {instead}")
        if model.judge is not None:
            raise UserError("model.judge: judges drawn images; take model=synthesis, or leave it out")
        return
    if trains_on(settings.network.target) != "images":
        raise UserError(
            f"network: {settings.network.name} predicts classes and model=synthesis draws images; take network=spade"
        )
    if trains_on(settings.loss.target) != "images":
        raise UserError(f"loss: {settings.loss.name} compares classes and model=synthesis draws images; take loss=l1")
    _check_parts(settings)


def _check_parts(settings: Settings) -> None:
    model, judge = settings.model, settings.discriminator
    for key, given, why in (
        ("data.synthetic", settings.data.synthetic, "a generator does not learn from another one's images"),
        ("tasks", settings.tasks, "model=synthesis learns nothing beside images"),
        ("init_from", settings.init_from, "model=synthesis starts anew"),
        ("model.teacher", model.teacher, "a teacher tells classes and model=synthesis draws images"),
        ("model.class_weights", model.class_weights, "model=synthesis has no loss over classes"),
        ("inference", settings.inference != Inference() or None, "model=synthesis draws whole images; its judge has its own"),
    ):  # fmt: skip
        if given is not None:
            raise UserError(f"{key}: {why}; leave it out")
    if not (model.has_adversary or model.reconstruction_weight > 0):
        raise UserError(
            "model.adversarial_weight: without it, model.feature_weight and model.reconstruction_weight there is nothing to "
            "learn; raise one"
        )
    if judge is not None and judge.node.get("conditional") is False:
        raise UserError(
            "discriminator.conditional: it would see the label map and not the image that was drawn by it; set it to true"
        )
    if settings.trainer.strategy in ("fsdp", "deepspeed"):
        raise UserError(
            f"trainer.strategy: {settings.trainer.strategy} takes no second optimizer, the discriminator's; take trainer=ddp"
        )
    if model.judge is None:
        for key, name in (("monitor", settings.monitor), ("optimized_metric", settings.optimized_metric)):
            if name.partition("/")[2] != "loss":
                raise UserError(f"{key}: {name} is the judge's; take model.judge=RUN, or {key}=val/loss")
        if settings.metrics:
            raise UserError("metrics: they compare the judge's classes with the label map; take model.judge=RUN")
