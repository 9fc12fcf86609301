"""Each person beside the others, every two people, gold items, and who answers at random; and the tables of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cai.cli.label_tables import show_agreement
from cai.cli.main import app
from cai.labels.annotators import at_random, gold_rates, on_gold, ordinary, reliability
from cai.labels.persons import each_person, pairs_of_people
from cai.labels.table import VoteTable
from cai.records import HumanLabel

NAME = "an-annotator-with-quite-a-long-name"


def simulated(people: int, per: int, seed: int, *, right: float = 0.85, bad: int = 0, over: int = 3) -> VoteTable:
    """Votes of people who are right equally often, the first `bad` of them by a coin."""
    rng = np.random.default_rng(seed)
    tasks = people * per // over
    task = np.repeat(np.arange(tasks), over)
    worker = rng.permutation(len(task)) % people
    truth = rng.integers(0, 2, tasks)[task]
    hit = rng.random(len(task)) < np.where(worker < bad, 0.5, right)
    said = np.where(hit, truth, 1 - truth)
    return VoteTable.of([f"t{k}" for k in task], [f"w{k:03d}" for k in worker], [("a", "b")[k] for k in said])


def test_honest_people_are_seldom_named_and_coins_mostly() -> None:
    alike = sum(bool(at_random(simulated(30, 20, seed))) for seed in range(100))
    assert alike <= 10, "at most one in twenty by what is promised"
    caught = wrong = 0
    for seed in range(20):
        named = set(at_random(simulated(40, 60, seed, bad=4)))
        bad = {f"w{k:03d}" for k in range(4)}
        caught, wrong = caught + len(named & bad), wrong + len(named - bad)
    assert caught >= 0.8 * 80
    assert wrong <= 0.1 * (caught + wrong)


def test_a_person_beside_the_others_by_hand() -> None:
    # Three people, four tasks: r differs on two of them.
    said = {"p": "aabb", "q": "aabb", "r": "abba"}
    rows = [(f"t{k}", who, word) for who, words in said.items() for k, word in enumerate(words)]
    table = VoteTable.of(*zip(*rows, strict=True))
    found = each_person(table)
    assert found["p"]["votes"] == found["p"]["compared"] == 4
    assert found["p"]["agrees"]["value"] == pytest.approx((1 + 0.5 + 1 + 0.5) / 4)
    assert found["r"]["agrees"]["value"] == pytest.approx(0.5)
    assert found["r"]["kappa"]["value"] == pytest.approx((0.5 - 0.5) / (1 - 0.5))
    low, high = found["p"]["agrees"]["ci"]
    assert low < 0.75 < high
    (pair,) = [row for row in pairs_of_people(table, least=4) if row["workers"] == ["p", "q"]]
    assert pair["observed"]["value"] == pair["cohen_kappa"]["value"] == 1
    assert pair["observed"]["ci"][0] < 1, "four tasks on which two agree do not prove that they always do"


def test_intervals_know_that_pairs_of_one_prompt_belong_together() -> None:
    table = simulated(4, 90, 0)
    alone = each_person(table)["w000"]["agrees"]["ci"]
    prompts = {task: f"p{number // 30}" for number, task in enumerate(sorted(table.tasks))}
    together = each_person(table, clusters=prompts)["w000"]["agrees"]["ci"]
    assert alone != together
    for clusters in (None, prompts):
        for row in pairs_of_people(table, clusters=clusters):
            for name in ("observed", "cohen_kappa"):
                assert row[name]["ci"][0] <= row[name]["value"] <= row[name]["ci"][1]


def label(number: int, who: str, verdict: str, gold: str = "") -> HumanLabel:
    return HumanLabel(
        id=f"{number}{who}",
        comparison_id=f"c{number}",
        group_id="g",
        axis="",
        annotator=who,
        verdict=verdict,
        gold=bool(gold),
        extra={"gold": gold} if gold else {},
    )


def test_gold_items_score_people_weigh_them_and_are_no_votes() -> None:
    labels = [label(n, "good", "a", "a") for n in range(10)] + [label(n, "poor", "ab"[n % 2], "a") for n in range(10)]
    labels += [label(10, "poor", "abstain", "a"), label(11, "good", "a"), label(11, "new", "a")]
    found = on_gold(labels, {})
    assert {name: (row["n"], row["right"]["value"]) for name, row in found.items()} == {
        "good": (10, 1.0),
        "poor": (10, 0.5),
    }
    low, high = found["poor"]["right"]["ci"]
    assert low < 0.5 < high
    assert found["good"]["right"]["ci"][0] < 1
    assert [each.comparison_id for each in ordinary(labels)] == ["c11", "c11"]
    rates = gold_rates(labels)
    assert 0.5 < rates["poor"] < 0.75 < rates["good"] < 1, "shrunk to all together"
    table = VoteTable.of(["x", "x", "x"], ["good", "poor", "new"], ["a", "a", "a"])
    weights = reliability(table, rates)
    assert (weights["good"], weights["poor"]) == (rates["good"], rates["poor"])
    assert "new" in weights


def test_the_tables_are_readable_at_80_columns(tmp_path: Path) -> None:
    table = simulated(15, 60, 1)
    names = [NAME, *table.workers[1:]]
    rows = zip(table.task, table.worker, table.label, strict=True)
    lines = [f"{table.tasks[task]},{names[worker]},{table.labels[said]}" for task, worker, said in rows]
    (tmp_path / "votes.csv").write_text("task,worker,label\n" + "\n".join(lines) + "\n", "utf-8")
    done = CliRunner().invoke(app, ["label", "agreement", str(tmp_path / "votes.csv")], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    shown = done.stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("overall") == 2
    for word in ("Fleiss' kappa", "Gwet's AC1", "ordinal alpha", "Cohen's kappa", "reliability", "w001", NAME[:9]):
        assert word in shown, word
    assert "3 more in --json" in shown
    told: dict[str, Any] = json.loads(
        CliRunner().invoke(app, ["label", "agreement", str(tmp_path / "votes.csv"), "--json"]).stdout
    )
    assert told["annotators"]["w001"]["agrees"]["ci"] is not None
    assert told["pairs"][0]["cohen_kappa"]["ci"] is not None


def test_the_widest_figures_fit_80_columns_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    widest = {"value": -0.5, "ci": [-1.0, -0.2]}
    keys = ("observed", "alpha_nominal", "alpha_ordinal", "fleiss_kappa", "ac1")
    counts = {"votes": 12345, "tasks": 12345, "workers": 123}
    show_agreement({**counts, **dict.fromkeys(keys, widest), "annotators": {}, "pairs": []})
    assert capsys.readouterr().out.count("-0.50 [-1.00 -0.20]") == len(keys)
