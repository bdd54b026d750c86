"""Bad configs end in one line that names the key, what is wrong and the mend; good ones pass."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hydra.errors import HydraException

from src.cli.command import compose
from src.config.check import check
from src.config.explain import explain
from src.errors import UserError
from tests.conftest import ROOT, SMALL

Run = Callable[..., subprocess.CompletedProcess[str]]


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (ROOT / "conf" / group).glob("*.yaml"))


@pytest.mark.parametrize("group", ["network", "loss", "optimizer", "scheduler", "trainer"])
def test_every_option_passes(group: str) -> None:
    for name in names(group):
        check(compose("train", [f"{group}={name}", *PARTNER.get(f"{group}={name}", [])]))


@pytest.mark.parametrize("name", names("experiment") + [f"debug:{n}" for n in names("debug")])
def test_every_recipe_passes(name: str) -> None:
    kind, _, choice = name.rpartition(":")
    overrides = [f"{kind or 'experiment'}={choice}"]
    composed = compose("train", overrides)
    if "root" in composed["data"]:
        composed = compose("train", [*overrides, "data.root=/somewhere"])
    check(composed)


@pytest.mark.parametrize("name", names("data"))
def test_data_has_what_all_data_have(name: str) -> None:
    """A format's file says only what differs; what they have in common is no option."""
    common = yaml.safe_load((ROOT / "conf/hydra/base/data.yaml").read_text(encoding="utf-8"))
    own = yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text(encoding="utf-8"))
    data = compose("train", [f"data={name}"])["data"]
    assert data.keys() >= common.keys() and data["augment"].keys() == common["augment"].keys()
    assert data["dataset"]["_target_"].startswith("src.data.formats.")
    assert [key for key in own.keys() & common.keys() if own[key] == common[key]] == []


