"""`make bench`: what a row says, the page that is made of the rows, and which of them got worse."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.check import worse
from benchmarks.pairs import Pairs, in_turns
from benchmarks.table import _BEGIN, _END, JSON, PAGE, ROWS, page_table


def test_a_row_is_the_median_of_pairs() -> None:
    pairs = Pairs("ours", "theirs", values=[(1.0, 1.0), (3.0, 2.0), (40.0, 20.0)])
    row = pairs.row()
    assert (row["ratio"], row["pairs"], row["median_ours"], row["median_rival"]) == (1.5, 3, 3.0, 2.0)
    assert row["middle_half"] == [1.25, 1.75]
    assert "1.500 (of 3 pairs; the middle half 1.250 to 1.750)" in pairs.words()


def test_pairs_of_a_cycle_are_told_apart() -> None:
    """One step of three is logged, and costs more: it counts as a third, which a median over all would leave out."""
    pairs = Pairs("ours", "theirs", cycle=3)
    for _ in range(5):
        for ours in (1.0, 1.0, 1.3):
            pairs.add(ours, 1.0)
    assert pairs.row()["ratio"] == 1.1


def test_both_go_in_turns_and_the_first_warms_up() -> None:
    calls: list[str] = []
    found = in_turns(("a", "b"), lambda: calls.append("a"), lambda: calls.append("b"), pairs=2)
    assert "".join(calls) == "ababab"
    assert len(found.values) == 2


def row(ratio: float) -> dict[str, Any]:
    return {"ratio": ratio, "rival": "a bare loop"}


def test_what_got_worse_is_named() -> None:
    before = {"step": row(1.02), "predict": row(1.5), "gone": row(1.0), "faster": row(2.0)}
    now = {"step": row(1.2), "predict": row(1.6), "faster": row(0.5), "new": row(9.0)}
    assert worse(now, before, 0.1) == [
        "step: 1.200 of a bare loop, was 1.020 (+18%)", "gone: was 1.000, and is not in the table any more",
    ]  # fmt: skip
    assert len(worse(now, before, 0.05)) == 3


def test_the_page_is_made_of_the_rows() -> None:
    rows = json.loads(JSON.read_text(encoding="utf-8"))
    assert set(rows) <= set(ROWS) and {"step_cnn", "step_gan"} <= set(rows)
    shown = PAGE.read_text(encoding="utf-8").partition(_BEGIN)[2].partition(_END)[0]
    assert shown == page_table(rows)
    for each in rows.values():
        assert {"cpu", "torch", "lightning", "seed", "threads"} <= each["with"].keys()
