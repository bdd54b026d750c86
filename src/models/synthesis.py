"""The synthesiser: a generator draws images by label maps, a discriminator judges them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from src.data.labels import LabelSet
from src.data.samples import Batch
from src.distributed.sums import sum_over_devices
from src.errors import UserError
from src.inference.protocol import joined
from src.inference.sizes import of_one_size, sized
from src.losses.adversarial import (
    Kind,
    discriminator_loss,
    feature_distance,
    generator_loss,
    one_hot,
    weighted_mean,
)
from src.models.base import Segmenter
from src.models.evaluation import Evaluation, Stage
from src.models.learner import Learner
from src.models.normalization import Normalization
from src.networks.discriminators import Discriminator, held_fixed, score_weight
from src.networks.spade import Spade
from src.optimization.updates import Optimization
from src.seeding import derive

TRAINS_ON = "images"


class Synthesizer(Learner):
    """An image generator conditioned on label maps (Park et al. 2019, SPADE), trained against a discriminator of both.

    The first half of a batch is redrawn with the codes of its own images, the rest with codes by lot; the discriminator judges
    both, and what compares an image with the real one (features, `loss`) sees the first half. A step takes one backward pass
    over both losses, as the GAN segmenter's does.

    Scored is `loss`, of validation images redrawn with their own codes, in units of the intensity range; and, with a segmenter
    as judge, how well it finds the label map in images that were drawn with codes by lot: mIoU and all other scores of a
    segmenter mean that. A perfect generator reaches what the judge reaches on real images.

    Args:
        network: `Spade`.
        loss: `loss(drawn, real, mask)`, a scalar.
        label_set: the classes.
        channels, intensity: of the raw images.
        discriminator: None where nothing adversarial is asked for, and to draw.
        optimization: None for a model that only draws.
        seed: the run's seed.
        segmenter: the judge.
        metrics: what is computed beside the judge's scores, by name.
        adversarial: kind of the adversarial loss.
        adversarial_weight: of it in the generator's loss.
        feature_weight: of the L1 distance of the discriminator's features, averaged over its layers; SPADE has 10.
        reconstruction_weight: of `loss` in the generator's; pix2pix has 100.
        kl_weight: of the codes' divergence from a standard normal distribution; SPADE has 0.05.
        discriminator_lr_factor: the discriminator's learning rate is `optimizer.lr` times this; SPADE has 4.
        ema_decay: draw with an exponential moving average of the generator's weights; None with the weights themselves.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        label_set: LabelSet,
        channels: int,
        intensity: tuple[float, float],
        discriminator: nn.Module | None = None,
        optimization: Optimization | None = None,
        seed: int = 0,
        segmenter: Segmenter | None = None,
        metrics: Mapping[str, Metric] | None = None,
        adversarial: Kind = "hinge",
        adversarial_weight: NonNegativeFloat = 1.0,
        feature_weight: NonNegativeFloat = 10.0,
        reconstruction_weight: NonNegativeFloat = 0.0,
        kl_weight: NonNegativeFloat = 0.05,
        discriminator_lr_factor: PositiveFloat = 4.0,
        ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None,
    ) -> None:
        assert isinstance(network, Spade)
        assert discriminator is None or isinstance(discriminator, Discriminator)
        super().__init__(network, loss, label_set, channels, intensity, optimization, seed, ema_decay)
        self.discriminator = discriminator
        self.normalization = Normalization(intensity, [0.5], [0.5], channels)  # to -1…1
        self.adversarial, self.adversarial_weight = adversarial, adversarial_weight
        self.feature_weight, self.reconstruction_weight = feature_weight, reconstruction_weight
        self.kl_weight, self.discriminator_lr_factor = kl_weight, discriminator_lr_factor
        self._judge = [segmenter] if segmenter is not None else []  # in a list: it is no part of the model
        self.evaluations = nn.ModuleDict({} if segmenter is None else {
            stage: Evaluation(stage, label_set, None, metrics) for stage in ("val", "test")
        })  # fmt: skip
        self.losses = nn.ModuleDict({stage: MeanMetric() for stage in ("val", "test")})
        self.train()

    @property
    def generator(self) -> Spade:
        """The network, or in evaluation its average if there is one."""
        network = self.ema.module if self.ema is not None and not self.training else self.network
        assert isinstance(network, Spade)
        return network

    def raw(self, drawn: Tensor, dtype: torch.dtype) -> Tensor:
        """Images in -1…1 as raw ones of a dtype, in the data's intensities."""
        low, high = self.intensity
        values = (drawn.float() + 1) / 2 * (high - low) + low
        return values.to(dtype) if dtype.is_floating_point else values.round().to(dtype)

    @torch.no_grad()
    def draw(self, mask: Tensor, seeds: list[int], dtype: torch.dtype = torch.uint8) -> Tensor:
        """Images [B, C, H, W] of a dtype for masks [B, H, W], each with codes by its seed, the same on every device."""
        codes = torch.stack([
            torch.randn(self.label_set.num_classes, self.generator.latent, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ])  # fmt: skip
        return self.raw(self.generator(self._map(mask), codes.to(mask.device)), dtype)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real, mask, label_map = self.normalization(batch["image"]), batch["mask"], self._map(batch["mask"])
        first = (len(mask) + 1) // 2
        mean, log_variance = self.generator.codes(real[:first], label_map[:first])
        noise = torch.randn(len(mask), *mean.shape[1:], device=mean.device)
        codes = torch.cat([mean + (0.5 * log_variance).exp() * noise[:first], noise[first:]])
        drawn = self.generator(label_map, codes).float()

        kl = (0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)).sum(dim=-1)
        kl = weighted_mean(kl, label_map[:first].amax(dim=(2, 3)), sum_over_devices)
        pixels = self.loss(drawn[:first] / 2, real[:first] / 2, mask[:first])
        logged = self.figures
        logged |= {"loss": pixels.detach(), "kl_loss": kl.detach()}
        generator = self.reconstruction_weight * pixels + self.kl_weight * kl
        total = generator
        if self.discriminator is not None:
            adversarial, judging = self._adversary(label_map, real, drawn, mask, first, logged)
            generator = generator + adversarial
            logged["discriminator_loss"] = judging.detach()
            total = generator + judging
        logged["generator_loss"] = generator.detach()
        self.update(total, batch_idx)

    def _adversary(
        self, label_map: Tensor, real: Tensor, drawn: Tensor, mask: Tensor, first: int, logged: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What the discriminator adds to the generator's loss, and the discriminator's own loss."""
        assert self.discriminator is not None
        valid = (mask != self.label_set.ignore_index).unsqueeze(1).to(real.dtype)
        twice = torch.cat([label_map, label_map]), torch.cat([real, drawn.detach()]), torch.cat([valid, valid])
        scores, features = self.discriminator(*twice)
        of_real, of_drawn = scores.chunk(2)
        weight = score_weight(valid, of_real)
        judging = discriminator_loss(self.adversarial, of_real, of_drawn, weight, sum_over_devices)
        self.judged = {"real": of_real.detach().float(), "fake": of_drawn.detach().float()}
        logged["d_real"] = weighted_mean(self.judged["real"], weight)
        logged["d_fake"] = weighted_mean(self.judged["fake"], weight)
        with held_fixed(self.discriminator):
            scores, of_features = self.discriminator(label_map, drawn, valid)
            adversarial = generator_loss(self.adversarial, scores, weight, sum_over_devices)
            distance = feature_distance([f[:first].detach() for f in features], [f[:first] for f in of_features])
        logged |= {"adversarial_loss": adversarial.detach(), "feature_loss": distance.detach()}
        return self.adversarial_weight * adversarial + self.feature_weight * distance, judging

    def _evaluate(self, stage: Stage, batch: Batch) -> None:
        if "uncounted" in batch:
            return
        for part in of_one_size(batch):
            mask = part["mask"]
            loss = self.loss(self.redrawn(part["image"], mask), self._real(part["image"], mask), mask)
            mean = self.losses[stage]
            assert isinstance(mean, MeanMetric)
            mean.update(loss, weight=len(mask))
            if self._judge:
                drawn = self.draw(mask, [derive(self.seed, "drawn", name) for name in part["id"]], part["image"].dtype)
                outputs = joined(self._on_device(self._judge[0]).predicted(drawn, mask.shape[-2:]))
                self._evaluation(stage).update(part, outputs.pop("logits").argmax(dim=1).to(mask.device), {}, loss)

    def redrawn(self, image: Tensor, mask: Tensor) -> Tensor:
        """Raw images [B, C, h, w] drawn again by masks [B, H, W] with their own codes: float [B, C, H, W] in 0…1."""
        real, label_map = self._real(image, mask) * 2 - 1, self._map(mask)
        drawn: Tensor = self.generator(label_map, self.generator.codes(real, label_map)[0])
        return (drawn.float() + 1) / 2

    def _real(self, image: Tensor, mask: Tensor) -> Tensor:
        """Raw images in the pixels of their masks, in 0…1."""
        return (sized(self.normalization(image), mask.shape[-2:]) + 1) / 2

    def _scores(self, stage: Stage, whole_split: bool) -> tuple[dict[str, float], Tensor | None]:
        mean = self.losses[stage]
        assert isinstance(mean, MeanMetric)
        results, matrix = {"loss": float(mean.compute())}, None
        mean.reset()
        if self._judge:
            judged, matrix = self._evaluation(stage).finish(whole_split, speaks=self.trainer.is_global_zero)
            results = judged | results
        return results, matrix

    def _evaluation(self, stage: Stage) -> Evaluation:
        evaluation = self.evaluations[stage]
        assert isinstance(evaluation, Evaluation)
        return evaluation

    def _map(self, mask: Tensor) -> Tensor:
        return one_hot(mask, self.label_set.num_classes)

    def _on_device(self, judge: Segmenter) -> Segmenter:
        return judge if judge.device == self.device else judge.to(self.device).eval()


def check_judge(judge: Segmenter, names: tuple[str, ...], channels: int, named: str) -> None:
    """Raises UserError where a judge knows other classes or images than are drawn."""
    if judge.label_set.names != names or judge.channels != channels:
        raise UserError(
            f"model.judge: {named} tells {', '.join(judge.label_set.names)} in images of {judge.channels} channels, the data "
            f"have {', '.join(names)} in {channels}; give a run on the same data"
        )