# What an option needs of another group.
PARTNER = {
    "network=mask2former": ["loss=mask_classification"],
    "network=eomt": ["loss=mask_classification"],
    "network=spade": ["model=synthesis"],
    "loss=l1": ["model=synthesis"],
    "loss=mask_classification": ["network=mask2former"],
    "loss=pidnet": ["network=pidnet", "network.boundary=true"],
    "loss=stdc": ["network=stdc", "network.boundary=true"],
}
BAD = {
    "+model.lrr=1": "model.lrr: no such key",
    "+optimizer.momentun=0.9": "optimizer.momentun: no such key",
    "+nonsense=1": "nonsense: no such key",
    "inference.mode=slide": "inference.mode: should be 'whole' or 'window', not 'slide'",
    "inference.window=[16,64]": "inference.window: should be greater than or equal to 32",
    "inference.window=[64]": "inference.window: should",
    "inference.stride=[600,300]": "would leave pixels out; take inference.stride=[341, 341]",
    "inference.blend=max": "inference.blend: should be 'mean' or 'gaussian'",
    "inference.scales=[0.5,big]": "inference.scales: should be a valid number",
    "inference.scales=[]": "inference.scales: should",
    "inference.scales=[0,1]": "inference.scales: should be greater than or equal to 0.1",
    "inference.scales=[1,1]": "inference.scales: [1, 1] names a scale twice",
    "inference.resize=[512]": "inference.resize: [512] is no height and width; give two numbers",
    "inference.long_side=2048": "inference.long_side: bounds what inference.short_side makes",
    "+inference.sizes=[1]": "inference.sizes: no such key",
    "data.augment=3": "data.augment: should be a class with its keys ({_target_: …}), not 3",
    "data.dataset=text": "data.dataset: should be a class with its keys",
    "~data.dataset._target_": "data.dataset: should be a class with its keys",
    "optimizer.lr=abc": "optimizer.lr: should be a valid number, not 'abc'",
    "optimizer.lr=-1": "optimizer.lr: should be greater than 0, not -1",
    "optimizer.weight_decay=-0.1": "optimizer.weight_decay: should be greater than or equal to 0",
    "data.batch_size=0": "data.batch_size: should be greater than 0, not 0",
    "data.batch_size=2.5": "data.batch_size: should be a valid integer",
    "data.num_workers=-1": "data.num_workers: should be greater than or equal to 0",
    "data.crop=[100,128]": "data.crop: [100, 128] is no multiple of this network's stride 32; take e.g. data.crop=[96, 128]",
    "data.cache=disc": "data.cache: should be 'ram' or 'disk', not 'disc'",
    "data.augment.flip=1.5": "data.augment.flip: should be less than or equal to 1",
    "data.dataset.height=3": "data.dataset.height: should be greater than or equal to 32",
    "monitor=val/mIoU": "did you mean 'val/miou'?",
    "monitor_mode=biggest": "monitor_mode: should be 'min' or 'max'",
    "trainer.devices=3": "cannot be split evenly over 3 devices; take 9",
    "trainer.precision=fp16": "trainer.precision: should be",
    "trainer.max_epochs=0": "trainer.max_epochs: should be greater than or equal to 1",
    "trainer.max_epochs=null": "trainer.max_epochs: without it",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val: should be greater than or equal to 0",
    "seed=-1": "seed: should be greater than or equal to 0",
    "model.ema_decay=1": "model.ema_decay: should be less than 1",
    "model.class_weights=balance": "model.class_weights: should be 'balanced'",
    "loss._target_=src.losses.dice.Dise": "loss._target_: 'Dise' is not in dice.py",
    "network._target_=src.networks.nothing.net": "network._target_: there is no module 'src.networks.nothing'",
    "network.width=wide": "network.width: should be a valid integer",
    "data=camvid": "data.root: must be given; say data.root=…",
    "scheduler.power=two": "scheduler.power: should be a valid number",
    "data.labeled_fraction=abc": "data.labeled_fraction: should be a share such as 1/8 or 0.125, not 'abc'",
    "data.labeled_fraction=1/0": "data.labeled_fraction: should be a share such as 1/8 or 0.125, not '1/0'",
    "data.labeled_fraction=0": "data.labeled_fraction: should be",
    "data.labeled_fraction=2": "data.labeled_fraction: should be above 0 and at most 1, not 2",
    "data.labeled_list=names.txt": "data.labeled_list: names what is labelled, and data.labeled_fraction draws it; give one",
    "data.labeled_fraction=9/8": "data.labeled_fraction: should be above 0 and at most 1, not '9/8'",
    "data.unlabeled_batch_size=0": "data.unlabeled_batch_size: should be greater than 0",
    "data.strong.gray=2": "data.strong.gray: should be less than or equal to 1",
    "model.semi=fixmatch": "model.semi.method: every training image is labelled; leave some without",
    "model.semi=mixmatch": "model.semi.method: should be 'fixmatch', 'mean_teacher', 'unimatch', 'unimatch_v2', 'cps', "
    "'adversarial' or 's4gan'",
    "model.semi=mean_teacher": "model.ema_decay: the average is mean_teacher's teacher; give one",
    "compile=true": "compile: a compiled network would not drop the channels that unimatch_v2 drops",
    "model.semi.threshold=1.1": "model.semi.threshold: should be less than or equal to 1",
    "+model.semi.treshold=0.5": "model.semi.treshold: no such key, did you mean 'threshold'?",
}
BAD |= {
    "trainer.strategy=fsdp": "trainer.strategy: fsdp cannot shard a discriminator",
    "trainer.strategy=deepspeed": "trainer.strategy: DeepSpeed has one optimizer, and an adversary needs a second",
    "trainer.precision=16-mixed": "trainer.precision: with deepspeed take 32-true or bf16-mixed",
    "trainer.zero_stage=3": "trainer.zero_stage: should be 1 or 2, not 3",
    "+trainer.offload=true": "trainer.offload: is DeepSpeed's; take trainer=deepspeed, or leave it out",
    "trainer.sync_batchnorm=true": "trainer.sync_batchnorm: torch synchronises batch norms on GPUs",
    "+trainer.timeout_minute=3": "trainer.timeout_minute: no such key, did you mean 'timeout_minutes'",
    "trainer.strategy=ddpp": "trainer.strategy: should be 'auto', 'ddp',",
    "trainer.devices=0": "trainer.devices: should be 'auto' or greater than 0 or a list or -1, not 0",
    "trainer.devices=[]": "trainer.devices: should name each device once, not []",
    "trainer.devices=[0,0]": "trainer.devices: should name each device once",
    "trainer.limit_val_batches=2.5": "trainer.limit_val_batches: should be a valid integer or less than or equal to 1",
    "trainer.val_check_interval=0": "trainer.val_check_interval: should be greater than 0",
    "trainer.num_sanity_val_steps=-5": "trainer.num_sanity_val_steps: should be",
    "trainer.deterministic=maybe": "trainer.deterministic: should be a valid boolean or 'warn'",
    "trainer.profiler=fast": "trainer.profiler: should be 'steps', 'simple', 'advanced' or 'pytorch'",
    "+trainer.gradient_clip_algorithm=value": "trainer.gradient_clip_algorithm: has no place here; gradients are clipped by",
    "+trainer.fast_dev_run=true": "trainer.fast_dev_run: has no place here; take debug=fast",
    "+trainer.callbacks=[]": "trainer.callbacks: is set by the program; leave it out",
    "+callbacks.mine=3": "callbacks.mine: should be a class with its keys",
    "+logger.mine=true": "logger.mine: should be a class with its keys",
    "+logger.csv.resumed_at=3": "logger.csv.resumed_at: is set by the program",
    "callbacks.early_stopping.monitor=val/mio": "callbacks.early_stopping.monitor: no metric is called 'val/mio'",
    "callbacks.early_stopping.mode=min": "callbacks.early_stopping.mode: min would keep the worst checkpoint by val/miou",
    "callbacks.early_stopping.patience=0": "callbacks.early_stopping.patience: should be greater than 0",
    "callbacks.top_k.monitor=val/loss": "callbacks.top_k.mode: max would keep the worst checkpoint by val/loss",
    "callbacks.swa.start=3": "callbacks.swa.start: 3 of 3 epochs leaves none to average; take less than 3",
    "callbacks.swa.start=1.5": "callbacks.swa.start: should be",
    "callbacks.swa=true": "callbacks.swa: model.ema_decay averages the weights already",
    "callbacks.lr_finder=true": "callbacks.lr_finder: the loss of a network that learns against a discriminator",
    "callbacks.lr_finder.lowest=2": "callbacks.lr_finder.lowest: 2 should be below callbacks.lr_finder.highest, 1.0",
    "+paths.more=1": "paths.more: should be a valid string",
    "optimizer.betas=[0.9]": "optimizer.betas: should be a list of at least 2",
    "optimizer.lr=inf": "optimizer.lr: should be a finite number",
    "optimizer.lr=nan": "optimizer.lr: should be a finite number",
    "+optimizer.nesterov=true": "optimizer.nesterov: no such key",
    "optimizer.nesterov=true": "optimizer.nesterov: needs momentum; take e.g. optimizer.momentum=0.9",
    "data.crop=[64]": "data.crop: should be [height, width], not [64]",
    "data.crop=64": "data.crop: should be a list, not 64",
    "data.augment.scale=[2,0.5]": "data.augment.scale: should be [smallest, largest], not [2, 0.5]",
    "monitor=val/loss": "monitor_mode: max would keep the worst checkpoint by val/loss; take monitor_mode=min",
    "monitor_mode=min": "monitor_mode: min would keep the worst checkpoint by val/miou; take monitor_mode=max",
    "data.batch_size=1": "needs 2 images on each device",
    "seed=99999999999999999999": "seed: should be less than",
    "data.dataset.names=[a,a]": "data.dataset.names: 'a' is there twice",
    "data.dataset.names=[]": "data.dataset.names: 0 classes",
    "data.dataset.colors=[[1,2,3]]": "data.dataset.colors: 1 for 2 classes (a, b); give one for each class",
    "model.class_weights=[1,2,3]": "model.class_weights: 3 for 2 classes (a, b)",
    "monitor=val/iou/dog": "monitor: no class is called 'dog'; classes: a, b",
    "network.boundary=true": "network.boundary: nothing would train the head for boundaries",
    "loss=pidnet": "loss: PIDNetLoss learns boundaries; take network=pidnet network.boundary=true, or loss=ohem",
    "loss=stdc": "loss: STDCLoss learns boundaries; take network=stdc network.boundary=true, or loss=ohem",
}
FOLDER = ["data=folder", "data.root=/none", "data.dataset.names=[a,b]"]
EXTRA = {
    "data.labeled_list=names.txt": ["data.labeled_fraction=1/8"],
    "network.width=wide": ["network=tiny"],
    "scheduler.power=two": ["scheduler=poly"],
    "optimizer.nesterov=true": ["optimizer=sgd", "optimizer.momentum=0"],
    "data.batch_size=1": ["network=deeplabv3plus"],
    "network.boundary=true": ["network=pidnet"],
    "trainer.strategy=fsdp": ["model=gan"],
    "trainer.strategy=deepspeed": ["model=gan"],
    "trainer.precision=16-mixed": ["trainer=deepspeed"],
    "trainer.zero_stage=3": ["trainer=deepspeed"],
    "+logger.csv.resumed_at=3": ["logger=csv"],
    "callbacks.swa=true": ["model.ema_decay=0.9"],
    "callbacks.swa.start=3": ["callbacks.swa=true", "trainer.max_epochs=3"],
    "callbacks.lr_finder=true": ["model=gan"],
    **{
        key: [f"{key.rpartition('.')[0]}=true"]
        for key in BAD
        if key.startswith(("callbacks.early_stopping.", "callbacks.top_k.", "callbacks.lr_finder."))
    },
    "callbacks.swa.start=1.5": ["callbacks.swa=true"],
    "trainer.sync_batchnorm=true": ["trainer=cpu"],
    "monitor=val/loss": ["monitor_mode=max"],
    "model.semi=mean_teacher": ["data.labeled_fraction=1/8"],
    "compile=true": ["model.semi=unimatch_v2", "model.ema_decay=0.99", "data.labeled_fraction=1/8"],
    **dict.fromkeys((key for key in BAD if key.startswith("data.dataset.names")), FOLDER[:2]),
    **dict.fromkeys(("data.dataset.colors=[[1,2,3]]", "model.class_weights=[1,2,3]", "monitor=val/iou/dog"), FOLDER),
}
# With model=gan.
BAD_ADVERSARY = {
    "model.adversarial_weight=-0.1": "model.adversarial_weight: should be greater than or equal to 0, not -0.1",
    "model.r1_weight=-1": "model.r1_weight: should be greater than or equal to 0",
    "model.segmentation_weight=-1": "model.segmentation_weight: should be greater than or equal to 0",
    "model.discriminator_lr_factor=0": "model.discriminator_lr_factor: should be greater than 0",
    "model.adversarial_start=-1": "model.adversarial_start: should be greater than or equal to 0",
    "model.truth_confidence=1.5": "model.truth_confidence: should be less than or equal to 1",
    "model.adversarial=wgan": "model.adversarial: should be 'bce', 'lsgan' or 'hinge', not 'wgan'",
    "model.generated=argmax": "model.generated: should be 'softmax' or 'gumbel'",
    "model.truth=hard": "model.truth: should be 'soft', 'onehot' or 'smooth'",
    "+model.noise.chanels=2": "model.noise.chanels: no such key, did you mean 'channels'?",
    "model.noise.draws=0": "model.noise.draws: should be greater than 0",
    "model.feature_minmax=true": "model.feature_minmax: unbounded without spectral norm; take discriminator.spectral_norm=",
    "trainer.precision=16-mixed": "trainer.precision: with model=gan 16-mixed would scale",
    "model.semi=adversarial": "model.semi.method: adversarial asks a discriminator",
    "discriminator.depth=0": "discriminator.depth: should be greater than or equal to 1",
    "discriminator.norm=group": "discriminator.norm: should be 'none', 'instance' or 'batch'",
    "discriminator=patch": "did you mean 'patchgan'?",
    "+discriminator.num_classes=3": "discriminator.num_classes: is set by the program; leave it out",
    "model.r1_weight=1": "model.r1_weight: a penalty on each image's gradient does not fit batch norm",
}
EXTRA_ADVERSARY = {
    "trainer.precision=16-mixed": ["trainer=gpu"],
    "model.semi=adversarial": ["data.labeled_fraction=1/8"],
    "discriminator.norm=group": ["discriminator=patchgan"],
    "model.r1_weight=1": ["discriminator=patchgan", "discriminator.norm=batch"],
}


