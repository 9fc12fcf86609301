from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from rich.console import Console

from cai.errors import InputError
from cai.records import Message, Prompt, Quarantined, Response
from cai.stages.export import SftOptions, sft_rows
from cai.stages.why import Explanation, explain, render, visible

OPTIONS = SftOptions(
    seed=1, test_fraction=0.0, unrevised_tags=frozenset({"helpful"}), drop_flags=frozenset({"truncated"})
)
TURNS = (Message("user", "How?"), Message("assistant", "What?"), Message("user", "[bold]Well[/bold]?"))
RED = Prompt("aaaaaa11", TURNS, tags=("red-team",), source="red.jsonl:7", overrides=("brevity",))
HELPFUL = Prompt("aaaaaa22", (Message("user", "Bread?"),), tags=("helpful",))
LOST = Prompt("bbbbbb33", (Message("user", "Too long."),))


def response(id: str, prompt: Prompt, round: int, text: str, **fields: Any) -> Response:
    given: dict[str, Any] = {"model": "m1", "sampling": {"temperature": 0.7}, "finish_reason": "stop", "tokens": 12}
    return Response(id=id, prompt_id=prompt.id, round=round, text=text, **(given | fields))


CHAIN = [
    response("c00000", RED, 0, "[red]Draft[/red]"),
    response(
        "c11111",
        RED,
        1,
        "First revision",
        parent_id="c00000",
        principle_ids=("kind", "honest"),
        critique="It is [link=x]rude[/link].",
        critique_model="m2",
        critique_flags=("repetition",),
        attempts=({"step": "revision", "text": "Cut o", "flags": ["truncated"], "finish_reason": "length"},),
    ),
    response("c22222", RED, 2, "Secon", parent_id="c11111", principle_ids=("kind",), flags=("truncated",)),
]
RESPONSES = {RED.id: CHAIN, HELPFUL.id: [response("d00000", HELPFUL, 0, "Flour.")]}
GIVEN_UP = [
    Quarantined(LOST.id, "revise", "too_long", "The prompt has 9,000 tokens.", LOST.row()),
    Quarantined("import:4", "import", "not_a_prompt", "No user turn.", {"x": "y"}),
]


def told(id: str, *, prompts: Sequence[Prompt] = (RED, HELPFUL, LOST), **changes: Any) -> Explanation:
    return explain(id, iter(prompts), RESPONSES, iter(GIVEN_UP), options=OPTIONS, **changes)


def shown(explanation: Explanation) -> str:
    out = io.StringIO()
    Console(file=out, width=100, color_system=None, force_terminal=False).print(render(explanation))
    return out.getvalue()


def test_a_training_row_is_explained_with_its_whole_conversation() -> None:
    row = told("c11111").row()
    assert json.loads(json.dumps(row)) == row
    assert (row["id"], row["kind"], row["split"]) == ("c11111", "response", "train")
    assert row["verdict"] == "in the SFT data: revision, train split"
    assert row["prompt"]["messages"] == [turn.row() for turn in TURNS]
    assert [step["id"] for step in row["steps"]] == ["c00000", "c11111", "c22222"]
    assert [step["asked"] for step in row["steps"]] == [False, True, False]
    assert [step["sft"]["reason"] for step in row["steps"]] == ["draft_of_revised", "", "flagged"]
    step = row["steps"][1]
    assert step["attempts"] == [dict(CHAIN[1].attempts[0])]
    assert (step["critique"], step["tokens"], step["sampling"]) == (CHAIN[1].critique, 12, {"temperature": 0.7})


def test_why_agrees_with_the_rows_that_are_exported() -> None:
    exported = {row["id"]: row for row in sft_rows([RED, HELPFUL, LOST], RESPONSES, OPTIONS)}
    for chain in RESPONSES.values():
        for step in chain:
            asked = next(s for s in told(step.id).row()["steps"] if s["asked"])
            row = exported.get(step.id)
            assert asked["sft"]["kind"] == (row["kind"] if row else None)
            assert bool(asked["sft"]["reason"]) == (row is None)
            assert told(step.id).verdict.startswith("in the SFT data" if row else "not in the SFT data")


def test_a_flag_that_keeps_a_response_out_is_named() -> None:
    assert told("c22222").verdict.endswith("it carries a flag that keeps it out (truncated)")


