"""Are our losses the authors'? Their training loop's own lines, out of a clone of their repository, beside ours.

    git clone https://github.com/LiheYoung/UniMatch-V2
    python benchmarks/unimatch_authors.py UniMatch-V2

Runs the lines between the prediction of pseudo labels and the sum of the losses of fixmatch.py and unimatch_v2.py, with the
same network, teacher, images, padding and CutMix boxes as ours, and prints both losses of the unlabelled images. Channels are
dropped by neither: the draws are not comparable.
"""

from __future__ import annotations

import argparse
import contextlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from src.data.labels import LabelSet
from src.data.samples import Batch
from src.models import fixmatch, unimatch_v2
from src.models.semi import SemiSupervision, paste

VOID, THRESHOLD = 255, 0.4


class Network(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 1)

    def forward(self, image: Tensor, comp_drop: bool = False) -> Tensor:
        logits: Tensor = self.head(self.encoder(image).relu())
        return 3 * logits


class Ours:
    """What the methods ask of a model."""

    alignment, partner = None, None

    def __init__(self, method: str) -> None:
        self.semi = SemiSupervision(method=method, threshold=THRESHOLD)  # type: ignore[arg-type]
        self.label_set = LabelSet(tuple("abcde"), tuple((k, k, k) for k in range(5)))
        self.network, self.teacher, self.training = Network(0), Network(1), True

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": (self.network if self.training else self.teacher)(image)}

    def probabilities(self, image: Tensor) -> Tensor:
        return self.outputs(image)["logits"].softmax(dim=1)

    def trusts(self, weak: Tensor, probability: Tensor, mask: Tensor) -> Tensor:
        return probability.amax(dim=1) >= THRESHOLD

    def eval(self) -> None:
        self.training = False

    def train(self) -> None:
        self.training = True


def their_loss(file: Path, values: dict[str, Any]) -> float:
    lines = file.read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line.strip() == "with torch.no_grad():")
    last = next(i for i, line in enumerate(lines) if line.strip().startswith("loss = (loss_x"))
    exec(textwrap.dedent("\n".join(lines[first:last])), {"__builtins__": {}}, values)
    return float(values["loss_u_s"].detach())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, help="of the authors' repository")
    clone = parser.parse_args().clone
    torch.manual_seed(2)
    weak, strong, strong2 = torch.randn(
        3, 2, 3, 24, 32
    )  # of two images the next one is the last one: roll is their flip
    mask = torch.zeros(2, 24, 32, dtype=torch.int64)
    mask[0, :, 20:] = VOID
    boxes = torch.zeros(2, 2, 24, 32, dtype=torch.int64)
    boxes[0, 0, 4:16, 10:28] = boxes[1, 1, 2:20, 3:17] = 1
    batch: Batch = {
        "image": torch.randn(2, 3, 24, 32), "mask": torch.randint(5, (2, 24, 32)), "id": ["0", "1"],
        "unlabeled_image": weak, "unlabeled_strong": strong, "unlabeled_strong2": strong2, "unlabeled_mask": mask,
    }  # fmt: skip
    for method, ours in (("fixmatch", fixmatch), ("unimatch_v2", unimatch_v2)):
        model, left = Ours(method), iter(boxes.bool())

        def given(_: float, *maps: Tensor, left: Iterator[Tensor] = left) -> tuple[Tensor, ...]:
            return paste(next(left), *maps)

        with patch.object(ours, "cutmix", given), no_dropout():
            loss = float(getattr(ours, method)(model, batch).loss.detach())
        theirs = their_loss(clone / f"{method}.py", {
            "torch": torch, "model": model.network, "model_ema": model.teacher, "cfg": {"conf_thresh": THRESHOLD},
            "criterion_l": nn.CrossEntropyLoss(ignore_index=VOID), "criterion_u": nn.CrossEntropyLoss(reduction="none"),
            "img_x": batch["image"], "mask_x": batch["mask"], "img_u_w": weak, "ignore_mask": mask,
            "img_u_s": strong.clone(), "img_u_s1": strong.clone(), "img_u_s2": strong2.clone(),
            "cutmix_box": boxes[0], "cutmix_box1": boxes[0], "cutmix_box2": boxes[1],
        })  # fmt: skip
        print(f"{method}: ours {loss:.9f}, the authors' {theirs:.9f}")


def no_dropout() -> contextlib.AbstractContextManager[object]:
    return patch.object(unimatch_v2, "complementary_dropout", lambda encoder: contextlib.nullcontext())


if __name__ == "__main__":
    main()