def message(*overrides: str) -> str:
    """What a user reads."""
    with pytest.raises((UserError, HydraException)) as caught:
        check(compose("train", list(overrides)))
    return str(caught.value) if isinstance(caught.value, UserError) else explain(caught.value, None)


@pytest.mark.parametrize("override", BAD)
def test_a_bad_value_is_named(override: str) -> None:
    said = message(*EXTRA.get(override, []), override)
    assert BAD[override] in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["init_head=new"], "init_head: says what becomes of the last layer of init_from, and none is given; leave it"),
        (["init_from=x", "init_head=old"], "init_head: "),
        (["init_from=zoo:x"], "init_from: there is no file zoo:x, and no source zoo; the sources are torchvision, hf,"),
        (["init_from='https://a/b.pth'"], "init_from: there is no file https://a/b.pth, and no source https; the sour"),
        (["init_from='hf:'"], "init_from: hf: names nothing; give a model or a file, e.g. hf:nvidia/segformer"),
    ],
)
def test_what_weights_to_start_from_cannot_be(overrides: list[str], said: str) -> None:
    assert message(*overrides).startswith(said)


def test_weights_to_start_from_by_source_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("zoo:x").touch()  # what is there is a path
    for given in ("zoo:x", "x/zoo:y", "C:x", "hf:owner/name", "timm-encoder:x"):
        check(compose("train", [f"init_from='{given}'", "init_head=new"]))


