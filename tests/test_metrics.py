"""Counts over the responses of a run."""

from __future__ import annotations

from typing import Any

from cai.metrics import ReviseMetrics
from cai.records import Response


def response(round: int, text: str = "one two", **fields: Any) -> Response:
    given: dict[str, Any] = {"prompt_id": "p", "model": "m", "sampling": {}, "finish_reason": "stop", "tokens": 5}
    return Response(id=f"r{round}", round=round, text=text, **(given | fields))


def test_nothing() -> None:
    assert ReviseMetrics().row() == {
        "prompts": 0,
        "tokens": 0,
        "rounds": {},
        "refusals_before_and_after": {"prompts": 0, "draft": 0, "last_clean_revision": 0},
        "critique_flags": {},
        "flags_of_retried": {},
        "principles": {},
    }


def test_rounds_refusals_flags_and_retries_are_counted() -> None:
    metrics = ReviseMetrics()
    attempt = {"step": "revision", "text": "", "flags": ["empty"], "finish_reason": "stop"}
    metrics.add(
        [
            response(0, flags=("refusal",)),
            response(1, "one two three four", principle_ids=("a",), attempts=(attempt,), critique_flags=("truncated",)),
            response(2, principle_ids=("a", "b"), flags=("unchanged", "refusal")),
        ]
    )
    metrics.add([response(0, "a b c d")])
    metrics.add([])  # quarantined before anything was asked
    assert metrics.row() == {
        "prompts": 3,
        "tokens": 20,
        "rounds": {
            "0": {"responses": 2, "clean": 2, "refusals": 1, "mean_words": 3.0, "flags": {"refusal": 1}},
            "1": {"responses": 1, "clean": 1, "refusals": 0, "mean_words": 4.0, "flags": {}},
            "2": {
                "responses": 1,
                "clean": 0,
                "refusals": 1,
                "mean_words": 2.0,
                "flags": {"refusal": 1, "unchanged": 1},
            },
        },
        # The faulty last revision is not what is trained on, so its refusal is not the answer after revising.
        "refusals_before_and_after": {"prompts": 1, "draft": 1, "last_clean_revision": 0},
        "critique_flags": {"truncated": 1},
        "flags_of_retried": {"empty": 1},
        "principles": {"a": 2, "b": 1},
    }


def test_a_prompt_without_a_clean_revision_is_in_no_comparison() -> None:
    metrics = ReviseMetrics()
    metrics.add([response(0, flags=("refusal",)), response(1, flags=("truncated",))])
    assert metrics.row()["refusals_before_and_after"] == {"prompts": 0, "draft": 0, "last_clean_revision": 0}


def test_the_order_of_prompts_does_not_matter() -> None:
    chains = [[response(0)], [response(0), response(1, flags=("empty",))], [response(0, flags=("refusal",))]]
    one, two = ReviseMetrics(), ReviseMetrics()
    for chain in chains:
        one.add(chain)
    for chain in reversed(chains):
        two.add(chain)
    assert one.row() == two.row()


def test_a_skipped_round_is_no_answer_but_its_flag_and_tokens_count() -> None:
    metrics = ReviseMetrics()
    metrics.add([response(0), response(1, flags=("no_critique",), critique_flags=("empty",), tokens=7)])
    told = metrics.row()
    assert told["rounds"]["1"] == {
        "responses": 0,
        "clean": 0,
        "refusals": 0,
        "mean_words": 0.0,
        "flags": {"no_critique": 1},
    }
    assert told["critique_flags"] == {"empty": 1}
    assert told["tokens"] >= 7
