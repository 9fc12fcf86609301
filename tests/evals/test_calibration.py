"""Calibration: what is fitted, on what, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.errors import InputError
from cai.evals import stats
from cai.evals.calibration import (
    Calibration,
    calibration_path,
    cross_fitted,
    fit,
    load_calibration,
    parts,
    save_calibration,
)
from cai.evals.judge import Scored
from cai.evals.report import apply_saved, calibrate, curves


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def drawn(n: int, *, sharp: float, offset: float = 0.0, seed: int = 0) -> Scored:
    """Probabilities `sharp` times too sure (in log-odds), with an offset towards a; two pairs a prompt."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1.5, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(float)
    return Scored(1 / (1 + np.exp(-(sharp * truth + offset))), y, tuple(f"{index // 2:012x}" for index in range(n)))


def test_temperature_by_hand() -> None:
    # Always 0.95, right in 3 of 4: the calibrated probability has to be 3/4, so a = logit 0.75 / logit 0.95.
    found = fit([0.95] * 4, [1.0, 1.0, 1.0, 0.0])
    assert found.a == pytest.approx(math.log(3) / math.log(19))
    assert found.b == 0.0
    assert found.apply(0.95) == pytest.approx(0.75)
    assert found.apply(0.05) == pytest.approx(0.25)
    assert found.log_loss_after == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert found.log_loss_before > found.log_loss_after


def test_platt_by_hand() -> None:
    # Two groups: 0.8 right in 9 of 10, 0.2 in 5 of 10. The line goes through both.
    p = [0.8] * 10 + [0.2] * 10
    y = [1.0] * 9 + [0.0] + [1.0] * 5 + [0.0] * 5
    found = fit(p, y, method="platt")
    assert found.apply(0.8) == pytest.approx(0.9)
    assert found.apply(0.2) == pytest.approx(0.5)


def test_what_was_put_in_is_found() -> None:
    made = drawn(20_000, sharp=3.0)
    assert 1 / fit(made.p, made.y).a == pytest.approx(3.0, rel=0.06)
    slotted = drawn(20_000, sharp=2.0, offset=1.0)
    platt = fit(slotted.p, slotted.y, method="platt")
    assert (platt.a, platt.b) == pytest.approx((0.5, -0.5), abs=0.05)


@settings(deadline=None, max_examples=60)
@given(st.floats(0.01, 5), st.floats(0, 1), st.floats(0, 1))
def test_it_keeps_the_order_and_temperature_both_sides(a: float, one: float, other: float) -> None:
    line = Calibration("temperature", a, 0.0, "j", 0.0, 0.0)
    assert line.apply(one) == pytest.approx(1 - line.apply(1 - one), abs=1e-9)
    if one < other:
        assert line.apply(one) <= line.apply(other)