@pytest.mark.parametrize("override", BAD_ADVERSARY)
def test_a_bad_value_of_an_adversary_is_named(override: str) -> None:
    said = message("model=gan", *EXTRA_ADVERSARY.get(override, []), override)
    assert BAD_ADVERSARY[override] in said
    assert "\n" not in said


@pytest.mark.parametrize("name", names("discriminator"))
def test_every_discriminator_passes(name: str) -> None:
    check(compose("train", ["model=gan", f"discriminator={name}"]))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.semi=adversarial", "+model.semi.discriminator_threshold=0.2"], "take model=gan"),
        (
            ["model.semi=fixmatch", "data.labeled_fraction=1/4", "+model.semi.discriminator_threshold=0.2"],
            "the model's adversarial keys need one; take model=gan",
        ),
        (["model=gan", "model.semi.discriminator_threshold=0.2"], "model.semi.method=adversarial or fixmatch"),
        (["model=gan", "~discriminator"], "discriminator: the model's adversarial keys need one"),
        (["discriminator=patchgan"], "discriminator: this model has no discriminator; take model=gan"),
        (["discriminator.width=8"], "discriminator.width: this model has no discriminator; take model=gan"),
        (["+discriminator=patchgan"], "discriminator: this model has none; take model=gan"),
    ],
)
def test_what_needs_an_adversary_is_refused_without_one(overrides: list[str], said: str) -> None:
    assert said in message(*overrides, "data.labeled_fraction=1/8")


