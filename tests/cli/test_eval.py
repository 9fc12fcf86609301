"""`cai eval judge`, end to end with the scripted backend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cai.backends import scripted
from cai.cli.main import app
from cai.engine import Completion, Request
from cai.errors import CaiError, InputError, PromptRefused, StoreError

CONTRACT = {
    "n",
    "accuracy",
    "accuracy_ci",
    "brier",
    "ece",
    "flip_rate",
    "first_slot_rate",
    "parse_failures",
    "pairs_per_second",
}
READER = (
    """rules=[{match: "<answer A [0-9a-f]+>\\nGood", reply: A}, {match: "<answer B [0-9a-f]+>\\nGood", reply: B}]"""
)
"""A judge that finds the answer that begins with "Good"."""
SLOT = """rules=[{match: ".", reply: A}]"""
"""A judge that takes whatever stands first."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": str(n), "prompt": f"Question {n}?", "chosen": f"Good {n}", "rejected": f"Bad {n}", "subset": "xy"[n % 2]}
        for n in range(40)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def judge(*arguments: str, rules: str = READER, code: int = 0) -> Result:
    command = ["eval", "judge", "--backend", "scripted", "--backend-set", rules, *arguments]
    if "--pairs" not in arguments:
        command += ["--pairs", "pairs.jsonl"]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return result


def told(*arguments: str, rules: str = READER) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(judge(*arguments, "--json", rules=rules).stdout)
    return found


def test_the_contract_and_a_judge_that_reads(here: Path) -> None:
    found = told()
    assert found.keys() >= CONTRACT
    assert (found["n"], found["accuracy"], found["flip_rate"], found["first_slot_rate"]) == (40, 1.0, 0.0, 0.5)
    assert (found["parse_failures"], found["coverage"], found["sampled"]) == (0, 1.0, None)
    assert found["accuracy_ci"][0] > 0.9
    assert found["pairs_per_second"] > 0
    assert {name: part["n"] for name, part in found["subsets"].items()} == {"x": 20, "y": 20}
    assert [path.name for path in here.iterdir()] == ["pairs.jsonl"]


def test_a_judge_of_slots_is_seen_through() -> None:
    found = told(rules=SLOT)
    assert (found["flip_rate"], found["first_slot_rate"]) == (1.0, 1.0)
    assert abs(found["accuracy"] - 0.5) < 0.3
    text = judge(rules=SLOT).stdout
    assert "It prefers the first slot in 100% of cases: read only both orders together" in text
    one = told("--set", "orders=one", rules=SLOT)
    assert one["flip_rate"] is None
    assert one["votes"] == 40


def test_verdicts_that_cannot_be_read_are_no_data() -> None:
    found = told(rules="fail={empty: 0.5}")
    assert found["parse_failures"] == found["failures"]["low_mass"] > 5
    assert found["judged"] < 40
    assert found["coverage"] == found["judged"] / 40
    nothing = told(rules="fail={empty: 1}")
    assert (nothing["accuracy"], nothing["judged"], nothing["parse_failures"]) == (None, 0, 80)
    assert "There is no verdict" in judge(rules="fail={empty: 1}").stdout


def test_a_failing_backend_is_told_apart_from_a_failing_judge() -> None:
    found = told(rules="fail={broken: 0.2}")
    assert found["failures"]["backend"] == 40 - found["judged"]
    assert "not one pair was judged" in judge("--limit", "5", rules="fail={broken: 1}", code=2).stderr


@pytest.mark.parametrize("kind", [InputError, PromptRefused])
def test_why_there_is_no_verdict_is_told(kind: type[CaiError], monkeypatch: pytest.MonkeyPatch) -> None:
    answer = scripted.Backend.generate

    async def generate(self: scripted.Backend, request: Request) -> Completion:
        if any("Question 1" in turn.content for turn in request.prompt if not isinstance(turn, str)):
            raise kind("no such token", where="small@1")
        return await answer(self, request)

    with monkeypatch.context() as patch:
        patch.setattr(scripted.Backend, "generate", generate)
        found = judge()
    reason, count = ("invalid", 11) if kind is InputError else ("refused", 22)
    assert f"no verdict ({reason}) {count} times; the first: small@1: no such token" in found.stderr


def test_what_fails_on_every_pair_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def generate(self: scripted.Backend, request: Request) -> Completion:
        raise InputError("no such token", where="small@1", mend="take others")

    monkeypatch.setattr(scripted.Backend, "generate", generate)
    told = judge(code=2).stderr
    assert "small@1: not one pair was judged; the last: no such token (take others)" in told


def test_a_sample_is_drawn_by_hash_and_said() -> None:
    found = told("--limit", "10", "--seed", "3")
    assert (found["n"], found["sampled"]) == (10, {"of": 40, "seed": 3, "how": "hash"})
    assert "10 of 40, drawn by hash with seed 3" in judge("--limit", "10", "--seed", "3").stdout


