"""The GAN segmenter: a generator draws the label map, a discriminator judges it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from src.data.samples import Batch
from src.distributed.sums import sum_over_devices
from src.inference.sizes import sized
from src.inference.windows import Outputs
from src.losses.adversarial import (
    Kind,
    discriminator_loss,
    feature_distance,
    generator_loss,
    map_distance,
    r1_penalty,
    weighted_mean,
)
from src.models.adversarial import on_unlabeled
from src.models.base import Segmenter
from src.models.label_maps import Generated, Truth, generated_map, true_map
from src.models.noise import Noise
from src.models.prediction import entropy
from src.models.s4gan import s4gan
from src.models.semi import ramped
from src.networks.discriminators import Discriminator, held_fixed, score_weight
from src.seeding import derive


class GANSegmenter(Segmenter):
    """A segmentation network as generator, trained against a discriminator of label maps beside its segmentation loss
    (Luc et al. 2016, Hung et al. 2018), with noise as a second input if wanted (Isola et al. 2017 and before).

    A step takes one backward pass over both losses: the generator's, through a discriminator whose weights are held
    fixed, and the discriminator's, on the generator's map as a constant. Both optimizers then step. With
    `adversarial_weight=0`, no `feature_weight` and no noise there is no adversary, and the run is the CNN segmenter's,
    bit for bit.

    The generator's soft map against a one-hot truth is told apart by its softness alone, whatever it shows. `truth`
    and `generated` name the remedies. The default is "soft" truth: it keeps the generator's gradient exact (Gumbel's is
    biased and noisy) and, other than smoothing, leaves no difference where the generator is right and sure, so that the
    discriminator has to look at the errors.

    Args:
        network, channels, shared: as for `Segmenter`.
        discriminator: None where nothing adversarial is asked for, and to predict.
        noise: the generator's second input; None for none.
        segmentation_weight: of the segmentation loss.
        adversarial: kind of the adversarial loss.
        adversarial_weight: of the adversarial loss in the generator's.
        adversarial_start: optimizer steps before it counts (the discriminator learns from the first step on).
        adversarial_ramp: steps over which it then grows to its full weight.
        l1_weight, l2_weight: of the distances between the generator's soft map and the one-hot truth.
        feature_weight: of the multi-scale L1 distance of the discriminator's features (SegAN, Xue et al. 2018); with
            `semi.method` "s4gan" of the distance of their means over truth and over unlabelled images.
        feature_minmax: whether the discriminator learns to enlarge that distance, as SegAN's critic does (which needs
            `discriminator.spectral_norm=true` to be bounded; SegAN clips weights).
        r1_weight: of the R1 penalty, half the squared gradient of the discriminator's scores, summed, at the truth
            (Mescheder et al. 2018).
        r1_every: batches from one R1 penalty to the next, which is then weighted as many times (Karras et al. 2020).
        truth: the map that the discriminator sees as real: "onehot"; "smooth", `truth_confidence` at the true class
            and the rest spread evenly; "soft" (Luc et al. 2016), the generator's own map with the true class raised to
            at least `truth_confidence`.
        truth_confidence: for "smooth" and "soft".
        generated: the generator's map as the discriminator sees it: "softmax", or "gumbel", one-hot samples with
            straight-through gradients (Jang et al. 2017).
        gumbel_temperature: for "gumbel".
        discriminator_lr_factor: the discriminator's learning rate is `optimizer.lr` times this.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        channels: int,
        discriminator: nn.Module | None = None,
        noise: Noise | None = None,
        segmentation_weight: NonNegativeFloat = 1.0,
        adversarial: Kind = "bce",
        adversarial_weight: NonNegativeFloat = 0.01,
        adversarial_start: NonNegativeInt = 0,
        adversarial_ramp: NonNegativeInt = 0,
        l1_weight: NonNegativeFloat = 0.0,
        l2_weight: NonNegativeFloat = 0.0,
        feature_weight: NonNegativeFloat = 0.0,
        feature_minmax: bool = False,
        r1_weight: NonNegativeFloat = 0.0,
        r1_every: PositiveInt = 16,
        truth: Truth = "soft",
        truth_confidence: Annotated[float, Field(gt=0, le=1)] = 0.9,
        generated: Generated = "softmax",
        gumbel_temperature: PositiveFloat = 1.0,
        discriminator_lr_factor: PositiveFloat = 0.1,
        **shared: Any,
    ) -> None:
        noise = noise or Noise()
        noise.attach(network, channels)
        super().__init__(network, channels=channels, **shared)
        assert discriminator is None or isinstance(discriminator, Discriminator)
        self.discriminator = discriminator
        self.noise = noise
        self._noise_seed: int | None = None
        self.segmentation_weight = segmentation_weight
        self.adversarial, self.adversarial_weight = adversarial, adversarial_weight
        self.adversarial_start, self.adversarial_ramp = adversarial_start, adversarial_ramp
        self.l1_weight, self.l2_weight = l1_weight, l2_weight
        self.feature_weight, self.feature_minmax = feature_weight, feature_minmax
        self.r1_weight, self.r1_every = r1_weight, r1_every
        self.truth, self.truth_confidence = truth, truth_confidence
        self.generated, self.gumbel_temperature = generated, gumbel_temperature
        self.discriminator_lr_factor = discriminator_lr_factor

    def inputs(self, network: nn.Module, image: Tensor) -> Tensor:
        return self.noise.join(network, image, self._noise_seed)

    @property
    def takes_batches(self) -> bool:
        """Not with noise, which is drawn for a batch."""
        return not self.noise.active

    def logits(self, image: Tensor) -> Tensor:
        """Logits of raw images; of a generator with noise, the log of its draws' mean probability when evaluated."""
        if self.training or not self.noise.active:
            return super().logits(image)
        total = torch.zeros(())
        for probability in self._draws(image):
            total = total.to(probability) + probability
        return self._log_mean(total)

    def _log_mean(self, total: Tensor) -> Tensor:
        return (total / self.noise.draws).clamp_min(torch.finfo(torch.float32).tiny).log()

    def evaluated(self, image: Tensor) -> Outputs:
        """With noise "logits" are the log of its draws' mean probability, and "draw_entropy" [B, 1, H, W] is the draws' mean
        entropy over log K."""
        if not self.noise.active:
            return super().evaluated(image)
        total, of_draws = torch.zeros(()), torch.zeros(())
        for probability in self._draws(image):
            total = total.to(probability) + probability
            of_draws = of_draws.to(probability) + entropy(probability)[:, None]
        return {"logits": self._log_mean(total), "draw_entropy": of_draws / self.noise.draws}

    def uncertainty(self, outputs: Outputs) -> dict[str, Tensor]:
        """With noise, beside "entropy" of the mean prediction also "mutual_information": what of it comes from the noise
        (the entropy of the mean less the mean entropy of the draws), both over log K."""
        shown = super().uncertainty(outputs)
        if "draw_entropy" in outputs:
            # the draws' own entropies are at temperature 1, and only like is subtracted from like
            of_mean = entropy(outputs["logits"].float().softmax(dim=1))
            shown["mutual_information"] = (of_mean - outputs["draw_entropy"][:, 0]).clamp_min(0)
        return shown

    def maps(self, image: Tensor, outputs: Outputs) -> dict[str, Tensor]:
        """The discriminator's confidence in the prediction and, with noise, the uncertainty."""
        shown = super().maps(image, outputs) | (self.uncertainty(outputs) if self.noise.active else {})
        if self.discriminator is not None and min(image.shape[-2:]) >= self.discriminator.smallest:
            valid = torch.ones_like(image[:, :1], dtype=torch.float32)
            probability = sized(outputs["logits"].to(image.device), image.shape[-2:]).float().softmax(dim=1)
            shown["taken_for_real"] = self.confidence(probability, self.normalization(image), valid)
        return {title.replace("_", " "): values for title, values in shown.items()}

    def confidence(self, probability: Tensor, image: Tensor, valid: Tensor) -> Tensor:
        """How real the discriminator takes a map to be at every pixel: float [B, H, W] in 0…1.

        Args:
            probability: float [B, K, H, W].
            image: normalised, float [B, C, H, W].
            valid: float [B, 1, H, W].
        """
        assert self.discriminator is not None
        scores = self.discriminator(probability, image, valid)[0].float()
        return self.believed(F.interpolate(scores, image.shape[-2:], mode="bilinear", align_corners=False)[:, 0])

    def believed(self, scores: Tensor) -> Tensor:
        """Scores float32 as confidences in 0…1."""
        # least squares aims at 0 and 1; the others' scores are logits or around 0
        return scores.clamp(0, 1) if self.adversarial == "lsgan" else scores.sigmoid()

    def _draws(self, image: Tensor) -> Iterator[Tensor]:
        """Probabilities float32 [B, K, H, W] of one draw of the noise after the other, the same for every image."""
        for draw in range(self.noise.draws):
            self._noise_seed = derive(self.seed, "noise", draw)
            try:
                yield self.outputs(image)["logits"].float().softmax(dim=1)
            finally:
                self._noise_seed = None

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        mask, ignored = batch["mask"], self.label_set.ignore_index
        outputs, consistency = self.supervised_and_unlabeled(batch)
        segmentation = self.segmentation_loss(outputs, mask)
        logged = self.figures
        logged["loss"] = segmentation.detach()
        generator = self.with_others(self.segmentation_weight * segmentation, outputs, batch)
        if consistency is not None:
            generator = generator + consistency
        distances: list[tuple[float, Literal[1, 2], str]] = [(self.l1_weight, 1, "l1"), (self.l2_weight, 2, "l2")]
        for weight, power, name in distances:
            if weight:
                distance = map_distance(
                    outputs["logits"].float().softmax(dim=1), mask, ignored, power, sum_over_devices
                )
                logged[f"{name}_loss"] = distance.detach()
                generator = generator + weight * distance
        total = generator
        if self.discriminator is not None:
            adversarial, judging = self._adversary(batch, outputs["logits"], logged)
            generator = generator + adversarial
            logged["discriminator_loss"] = judging.detach()
            total = generator + judging
        logged["generator_loss"] = generator.detach()
        self.update(total, batch_idx)

    def _adversary(self, batch: Batch, logits: Tensor, logged: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the discriminator adds to the generator's loss, and the discriminator's own loss."""
        assert self.discriminator is not None
        if self.semi.method == "s4gan":
            return s4gan(self, batch, logits, logged)
        mask, image = batch["mask"], self.normalization(batch["image"])
        valid = (mask != self.label_set.ignore_index).unsqueeze(1).to(image.dtype)
        fake = generated_map(logits, self.generated, self.gumbel_temperature)
        real = true_map(mask, fake.detach(), self.truth, self.truth_confidence)

        # On constants: the truth and the generator's map, in one pass (the discriminators have no batch norm by default)
        if self._penalized():
            real.requires_grad_()
        scores, features = self.discriminator(
            torch.cat([real, fake.detach()]), torch.cat([image, image]), torch.cat([valid, valid])
        )
        of_real, of_fake = scores.chunk(2)
        weight = score_weight(valid, of_real)
        judging = discriminator_loss(self.adversarial, of_real, of_fake, weight, sum_over_devices)
        self.judged = {"real": self.as_shown(of_real.detach()), "fake": self.as_shown(of_fake.detach())}
        logged["d_real"] = weighted_mean(self.judged["real"], weight)
        logged["d_fake"] = weighted_mean(self.judged["fake"], weight)
        if self._penalized():
            penalty = r1_penalty(of_real, real)
            logged["r1_penalty"] = penalty.detach()
            judging = judging + 0.5 * self.r1_weight * self.r1_every * penalty
        if self.feature_weight and self.feature_minmax:
            halves = [f.chunk(2) for f in features]
            judging = judging - self.feature_weight * feature_distance([a for a, _ in halves], [b for _, b in halves])

        # Through a discriminator that stays as it is
        share = ramped(self.global_step, self.adversarial_start, self.adversarial_ramp)
        added = logits.new_zeros((), dtype=torch.float32)
        with held_fixed(self.discriminator):
            if share * self.adversarial_weight > 0 or self.feature_weight > 0:
                scores, of_map = self.discriminator(fake, image, valid)
                adversarial = generator_loss(self.adversarial, scores, weight, sum_over_devices)
                logged["adversarial_loss"] = adversarial.detach()
                added = added + share * self.adversarial_weight * adversarial
                if self.feature_weight:
                    distance = feature_distance([f.chunk(2)[0].detach() for f in features], of_map)
                    logged["feature_loss"] = distance.detach()
                    added = added + self.feature_weight * distance
            if self.semi.method is not None:
                added = added + on_unlabeled(self, batch, share, logged)
        return added, judging

    def trusts(self, weak: Tensor, probability: Tensor, mask: Tensor) -> Tensor:
        """Also asks the discriminator, if `semi.discriminator_threshold` is given."""
        sure = super().trusts(weak, probability, mask)
        if self.discriminator is None or self.semi.discriminator_threshold is None:
            return sure
        return sure & self.taken_for_real(weak, probability, mask)

    def taken_for_real(self, raw: Tensor, probability: Tensor, mask: Tensor) -> Tensor:
        """Where the discriminator's confidence in a map [B, K, H, W] exceeds `semi.discriminator_threshold`: bool [B, H, W]."""
        assert self.semi.discriminator_threshold is not None
        valid = (mask != self.label_set.ignore_index).unsqueeze(1).float()
        return self.confidence(probability, self.normalization(raw), valid) > self.semi.discriminator_threshold

    def _penalized(self) -> bool:
        batches = self.trainer.fit_loop.epoch_loop.total_batch_idx
        return self.r1_weight > 0 and batches % self.r1_every == 0

    def as_shown(self, scores: Tensor) -> Tensor:
        """Scores as probabilities where they are logits."""
        return scores.float().sigmoid() if self.adversarial == "bce" else scores.float()
