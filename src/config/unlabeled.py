"""What learning from unlabelled images needs, as far as the config alone can tell."""

from __future__ import annotations

from src.config.parts import Semi
from src.config.rules import without_unlabeled
from src.config.settings import Settings
from src.config.shares import parse_share
from src.errors import UserError

_OF_ENCODER = ("unimatch", "unimatch_v2")  # drop channels of its features
_OF_PSEUDO_LABELS = ("fixmatch", "unimatch", "unimatch_v2")
_S4GAN = "discriminator=whole_image model.adversarial_weight=0 model.feature_weight=0.1 model.semi.discriminator_threshold=0.6"


def check_unlabeled(settings: Settings) -> None:
    """Checks that there are unlabelled images where a method wants them, and what the method wants beside them.

    Raises:
        UserError: the first thing that does not fit, with the mend.
    """
    model, data = settings.model, settings.data
    if data.labeled_fraction is not None:
        if data.labeled_list is not None:
            raise UserError("data.labeled_list: names what is labelled, and data.labeled_fraction draws it; give one")
        parse_share(data.labeled_fraction)
    elif model.uses_unlabeled and data.labeled_list is None:
        raise without_unlabeled()
    if model.semi is not None:
        _check_asked(settings, model.semi)
        _check_labels(model.semi)
        _check_teacher(settings, model.semi)
        if model.semi.method == "s4gan":
            _check_s4gan(settings, model.semi)
        if model.has_partner:
            _check_partner(settings)


def has_judge(settings: Settings) -> bool:
    """Whether there is a discriminator, and something for it to do."""
    return settings.discriminator is not None and settings.model.has_adversary


def _check_asked(settings: Settings, semi: Semi) -> None:
    """Checks that a discriminator is asked where one is needed, and only there."""
    if semi.method == "adversarial" and not (has_judge(settings) and semi.discriminator_threshold is not None):
        raise UserError(
            "model.semi.method: adversarial asks a discriminator which predictions are labels; take model=gan with "
            "model.adversarial_weight above 0 and model.semi.discriminator_threshold, e.g. 0.2"
        )
    if semi.method is None and (semi.adversarial_weight > 0 or semi.discriminator_threshold is not None):
        raise UserError(
            "model.semi: adversarial_weight and discriminator_threshold are for unlabelled images and none are used; take "
            "model.semi.method=adversarial or fixmatch"
        )


def _check_labels(semi: Semi) -> None:
    """Checks that what is done with pseudo labels is asked of a method that has them."""
    asked = {
        "align": (semi.align, _OF_PSEUDO_LABELS),
        "dice_weight": (semi.dice_weight > 0, _OF_PSEUDO_LABELS),
        "apart": (semi.apart, ("fixmatch", "mean_teacher")),
    }
    for key, (given, methods) in asked.items():
        if given and semi.method not in methods:
            raise UserError(f"model.semi.{key}: is for model.semi.method={' or '.join(methods)}; leave it out here")
    if semi.dice_weight > 0 and semi.soft:
        raise UserError(
            "model.semi.dice_weight: Dice takes classes, and model.semi.soft=true gives probabilities; take one"
        )


def _check_teacher(settings: Settings, semi: Semi) -> None:
    """Checks what the methods need whose teacher is the average of the weights, or which drop channels."""
    if semi.method in ("mean_teacher", "unimatch_v2") and settings.model.ema_decay is None:
        raise UserError(f"model.ema_decay: the average is {semi.method}'s teacher; give one, e.g. model.ema_decay=0.99")
    if semi.method in _OF_ENCODER and settings.compile:
        raise UserError(
            f"compile: a compiled network would not drop the channels that {semi.method} drops; set it to false"
        )


def _check_s4gan(settings: Settings, semi: Semi) -> None:
    """Checks that s4GAN has its discriminator, and no loss that it does not have."""
    model, judge = settings.model, settings.discriminator
    if judge is None or semi.discriminator_threshold is None:
        raise UserError(
            f"model.semi.method: s4gan asks a discriminator which images' predictions are labels; take model=gan {_S4GAN}"
        )
    if judge.target.startswith("src.networks.discriminators.") and not judge.target.endswith(".whole_image"):
        raise UserError(f"discriminator: s4gan needs one score of a whole image; take {_S4GAN}")
    without = {
        "adversarial_weight": model.adversarial_weight > 0,
        "semi.adversarial_weight": semi.adversarial_weight > 0,
        "feature_minmax": model.feature_minmax,
        "r1_weight": model.r1_weight > 0,
    }
    for key, given in without.items():
        if given:
            raise UserError(
                f"model.{key}: s4gan has no such loss, its generator matches features (model.feature_weight); set it to "
                f"{'false' if key == 'feature_minmax' else 0}"
            )


def _check_partner(settings: Settings) -> None:
    """Checks what does not go with two networks that teach one another."""
    trainer = settings.trainer
    if settings.discriminator is not None:
        raise UserError("model.semi.method: cps trains two networks, and a discriminator judges one; take model=cnn")
    if settings.tasks is not None:
        raise UserError("tasks: the second network of cps would not learn them; take another model.semi.method")
    if settings.init_from is not None:
        raise UserError(
            "init_from: would fill one of the two networks of cps, which have to differ; take network.encoder_weights, "
            "which both start from"
        )
    if trainer.strategy in ("fsdp", "deepspeed"):
        raise UserError(
            f"trainer.strategy: {trainer.strategy} was not tried with the two networks of cps; take trainer=ddp"
        )
    if trainer.needs_gpu:
        raise UserError(
            "trainer.precision: with cps 16-mixed would scale two optimizers' gradients by one factor; take bf16-mixed or "
            "32-true"
        )
