"""Where parts of the program lie that checkpoints, run folders, users' YAML and commands may still name by an earlier place."""

from __future__ import annotations

from typing import Any

# The module as it was called, and as it is called now. Version 0.2 moved them.
MOVED = {
    "src.discriminators": "src.networks.discriminators",
    "src.schedulers": "src.optimization.schedulers",
    "src.data.transforms": "src.data.augment.transforms",
    **{
        f"src.data.{name}": f"src.data.formats.{name}"
        for name in ("camvid", "cityscapes", "coco", "dicom", "folder", "geotiff", "huggingface", "nifti", "outlines",
                     "shapes", "streaming", "voc")
    },
}  # fmt: skip
# A part as it was called, and as it is called now, where its module was divided or it has got another name itself.
RENAMED = {
    **{
        f"src.losses.segmentation.{name}": f"src.losses.{module}.{name}"
        for module, name in (("ce", "CrossEntropy"), ("ce_dice", "CrossEntropyDice"), ("ce_lovasz", "CrossEntropyLovasz"),
                             ("dice", "Dice"), ("focal", "Focal"), ("lovasz", "Lovasz"), ("ohem", "Ohem"))
    },
    "src.models.semi.Semi": "src.models.semi.SemiSupervision",
    "src.tasks.tasks.Tasks": "src.tasks.multi_task.MultiTask",
}  # fmt: skip

# A recipe as `experiment=` called it, and as it is called now: by its backbone or its source.
RECIPES = {
    "cityscapes_deeplabv3plus": "cityscapes_deeplabv3plus_r50",
    "cityscapes_segformer": "cityscapes_segformer_b0",
    "voc_deeplabv3plus": "voc_deeplabv3plus_r50_aug",
    "voc_fcn": "voc_fcn_r50",
    "coco_deeplabv3": "coco_deeplabv3_torchvision",
}


def recipes_renamed(choice: str) -> str:
    """The value of `experiment=`, one recipe or several for a sweep, with names as they are now."""
    return ",".join(RECIPES.get(name, name) for name in choice.split(","))


def renamed(target: str) -> str:
    """A part's dotted name as it is now; any other text as it is."""
    if target in RENAMED:
        return RENAMED[target]
    module, dot, name = target.rpartition(".")
    return f"{MOVED[module]}{dot}{name}" if module in MOVED else target


def with_new_names(content: object) -> Any:
    """A copy of a config (plain containers) whose every `_target_` is as it is now."""
    if isinstance(content, dict):
        return {
            key: renamed(value) if key == "_target_" and isinstance(value, str) else with_new_names(value)
            for key, value in content.items()
        }
    if isinstance(content, list):
        return [with_new_names(value) for value in content]
    return content
