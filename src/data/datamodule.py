"""The LightningDataModule: splits, loaders, and where in the data a run stands."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning as L
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch.utils.data import DataLoader

from src.config.rules import check_bounds, check_sides, without_unlabeled
from src.config.shares import Share
from src.data.augment.rare_classes import RareClasses, pixels_by_class
from src.data.augment.transforms import Augment, Strong
from src.data.caches import cache_folder, cached, described, keep
from src.data.chunk_order import order_of
from src.data.dataset import Samples
from src.data.disk_cache import OnDisk
from src.data.fetch import fetching
from src.data.folds import Folds
from src.data.labeled import split_by_label
from src.data.labels import LabelSet
from src.data.layout.splits import check_apart
from src.data.samplers import EvaluationBatches, TrainingBatches, scaled_crop
from src.data.samples import Batch, Sample, Split, collate, on_device
from src.data.sources import Chunked, InMemory, Source, Subset, depth_of, digest, innermost
from src.data.synthetic import Synthetic
from src.data.trained_on import check_alike, check_same, is_drawn
from src.distributed.stop_signals import outlive_signals
from src.errors import UserError

_log = logging.getLogger(__name__)
_SPLITS: tuple[Split, ...] = ("train", "val", "test")


class SegmentationDataModule(L.LightningDataModule):
    """Splits and loaders of one data set.

    Args:
        dataset: makes the source of a split: `dataset(split="train")` (and `root=…` where a root is given).
        augment: random changes of training samples.
        root: the data set's folder; None for data that is made, not read.
        batch_size: global training batch; it is split over devices.
        eval_batch_size: images a device evaluates at a time; of those of a batch, the ones of one size together.
        num_workers: loader processes of each device; 0 loads in the training process.
        crop: height and width of training samples; None takes whole images.
        crop_sizes: range of a zoom of the crop itself, drawn for each global batch, in multiples of 32 pixels: multi-scale
            training; None keeps the crop's size.
        rare_classes: temperature of rare-class sampling (see `RareClasses`); None shows each sample once an epoch.
        mix: mixes a training sample with another one: "cutmix", "classmix", "copy_paste" (see `mixed`).
        mix_probability: how often.
        cache: "ram" keeps decoded samples in memory; "disk" in memory-mapped files, which all processes and later runs
            share (4 bytes a pixel of an RGB image; for data sets whose samples are files).
        cache_dir: where those files lie; None for `pixelwise` in the user's cache folder ($XDG_CACHE_HOME or ~/.cache).
        limit: use only the first so many training samples.
        labeled_fraction: share of the training samples whose labels are used, e.g. "1/8" or 0.125; None uses all. An
            epoch keeps its number of batches.
        labeled_seed: which ones are labelled; the run's seed does not change them.
        labeled_list: a file that names the labelled ones, a line each, in place of a share; the published lists of names do.
        unlabeled_batch_size: unlabelled samples in each global batch, where the model uses any; None for as many as
            `batch_size`.
        strong: the strong change of unlabelled images; None for `Strong()`.
        synthetic: the generator, a run of model=synthesis, that draws training images by the masks as `augment` changes them.
        synthetic_share: of the labelled samples of a batch, by lot, those whose images are drawn so.
        download: fetch the data set where it is missing; for those that can be fetched without signing in.
        folds: cuts a fold out of the training split, which is then the test split; None cuts none.
        seed: the run's seed.
        use_unlabeled: whether batches carry unlabelled samples.
        use_depth: whether samples have their depth.
        strong_views: strong changes of each unlabelled sample, 1 or 2.
    """

    def __init__(
        self,
        dataset: Callable[..., Source],
        augment: Augment | None = None,
        root: str | None = None,
        batch_size: PositiveInt = 8,
        eval_batch_size: PositiveInt = 1,
        num_workers: NonNegativeInt = 0,
        crop: list[PositiveInt] | None = None,
        crop_sizes: list[PositiveFloat] | None = None,
        rare_classes: PositiveFloat | None = None,
        mix: Literal["cutmix", "classmix", "copy_paste"] | None = None,
        mix_probability: Annotated[float, Field(ge=0, le=1)] = 0.5,
        cache: Literal["ram", "disk"] | None = None,
        cache_dir: str | None = None,
        limit: PositiveInt | None = None,
        labeled_fraction: str | PositiveFloat | None = None,
        labeled_seed: NonNegativeInt = 0,
        labeled_list: str | None = None,
        unlabeled_batch_size: PositiveInt | None = None,
        strong: Strong | None = None,
        synthetic: Synthetic | None = None,
        synthetic_share: Share = 0.5,
        download: bool = False,
        folds: Folds | None = None,
        seed: int = 0,
        use_unlabeled: bool = False,
        use_depth: bool = False,
        strong_views: Literal[1, 2] = 1,
    ) -> None:
        super().__init__()
        self.labeled_fraction, self.labeled_seed, self.strong = labeled_fraction, labeled_seed, strong or Strong()
        self.labeled_list = labeled_list
        self._is_partly_labelled = labeled_fraction is not None or labeled_list is not None
        self.unlabeled_batch_size = (unlabeled_batch_size or batch_size) if use_unlabeled else 0
        self._unlabeled: Source | None = None
        self._known: dict[str, list[object]] = {}
        self.use_depth, self.strong_views, self.rare_classes = use_depth, strong_views, rare_classes
        self.synthetic, self.synthetic_share = synthetic, synthetic_share
        self._samples = 0  # of the training split, labelled or not
        self._make = fetching(dataset, root, download)
        self.folds, self._group = folds or Folds(), getattr(dataset, "keywords", {}).get("group")
        if crop is not None:
            check_sides("data.crop", crop)
        if crop_sizes is not None:
            check_bounds("data.crop_sizes", crop_sizes)
        for key, value in (("crop_sizes", crop_sizes), ("mix", mix)):
            if value is not None and crop is None:
                raise UserError(f"data.{key}: needs data.crop, or samples differ in size; give one, e.g. [512, 512]")
        self.crop_sizes, self.mix, self.mix_probability = crop_sizes, mix, mix_probability
        self._rare: RareClasses | None = None
        self.augment, self.crop, self.cache, self.limit, self.seed = augment, crop, cache, limit, seed
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.cache_dir = cache_folder(cache_dir)
        self._options = [*described(dataset), root and str(Path(root).expanduser().resolve())]
        self._sources: dict[str, Source] = {}
        self._position = {"epoch": 0, "consumed": 0}

    def source(self, split: Split) -> Source:
        """The split, opened once; "test" is "val" where there is no test split, with folds the one that is held out."""
        if split == "test" and self.folds.active:  # comes with the other
            self.source("train")
        if split not in self._sources:
            source = self._make(split=split)
            if source.split != split and source.split in self._sources:
                source = self._sources[source.split]
            elif split == "train":
                if self.limit is not None:
                    source = Subset(source, range(min(self.limit, len(source))))
                if self.folds.active:
                    whole = keep(source, self.cache, self.cache_dir, self._options, self.num_workers > 0)
                    source, self._sources["test"] = self.folds.split(whole, self._group)
                self._samples = len(source)
                if self._is_partly_labelled:
                    source, self._unlabeled = split_by_label(
                        source, self.labeled_fraction, self.labeled_seed, self.labeled_list
                    )
            self._sources[split] = source
        return self._sources[split]

    def own_sources(self) -> dict[str, Source]:
        """The splits that the data have; one without a test split reads val for it."""
        sources = {split: self.source(split) for split in _SPLITS}
        return {split: source for split, source in sources.items() if source.split == split}

    @property
    def unlabeled(self) -> Source | None:
        """The training samples without labels, where batches carry any."""
        self.source("train")
        return self._unlabeled if self.unlabeled_batch_size else None

    @property
    def label_set(self) -> LabelSet:
        return self.source("train").label_set

    @property
    def smallest_crop(self) -> tuple[int, int] | None:
        """Height and width of the smallest training samples; None where they are whole images."""
        if self.crop is None:
            return None
        return scaled_crop(self.crop, self.crop_sizes[0]) if self.crop_sizes else (self.crop[0], self.crop[1])

    def prepare(self, splits: tuple[Split, ...] = _SPLITS, keep: Path | None = None) -> None:
        """Opens the splits and decodes samples of each, so that bad data ends the run before a model is built.

        Args:
            splits: those that will be used.
            keep: a file where what rare-class sampling counts is kept.

        Raises:
            UserError: names the file or key, what is wrong and the mend.
        """
        for split in splits:
            source = self.source(split)
            if not len(source):
                raise UserError(f"data: the split {split!r} is empty")
            if self.use_depth and depth_of(source, 0) is None:
                raise UserError(
                    "tasks.depth: this data has no depth; set it to 0, or give data.dataset.depths (data=folder)"
                )
            if not isinstance(source, InMemory | OnDisk):
                self._sources[split] = self._cached(source, split)
        check_alike({split: self.source(split) for split in splits})
        check_apart([innermost(self.source(split)) for split in splits])
        if "train" in splits:
            train = self.source("train")
            self._prepare_unlabeled()
            if self.rare_classes is not None and self._rare is None:
                self._rare = RareClasses(pixels_by_class(train, keep), self.seed, self.rare_classes)
            if self.batch_size > self._samples:
                raise UserError(
                    f"data.batch_size: {self.batch_size} is more than the {self._samples} training samples; "
                    f"take data.batch_size={self._samples} or less"
                )
            if self.synthetic is not None:
                self.synthetic.check(train.label_set, train.channels, train.intensity)
            if self.augment is not None:
                self.augment.check(train.channels, train.intensity, self.crop is not None)

    def _prepare_unlabeled(self) -> None:
        if not self.unlabeled_batch_size:
            return
        if self._unlabeled is None or not len(self._unlabeled):
            raise without_unlabeled()
        self._unlabeled = self._cached(self._unlabeled)

    def _cached(self, source: Source, split: Split | None = None) -> Source:
        cache = None if self.folds.active and split != "val" else self.cache  # all folds have one
        return cached(source, split, cache, self.cache_dir, self._options, self.num_workers > 0)

    def batches_per_epoch(self, batch_size: int | None = None) -> int:
        """Global training batches of an epoch, of labelled samples if only some are; or how many others would be."""
        self.source("train")
        return self._samples // (batch_size or self.batch_size)

    def train_dataloader(self) -> DataLoader[Sample]:
        return self._training(**self._position)

    def first_epoch(self) -> DataLoader[Sample]:
        """The training batches of the first epoch, wherever the run stands."""
        return self._training(epoch=0, consumed=0)

    def _training(self, epoch: int, consumed: int) -> DataLoader[Sample]:
        source = self.source("train")
        _, world_size = self._rank()
        for key, size in (("batch_size", self.batch_size), ("unlabeled_batch_size", self.unlabeled_batch_size)):
            if size % world_size:
                raise UserError(
                    f"data.{key}: {size} is global and cannot be split evenly over {world_size} devices; "
                    f"take {-(-size // world_size) * world_size}"
                )
        unlabeled = self.unlabeled
        batches = TrainingBatches(
            len(source), self.batch_size, self.seed, *self._rank(), epoch=epoch, consumed=consumed,
            batches=self.batches_per_epoch() if self._is_partly_labelled else None,
            unlabeled=len(unlabeled) if unlabeled else 0, unlabeled_batch_size=self.unlabeled_batch_size,
            rare=self._rare, crop=self.crop, sizes=self.crop_sizes, order=order_of(source, self.batch_size),
        )  # fmt: skip
        augment = self.augment or Augment(flip=0)
        samples = Samples(
            source, self.seed, augment, self.crop, unlabeled, self.strong, self._rare, self.mix, self.mix_probability,
            self.use_depth, self.strong_views, self.synthetic_share if self.synthetic is not None else 0.0,
        )  # fmt: skip
        return self._loader(samples, batches)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return on_device(batch, device)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch if self.synthetic is None or "synthetic" not in batch else self.synthetic.mixed(batch)

    def val_dataloader(self) -> DataLoader[Sample]:
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        return self._evaluation("test")

    def state_dict(self) -> dict[str, object]:
        """Where training stands: the epoch and the global batches of it whose step is done; and in which samples."""
        assert self.trainer is not None
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        epoch = self.trainer.fit_loop.epoch_progress.current.completed
        if done >= self.trainer.num_training_batches:
            epoch, done = epoch + 1, 0
        state: dict[str, object] = {"epoch": epoch, "consumed": done, "samples": self._all_samples()}
        return state if self.synthetic is None else state | {"synthetic": self.synthetic.digest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where training stood.

        Raises:
            UserError: the data are not those of then, so that their order would be another.
        """
        self._position = {"epoch": int(state_dict["epoch"]), "consumed": int(state_dict["consumed"])}
        if self.synthetic is not None:
            self.synthetic.check_same(state_dict.get("synthetic"))
        check_same(state_dict.get("samples", {}), self._all_samples(), is_drawn(self.source("train")))

    def _all_samples(self) -> dict[str, list[object]]:
        """How many samples training and validation have, and a digest that tells others from them."""
        if not self._known:
            parts = {"training": self.source("train"), "validation": self.source("val"), "unlabelled": self.unlabeled}
            self._known = {part: [len(source), digest(source)] for part, source in parts.items() if source is not None}
        return self._known

    def _evaluation(self, split: Split) -> DataLoader[Sample]:
        source = self.source(split)
        batches = EvaluationBatches(len(source), self.eval_batch_size, *self._rank(), isinstance(source, Chunked))
        return self._loader(Samples(source, use_depth=self.use_depth), batches)

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _loader(self, samples: Samples, batches: TrainingBatches | EvaluationBatches) -> DataLoader[Sample]:
        return DataLoader(
            samples,
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=functools.partial(collate, ignore_index=samples.source.label_set.ignore_index),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=outlive_signals,
        )