S4GAN = [
    "model.semi=s4gan", "discriminator=whole_image", "model.adversarial_weight=0", "model.feature_weight=0.1",
    "model.semi.discriminator_threshold=0.6", "data.labeled_fraction=1/8",
]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["model.semi=unimatch", "compile=true"],
            "compile: a compiled network would not drop the channels that unimatch d",
        ),
        (
            ["model.semi=cps", "model.semi.align=true"],
            "model.semi.align: is for model.semi.method=fixmatch or unimatch or",
        ),
        (
            ["model.semi=unimatch", "model.semi.apart=true"],
            "model.semi.apart: is for model.semi.method=fixmatch or mean",
        ),
        (
            ["model.semi=fixmatch", "model.semi.soft=true", "model.semi.dice_weight=1"],
            "model.semi.dice_weight: Dice takes",
        ),
        (["model.semi=cps", "model=gan"], "model.semi.method: cps trains two networks, and a discriminator judges one"),
        (["model.semi=cps", "tasks=boundary"], "tasks: the second network of cps would not learn them"),
        (["model.semi=cps", "init_from=x"], "init_from: would fill one of the two networks of cps"),
        (["model.semi=cps", "trainer=fsdp"], "trainer.strategy: fsdp was not tried with the two networks of cps"),
        (["model.semi=cps", "trainer=gpu", "trainer.precision=16-mixed"], "trainer.precision: with cps 16-mixed would"),
        (
            ["model.semi=s4gan", "model=cnn"],
            "model.semi.method: s4gan asks a discriminator which images' predictions are",
        ),
        (
            ["model=gan", *S4GAN[:1]],
            "take model=gan discriminator=whole_image model.adversarial_weight=0 model.feature_weig",
        ),
        (["model=gan", *S4GAN, "discriminator=fcn"], "discriminator: s4gan needs one score of a whole image"),
        (["model=gan", *S4GAN, "model.adversarial_weight=0.1"], "model.adversarial_weight: s4gan has no such loss"),
        (["model=gan", *S4GAN, "model.r1_weight=1"], "model.r1_weight: s4gan has no such loss"),
    ],
)
def test_what_methods_of_unlabelled_images_do_not_go_with(overrides: list[str], said: str) -> None:
    assert said in message("data.labeled_fraction=1/8", *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        S4GAN,
        ["model.adversarial_weight=0", "trainer=gpu", "trainer.precision=16-mixed"],
        ["model.adversarial_weight=0", "~discriminator"],
        ["model.semi=adversarial", "model.semi.discriminator_threshold=0.2", "data.labeled_fraction=1/8"],
        ["model.feature_weight=1", "model.feature_minmax=true", "discriminator.spectral_norm=true"],
    ],
)
def test_what_an_adversary_needs_is_enough(overrides: list[str]) -> None:
    check(compose("train", ["model=gan", *overrides]))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["loss=ce_dice"], "loss: mask2former trains on the masks of its queries; take loss=mask_classification"),
        (
            ["network=unet"],
            "network: MaskClassification is a loss of queries' masks, and unet has no queries; take network=",
        ),
        (
            ["tasks=boundary"],
            "tasks: they need output channels for each pixel, and mask2former gives masks; take another",
        ),
        (
            ["model.semi=fixmatch", "data.labeled_fraction=1/8"],
            "model.semi.method: unlabelled images were not tried with mask2former; take model.semi.method=null",
        ),
        (
            ["model=gan", "model.noise.channels=2"],
            "model.noise: mask2former takes images of a fixed number of channels",
        ),
        (["data.crop=[40,64]"], "data.crop: [40, 64] is no multiple of this network's stride 32"),
        (["network.channels=40"], "network.channels: should be a multiple of 32, not 40"),
        (["loss.oversample_ratio=0.5"], "loss.oversample_ratio: should be greater than or equal to 1, not 0.5"),
    ],
)
def test_what_does_not_go_with_masks_of_queries_is_refused(overrides: list[str], said: str) -> None:
    assert said in message("network=mask2former", "loss=mask_classification", *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["monitor=val/loss", "monitor_mode=min"],
        ["optimizer=sgd", "optimizer.nesterov=true"],
        ["network=mask2former", "loss=mask_classification", "model=gan"],
        ["trainer=gpu", "trainer.devices=[0,2]"],
        ["network=deeplabv3", "data.batch_size=1", "model.batch_norm=frozen"],
        ["network=deeplabv3plus", "trainer=ddp", "trainer.devices=4", "data.batch_size=4"],  # statistics of all devices
        ["network=pidnet", "network.boundary=true", "loss=pidnet"],
        ["network=stdc", "network.boundary=true", "loss=stdc", "data.crop=[64,64]"],
        ["trainer.limit_val_batches=3", "trainer.val_check_interval=0.5", "trainer.deterministic=warn"],
        ["+paths.data=/data", "data=camvid", "data.root=${paths.data}"],
        ["network=dpt", "network.encoder=vit_small_patch14_dinov2", "data.crop=[518,518]"],
        ["network=upernet", "network.encoder=vit_small_patch14_dinov2", "data.crop=[518,518]"],
        ["network=linear", "network.encoder=test_vit", "network.lora.rank=16", "data.crop=[50,50]"],
        ["optimizer=adamw", "optimizer.layer_decay=0.8", "network=unet"],
        ["optimizer.layer_decay=1", "network=unet", "network.freeze=encoder"],
        ["callbacks.pictures=null", "+callbacks.timer={_target_: lightning.pytorch.callbacks.Timer, duration: '01:00:00:00'}"],
    ],
)  # fmt: skip
def test_what_fits_together_passes(overrides: list[str]) -> None:
    check(compose("train", overrides))


