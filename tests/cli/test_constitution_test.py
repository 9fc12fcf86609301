"""`cai constitution test`: whether a judge tells principles' own examples apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cai import evaluate
from cai.cli.main import app

QUESTION = "Which answer is plainer?"
FOLLOWS = f"""rules=[
  {{match: "<answer A [0-9a-f]+>\\nPlain.*{QUESTION[:-1]}", reply: A}},
  {{match: "<answer B [0-9a-f]+>\\nPlain.*{QUESTION[:-1]}", reply: B}},
  {{match: "<answer A [0-9a-f]+>\\nPlain.*Which is worse", reply: B}},
  {{match: "<answer B [0-9a-f]+>\\nPlain.*Which is worse", reply: A}},
  {{match: "Which is louder|what the user asked for", reply: A}}]"""
"""Follows one principle, does the opposite of another, and takes the first slot for all else."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "principles").mkdir()
    (tmp_path / "constitution").mkdir()
    pairs = "".join(
        f"  - {{prompt: 'Say {n}.', better: 'Plain {n}.', worse: 'Ornate {n}.', why: 'It is plain.'}}\n" for n in "12"
    )
    for name, question in (("plain", QUESTION), ("worse", "Which is worse?"), ("loud", "Which is louder?")):
        text = f"id: {name}\ntitle: T\njudge: {question}\nexamples:\n{pairs}"
        (tmp_path / "principles" / f"{name}.yaml").write_text(text)
    (tmp_path / "principles" / "bare.yaml").write_text("id: bare\ntitle: T\njudge: Which?\n")
    text = f"id: mute\ntitle: T\ncritique: Is it?\nrevision: Make it so.\nexamples:\n{pairs}"
    (tmp_path / "principles" / "mute.yaml").write_text(text)
    ids = ", ".join(f"{{id: {name}}}" for name in ("plain", "worse", "loud", "bare", "mute"))
    (tmp_path / "constitution" / "mine.yaml").write_text(f"name: mine\nprinciples: [{ids}]\n")
    return tmp_path


def attempt(*arguments: str, rules: str = FOLLOWS, code: int = 0) -> Result:
    command = ["constitution", "test", *arguments, "--backend", "scripted", "--backend-set", rules]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return result


def told(*arguments: str, rules: str = FOLLOWS) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(attempt(*arguments, "--json", rules=rules).stdout)
    return found


def test_each_principle_gets_its_word() -> None:
    found = told("mine")
    words = {row["id"]: row["verdict"] for row in found["principles"]}
    assert words == {
        "plain": "tells apart",
        "worse": "opposite",
        "loud": "does nothing",
        "bare": "no examples",
        "mute": "no question",
    }
    plain, worse, loud = found["principles"][:3]
    assert (plain["right"], plain["judged"], plain["flips"]) == (2, 2, 0)
    assert plain["p"] > 0.95
    # Without the principle this judge takes the first slot, which over both orders is no verdict.
    assert plain["p_without"] == pytest.approx(0.5, abs=0.02)
    assert plain["difference"] == pytest.approx(plain["p"] - plain["p_without"])
    assert worse["p"] < 0.05
    assert loud["flips"] == 2
    assert loud["p"] == pytest.approx(0.5, abs=0.02)
    assert [case["why"] for case in plain["cases"]] == ["It is plain."] * 2
    assert found["judge"]["method"] == "logprob"


def test_where_the_general_question_tells_as_much_a_principle_adds_nothing_and_is_no_fault() -> None:
    strong = """rules=[
      {match: "<answer A [0-9a-f]+>\\nPlain", reply: A}, {match: "<answer B [0-9a-f]+>\\nPlain", reply: B}]"""
    (row,) = told("plain", rules=strong)["principles"]
    assert row["p_without"] > 0.95
    assert (row["verdict"], row["right"]) == ("adds nothing", 2)
    said = attempt("plain", "--strict", rules=strong).stdout
    assert "1 add nothing to its general question" in said
    assert "stronger judge" not in said


def test_a_principle_that_cannot_be_rated_by_is_said_before_anything_is_asked() -> None:
    assert "principle plain: has no `asks`" in attempt("mine", "--method", "rating", code=2).stderr


def test_the_table_says_it_in_a_sentence() -> None:
    text = attempt("mine").stdout
    for words in ("tells apart", "opposite", "does nothing", "no examples", "2 of 2"):
        assert words in text
    assert "does not follow 2 of 3 principles" in text


def test_strict_fails_where_a_principle_fails() -> None:
    strict = attempt("mine", "--strict", code=1)
    assert "2 principles fail: worse, loud" in strict.stderr
    attempt("plain", "--strict")
    attempt("bare", "--strict")
    assert "1 principles fail: plain" in attempt("plain", "--strict", rules="fail={empty: 1}", code=1).stderr


def test_one_principle_by_name_or_file_and_all_without_a_name() -> None:
    for name in ("plain", "principles/plain.yaml"):
        found = told(name)
        assert [row["id"] for row in found["principles"]] == ["plain"]
    assert [row["id"] for row in told()["principles"]] == ["bare", "loud", "mute", "plain", "worse"]
    assert told("constitution/mine.yaml")["name"] == "mine"
    wrong = attempt("plian", code=2).stderr
    assert "no constitution 'plian', and no principle; did you mean 'plain'?" in wrong


def test_the_margin_decides_what_nothing_is() -> None:
    (row,) = told("plain", "--margin", "0")["principles"]
    reach = round(row["p"] - 0.5, 4)
    assert row["verdict"] == "tells apart"
    (within,) = told("plain", "--margin", str(reach - 0.001))["principles"]
    (beyond,) = told("plain", "--margin", str(reach + 0.001))["principles"]
    assert (within["verdict"], beyond["verdict"]) == ("tells apart", "does nothing")


def test_failures_are_told_and_are_no_verdict() -> None:
    (row,) = told("plain", rules="fail={empty: 1}")["principles"]
    assert (row["verdict"], row["p"], row["judged"]) == ("no verdict", None, 0)
    assert row["cases"][0]["failures"] == {"low_mass": 2}


def test_examples_that_are_the_same_are_refused(here: Path) -> None:
    text = "id: same\ntitle: T\njudge: Which?\nexamples: [{prompt: Hi, better: Yes, worse: 'Yes '}]\n"
    (here / "principles" / "same.yaml").write_text(text)
    for name in ("same", ""):  # of one principle, or of all
        assert "principles/same.yaml:4:" in (told := attempt(*filter(None, [name]), code=2).stderr)
        assert "the two answers of the example are the same" in told


def test_a_folder_keeps_the_answers_and_an_edited_principle_asks_only_its_own(here: Path) -> None:
    def fresh() -> int:
        return int(told("mine", "--out", "kept")["usage"]["fresh_requests"])

    assert fresh() > 0
    assert fresh() == 0
    path = here / "principles" / "loud.yaml"
    path.write_text(path.read_text().replace("Which is louder?", "Which is the louder one?"))
    assert fresh() == 2 * 2  # two examples, both orders


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "judged", stopped)
    assert "nothing is kept (--out FOLDER makes it resumable)" in attempt("mine", code=130).stderr
    assert "every answer is kept, and the same command goes on" in attempt("mine", "--out", "kept", code=130).stderr
