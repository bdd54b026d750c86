"""Label maps as a discriminator sees them: the truth, and what the generator drew."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from src.losses.adversarial import one_hot

Truth = Literal["soft", "onehot", "smooth"]
Generated = Literal["softmax", "gumbel"]


def generated_map(logits: Tensor, kind: Generated, temperature: float) -> Tensor:
    """The generator's map, float32 [B, K, H, W], of its logits [B, K, H, W].

    Args:
        kind: "softmax", or "gumbel", one-hot samples with straight-through gradients (Jang et al. 2017).
        temperature: for "gumbel".
    """
    if kind == "gumbel":
        return F.gumbel_softmax(logits.float(), tau=temperature, hard=True, dim=1)
    return logits.float().softmax(dim=1)


def true_map(mask: Tensor, generated: Tensor, kind: Truth, confidence: float) -> Tensor:
    """The truth, float32 [B, K, H, W].

    Args:
        mask: integer [B, H, W].
        generated: the generator's map float [B, K, H, W], a constant.
        kind: "onehot"; "smooth", `confidence` at the true class and the rest spread evenly; "soft" (Luc et al. 2016), the
            generator's map with the true class raised to at least `confidence`.
        confidence: for "smooth" and "soft".
    """
    classes = generated.shape[1]
    truth = one_hot(mask, classes)
    if kind == "smooth":
        return truth * confidence + (1 - truth) * ((1 - confidence) / max(1, classes - 1))
    if kind == "soft":
        of_true = (generated * truth).sum(dim=1, keepdim=True)
        raised = of_true.clamp_min(confidence)
        others = (1 - truth) * generated * ((1 - raised) / (1 - of_true).clamp_min(1e-6))
        return truth * raised + others
    return truth
