"""A validation epoch beside a bare loop with torchmetrics' Jaccard index, and one update of the metrics alone."""

from __future__ import annotations

import tempfile

import torch
from torchmetrics.classification import MulticlassJaccardIndex

from benchmarks.pairs import Pairs, in_turns
from src.cli.command import compose
from src.config.settings import Settings
from src.metrics.confusion import ConfusionMatrix, scores
from src.storage.trust import OWN
from src.training.build import build_data, build_model, build_trainer


def validation_epoch(overrides: list[str], pairs: int) -> Pairs:
    """The network's loss and mIoU over the validation split, without pictures, by Lightning's loop and by a bare one.

    Raises:
        SystemExit: the two find other scores.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = ["trainer=cpu", *overrides, f"paths.output_dir={folder}"]
        settings = Settings.of(compose("train", given))
        datamodule = build_data(settings.data, settings.seed)
        datamodule.prepare(("train", "val"))
        source = datamodule.source("train")
        model = build_model(settings, source.label_set, source.channels, source.intensity, trust=OWN).eval()
        trainer = build_trainer(settings.trainer, folder, {"progress": settings.callbacks["progress"]}, {}, trust=OWN)
        names, ignored = source.label_set.names, source.label_set.ignore_index
        jaccard = MulticlassJaccardIndex(len(names), ignore_index=ignored)

        def ours() -> None:
            trainer.validate(model, datamodule=datamodule, verbose=False)

        def bare() -> None:
            jaccard.reset()
            losses = []
            with torch.inference_mode():
                for batch in datamodule.val_dataloader():
                    image = model.normalization(batch["image"]).contiguous(memory_format=model.memory_format)
                    logits = model.network(image)["logits"]
                    losses.append(model.loss(logits, batch["mask"]) * len(batch["mask"]))
                    jaccard.update(logits.argmax(dim=1), batch["mask"].long())

        found = in_turns(("a validation epoch", "a bare loop with torchmetrics' Jaccard"), ours, bare, pairs)
        miou, theirs = model.results["val"]["miou"], float(jaccard.compute())
    if abs(miou - theirs) > 1e-5:
        raise SystemExit(f"the two find other scores: {miou} and {theirs}")
    return found


def metric_update(pairs: int) -> Pairs:
    """A batch of 8 masks of 256 x 320 pixels and 11 classes, with ignored pixels, counted.

    Raises:
        SystemExit: the two find other scores.
    """
    torch.manual_seed(0)
    prediction, mask = torch.randint(11, (2, 8, 256, 320))
    mask[torch.rand(mask.shape) < 0.1] = 255
    ours, jaccard = ConfusionMatrix(11), MulticlassJaccardIndex(11, ignore_index=255)
    found = in_turns(
        ("our confusion matrix", "torchmetrics' Jaccard index"), lambda: ours.update(prediction, mask),
        lambda: jaccard.update(prediction, mask), pairs,
    )  # fmt: skip
    miou, theirs = scores(ours.compute(), [str(k) for k in range(11)])["miou"], float(jaccard.compute())
    if abs(miou - theirs) > 1e-5:
        raise SystemExit(f"the two find other scores: {miou} and {theirs}")
    return found
