"""`cai constitution try`: one prompt through the loop, for people and for scripts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from cai import preview
from cai.backends import scripted
from cai.cli.main import app
from cai.cli.trying import render
from cai.constitution.load import load_constitution
from cai.engine import Completion, Request

PROMPT = "How do I clean a kettle?"
SCRIPTED = ("--backend", "scripted")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def attempt(*arguments: str, code: int = 0, columns: int = 120) -> Result:
    result = CliRunner().invoke(
        app, ["constitution", "try", *arguments], env={"COLUMNS": str(columns), "TERM": "dumb", "NO_COLOR": "1"}
    )
    assert result.exit_code == code, result.output
    return result


def told(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(attempt(*arguments, *SCRIPTED, "--json").stdout)
    return found


def test_side_by_side_when_wide_and_stacked_when_narrow(here: Path) -> None:
    wide = attempt("default", "-p", PROMPT, *SCRIPTED).stdout
    assert any(all(name in line for name in ("draft", "critique", "revision 1")) for line in wide.splitlines())
    narrow = attempt("default", "-p", PROMPT, *SCRIPTED, columns=70).stdout
    assert not any("draft" in line and "critique" in line for line in narrow.splitlines())
    for text in (wide, narrow):
        assert PROMPT in text
        assert "critique request:" in text
        assert "3 requests to scripted@" in text
    assert list(here.iterdir()) == []


def test_the_principle_the_requests_and_the_tokens_are_told() -> None:
    found = told("default", "-p", PROMPT, "--rounds", "2", "--max-tokens", "40", "--temperature", "0.5")
    assert [r["round"] for r in found["responses"]] == [0, 1, 2]
    assert [request["step"] for request in found["requests"]] == ["draft", *["critique", "revision"] * 2]
    for response in found["responses"][1:]:
        (name,) = response["principle_ids"]
        asked = found["requests"][2 * response["round"] - 1]["messages"][-1]["content"]
        assert asked.strip() == found["principles"][name]["critique"].strip()
    sampling = found["requests"][0]["sampling"]
    assert (sampling["max_tokens"], sampling["temperature"]) == (40, 0.5)
    assert found["tokens"]["completion"] == sum(r["completion"]["completion_tokens"] for r in found["requests"])
    assert found["quarantined"] is None


def test_it_is_what_a_run_would_do_and_the_seed_moves_it() -> None:
    assert told("default", "-p", PROMPT) == told("default", "-p", PROMPT)
    texts = {told("default", "-p", PROMPT, "--seed", str(seed))["responses"][0]["text"] for seed in range(3)}
    assert len(texts) == 3


def test_one_principle_of_a_constitution_keeps_its_examples() -> None:
    for seed in range(5):
        found = told("default", "-p", PROMPT, "--principle", "no-lectures", "--seed", str(seed))
        assert found["responses"][1]["principle_ids"] == ["no-lectures"]
    assert len(found["requests"][1]["messages"]) > 3
    off = attempt("default", "-p", PROMPT, "--principle", "no-lectres", *SCRIPTED, code=2)
    assert "did you mean 'no-lectures'?" in off.stderr


def test_a_principle_on_its_own_by_name_or_file(here: Path) -> None:
    for name in ("no-lectures", "mine.yaml", "principles/own.yaml", "own"):
        for path in ("mine.yaml", "principles/own.yaml"):
            (here / path).parent.mkdir(exist_ok=True)
            text = f"id: {Path(path).stem}\ntitle: Mine\ncritique: Is it mine?\nrevision: Make it mine.\n"
            (here / path).write_text(text)
        found = told(name, "-p", PROMPT)
        assert found["responses"][1]["principle_ids"] == [Path(name).stem]
        assert len(found["requests"][1]["messages"]) == 3


def test_base_style_asks_plain_text() -> None:
    found = told("style", "-p", PROMPT, "--style", "base")
    assert found["requests"][0]["prompt"] == f"Human: {PROMPT}\n\nAssistant:"
    assert "CritiqueRequest: " in found["requests"][1]["prompt"]
    text = attempt("no-lectures", "-p", PROMPT, "--style", "base", *SCRIPTED).stdout
    assert "critique request: Quote every sentence" in text


def test_options_of_the_backend_are_those_of_the_sister_command() -> None:
    rules = "rules=[{match: '^Rewrite|^Revise|^Please', reply: 'Use vinegar.'}]"
    for command in ("try", "test"):
        done = CliRunner().invoke(app, ["constitution", command, "--help"], env={"COLUMNS": "200"}).stdout
        assert all(option in done for option in ("--model", "--url", "--backend ", "--backend-set"))
    found = told("style", "-p", PROMPT, "--backend-set", rules, "--backend-set", "name=mine")
    assert found["responses"][1]["text"] == "Use vinegar."
    assert found["responses"][0]["model"].startswith("mine")


def test_full_shows_every_request_whole() -> None:
    short = attempt("style", "-p", PROMPT, *SCRIPTED).stdout
    full = attempt("style", "-p", PROMPT, *SCRIPTED, "--full").stdout
    assert "cactus" not in short
    assert "cactus" in full
    assert "request 3: revision" in full


def test_what_is_missing_or_wrong_is_said(here: Path) -> None:
    assert "there is no model to ask" in attempt("style", "-p", PROMPT, code=2).stderr
    assert "none: no model here" in attempt("style", "-p", PROMPT, "--model", "none", code=2).stderr
    both = attempt("style", "-p", PROMPT, *SCRIPTED, "--url", "http://x", code=2)
    assert "--url is for the backend openai, not scripted" in both.stderr
    assert (
        "the scripted backend has no model" in attempt("style", "-p", PROMPT, *SCRIPTED, "--model", "x", code=2).stderr
    )
    assert "--url URL with --model NAME" in attempt("style", "-p", PROMPT, "--url", "http://x", code=2).stderr
    option = attempt("style", "-p", PROMPT, *SCRIPTED, "--backend-set", "contxt=9", code=2).stderr
    assert "--backend-set:1:1: unknown key 'contxt'; did you mean 'context'?" in option
    assert "--prompt: is blank" in attempt("style", "-p", " ", *SCRIPTED, code=2).stderr
    unknown = attempt("no-lecturs", "-p", PROMPT, *SCRIPTED, code=2).stderr
    assert "no constitution 'no-lecturs', and no principle; did you mean 'no-lectures'?" in unknown
    (here / "judge.yaml").write_text("id: judge\ntitle: Judge\njudge: Which?\n")
    assert "for judging only" in attempt("judge.yaml", "-p", PROMPT, *SCRIPTED, code=2).stderr
    (here / "bad.yaml").write_text("id: bad\ntitel: Bad\n")
    lines = attempt("bad.yaml", "-p", PROMPT, *SCRIPTED, code=2).stderr.splitlines()
    assert any("bad.yaml:2:1: unknown key 'titel'; did you mean 'title'?" in line for line in lines)
    assert "leave it out" in attempt("no-lectures", "-p", PROMPT, "--principle", "x", *SCRIPTED, code=2).stderr


def test_texts_of_models_are_shown_literally(capsys: pytest.CaptureFixture[str]) -> None:
    rules = [
        {"match": "^Point out|^Quote", "reply": "It says [red]hidden[/red] \x1b[2J and :smile: things."},
        {"match": "^Rewrite", "reply": "Use [bold]vinegar[/bold] and [/] water \u202e in the kettle."},
    ]
    backend = scripted.build(scripted.Config.model_validate({"rules": rules}), seed=0)
    found = preview.preview(load_constitution("style"), "A [link=x]prompt[/link]\x07?", backend, preview.Options())
    for width in (70, 140):
        Console(width=width, force_terminal=False).print(render(found, width=width, full=True))
        text = capsys.readouterr().out
        for literal in ("[red]hidden[/red]", ":smile:", "[bold]vinegar[/bold]", "[/]", "[link=x]prompt[/link]"):
            assert literal in text
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
        assert "<U+001B>" in text


def test_faults_are_shown_with_what_was_thrown_away(capsys: pytest.CaptureFixture[str]) -> None:
    backend = scripted.build(scripted.Config.model_validate({"rules": [{"match": "^Rewrite", "reply": ""}]}), seed=0)
    found = preview.preview(load_constitution("style"), PROMPT, backend, preview.Options())
    Console(width=120).print(render(found, width=120))
    text = capsys.readouterr().out
    assert "flags: empty" in text
    assert "thrown away in round 1, revision (empty):" in text
    assert "A run would quarantine this prompt: no round gave a clean revision" in text


def test_each_round_has_its_own_requests_behind_skipped_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """One principle, so that each round behind a skipped one asks word for word what that one asked."""

    class Backend(scripted.Backend):
        async def generate(self, request: Request) -> Completion:
            completion = await super().generate(request)
            asked.append((request.model, request.seed))
            silent = request.model == "critic" and len(asked) < 6  # 2 tries in each of 2 rounds
            return dataclasses.replace(completion, text="") if silent else completion

    asked: list[tuple[str, int]] = []
    found = preview.preview(preview.find("no-lectures"), PROMPT, Backend(scripted.Config()), preview.Options(rounds=3))
    assert [response.flags for response in found.chain.responses[1:3]] == [("no_critique",)] * 2
    assert [role for role, _ in asked] == ["policy", *["critic"] * 5, "reviser"]
    steps = [(0, "draft"), (1, "critique"), (1, "revision"), (2, "critique"), (2, "revision"), (3, "critique")]
    told = [[exchange.request.seed for exchange in found.requests(*step)] for step in [*steps, (3, "revision")]]
    seeds = [seed for _, seed in asked]
    assert told == [seeds[:1], seeds[1:3], [], seeds[3:5], [], seeds[5:6], seeds[6:]]
    assert found.requests(4, "critique") == []
    Console(width=120).print(render(found, width=120))
    assert capsys.readouterr().out.count("critique request:") == 3


def test_a_round_that_does_not_fit_has_no_requests() -> None:
    backend = scripted.build(scripted.Config(context=280), seed=0)  # the draft fits, the critique behind it does not
    long = " ".join([PROMPT] * 3)
    found = preview.preview(preview.find("no-lectures"), long, backend, preview.Options(rounds=2))
    assert [response.flags for response in found.chain.responses] == [(), ("too_long",)]
    places = [(0, "draft"), (1, "critique"), (1, "revision")]
    assert [len(found.requests(*place)) for place in places] == [1, 0, 0]