@pytest.mark.parametrize(
    ("p", "y", "words"),
    [
        ([], [], "nothing to calibrate"),
        ([0.5, 0.5], [1.0, 0.0], "nothing to calibrate"),
        ([0.9, 0.7], [1.0, 1.0], "without an error"),
        ([0.9, 0.8, 0.7], [0.0, 0.0, 1.0], "the less it is right"),
    ],
)
def test_what_cannot_be_fitted_is_said(p: list[float], y: list[float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit(p, y)


def test_parts_are_by_prompt_and_by_seed() -> None:
    prompts = [f"{index // 3}" for index in range(300)]
    found = parts(prompts, 2, seed=0)
    assert all(len({found[index] for index in range(300) if prompts[index] == prompt}) == 1 for prompt in set(prompts))
    assert 90 < sum(found) < 210
    assert found != parts(prompts, 2, seed=1)


def test_the_part_fitted_on_is_never_evaluated_on() -> None:
    made = drawn(400, sharp=3.0)
    found = calibrate(made, "j", method="temperature", folds=0, seed=0, said={"file": "x"})
    assert found.left_out + len(found.p) == 400
    assert found.calibration.fitted_on["n"] == found.left_out
    assert not any(found.calibration.saw(prompt) for prompt in found.raw.prompts)
    row = found.row(0)
    assert row["calibrated"]["log_loss"] < row["raw"]["log_loss"]
    assert row["log_loss_difference"]["ci"][1] < 0
    assert row["calibrated"]["accuracy"] == row["raw"]["accuracy"]
    again = apply_saved(made, found.calibration)
    assert (again.left_out, again.raw.prompts) == (found.left_out, found.raw.prompts)
    assert [curve.name for curve in curves(made, found, seed=0)] == ["raw", "temperature"]
    assert curves(made, None, seed=0)[0].n == 400


def test_cross_fitting_uses_only_the_other_folds() -> None:
    made = drawn(300, sharp=3.0)
    p = cross_fitted(made.p, made.y, made.prompts, method="temperature", folds=3, seed=0)
    where = np.asarray(parts(made.prompts, 3, seed=0))
    for fold in range(3):
        line = fit(made.p[where != fold], made.y[where != fold])
        assert p[where == fold] == pytest.approx(line.apply_all(made.p[where == fold]))
    assert stats.log_loss(p, made.y) < stats.log_loss(made.p, made.y)
    with pytest.raises(InputError, match="folds"):
        cross_fitted([0.6], [1.0], ["a"], method="temperature", folds=2, seed=0)


def test_saved_and_loaded(tmp_path: Path) -> None:
    made = drawn(400, sharp=3.0)
    said = {"file": "x", "sha256": "00"}
    found = calibrate(made, "judge1", method="platt", folds=0, seed=0, said=said, name="c").calibration
    path = tmp_path / "c.json"
    save_calibration(path, found)
    assert load_calibration(path) == found
    assert json.loads(path.read_text())["parameters"] == {"a": found.a, "b": found.b}
    assert "name" not in json.loads(path.read_text())
    with pytest.raises(InputError, match="does not say to what questions"):
        found.check("judge1", ASKED)


ASKED: dict[str, Any] = {
    "constitution": "mine@1",
    "principles": "all",
    "questions": "0a",
    "axes": [],
    "rule": "mean",
    "need_both": True,
}


def test_it_is_of_one_judge_its_questions_and_its_rule() -> None:
    found = calibrate(drawn(400, sharp=3.0), "judge1", method="temperature", folds=0, seed=0, said=ASKED).calibration
    found.check("judge1", ASKED)
    found.check("judge1", ASKED | {"constitution": "mine@2"})  # another critique leaves the questions as they are
    with pytest.raises(InputError, match=r"fitted to the judge judge1.*fit it anew"):
        found.check("judge2", ASKED)
    for key, other in [
        ("questions", "0b"),
        ("principles", "drawn"),
        ("axes", ["honest"]),
        ("rule", "log_odds"),
        ("need_both", False),
    ]:
        with pytest.raises(InputError, match=f"questions of mine@1.*what differs: {key}"):
            found.check("judge1", ASKED | {key: other})


def test_a_name_is_a_file_beside_the_recipe(tmp_path: Path) -> None:
    assert calibration_path("careful-2", tmp_path) == tmp_path / "calibrations" / "careful-2.json"
    for given_path in ("cal.json", "./cal", "fits/cal", "/elsewhere/cal.json"):
        assert calibration_path(given_path, tmp_path) == tmp_path / given_path
    made = calibrate(drawn(400, sharp=3.0), "j", method="temperature", folds=0, seed=0, said={}, name="careful")
    path = calibration_path("careful", tmp_path)
    save_calibration(path, made.calibration)
    assert load_calibration(path) == made.calibration
    assert made.row(0)["name"] == "careful"
    with pytest.raises(InputError, match=r"carful\.json.*those saved: careful;.*in the current folder"):
        load_calibration(calibration_path("carful", tmp_path))


def test_a_name_that_is_not_beside_the_recipe_is_a_file_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made, recipes = Calibration("temperature", 1.0, 0.0, "j", 0.0, 0.0), tmp_path / "recipes"
    recipes.mkdir()
    save_calibration(calibration_path("careful", Path()), made)
    assert load_calibration(calibration_path("careful", recipes)).a == 1.0
    save_calibration(recipes / "calibrations" / "careful.json", dataclasses.replace(made, a=2.0))
    assert load_calibration(calibration_path("careful", recipes)).a == 2.0


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema": 1, "method": "magic"}', "null"])
def test_other_files_are_no_calibration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(InputError, match="not a calibration"):
        load_calibration(path)
    with pytest.raises(InputError, match="No such file"):
        load_calibration(tmp_path / "none.json")


def test_values_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    for key, value in (("a", -1.0), ("a", "x"), ("method", "magic"), ("schema", 2)):
        row = Calibration("temperature", 1.0, 0.0, "j", 0.0, 0.0).row() | {key: value}
        path.write_text(json.dumps(row))
        with pytest.raises(InputError, match="not a calibration"):
            load_calibration(path)
