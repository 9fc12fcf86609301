"""What a reward model's report says, and when it calls it unusable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from cai.records import Message
from cai.training import rmreport
from cai.training.data import Element, Encoded, Pair


def held(count: int, *, axes: Sequence[str] = ("helpful",), tie: bool = False) -> list[Encoded]:
    """Pairs whose better answer begins with token 1, the worse with 2; lengths differ from group to group."""
    found = []
    for n in range(count):
        axis = axes[n % len(axes)]
        pair = Pair(0, 1, 0.9, 1.0, axis, "ai", f"pair{n}", tie)
        element = Element(f"group{n}", f"prompt{n}", (Message("user", "hello"),), ("a", "b"), (pair,))
        answers = [[1, *[7] * (n % 5)], [2, *[7] * (n % 11)]]
        found.append(Encoded([5, axes.index(axis)], answers, element))
    return found


def good(rows: Sequence[Sequence[int]], batch: int) -> list[float]:
    return [1.0 if row[2] == 1 else -1.0 for row in rows]


def test_a_good_one_is_usable() -> None:
    told = rmreport.report(held(40), good, threshold=0.55, seed=0)
    assert told["usable"], told["why"]
    assert told["accuracy"]["mean"] == 1
    assert told["ece"] == pytest.approx(1 - 1 / (1 + 2.718281828**-2), abs=1e-3)
    assert told["soft_ece"] == pytest.approx(abs(0.9 - 1 / (1 + 2.718281828**-2)), abs=1e-3)


def test_what_is_called_a_tie_decides_nothing_whatever_its_label_leans_to() -> None:
    told = rmreport.report([*held(40), *held(30, tie=True)], good, threshold=0.55, seed=0)
    assert (told["pairs"], told["decided"], told["accuracy"]["n"]) == (70, 40, 40)


def test_one_that_is_wrong_on_an_axis_is_not() -> None:
    def wrong_on_honest(rows: Sequence[Sequence[int]], batch: int) -> list[float]:
        return [score * (-1 if row[1] == 1 else 1) for row, score in zip(rows, good(rows, batch), strict=True)]

    axes = ("helpful", "honest", "harmless", "fair")
    told = rmreport.report(held(120, axes=axes), wrong_on_honest, threshold=0.55, seed=0)
    assert told["accuracy"]["ci"][0] > 0.5
    assert not told["usable"]
    assert "axis honest" in told["why"]


def test_padding_that_moves_a_score_is_seen() -> None:
    def padded(rows: Sequence[Sequence[int]], batch: int) -> list[float]:
        """Each padding token beside a row adds to its score, as where the wrong token is read."""
        found = []
        for begin in range(0, len(rows), batch):
            some = rows[begin : begin + batch]
            longest = max(map(len, some))
            found += [one + 0.1 * (longest - len(row)) for row, one in zip(some, good(some, batch), strict=True)]
        return found

    # Scored by neighbours in length hardly anything is padded; what is padded must be looked for.
    told = rmreport.report(held(400), padded, threshold=0.55, seed=0)
    assert told["batch_drift"] == pytest.approx(1.0)
    assert not told["usable"]
    assert "depend on the batch" in told["why"]


def test_without_a_report_there_is_doubt(tmp_path: Path) -> None:
    assert "no report.json" in rmreport.doubt(tmp_path)
    rmreport.write(tmp_path, {"usable": True})
    assert rmreport.doubt(tmp_path) == ""
    rmreport.withdraw(tmp_path)
    assert "no report.json" in rmreport.doubt(tmp_path)
    (tmp_path / "report.json").write_text("{", "utf-8")
    assert "cannot be read" in rmreport.doubt(tmp_path)
