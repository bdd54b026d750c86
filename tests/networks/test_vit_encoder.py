"""Plain ViTs of timm: timm's own features at their own size, any other size too, and files in every layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from src.errors import UserError
from src.networks.vit_encoder import PlainViT, vit_model
from src.networks.vit_models import linear

# One of each family that is made in another way, the smallest there is; MAE, AugReg and CLIP are ViTs, DINOv2's too.
FAMILIES = {
    "vit": "test_vit",
    "deit": "deit_tiny_distilled_patch16_224",
    "dinov3": "vit_small_patch16_dinov3",
    "eva02": "eva02_tiny_patch14_224",
    "rope": "vit_small_patch16_rope_mixed_224",
}
# Large models, or (DINOv2) large images.
LARGE = {
    "dinov2": "vit_small_patch14_reg4_dinov2",
    "beit": "beit_base_patch16_224",
    "sam": "samvit_base_patch16_224",
    "siglip": "vit_base_patch16_siglip_224",
}


def with_noise(model: Any) -> Any:
    """So that position embeddings and biases that begin at zero play a part."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def features_of_timm(name: str, state: dict[str, Tensor], image: Tensor) -> Tensor:
    """timm's last features as a map, by its own code for images of one size."""
    model: Any = timm.create_model(name, num_classes=0).eval()
    model.load_state_dict(state)
    tokens = model.forward_features(image)[:, model.num_prefix_tokens :]
    grid = model.patch_embed.grid_size
    return tokens.transpose(1, 2).unflatten(2, grid)  # type: ignore[no-any-return]


def check_family(name: str) -> None:
    model = with_noise(vit_model(name, None, 3))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    side = model.patch_embed.img_size[0]
    depth = len(model.blocks)
    encoder = PlainViT(model, [depth - 1]).eval()
    image = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        (found,) = encoder(image)
        if hasattr(model, "neck"):  # SAM: timm's features without the neck, which is another network's
            whole: Any = timm.create_model(name, num_classes=0).eval()
            whole.load_state_dict(state)
            (expected,) = whole.forward_intermediates(image, indices=1, intermediates_only=True)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        else:
            torch.testing.assert_close(found, features_of_timm(name, state, image), rtol=1e-4, atol=1e-4)
        for rows, columns in ((2, 3), (5, 1), (7, 18)):
            (other,) = encoder(torch.randn(2, 3, rows * encoder.stride, columns * encoder.stride))
            assert other.shape == (2, encoder.channels, rows, columns)
            assert other.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_map_is_what_timm_computes_and_other_sizes_go_too(family: str) -> None:
    check_family(FAMILIES[family])


@pytest.mark.slow
@pytest.mark.parametrize("family", LARGE)
def test_the_same_of_what_takes_long(family: str) -> None:
    check_family(LARGE[family])


def small_beit() -> Any:
    """BEiT has no small model: one of its kind, made by timm's class."""
    from timm.models.beit import Beit

    keys = {"img_size": (48, 64), "embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 0, "init_values": 0.1}
    return Beit(patch_size=16, use_abs_pos_emb=False, use_rel_pos_bias=True, **keys)  # type: ignore[arg-type]


def test_beits_relative_biases_are_those_of_timm_and_resampled_for_other_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = with_noise(small_beit())
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: small_beit())
    model = vit_model("beit_base_patch16_224", None, 3)
    model.load_state_dict(source.state_dict())
    encoder = PlainViT(model, [2]).eval()
    image = torch.randn(2, 3, 48, 64)
    with torch.inference_mode():
        expected = source.forward_intermediates(image, indices=1, norm=True, intermediates_only=True)[0]
        torch.testing.assert_close(encoder(image)[0], expected, rtol=1e-5, atol=1e-5)
        (wide,) = encoder(torch.randn(1, 3, 32, 128))
        assert wide.shape == (1, 32, 2, 8)
        # Twice the size, every patch with the same content: the biases are the same function of the distance.
        flat = torch.randn(1, 3, 1, 1)
        small, large = (encoder(flat.expand(1, 3, *size))[0].mean((2, 3)) for size in ((48, 64), (96, 128)))
    assert torch.corrcoef(torch.cat([small, large]))[0, 1] > 0.99


def test_chosen_blocks_and_what_comes_after_them_is_cut_off() -> None:
    model = with_noise(vit_model("test_vit", None, 3))
    image = torch.randn(1, 3, 32, 48)
    with torch.inference_mode():
        expected = model.forward_intermediates(image, indices=[1, 3], norm=True, intermediates_only=True)
        encoder = PlainViT(model, [1, 3]).eval()
        maps = encoder(image)
    assert len(encoder.model.blocks) == encoder.depth == 4
    assert all(torch.equal(one, other) for one, other in zip(maps, expected, strict=True))


def test_gradient_checkpointing_gives_the_same_gradients_and_keeps_less() -> None:
    def trained(checkpointing: bool) -> tuple[list[Tensor], int]:
        torch.manual_seed(0)
        encoder = PlainViT(vit_model("test_vit", None, 3, drop_path=0.5), [5], checkpointing)
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        torch.manual_seed(1)
        image = torch.randn(2, 3, 64, 64)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = encoder(image)[0].square().mean()
        total = kept  # what the backward pass computes anew is kept later
        loss.backward()
        return [parameter.grad for parameter in encoder.parameters() if parameter.grad is not None], total

    (plain, much), (checked, little) = trained(False), trained(True)
    assert len(plain) == len(checked) > 0
    for one, other in zip(plain, checked, strict=True):
        torch.testing.assert_close(one, other)
    assert little < much / 2