def test_a_prompt_is_explained_by_all_its_responses() -> None:
    explained = told("aaaaaa11")
    assert explained.verdict == "1 of 3 responses in the SFT data, train split"
    assert not any(step["asked"] for step in explained.row()["steps"])
    assert told("aaaaaa2").verdict == "1 of 1 responses in the SFT data, train split"


def test_a_prompt_that_was_given_up_says_why() -> None:
    explained = told("bbbbbb")
    assert (explained.id, explained.kind) == ("bbbbbb33", "prompt")
    assert explained.verdict == "no response, so nothing in the SFT data; given up: too_long"
    assert "9,000 tokens" in shown(explained)


def test_a_row_that_never_became_a_prompt_is_explained_by_its_own_id() -> None:
    explained = told("import:4")
    assert (explained.kind, explained.prompt, explained.split) == ("quarantined", None, None)
    assert explained.row()["quarantined"][0]["input"] == {"x": "y"}
    assert '{"x": "y"}' in shown(explained)


def test_a_quarantined_row_is_found_by_the_prompt_that_its_input_names() -> None:
    rows = [Quarantined("q00001", "judge", "backend", "It broke.", {"prompt_id": RED.id})]
    for asked in ("q00001", RED.id, "c11111"):
        found = explain(asked, [RED, HELPFUL], RESPONSES, rows, options=OPTIONS)
        assert [row.id for row in found.quarantined] == ["q00001"]
    assert explain(HELPFUL.id, [RED, HELPFUL], RESPONSES, rows, options=OPTIONS).quarantined == ()


def test_a_response_whose_prompt_is_gone_says_so() -> None:
    explained = told("c11111", prompts=[HELPFUL])
    assert explained.prompt is None
    assert explained.verdict == "not in the SFT data: its prompt is no longer among the prompts"
    assert "First revision" in shown(explained)


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("aaaaaa", r"several ids start so .*prompt aaaaaa11, prompt aaaaaa22"),
        ("aaaaaa99", "no prompt, response, quarantined row or preference"),
        ("c1111", "too short"),
        ("", "too short"),
        ("  ", "too short"),
    ],
)
def test_what_names_nothing_or_several_things_is_refused_with_how_to_mend_it(id: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        told(id)
    assert caught.value.mend


def test_a_full_id_may_be_short_and_may_begin_another() -> None:
    short = Prompt("ab", (Message("user", "x"),))
    longer = Prompt("aaaaaa1122", (Message("user", "y"),))
    assert explain("ab", [short], {}, [], options=OPTIONS).prompt == short
    assert told("aaaaaa11", prompts=[longer, RED]).prompt == RED
    given_up = [Quarantined(longer.id, "revise", "backend", "It broke.")]
    assert explain(RED.id, [longer, RED], RESPONSES, given_up, options=OPTIONS).quarantined == ()


def test_everything_is_shown_and_markup_of_models_is_not_interpreted() -> None:
    text = shown(told("c11111", titles={"kind": "Be kind"}))
    for expected in (
        "How?",
        "[bold]Well[/bold]?",
        "[red]Draft[/red]",
        "It is [link=x]rude[/link].",
        "First revision",
        "kind (Be kind), honest",
        "Cut o",
        "attempt 1, revision thrown away (truncated)",
        "tokens: 12",
        "model: m1",
        "critique by: m2",
        "critique's flags: repetition",
        '"temperature": 0.7',
        "source: red.jsonl:7",
        "tags: red-team",
        "overrides: brevity",
        "parent: c00000",
        "in the SFT data: revision, train split",
    ):
        assert expected in text


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_any_text_can_be_shown_and_moves_no_cursor(text: str) -> None:
    prompt = Prompt("eeeeee", (Message("user", text),), tags=(text,), source=text)
    attempt = {"step": text, "text": text, "flags": [text]}
    one = response(
        "ffffff", prompt, 1, text, critique=text, principle_ids=(text,), attempts=(attempt,), flags=(text,), model=text
    )
    rows = [Quarantined("eeeeee", text, text, text, {"id": text})]
    drawn = shown(explain("ffffff", [prompt], {"eeeeee": [one]}, rows, options=OPTIONS, titles={text: text}))
    drawn.encode()
    assert not {c for c in drawn if ord(c) < 32 or 127 <= ord(c) < 160} - {"\n"}


def test_control_codes_are_spelled_out() -> None:
    assert visible("a\x1b[2J\r\nb\tc\r\u202e\ud800") == "a<U+001B>[2J\nb\tc<U+000D><U+202E>\ufffd"