def test_out_keeps_everything_and_the_same_command_asks_nothing_again(here: Path) -> None:
    first = told("--out", "out")
    names = {path.name for path in (here / "out").iterdir()}
    assert names >= {"requests.jsonl", "votes.jsonl", "verdicts.jsonl", "report.json", "reliability.png", "eval.json"}
    votes = (here / "out" / "votes.jsonl").read_text().splitlines()
    assert len(votes) == 80
    # As after a kill: half of the answers are there.
    requests = here / "out" / "requests.jsonl"
    requests.write_text("".join(requests.read_text().splitlines(keepends=True)[:40]))
    second = told("--out", "out")
    assert (second["usage"]["fresh_requests"], second["usage"]["reused_requests"]) == (40, 40)
    third = told("--out", "out")
    assert third["usage"]["fresh_requests"] == 0
    assert third["pairs_per_second"] is None
    for key in CONTRACT - {"pairs_per_second"}:
        assert first[key] == second[key] == third[key]
    assert (here / "out" / "votes.jsonl").read_text().splitlines() == votes
    fewer = told("--out", "out", "--limit", "5")
    assert (fewer["n"], fewer["usage"]["fresh_requests"]) == (5, 0)


def test_principles_of_a_constitution_are_asked(here: Path) -> None:
    drawn = told("--constitution", "default", "--limit", "10")
    assert drawn["votes"] == 20
    assert drawn["judge"]["principles"] == "drawn"
    (here / "principles").mkdir()
    (here / "constitution").mkdir()
    for name in ("one", "two"):
        (here / "principles" / f"{name}.yaml").write_text(f"id: {name}\ntitle: T\njudge: Which is {name}?\n")
    text = "name: mine\nprinciples: [{id: one}, {id: two}]\n"
    (here / "constitution" / "mine.yaml").write_text(text)
    both = told("--constitution", "mine", "--principles", "all", "--limit", "10", "--out", "out")
    assert both["votes"] == 40
    rows = [json.loads(line) for line in (here / "out" / "votes.jsonl").read_text().splitlines()]
    assert {tuple(row["principle_ids"]) for row in rows} == {("one",), ("two",)}
    assert "needs --constitution" in judge("--principles", "all", code=2).stderr


def noisy(here: Path, count: int) -> None:
    """Pairs on which the judge that reads is sure of itself, and right in three of four."""
    rows = [{"prompt": f"Question {n}?", "chosen": f"this {n}", "rejected": f"that {n}"} for n in range(count)]
    for number, row in enumerate(rows):
        row["rejected" if number % 4 == 0 else "chosen"] = f"Good {number}"
    (here / "noisy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_calibrate_measure_and_apply(here: Path) -> None:
    noisy(here, 400)
    found = told("--pairs", "noisy.jsonl", "--calibrate", "c.json")["calibration"]
    saved = json.loads((here / "c.json").read_text())
    assert found["n"] + found["left_out"] == 400
    assert saved["fitted_on"]["n"] == found["left_out"]
    assert found["calibrated"]["ece"] < 0.1 < found["raw"]["ece"]
    assert found["log_loss_difference"]["ci"][1] < 0
    again = told("--pairs", "noisy.jsonl", "--calibration", "c.json")["calibration"]
    assert (again["n"], again["calibrated"]) == (found["n"], found["calibrated"])
    folds = told("--pairs", "noisy.jsonl", "--calibrate", "d.json", "--folds", "5")["calibration"]
    assert (folds["how"], folds["n"]) == ("cross_fitted", 400)
    other = judge("--pairs", "noisy.jsonl", "--calibration", "c.json", rules=SLOT, code=2).stderr
    assert "fit it anew with --calibrate" in other


def test_a_calibration_by_name_is_named_where_it_is_applied(here: Path) -> None:
    noisy(here, 80)
    assert told("--pairs", "noisy.jsonl", "--calibrate", "careful")["calibration"]["name"] == "careful"
    saved = json.loads((here / "calibrations" / "careful.json").read_text())
    assert saved["fitted_on"]["judge"]["method"] == "logprob"
    assert told("--pairs", "noisy.jsonl", "--calibration", "careful")["calibration"]["name"] == "careful"
    assert "careful: temperature" in judge("--pairs", "noisy.jsonl", "--calibration", "careful").stdout
    asked = judge("--pairs", "noisy.jsonl", "--calibration", "careful", "--constitution", "humanity", code=2).stderr
    assert "fitted to the questions of no constitution" in asked
    assert "what differs: principles, questions" in asked
    assert "those saved: careful" in judge("--calibration", "carful", code=2).stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--calibrate", "nowhere/c.json"], "its folder is not there"),
        (["--calibrate", "."], "is a folder"),
        (["--calibrate", "c.json", "--folds", "1"], "one fold leaves nothing to fit on"),
        (["--calibrate", "c.json", "--folds", "41"], "41 folds of 40 prompts"),
        (["--calibrate", "c.json", "--fit", "platt"], "would prefer one of two equal answers"),
    ],
)
def test_what_cannot_end_well_is_refused_before_anything_is_asked(options: list[str], words: str, here: Path) -> None:
    assert words in judge(*options, "--out", "out", code=2).stderr
    assert not (here / "out" / "requests.jsonl").exists()
    assert not (here / "c.json").exists()


