"""Signatures are read from source, without importing."""

from __future__ import annotations

import sys

import pytest

from src.config.signatures import mismatch, read


def test_a_function_of_the_project() -> None:
    signature = read("src.networks.smp_models.unet")
    assert signature is not None
    assert {"encoder", "encoder_weights", "decoder_channels"} <= signature.parameters.keys()
    assert signature.parameters["num_classes"].required
    assert not signature.parameters["encoder"].required
    assert signature.constants["SIZE_DIVISOR"] == 32


def test_an_inherited_constructor() -> None:
    signature = read("src.models.cnn.CNNSegmenter")
    assert signature is not None
    assert "ema_decay" in signature.parameters
    assert mismatch(signature.parameters["ema_decay"].annotation, None) is None
    assert mismatch(signature.parameters["ema_decay"].annotation, 0.9) is None
    assert mismatch(signature.parameters["ema_decay"].annotation, 1.5) == "should be less than 1"


def test_what_a_constructor_hands_on_to_its_base_is_checked_as_the_bases() -> None:
    base, gan = read("src.models.base.Segmenter"), read("src.models.gan.GANSegmenter")
    assert base is not None and gan is not None and not gan.takes_any
    assert base.parameters.keys() < gan.parameters.keys()
    assert {name: str(gan.parameters[name]) for name in base.parameters} == {
        n: str(p) for n, p in base.parameters.items()
    }
    assert "semi" in gan.built and "noise" in gan.built


def test_a_constructor_that_uses_its_rest_otherwise_takes_anything() -> None:
    signature = read("lightning.pytorch.loggers.TensorBoardLogger")  # hands it to tensorboard's writer in the end
    assert signature is not None and signature.takes_any


def test_types_that_a_module_imports_are_known() -> None:
    signature = read("src.losses.ce.CrossEntropy")
    assert signature is not None
    assert mismatch(signature.parameters["label_smoothing"].annotation, 2.0) == "should be less than or equal to 1"


def test_libraries_are_followed_without_importing_them() -> None:
    before = set(sys.modules)
    for target, key in [("torch.optim.AdamW", "weight_decay"), ("lightning.Trainer", "max_epochs")]:
        signature = read(target)
        assert signature is not None
        assert key in signature.parameters
    assert not {name for name in set(sys.modules) - before if name.partition(".")[0] in ("torch", "lightning")}


@pytest.mark.parametrize("target", ["nopackage.x.Y", "src.networks.none.f", "src.networks.tiny.none", "tiny", "a b.c"])
def test_what_is_not_there(target: str) -> None:
    with pytest.raises(LookupError):
        read(target)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [1, -3], [1.5, "1", True, None]),
        (float, [1, 2.5], ["x", None]),
        (bool, [True], [1, "yes"]),
        (list[int] | None, [None, [1, 2]], [[1, "a"], 3]),
    ],
)
def test_types_are_strict(annotation: object, good: list[object], bad: list[object]) -> None:
    assert all(mismatch(annotation, value) is None for value in good)
    assert all(mismatch(annotation, value) for value in bad)