def test_a_crop_that_a_plain_vits_patches_do_not_fill_is_refused() -> None:
    vit = ["network=linear", "network.encoder=vit_small_patch14_dinov2"]
    said = message(*vit, "data.crop=[512,512]")
    assert said == "data.crop: [512, 512] is no multiple of this network's stride 14; take e.g. data.crop=[518, 518]"
    swin = ["network=upernet", "network.encoder=swin_tiny_patch4_window7_224"]
    assert "stride 32" in message(*swin, "data.crop=[100,128]")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.layer_decay=0", "optimizer.layer_decay: should be greater than 0"),
        ("optimizer.layer_decay=1.5", "optimizer.layer_decay: should be less than or equal to 1"),
        ("network.freeze=head", "network.freeze: should be 'encoder'"),
        ("network.lora.rank=-1", "network.lora.rank: should be greater than or equal to 0"),
        ("network.drop_path=1", "network.drop_path: should be less than 1"),
    ],
)
def test_keys_of_plain_vits(override: str, said: str) -> None:
    assert said in message("network=linear", override)


def test_layer_decay_of_a_frozen_encoder_is_refused() -> None:
    said = message("network=linear", "network.freeze=encoder", "optimizer.layer_decay=0.8")
    assert said == "optimizer.layer_decay: network.freeze=encoder leaves it no layers that learn; set it to null"