def test_an_offset_is_for_a_judge_of_one_order(here: Path) -> None:
    noisy(here, 200)
    one = ["--pairs", "noisy.jsonl", "--set", "orders=one", "--calibrate", "c.json", "--fit", "platt"]
    assert set(told(*one)["calibration"]["parameters"]) == {"a", "b"}


def test_a_file_that_cannot_be_written_after_all_loses_no_figures(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, calibration: object) -> None:
        raise StoreError("no space left", where=str(path))

    noisy(here, 80)
    monkeypatch.setattr("cai.evaluate.save_calibration", full)
    result = judge("--pairs", "noisy.jsonl", "--calibrate", "c.json", "--out", "out", "--json")
    assert json.loads(result.stdout)["calibration"]["n"] > 0
    assert "no calibration was written: " in result.stderr
    assert (here / "out" / "report.json").is_file()


def test_a_fit_that_fails_loses_no_figures(here: Path) -> None:
    result = judge("--calibrate", "c.json", "--json")
    assert json.loads(result.stdout)["accuracy"] == 1.0
    assert "no calibration was written: a judge without an error" in result.stderr
    assert not (here / "c.json").exists()


def test_two_judges_on_the_same_pairs() -> None:
    told("--out", "slots", rules=SLOT)
    found = told("--against", "slots")["against"]
    assert found["n"] == 40
    assert found["mean"] > 0.2
    assert found["ci"][0] > 0
    assert "give the --out folder" in judge("--against", "nowhere", code=2).stderr


def test_a_group_judge_is_given_the_two_as_a_group() -> None:
    found = told("--method", "listwise", "--limit", "6")
    assert found["n"] == 6
    assert found["votes"] > 0


def test_what_is_wrong_is_said(here: Path) -> None:
    (here / "broken.jsonl").write_text('{"prompt": "Hi", "chosen": "a", "rejected": "b"}\n{"prompt": "Ho"}\n')
    result = judge("--pairs", "broken.jsonl", "--json")
    assert "broken.jsonl:2: no field 'chosen'" in result.stderr
    assert json.loads(result.stdout)["broken_rows"] == 1
    (here / "empty.jsonl").write_text("")
    assert "holds no labelled pair" in judge("--pairs", "empty.jsonl", code=2).stderr
    assert "No such file" in judge("--pairs", "none.jsonl", code=2).stderr
    assert "did you mean 'logprob'" in judge("--method", "logprop", code=2).stderr
    assert "did you mean 'orders'" in judge("--set", "order=one", code=2).stderr
    assert "not of the form key=value" in judge("--set", "orders", code=2).stderr
    alone = CliRunner().invoke(app, ["eval", "judge", "--pairs", "pairs.jsonl"])
    assert alone.exit_code == 2
    assert "there is no model to ask" in alone.stderr


def test_rationales_that_gave_no_verdict_are_told() -> None:
    rules = """rules=[{match: "Bad 1", reply: ""}, {match: "Answer", reply: "Both are short."}]"""
    options = ["--method", "cot", "--set", "samples=2", "--set", "max_tokens=8", "--backend-set", "fail={empty: 0.5}"]
    found = told(*options, rules=rules)
    assert found["samples"] == 160
    assert 0 < sum(found["sample_failures"].values()) < 160
    assert "rationales not read" in judge(*options, rules=rules).stdout


def test_the_table_of_subsets_fits_80_columns_with_its_names(here: Path) -> None:
    names = ("adversarial-neighbour", "adversarial-manual")
    rows = [
        {"id": str(n), "prompt": f"Q {n}?", "chosen": f"Good {n}", "rejected": f"Bad {n}", "subset": names[n % 2]}
        for n in range(2000)
    ]
    (here / "named.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["eval", "judge", "--backend", "scripted", "--backend-set", READER, "--pairs", "named.jsonl"]
    shown = CliRunner().invoke(app, command, env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}).stdout
    table = shown.partition("subset")[2]
    assert all(f" {name} " in table for name in names)
    assert all(len(line) <= 80 for line in table.splitlines()[:6])
    assert "1000/1000" in table


def test_what_it_cost_is_told(here: Path) -> None:
    assert " requests; " in judge("--out", "out").stdout
    assert "none: all from the request log" in judge("--out", "out").stdout
    rows = [{"prompt": "word " * 300, "chosen": "Good", "rejected": "Bad"}]
    (here / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    none = judge("--pairs", "long.jsonl", "--backend-set", "context=100").stdout
    assert "none: nothing could be asked" in none
