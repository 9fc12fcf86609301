"""Judging in a run, on the scripted backend: what is refused, by the recipe or a backend, and what fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cai.backends import scripted
from cai.engine import Completion, Request
from cai.errors import CaiError, InputError, PromptRefused
from cai.judging.prompt import PROMPTS
from tests.cli.judged import cai, rows
from tests.cli.project import only_greets


def test_what_is_refused_of_several_answers_leaves_the_others(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = scripted.Backend.generate

    async def generate(self: scripted.Backend, request: Request) -> Completion:
        if not request.choices and request.seed % 2:
            raise PromptRefused("a filter does not like it", where="server")
        return await answer(self, request)

    only = ("run", "recipe.yaml", "--set", "revise.rounds=0", "--set", "sample={sources: [{count: 4}]}")
    with monkeypatch.context() as patch:
        patch.setattr(scripted.Backend, "generate", generate)
        told = " ".join(cai(*only).stderr.split())
    samples = rows(recipe / "runs/judged/samples.jsonl")
    refused = [row for row in samples if row["flags"] == ["refused"]]
    assert 0 < len(refused) < len(samples)
    assert all(row["text"] == "" for row in refused)
    assert "lack what the backend refused" in told
    cai(*only, "--retry-failed")
    samples = rows(recipe / "runs/judged/samples.jsonl")
    assert len(samples) == 4 * 24
    assert not any("refused" in row["flags"] for row in samples)


def test_votes_on_answers_that_are_no_more_are_not_kept_where_the_backend_fails(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cai("run", "recipe.yaml")
    run = recipe / "runs" / "judged"
    sampled = next(row for row in rows(run / "sampled.jsonl") if len(row["responses"]) > 1)
    with (run / "sampled.jsonl").open("a") as file:  # as a retry would leave it
        changed = [{**sampled["responses"][0], "id": "other", "text": "Other words."}, *sampled["responses"][1:]]
        file.write(json.dumps({**sampled, "responses": changed}) + "\n")
    only_greets(monkeypatch)
    cai("run", "recipe.yaml")
    (given_up,) = [row for row in rows(run / "quarantine.jsonl") if row["stage"] == "judge"]
    assert (given_up["id"], given_up["reason"]) == (sampled["id"], "backend")
    groups = {row["id"] for row in rows(run / "groups.jsonl")}
    assert all(row["group_id"] in groups for row in rows(run / "votes.jsonl"))


def test_a_prompt_that_sets_every_question_aside_is_in_quarantine(recipe: Path) -> None:
    (recipe / "constitution").mkdir()
    (recipe / "constitution" / "own.yaml").write_text(
        "name: own\nprinciples: [{id: plain-words, level: default}, {id: numbered-list}]\n"
    )
    rows_ = [
        {"messages": [{"role": "user", "content": f"Matter {n}?"}], "overrides": ["plain-words"] * (n == 0)}
        for n in range(3)
    ]
    (recipe / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_))
    settings = ["--set", "constitution=constitution/own.yaml", "--set", "judge.axes=[helpful]"]
    metrics = json.loads(cai("run", "recipe.yaml", *settings, "--json").stdout)
    assert metrics["sample"]["quarantined"] == {"no_question": 1}


def test_an_axis_without_principles_of_its_own_is_refused(recipe: Path) -> None:
    told = cai("run", "recipe.yaml", "--set", "judge.principles=none", "--set", "judge.axes=[honest]", ok=False).stderr
    assert "same question" in told


def test_a_prompt_file_with_four_choices_is_no_pair_judge(recipe: Path) -> None:
    (recipe / "four.yaml").write_text((PROMPTS / "pair.yaml").read_text().replace("[A, B]", "[A, B, C, D]"))
    told = cai("run", "recipe.yaml", "--set", "judge.options={prompt: four.yaml}", ok=False).stderr
    assert "4 choices" in told


def test_a_list_with_too_few_letters_is_refused_before_anything_is_asked(recipe: Path) -> None:
    letters = "[A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P]"
    (recipe / "four.yaml").write_text((PROMPTS / "list.yaml").read_text().replace(letters, "[A, B, C, D]"))
    for judge in ("{method: listwise, options: {prompt: four.yaml}}", PANEL):
        told = cai("run", "recipe.yaml", "--set", f"judge={judge}", ok=False).stderr
        assert "judge: up to 5 answers to a prompt are compared, and the judge has a letter for 4" in told
    assert not (recipe / "runs").exists()


PANEL = "{method: panel, options: {members: [{method: logprob}, {method: listwise, prompt: four.yaml}]}}"


def judging_fails(patch: pytest.MonkeyPatch, error: CaiError, on: Callable[[str], bool] = lambda said: True) -> None:
    """Let the scripted backend raise `error` where a verdict is asked on a prompt of that text."""
    answer = scripted.Backend.generate

    async def generate(self: scripted.Backend, request: Request) -> Completion:
        if request.choices and on("\n".join(turn.content for turn in request.prompt if not isinstance(turn, str))):
            raise error
        return await answer(self, request)

    patch.setattr(scripted.Backend, "generate", generate)


def test_what_fails_on_every_row_alike_ends_the_run_and_keeps_nothing(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        judging_fails(patch, InputError("the choice 'A' is more than one token", where="small@1"))
        told = cai("run", "recipe.yaml", ok=False).stderr
    assert "small@1: the same with every row: the choice 'A' is more than one token" in told
    assert all(row["quarantined"]["reason"] == "one_answer" for row in rows(recipe / "runs/judged/judged.jsonl"))
    metrics = json.loads(cai("run", "recipe.yaml", "--json").stdout)
    assert metrics["preferences"]["by_status"]["ok"] > 20
    assert "invalid" not in metrics["judge"]["quarantined"]


def test_what_is_refused_is_counted_and_told_with_the_first_reason(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = PromptRefused("a filter does not like it", where="server")
    judging_fails(monkeypatch, refused, lambda said: "matter 1" in said)
    told = cai("run", "recipe.yaml")
    failed = [row for row in rows(recipe / "runs/judged/votes.jsonl") if row["error"] == "refused"]
    assert len(failed) > 20
    said = "votes without a verdict (refused); the first: server: a filter does not like it"
    assert f"judge: {len(failed)} {said}" in " ".join(told.stderr.split())


def test_rows_that_were_given_up_are_told_with_the_first_reason(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judging_fails(monkeypatch, InputError("no such token", where="small@1"), lambda said: "matter 1" in said)
    told = " ".join(cai("run", "recipe.yaml").stderr.split())
    assert "rows were given up (invalid); the first: small@1: no such token" in told
    given_up = [
        sum(row["quarantined"] is not None for row in rows(recipe / f"runs/judged/{journal}.jsonl"))
        for journal in ("journal", "sampled", "judged")
    ]
    assert given_up[2] > 5
    monkeypatch.setenv("COLUMNS", "120")
    assert " + ".join(map(str, given_up)) in cai("status").stdout
