"""`model=gan model.semi=s4gan`: one score of a whole image says whether its prediction is a label, and features of truth and
predictions match (Mittal et al. 2019)."""

from __future__ import annotations

from torch import Tensor

from src.data.samples import Batch
from src.distributed.sums import sum_over_devices
from src.losses.adversarial import unpaired_discriminator_loss
from src.models.adversarial import Adversary
from src.models.label_maps import generated_map, true_map
from src.models.semi import label_figures, unlabeled, unlabeled_loss
from src.networks.discriminators import held_fixed


def s4gan(model: Adversary, batch: Batch, logits: Tensor, logged: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the unlabelled images and the discriminator add to the generator's loss, and the discriminator's own loss.

    The discriminator tells the truth of labelled images from predictions of unlabelled ones; the generator has no adversarial
    loss. Ignored pixels look empty to it in both (in the authors' code the image stays there), and images come normalised, not
    stretched to 0…1 over the batch.

    Args:
        logits: of the labelled images, float [B, K, H, W].
        logged: figures, to which its own are added.
    """
    assert model.discriminator is not None
    mask, ignored = batch["mask"], model.label_set.ignore_index
    weak, _, outside = unlabeled(batch)
    of_weak = model.outputs(weak)["logits"]
    fake, drawn = (generated_map(one, model.generated, model.gumbel_temperature) for one in (of_weak, logits.detach()))
    real = true_map(mask, drawn, model.truth, model.truth_confidence)
    of_truth = real, model.normalization(batch["image"]), (mask != ignored).unsqueeze(1).float()
    image, valid = model.normalization(weak), (outside != ignored).unsqueeze(1).float()

    of_real, true_features = model.discriminator(*of_truth)
    of_fake, _ = model.discriminator(fake.detach(), image, valid)
    judging = unpaired_discriminator_loss(model.adversarial, of_real, of_fake, sum_over_devices)
    model.judged = {"real": model.as_shown(of_real.detach()), "fake": model.as_shown(of_fake.detach())}
    logged |= {f"d_{name}": scores.mean() for name, scores in model.judged.items()}

    with held_fixed(model.discriminator):
        scores, features = model.discriminator(fake, image, valid)
    distance = matching(true_features[-1].detach(), features[-1])
    trusted = (model.believed(scores.detach().float().mean(dim=(1, 2, 3))) > threshold(model)).view(-1, 1, 1)
    trusted = trusted & (outside != ignored)
    label = of_weak.detach().argmax(dim=1).masked_fill(~trusted, ignored)
    loss = unlabeled_loss(of_weak, label, trusted, ignored)
    logged |= {"feature_loss": distance.detach(), "unlabeled_loss": loss.detach()}
    logged |= label_figures(label, trusted, batch.get("unlabeled_truth"), ignored)
    return model.feature_weight * distance + model.semi.weight_at(model.global_step) * loss, judging


def threshold(model: Adversary) -> float:
    assert model.semi.discriminator_threshold is not None
    return model.semi.discriminator_threshold


def matching(real: Tensor, fake: Tensor) -> Tensor:
    """Mean absolute difference of the two means, over images and pixels, of features [B, C, h, w] and [U, C, h, w]."""
    means = [
        sum_over_devices(one.float().mean(dim=(2, 3)).sum(dim=0)) / sum_over_devices(one.new_tensor(float(len(one))))
        for one in (real, fake)
    ]
    return (means[0] - means[1]).abs().mean()
