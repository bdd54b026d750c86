"""The bare PyTorch loop beside which a whole run's step is measured, and the turns that the two take; see `step.py`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.pairs import Pairs
from src.cli.command import compose
from src.config.settings import Settings
from src.data.samples import Batch
from src.losses.adversarial import discriminator_loss, generator_loss
from src.models.base import Segmenter
from src.models.cnn import CNNSegmenter
from src.models.gan import GANSegmenter
from src.models.label_maps import true_map
from src.networks.discriminators import held_fixed, score_weight
from src.seeding import derive
from src.storage.trust import OWN
from src.train import train
from src.training.build import build_data, build_model, build_optimization
from src.training.class_weights import class_weights


class Bare:
    """The loop that a user would write without this project, for the CNN segmenter and the GAN segmenter of a config.

    Args:
        settings: the run's.
        steps: of the whole run, as its schedule has them.
    """

    def __init__(self, settings: Settings, steps: int) -> None:
        datamodule = build_data(settings.data, settings.seed)
        datamodule.prepare(("train",))
        source = datamodule.source("train")
        weights = class_weights(settings.model.class_weights, source, None)
        self.model = build_model(
            settings, source.label_set, source.channels, source.intensity, weights=weights, trust=OWN
        )
        model, optimization = self.model.train(), build_optimization(settings, trust=OWN)
        built = [optimization.build(part, factor, steps) for _, part, factor in model.optimized_parts()]
        self.optimizers, self.schedules = zip(*built, strict=True)
        self.average: AveragedModel | None = None
        if settings.model.ema_decay is not None:
            average = get_ema_multi_avg_fn(settings.model.ema_decay)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(model.network, multi_avg_fn=average, use_buffers=True)
        self.loss_of = _gan_loss(model) if isinstance(model, GANSegmenter) else _cnn_loss(model)
        self.seed = settings.seed
        self.batches: Iterator[Batch] = iter(datamodule.train_dataloader())

    def step(self, number: int) -> None:
        """Trains with the next batch of the epoch."""
        if self.draws:
            torch.manual_seed(derive(self.seed, "step", number, 0))
        self.loss_of(next(self.batches)).backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        for schedule in self.schedules:
            schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model.network)

    @property
    def draws(self) -> bool:
        """Whether the network draws by lot while it learns, and so has to be given the run's seeds to do the same work."""
        return any(
            isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in self.model.modules()
        )


def _cnn_loss(model: Segmenter) -> Callable[[Batch], Tensor]:
    network, loss, normalization, layout = model.network, model.loss, model.normalization, model.memory_format
    auxiliary = model.aux_weight

    def of(batch: Batch) -> Tensor:
        outputs = network(normalization(batch["image"]).contiguous(memory_format=layout))
        value: Tensor = loss(outputs["logits"], batch["mask"])
        for name in outputs:
            if name.startswith("aux"):
                value = value + auxiliary * loss(outputs[name], batch["mask"])
        return value

    return of


def _gan_loss(model: GANSegmenter) -> Callable[[Batch], Tensor]:
    """Both networks' losses as one sum, of the defaults of `model=gan`."""
    discriminator, ignored = model.discriminator, model.label_set.ignore_index
    assert discriminator is not None

    def of(batch: Batch) -> Tensor:
        image, mask = model.normalization(batch["image"]), batch["mask"]
        logits = model.network(image.contiguous(memory_format=model.memory_format))["logits"]
        segmentation: Tensor = model.loss(logits, mask)
        valid = (mask != ignored).unsqueeze(1).to(image.dtype)
        fake = logits.float().softmax(dim=1)
        real = true_map(mask, fake.detach(), model.truth, model.truth_confidence)
        both = torch.cat([real, fake.detach()]), torch.cat([image, image]), torch.cat([valid, valid])
        of_real, of_fake = discriminator(*both)[0].chunk(2)
        weight = score_weight(valid, of_real)
        judging = discriminator_loss(model.adversarial, of_real, of_fake, weight)
        with held_fixed(discriminator):
            adversarial = generator_loss(model.adversarial, discriminator(fake, image, valid)[0], weight)
        return segmentation + model.adversarial_weight * adversarial + judging

    return of


class Turns(L.Callback):
    """Runs a step of the bare loop after each step of a run, and keeps the CPU seconds of both.

    A step of the run is all that happens from the beginning of one batch to that of the next.

    Args:
        warm_up: steps that do not count.

    Attributes:
        pairs: seconds of both, step by step.
    """

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.pairs: Pairs
        self._began = 0.0
        self.bare: Bare

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, CNNSegmenter | GANSegmenter)
        self.bare = Bare(Settings.of(pl_module.config), trainer.max_steps)
        self.pairs = Pairs("a whole run", "a bare loop", cycle=trainer.log_every_n_steps)  # type: ignore[attr-defined]

    def on_train_batch_start(self, trainer: L.Trainer, _: L.LightningModule, batch: object, batch_idx: int) -> None:
        ended = time.process_time()
        if batch_idx:
            self.bare.step(batch_idx - 1)
            if batch_idx > self.warm_up:
                self.pairs.add(ended - self._began, time.process_time() - ended)
        self._began = time.process_time()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The run's last step has the epoch's end in it, so it does not count; the bare loop catches up."""
        assert isinstance(pl_module, Segmenter)
        self.bare.step(trainer.global_step - 1)
        ours, theirs = pl_module.state_dict(), self.bare.model.state_dict()
        apart = [
            key for key in ours if key.startswith(("network.", "discriminator.")) and not ours[key].equal(theirs[key])
        ]
        if apart:
            raise SystemExit(f"the run and the bare loop end with other weights: {apart[0]} and {len(apart) - 1} more")


def whole_over_bare(overrides: list[str], cycles: int = 16, log_every: int = 10) -> Pairs:
    """Seconds of a step of the run that `overrides` describe and of its bare loop, in turns.

    Only the training is measured: the run is one epoch without validation and test.

    Args:
        cycles: how often it goes from one logged step to the next.
        log_every: steps of these.
    """
    warm_up = log_every
    steps = warm_up + cycles * log_every + 1
    with tempfile.TemporaryDirectory() as folder:
        given = [
            "trainer=cpu", *overrides, f"trainer.max_steps={steps}", "trainer.max_epochs=null", "test=false",
            "trainer.limit_val_batches=0", f"trainer.log_every_n_steps={log_every}", f"paths.output_dir={folder}",
            "+callbacks.turns._target_=benchmarks.bare.Turns", f"+callbacks.turns.warm_up={warm_up}",
        ]  # fmt: skip
        if not any(o.startswith(("data=", "experiment=", "data.dataset.train_length=")) for o in overrides):
            given += ["data.dataset.val_length=1", "data.dataset.test_length=1"]
            given.append(f"data.dataset.train_length={8 * (steps + 1)}")  # so many steps are one epoch
        outcome = train(Settings.of(compose("train", given)), trust=OWN)
        turns = next(c for c in outcome.trainer.callbacks if isinstance(c, Turns))  # type: ignore[attr-defined]
    return turns.pairs