def test_a_short_key_is_the_long_one() -> None:
    short, long = (
        compose("train", [f"{key}=fixmatch", "data.labeled_fraction=1/8"])
        for key in ("model.semi", "model.semi.method")
    )
    assert short == long
    assert short["model"]["semi"]["threshold"] == 0.95
    check(short)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.lrr=1"], "model.lrr: no such key; keys of model: "),
        (["optimizer.weight_dacay=1"], "did you mean 'weight_decay'?"),
        (["optimiser.lr=1"], "optimiser: no such key, did you mean 'optimizer'?"),
        (["=3"], "an override should be key=value"),
        (
            ["network=fcm"],
            "network=fcm: no such option, did you mean 'fcn'?; choose one of: bisenetv2, ddrnet, deeplabv3, ",
        ),
        (["+data.batch_size=4"], "data.batch_size: is there already; leave out the '+'"),
        (["optimizer.lr=[1"], "optimizer.lr: [1 cannot be read; close every bracket"),
    ],
)
def test_a_user_sees_one_line_and_status_2_and_nothing_is_left_behind(
    run: Run, tmp_path: Path, arguments: list[str], said: str
) -> None:
    result = run("src.train", *arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_discriminator_deeper_than_the_image_ends_before_training(run: Run, tmp_path: Path) -> None:
    result = run("src.train", *SMALL, "model=gan", "discriminator.depth=6", f"hydra.run.dir={tmp_path}/run")
    assert result.returncode == 2
    assert result.stderr.startswith("error: discriminator: it needs images of at least 64 pixels a side")
    assert "training images have 32 x 48" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stdout
    assert list(tmp_path.rglob("*.ckpt")) == []


@pytest.mark.slow
def test_help_and_a_config_error_import_no_torch(run: Run) -> None:
    for arguments in (["--help"], ["--cfg", "job"], ["optimizer.lr=abc"]):
        result = subprocess.run(
            [*_python_with_import_times(), *arguments], text=True, capture_output=True, cwd=ROOT, timeout=60
        )
        imported = set(re.findall(r"\|\s+(\S+)$", result.stderr, flags=re.MULTILINE))
        assert "omegaconf" in imported
        assert not imported & {"torch", "lightning", "numpy", "timm"}


def _python_with_import_times() -> list[str]:
    import sys

    return [sys.executable, "-X", "importtime", "-m", "src.train"]


def test_the_composed_config_is_printed(run: Run) -> None:
    result = run("src.train", "--cfg", "job", "optimizer.lr=0.5")
    assert result.returncode == 0
    assert "lr: 0.5" in result.stdout
