"""What a plan chooses, of runs whose times and memory are known; a real one is in tests/test_plan.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from src.callbacks.step_profiler import SHARES
from src.config.settings import Settings
from src.errors import UserError
from src.storage import run_folder
from src.training import planning
from src.training.planning import Choice, Tried, choices
from tests.conftest import settings

Machine = Callable[[dict[str, str]], Tried]


def tried(seconds: float, memory: float = 1.0, data: float = 0.0) -> Tried:
    return Tried(seconds={**dict.fromkeys(SHARES, 0.0), "forward": seconds - data, "data": data}, memory=memory)


def planned(
    tmp_path: Path, machine: Machine, *overrides: str, samples: int = 1000, largest: int | None = None
) -> tuple[dict[str, Choice], list[dict[str, str]]]:
    """The choices by key, and what was tried."""
    asked: list[dict[str, str]] = []

    def attempt(changes: Sequence[str]) -> Tried:
        asked.append({"data.batch_size": "4", **dict(change.split("=") for change in changes)})
        return replace(machine(asked[-1]), run_dir=tmp_path)

    curve = tmp_path / run_folder.LR_CURVE
    if not curve.exists():
        curve.write_text("learning_rate,loss,smoothed\n")  # too short to tell
    run = Settings.of(settings(tmp_path, "data.num_workers=0", *overrides))
    found = choices(run, attempt, 0.05, samples, largest, lambda line: None)
    return {choice.key: choice for choice in found}, asked


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "has_bf16", lambda: False)
    monkeypatch.setattr(planning, "usable_cores", lambda: 4)
    monkeypatch.setattr(planning, "memory", lambda of_gpu: 100.0)


def sizes(asked: list[dict[str, str]]) -> list[int]:
    return list(dict.fromkeys(int(one["data.batch_size"]) for one in asked))


def test_a_batch_grows_while_an_image_gets_cheaper(tmp_path: Path) -> None:
    found, asked = planned(tmp_path, lambda keys: tried(1.0 + 0.1 * max(32, int(keys["data.batch_size"]))))
    assert found["data.batch_size"].value == 128
    assert sizes(asked)[:7] == [4, 8, 16, 32, 64, 128, 256]
    assert "with 256 an image takes" in found["data.batch_size"].why


def test_a_batch_stays_where_a_larger_one_gains_nothing(tmp_path: Path) -> None:
    found, asked = planned(tmp_path, lambda keys: tried(0.1 * int(keys["data.batch_size"])))
    assert found["data.batch_size"].value is None and sizes(asked) == [4, 8]
    assert all(one["data.batch_size"] == "4" for one in asked[2:]), "what was chosen is what is tried on with"


def test_a_batch_ends_where_it_no_longer_fits(tmp_path: Path) -> None:
    found, _ = planned(tmp_path, lambda keys: tried(1.0) if int(keys["data.batch_size"]) <= 16 else Tried())
    assert found["data.batch_size"].value == 16 and "32 do not fit in memory" in found["data.batch_size"].why


def test_what_would_not_fit_is_not_tried(tmp_path: Path) -> None:
    found, asked = planned(tmp_path, lambda keys: tried(1.0, memory=3.0 * int(keys["data.batch_size"])))
    assert found["data.batch_size"].value == 16 and max(sizes(asked)) == 16, "32 would take 96 of 100 GiB"


def test_a_batch_that_does_not_fit_is_halved(tmp_path: Path) -> None:
    found, asked = planned(tmp_path, lambda keys: tried(1.0) if int(keys["data.batch_size"]) <= 2 else Tried())
    assert found["data.batch_size"].value == 2 and sizes(asked) == [4, 2]


def test_not_even_one_image_fits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not even 1 images fit in memory"):
        planned(tmp_path, lambda keys: Tried())


@pytest.mark.parametrize(("samples", "largest"), [(20, None), (1000, 16)])
def test_a_batch_is_no_larger_than_the_split_or_what_is_said(tmp_path: Path, samples: int, largest: int | None) -> None:
    found, asked = planned(tmp_path, lambda keys: tried(1.0), samples=samples, largest=largest)
    assert found["data.batch_size"].value == 16 and max(sizes(asked)) == 16


def test_the_fewest_workers_that_are_as_fast_as_any(tmp_path: Path) -> None:
    times = {"0": 2.0, "1": 1.2, "2": 1.02, "4": 1.0}
    found, _ = planned(
        tmp_path, lambda keys: tried(times[keys.get("data.num_workers", "0")], data=0.1), "+x=0" * 0 or "seed=1"
    )
    assert (
        found["data.num_workers"].value == 2 and "0: 2000, 1: 1200, 2: 1020, 4: 1000" in found["data.num_workers"].why
    )


def test_bf16_is_chosen_where_it_is_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "has_bf16", lambda: True)
    found, asked = planned(tmp_path, lambda keys: tried(0.6 if "trainer.precision" in keys else 1.0))
    assert found["trainer.precision"].value == "bf16-mixed"
    assert all(one["trainer.precision"] == "bf16-mixed" for one in asked[1:])
    found, asked = planned(tmp_path, lambda keys: tried(0.98 if "trainer.precision" in keys else 1.0))
    assert found["trainer.precision"].value is None and all("trainer.precision" not in one for one in asked[2:])


def test_the_rate_is_the_one_at_which_the_loss_falls_fastest(tmp_path: Path) -> None:
    lines = ["learning_rate,loss,smoothed"]
    lines += [f"{10 ** (step / 10 - 5)},0,{1.0 if step < 20 else 1.0 - 0.1 * (step - 19) ** 2}" for step in range(30)]
    (tmp_path / run_folder.LR_CURVE).write_text("\n".join(lines))
    found, _ = planned(tmp_path, lambda keys: tried(1.0), largest=4)
    assert found["optimizer.lr"].value == pytest.approx(
        10 ** (24 / 10 - 5), rel=0.05
    )  # the last but five, as of the finder's own


def test_no_rate_is_tried_beside_a_discriminator(tmp_path: Path) -> None:
    found, asked = planned(tmp_path, lambda keys: tried(1.0), "model=gan")
    assert found["optimizer.lr"].value is None and all("callbacks.lr_finder" not in one for one in asked)


def test_the_machines_memory_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 0.1 < planning.memory(False) < 1 << 20
