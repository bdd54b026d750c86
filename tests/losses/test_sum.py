"""Sums of losses, by config."""

from __future__ import annotations

import pytest
import torch

from src.config.check import check_node
from src.config.parts import Node, Part
from src.errors import UserError
from src.losses.ce import CrossEntropy
from src.losses.cldice import ClDice
from src.losses.dice import Dice
from src.storage.trust import STRANGER, check_targets
from src.training.build import build_loss
from tests.losses.batches import batch

CE, DICE = {"_target_": "src.losses.ce.CrossEntropy"}, {"_target_": "src.losses.dice.Dice", "smooth": 0.5}


def of(*terms: object) -> Node:
    return {"_target_": "src.losses.sum.Sum", "terms": list(terms)}


def test_is_the_weighted_sum_of_its_terms() -> None:
    logits, mask = batch()
    weights = torch.tensor([1.0, 0.5, 2.0, 3.0])
    node = of({**CE, "weight": 0.3}, DICE, {"_target_": "src.losses.cldice.ClDice", "weight": 2})
    check_node("loss", node)
    check_targets(node, STRANGER, "loss")
    mask[mask == 255] = 3
    found = build_loss(Part(node=node), ignore_index=3, class_weights=weights)(logits, mask)
    ce = CrossEntropy(ignore_index=3, class_weights=weights)
    dice = Dice(0.5, ignore_index=3, class_weights=weights)
    cldice = ClDice(ignore_index=3, class_weights=weights)
    torch.testing.assert_close(found, 0.3 * ce(logits, mask) + dice(logits, mask) + 2 * cldice(logits, mask))


def test_terms_know_whether_they_are_trained() -> None:
    loss = build_loss(Part(node=of(CE, DICE))).eval()
    assert not any(module.training for module in loss.modules())
    assert loss.state_dict() == {}


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ([], "loss.terms: should be a list of losses"),
        (None, "loss.terms: should be a list of losses"),
        (["ce"], "loss.terms.0: should be a loss with its keys"),
        ([{"weight": 1.0}], "loss.terms.0: should be a loss with its keys"),
        ([CE, of(CE)], "loss.terms.1: is a sum within a sum"),
        ([{**CE, "weight": -1}], "loss.terms.0.weight: should be greater than or equal to 0"),
        ([{**CE, "weight": "much"}], "loss.terms.0.weight: should be a valid number"),
        ([CE, {**DICE, "smoth": 1}], "loss.terms.1.smoth: no such key, did you mean 'smooth'"),
        ([{**DICE, "smooth": -1}], "loss.terms.0.smooth: should be greater than or equal to 0"),
        ([{**CE, "ignore_index": 3}], "loss.terms.0.ignore_index: is set by the program"),
        ([{"_target_": "src.losses.dice.Dise"}], "loss.terms.0._target_: 'Dise' is not in dice.py"),
    ],
)
def test_a_bad_term_is_named(terms: object, said: str) -> None:
    with pytest.raises(UserError) as refused:
        check_node("loss", {"_target_": "src.losses.sum.Sum", "terms": terms})
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    "term",
    [
        {"_target_": "os.system"},
        {"_target_": "src.networks.tiny.tiny"},
        {**CE, "_partial_": True},
        {**CE, "label_smoothing": {"_target_": "os.getcwd"}},
    ],
)
def test_a_strangers_term_is_a_loss_of_this_program(term: Node) -> None:
    with pytest.raises(UserError, match=r"loss\.terms"):
        check_targets(of(CE, term), STRANGER, "loss")
    with pytest.raises(UserError, match=r"loss\.terms"):
        build_loss(Part(node=of(CE, term)))
