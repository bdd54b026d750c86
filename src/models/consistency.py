"""The methods that learn from unlabelled images by consistency, by the word of `model.semi=…`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from src.data.samples import Batch
from src.models.cps import cps
from src.models.fixmatch import fixmatch
from src.models.mean_teacher import mean_teacher
from src.models.semi import Consistency, Predictor
from src.models.unimatch import unimatch
from src.models.unimatch_v2 import unimatch_v2

METHODS: Mapping[str, Callable[[Predictor, Batch], Consistency]] = {
    "fixmatch": fixmatch,
    "mean_teacher": mean_teacher,
    "unimatch": unimatch,
    "unimatch_v2": unimatch_v2,
    "cps": cps,
}
