"""Readers of labelled pairs."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from cai.errors import InputError
from cai.evals.judge import Outcome, Scored, measure
from cai.evals.pairs import LabelledPair, plurality, read_pairs, subset_of
from cai.preferences import write_preferences
from cai.prompts.rows import BadRow
from cai.records import Message, Prompt
from cai.stages.export import split_of
from cai.stages.select import Choice
from tests.preferences.made import TURNS, made


def read(path: Path, *rows: Any) -> tuple[list[LabelledPair], list[BadRow]]:
    file = path / "pairs.jsonl.gz"
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    file.write_bytes(gzip.compress(text.encode()))
    found = list(read_pairs(file))
    return [each for each in found if isinstance(each, LabelledPair)], [e for e in found if isinstance(e, BadRow)]


def test_ours_and_rewardbench(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    turns.append({"role": "user", "content": "Name a colour."})
    pairs, bad = read(
        tmp_path,
        {"id": 7, "prompt": "Name a fruit.", "chosen": "Pear", "rejected": "Stone", "subset": "easy", "p_human": 0.75},
        {"prompt": turns, "chosen": "Red", "rejected": "", "chosen_model": "x"},
        {"prompt": "Human: Hi\n\nAssistant: Hello\n\nHuman: Name one.\n\nAssistant:", "chosen": "A", "rejected": "B"},
    )
    assert not bad
    assert (pairs[0].id, pairs[0].subset, pairs[0].p_human, pairs[0].gold) == ("7", "easy", 0.75, "chosen")
    for pair in pairs[1:]:
        assert [turn.role for turn in pair.prompt.messages] == ["user", "assistant", "user"]
    assert pairs[1].rejected == ""
    assert pairs[1].id
    assert pairs[0].prompt.source == "pairs.jsonl.gz:1"


def test_llmbar_label_names_the_better(tmp_path: Path) -> None:
    row = {"input": "Say hi.", "output_1": "Hi", "output_2": "No", "subset": "Natural"}
    pairs, bad = read(tmp_path, {**row, "label": 1}, {**row, "label": 2}, {**row, "label": 0})
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("Hi", "No"), ("No", "Hi")]
    assert [each.reason for each in bad] == ["label must be 1 or 2"]
    assert bad[0].where.endswith(":3")


@pytest.mark.parametrize(
    ("said", "chosen", "labels", "share", "gold"),
    [
        ((1, 1, 2), "one", ("chosen", "chosen", "rejected"), 2 / 3, "chosen"),
        ((2, 0, 2), "two", ("chosen", "tie", "chosen"), 5 / 6, "chosen"),
        ((0, 0, 2), "two", ("tie", "tie", "chosen"), 4 / 6, "tie"),
        ((0, 1, 2), "one", ("tie", "chosen", "rejected"), 0.5, None),
        ((0, 0, 0), "one", ("tie", "tie", "tie"), 0.5, "tie"),
    ],
)
def test_pandalm_keeps_each_persons_verdict(
    tmp_path: Path, said: tuple[int, ...], chosen: str, labels: tuple[str, ...], share: float, gold: str | None
) -> None:
    row = {"idx": 3, "instruction": "Do.", "input": "This.", "response1": "one", "response2": "two"}
    (pair,), bad = read(tmp_path, row | {f"annotator{n}": verdict for n, verdict in enumerate(said, 1)})
    assert not bad
    assert pair.prompt.messages == (Message("user", "Do.\n\nThis."),)
    assert (pair.id, pair.chosen, pair.labels, pair.gold) == ("3", chosen, labels, gold)
    assert pair.p_human == pytest.approx(share)


def test_hh_transcripts_part_at_the_last_answer(tmp_path: Path) -> None:
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: A pear?\n\nAssistant: "
    pairs, bad = read(
        tmp_path,
        {"chosen": start + "Yes.", "rejected": start + "No."},
        {"chosen": start + "Same.", "rejected": start + "Same."},
        {"chosen": start + "Yes.", "rejected": "\n\nHuman: Other\n\nAssistant: No."},
    )
    assert (pairs[0].chosen, pairs[0].rejected, len(pairs[0].prompt.messages)) == ("Yes.", "No.", 3)
    assert [each.reason for each in bad] == [
        "chosen and rejected are the same",
        "chosen and rejected do not part at one last answer",
    ]


def test_broken_rows_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    good = {"id": "a", "prompt": "Hi", "chosen": "x", "rejected": "y"}
    pairs, bad = read(
        tmp_path, good, "{torn", good | {"chosen": 3}, good | {"rejected": " x"}, {"prompt": "Hi"}, [1], "", good
    )
    assert [pair.id for pair in pairs] == ["a", "a@8"]
    assert [each.where.rpartition(":")[2] for each in bad] == ["2", "3", "4", "5", "6"]
    assert [each.reason for each in bad][1:] == [
        "chosen must be a text",
        "the two answers are the same",
        "no field 'chosen'",
        "a row must be an object",
    ]


def test_unknown_columns_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no labelled pairs in the columns question"):
        read(tmp_path, {"question": "Hi"}, {"question": "Ho"})
    with pytest.raises(InputError, match="No such file"):
        list(read_pairs(tmp_path / "none.jsonl"))


def test_nothing_in_a_group_tells_which_was_chosen() -> None:
    """Over many pairs the better one is first, and is `a`, about as often as not; labels play no part in it."""
    prompts = [Prompt.make(f"Question {n}?") for n in range(400)]
    pairs = [LabelledPair(str(n), prompt, f"good {n}", f"bad {n}") for n, prompt in enumerate(prompts)]
    first = sum(pair.group().candidates[0].text == pair.chosen for pair in pairs)
    is_a = sum(pair.group().comparisons()[0].a.text == pair.chosen for pair in pairs)
    assert 150 < first < 250
    assert 150 < is_a < 250
    for pair in pairs[:50]:
        other = LabelledPair(pair.id, pair.prompt, pair.rejected, pair.chosen)
        assert other.group() == pair.group()
        assert other.group().comparisons() == pair.group().comparisons()


def test_a_limit_draws_by_hash_and_a_larger_one_only_adds() -> None:
    pairs = [LabelledPair(str(n), Prompt.make(f"Q{n}"), "a", "b") for n in range(200)]
    ten, thirty = subset_of(pairs, 10, seed=1), subset_of(pairs, 30, seed=1)
    assert len(ten) == 10
    assert {pair.id for pair in ten} < {pair.id for pair in thirty}
    assert ten != pairs[:10]
    assert [int(pair.id) for pair in thirty] == sorted(int(pair.id) for pair in thirty)
    assert subset_of(pairs, 10, seed=2) != ten
    assert subset_of(pairs, None, seed=1) == subset_of(pairs, 500, seed=1) == pairs


def test_plurality() -> None:
    assert plurality(("tie",)) == "tie"
    assert plurality(("chosen", "rejected")) is None
    assert plurality(()) is None


def test_prompts_that_open_alike_are_one_case_as_in_the_splits_of_a_run() -> None:
    texts = ["How do I bake bread?", "how do I  bake bread", "How do I bake a cake?"]
    found = [LabelledPair(str(at), Prompt.make(text), "yes", "no") for at, text in enumerate(texts)]
    assert len({pair.prompt.id for pair in found}) == 3
    assert found[0].cluster == found[1].cluster != found[2].cluster
    for seed in range(20):
        assert len({split_of(pair.prompt, 0.5, seed) for pair in found[:2]}) == 1
    outcomes = [Outcome(pair, pair.group(), (), p=0.9) for pair in found]
    assert Scored.of(outcomes).prompts == tuple(pair.cluster for pair in found)
    assert measure(outcomes, seed=0)["prompts"] == 2


@pytest.mark.parametrize("name", ["ultrafeedback", "trl"])
def test_our_own_exports_keep_the_turns_between(tmp_path: Path, name: str) -> None:
    preference = dataclasses.replace(made(Prompt.make(TURNS)), source="human")
    write_preferences(tmp_path, [Choice(preference, "train")], name)
    (pair,) = read_pairs(tmp_path / "train.jsonl")
    assert isinstance(pair, LabelledPair)
    assert pair.prompt.messages == TURNS
    assert (pair.chosen, pair.rejected) == (preference.chosen, preference.rejected)


def test_whole_conversations_beside_a_prompt_are_read_from_what_they_share(tmp_path: Path) -> None:
    start = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Now?"},
    ]
    yes, no = ([{"role": "assistant", "content": text}] for text in ("Yes.", "No."))
    pairs, bad = read(
        tmp_path,
        {"prompt": "Hi ", "chosen": start + yes, "rejected": start + no},
        {"prompt": start, "chosen": start + yes, "rejected": start + no},
        {"prompt": start, "chosen": yes, "rejected": no},  # answers alone, as TRL has them
        {"prompt": "Ho", "chosen": start + yes, "rejected": start + no},
        {"prompt": "Hi", "chosen": start + yes, "rejected": start[:1] + no},
    )
    assert [tuple(turn.content for turn in pair.prompt.messages) for pair in pairs] == [("Hi", "Hello", "Now?")] * 3
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("Yes.", "No.")] * 3
    assert [each.reason for each in bad] == [
        "chosen and rejected do not begin with the prompt",
        "chosen and rejected do not part at one last answer",
    ]


def test_labels_that_a_table_wrote_as_fractions_are_whole(tmp_path: Path) -> None:
    row = {"input": "Say hi.", "output_1": "Hi", "output_2": "No"}
    pairs, bad = read(tmp_path, row | {"label": 1.0}, row | {"label": 2.0}, row | {"label": 1.5}, row | {"label": True})
    assert [pair.chosen for pair in pairs] == ["Hi", "No"]
    assert [each.reason for each in bad] == ["label must be 1 or 2"] * 2
    people = {"instruction": "Do.", "response1": "one", "response2": "two"}
    (pair,), bad = read(
        tmp_path,
        people | {"annotator1": 2.0, "annotator2": 2, "annotator3": 0.0},
        people | {"annotator1": 1, "annotator2": 0.5, "annotator3": 0},
    )
    assert (pair.chosen, pair.labels) == ("two", ("chosen", "chosen", "tie"))
    assert len(bad) == 1


def test_ties_are_ties_and_what_a_model_said_is_left_out(tmp_path: Path) -> None:
    ours = {"prompt": "Hi", "chosen": "A", "rejected": "B", "comparison_id": "c", "source": "human"}
    scored = {"prompt": "Hi", "chosen": "C", "rejected": "D", "score_chosen": 6.0, "score_rejected": 6.0}
    pairs, bad = read(
        tmp_path,
        {**ours, "p": 0.5, "status": "tie"},
        {**ours, "p": 0.9, "status": "ok"},
        {**ours, "source": "ai"},
        scored,
        {**scored, "score_chosen": 7.0},
    )
    assert [pair.gold for pair in pairs] == ["tie", "chosen", "tie", "chosen"]
    assert [each.reason for each in bad] == ["labelled by a model (`source` is ai), not by people"]


def test_parquet_is_read_and_an_array_is_refused_whole(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"prompt": f"Q{number}", "chosen": "A", "rejected": "B"} for number in range(3)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    found = [each for each in read_pairs(tmp_path / "rows.parquet") if isinstance(each, LabelledPair)]
    assert [pair.prompt.source for pair in found] == ["rows.parquet:1", "rows.parquet:2", "rows.parquet:3"]
    array = tmp_path / "rows.json"
    array.write_text("[" + ",\n".join(map(json.dumps, rows)) + "]")
    with pytest.raises(InputError, match="one JSON array"):
        list(read_pairs(array))
    array.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]")
    with pytest.raises(InputError, match="one JSON array"):
        list(read_pairs(array))
