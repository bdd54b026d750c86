"""`Jitter` beside torchvision's own."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from src.data.augment.colors import Jitter

STRENGTHS = {"none": (0, 0, 0, 0), "photos": (0.4, 0.4, 0.4, 0), "some": (0, 0.3, 0, 0.1), "all": (2.0, 2.0, 2.0, 0.5)}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strengths", STRENGTHS.values(), ids=STRENGTHS)
def test_a_jitter_has_the_bits_and_the_draws_of_torchvisions(channels: int, strengths: tuple[float, ...]) -> None:
    ours, theirs = Jitter(*strengths), v2.ColorJitter(*strengths)
    for seed in range(30):  # so that the four changes come in all orders
        torch.manual_seed(seed)
        image = torch.randint(0, 256, (channels, 20 + seed, 31), dtype=torch.uint8)
        before = image.clone()
        torch.manual_seed(seed)
        expected, state = theirs(image), torch.get_rng_state()
        torch.manual_seed(seed)
        found = ours(image)
        assert found.dtype == torch.uint8 and torch.equal(found, expected), (seed, strengths)
        assert torch.equal(torch.get_rng_state(), state), "what is drawn after it is drawn as before"
        assert torch.equal(image, before), "the image itself stays, for it may be in a cache"
