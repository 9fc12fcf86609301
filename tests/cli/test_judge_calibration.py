"""A calibration that was fitted to a judge, applied to a run: to that judge and those questions only."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from cai import asking
from cai.evals.calibration import Calibration, calibration_path, save_calibration
from tests.cli.judged import cai, rows


def fitted_for(recipe: Path, name: str, *options: str, method: str = "logprob") -> Calibration:
    """What `cai eval judge --calibrate` saves, with a slope of our own: made-up verdicts have none."""
    bench = asking.prepare(
        asking.Setting(
            "scripted",
            {"fail": {"empty": 0.03}},
            method=method,
            options=asking.options_of(options, "--set"),
            constitution="default",
            principles="drawn",
        )
    )
    made = Calibration("temperature", 0.5, 0.0, bench.judge.kind, 0.7, 0.6, {"n": 60, **bench.questions})
    save_calibration(calibration_path(name, recipe), made)
    return made


def test_a_calibration_is_applied_to_the_judge_it_was_fitted_to(recipe: Path) -> None:
    cai("run", "recipe.yaml")
    run = recipe / "runs" / "judged"
    raw = {row["id"]: row["p"] for row in rows(run / "preferences.jsonl") if row["p"]}
    fitted = fitted_for(recipe, "mild")
    shown = cai("export", "recipe.yaml", "--preferences", "--set", "preferences.calibration=mild").stdout
    assert "mild" in shown.partition("calibration")[2].partition("\n")[0]
    made = rows(run / "preferences.jsonl")
    softer = [row["p"] for row in made if row["p"]]
    assert softer == pytest.approx([fitted.apply(p) for p in raw.values()])
    assert not {row["id"] for row in made} & set(raw), "another rule makes other preferences"
    applied = json.loads((run / "metrics.json").read_text())["preferences"]["calibration"]
    assert applied == {
        "name": "mild",
        "method": "temperature",
        "temperature": 2.0,
        "fitted_on": {"file": None, "n": 60},
    }
    assert "mild" in (run / "preferences" / "trl" / "README.md").read_text()
    # The run's own copy of the recipe names the file wherever it is read.
    assert str(recipe / "calibrations" / "mild.json") in (run / "recipe.yaml").read_text()
    # Telling a row's story asks no model, and does not need to know which one judged.
    assert made[0]["id"] in cai("why", "runs/judged", made[0]["id"]).stdout


def test_a_calibration_of_other_questions_or_another_judge_is_refused(recipe: Path) -> None:
    fitted = fitted_for(recipe, "mild")
    apply = ["--dry-run", "--set", "preferences.calibration=mild"]
    cai("run", "recipe.yaml", *apply)
    for change, what in [
        ("judge.principles=all", "principles"),
        ("judge.axes=[harmless, honest]", "axes"),
        ("preferences.need_both=false", "need_both"),
        ("constitution=humanity", "questions"),
    ]:
        told = cai("run", "recipe.yaml", *apply, "--set", change, ok=False).stderr
        assert "calibration mild" in told
        assert what in told.partition("what differs:")[2]
        assert ("fit it anew" in told) == (what not in ("axes", "need_both")), "cai eval judge asks no such questions"
    told = cai("run", "recipe.yaml", *apply, "--set", "judge.options={min_mass: 0.3}", ok=False).stderr
    assert "its options or its prompt is another" in told
    save_calibration(recipe / "old.json", dataclasses.replace(fitted, fitted_on={}))
    told = cai("run", "recipe.yaml", "--dry-run", "--set", "preferences.calibration=old.json", ok=False).stderr
    assert "does not say to what questions it was fitted" in told


@pytest.mark.parametrize(
    ("method", "option"),
    [("listwise", "min_mass: 0.2"), ("tournament", "prior: 2.0"), ("panel", "members: [{method: logprob}, listwise]")],
)
def test_a_calibration_of_two_answers_is_refused_for_lists_and_tournaments_of_more(
    recipe: Path, method: str, option: str
) -> None:
    option = option.replace("listwise]", "{method: listwise}]")
    fitted_for(recipe, "pairs", option.replace(": ", "=", 1), method=method)
    change = ["--set", f"judge.method={method}", "--set", f"judge.options={{{option}}}"]
    apply = [*change, "--set", "preferences.calibration=pairs"]
    told = cai("run", "recipe.yaml", *apply, ok=False).stderr
    assert "calibration pairs" in told
    assert "groups of two answers, and those of this run hold up to 5" in " ".join(told.split())
    two = ["--set", "sample.include=[]", "--set", "sample.sources=[{count: 2}]", "--run-dir", "two"]
    cai("run", "recipe.yaml", *apply, *two)
    # Every answer is rated by itself, and every pair of a round robin asked.
    fitted_for(recipe, "rated", "min_mass=0.2", method="rating")
    cai("run", "recipe.yaml", "--set", "judge.method=rating", "--set", "preferences.calibration=rated",
        "--run-dir", "rated")  # fmt: skip


def test_a_calibration_holds_for_whatever_seed_draws_the_rationales(recipe: Path) -> None:
    fitted_for(recipe, "reasons", "max_tokens=16", method="cot")  # by `cai eval judge`, whose seed is 0
    judge = ["--set", "judge.method=cot", "--set", "judge.options={max_tokens: 16}"]
    for seed in ("1", "5"):
        cai(
            "run", "recipe.yaml", "--dry-run", *judge, "--set", f"seed={seed}",
            "--set", "preferences.calibration=reasons",
        )  # fmt: skip


def test_a_panels_calibration_is_of_its_rule(recipe: Path) -> None:
    members = "[{method: logprob}, {method: rating}]"
    fitted_for(recipe, "panel", f"members={members}", "rule=mean", method="panel")
    apply = ["--dry-run", "--set", "preferences.calibration=panel", "--set", "judge.method=panel"]
    cai("run", "recipe.yaml", *apply, "--set", f"judge.options={{members: {members}}}")
    other = ["--set", f"judge.options={{members: {members}, rule: log_odds}}"]
    told = cai("run", "recipe.yaml", *apply, *other, ok=False).stderr
    assert "rule" in told.partition("what differs:")[2]