def test_drop_path_grows_from_none_at_the_first_block() -> None:
    model = vit_model("test_vit", None, 3, drop_path=0.5)
    found = [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.blocks]
    assert found == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def as_dinov2(state: dict[str, Tensor]) -> dict[str, Any]:
    """timm's names and position embeddings as the authors' file has them, with registers."""
    cls, position = state["cls_token"], state["pos_embed"]
    own = {key: value for key, value in state.items() if key not in ("reg_token", "pos_embed", "cls_token")}
    own["register_tokens"] = state["reg_token"]
    own["cls_token"] = torch.zeros_like(cls)
    own["pos_embed"] = torch.cat([cls, position], dim=1)
    return own | {"mask_token": torch.zeros(1, cls.shape[-1])}


def as_dinov3(state: dict[str, Tensor]) -> dict[str, Any]:
    def renamed(key: str) -> str:
        return (
            key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma").replace("reg_token", "storage_tokens")
        )

    own = {renamed(key): value for key, value in state.items()}
    return {"teacher": {f"backbone.{k}": v for k, v in own.items()} | {"backbone.rope_embed.periods": torch.ones(16)}}


def as_mae(state: dict[str, Tensor]) -> dict[str, Any]:
    decoder = {"decoder_pos_embed": torch.zeros(1, 4, 4), "decoder_blocks.0.norm1.weight": torch.zeros(4)}
    return {"model": {**state, **decoder, "mask_token": torch.zeros(1, 1, 4)}}


LAYOUTS: dict[str, tuple[str, Callable[[dict[str, Tensor]], dict[str, Any]]]] = {
    "timm": ("test_vit", lambda state: {**state, "head.weight": torch.zeros(10, 64)}),
    "ours": (
        "test_vit",
        lambda state: {"state_dict": {f"network.core.encoder.model.{k}": v for k, v in state.items()}},
    ),
    "mae": ("test_vit", as_mae),
    "dinov2": ("vit_small_patch14_reg4_dinov2", as_dinov2),
    "dinov3": ("vit_small_patch16_dinov3", as_dinov3),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_of_timm_and_of_the_authors(tmp_path: Path, layout: str) -> None:
    name, written = LAYOUTS[layout]
    source = with_noise(timm.create_model(name, num_classes=0))
    torch.save(written(source.state_dict()), tmp_path / "weights.pth")
    model = vit_model(name, str(tmp_path / "weights.pth"), 3)
    for key, value in source.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, msg=key)


def test_position_embeddings_of_another_grid_are_resampled(tmp_path: Path) -> None:
    source: Any = timm.create_model("test_vit", num_classes=0, img_size=(96, 96))
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    model = vit_model("test_vit", str(tmp_path / "weights.pth"), 3)
    assert model.pos_embed.shape != source.pos_embed.shape
    assert torch.equal(model.pos_embed[:, 0], source.pos_embed[:, 0])
    assert torch.equal(model.patch_embed.proj.weight, source.patch_embed.proj.weight)


def test_filters_for_other_channels(tmp_path: Path) -> None:
    source: Any = timm.create_model("test_vit", num_classes=0)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    gray = vit_model("test_vit", str(tmp_path / "weights.pth"), 1)
    torch.testing.assert_close(gray.patch_embed.proj.weight, source.patch_embed.proj.weight.sum(1, keepdim=True))


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"blocks.0.norm1.weight": torch.zeros(3)}, file)
    with pytest.raises(UserError, match=r"network\.encoder_weights: .* does not fit the encoder"):
        vit_model("test_vit", str(file), 3)
    torch.save({**timm.create_model("test_vit").state_dict(), "pos_embed": torch.zeros(1, 7, 64)}, file)
    with pytest.raises(UserError, match=r"network\.encoder_weights: .* does not fit the encoder"):
        vit_model("test_vit", str(file), 3)
    deeper = timm.create_model("test_vit").state_dict()
    torch.save({**deeper, "blocks.6.norm1.weight": torch.zeros(64)}, file)
    with pytest.raises(UserError, match="tensors of layers that the encoder lacks"):
        vit_model("test_vit", str(file), 3)
    torch.save({**deeper, "blocks.0.attn.qkv.lora_a": torch.zeros(4, 64)}, file)
    with pytest.raises(UserError, match="holds LoRA adapters"):
        vit_model("test_vit", str(file), 3)


def test_pretrained_weights_are_asked_of_timm_with_its_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """A download stands in: whatever would be downloaded is filled with ones."""
    create = timm.create_model

    def pretrained(*arguments: Any, **keys: Any) -> Any:
        downloads = keys.pop("pretrained", False)
        model = create(*arguments, **keys)
        for parameter in model.parameters() if downloads else ():
            torch.nn.init.ones_(parameter)
        return model

    monkeypatch.setattr(timm, "create_model", pretrained)
    for weights in ("pretrained", "imagenet"):
        network = linear(4, encoder="test_vit", encoder_weights=weights)
        assert network.encoder is not None
        assert all((parameter == 1).all() for parameter in network.encoder.parameters())
        assert network.pixel_mean == network.pixel_std == (0.5, 0.5, 0.5)
