"""Preferences and conversations as training reads them."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from cai.errors import InputError
from cai.preferences import write_preferences
from cai.records import Candidate, Group, Message, Preference, Prompt, content_hash
from cai.stages.select import Choice
from cai.training.data import PairSource, encode, read_conversations, read_pairs
from tests.training import tiny_rl


def preferences(prompts: int = 6, answers: int = 3, p: float = 0.8) -> list[Preference]:
    """Groups of `answers` answers over the tiny tokenizer's words, all pairs of each with the soft label `p`."""
    found = []
    words = tiny_rl.WORDS
    for number in range(prompts):
        prompt = Prompt.make(f"say {words[number % 10]} {words[number // 10]}")
        texts = [" ".join([words[(number + k) % 10]] * (k + 1)) for k in range(answers)]
        group = Group.make(prompt, [Candidate(content_hash(prompt.id, k), text) for k, text in enumerate(texts)])
        for pair in group.comparisons():
            found.append(
                Preference(
                    id=content_hash("preference", pair.id),
                    comparison_id=pair.id,
                    group_id=group.id,
                    prompt_id=prompt.id,
                    messages=prompt.messages,
                    chosen=pair.a.text,
                    rejected=pair.b.text,
                    chosen_id=pair.a.id,
                    rejected_id=pair.b.id,
                    p=p,
                    p_tie=0.0,
                    margin=2 * p - 1,
                    agreement=1.0,
                    flipped=0.0,
                    weight=1 / len(group.comparisons()),
                    axis="helpful",
                    principle_ids=(),
                    votes=(),
                    status="tie" if p == 0.5 else "ok",
                )
            )
    return found


def write(folder: Path, rows: list[Preference], *, test: int = 0) -> Path:
    """The rows as TRL data, the last `test` prompts held out."""
    held = {row.prompt_id for row in rows[len(rows) - test :]} if test else set()
    write_preferences(folder, [Choice(row, "test" if row.prompt_id in held else "train") for row in rows], "trl")
    return folder


def test_all_pairs_of_a_group_are_one_element(tmp_path: Path) -> None:
    found = read_pairs([PairSource("ai", write(tmp_path / "trl", preferences(), test=3))])
    assert len(found.train) == 5
    assert len(found.test) == 1
    assert [len(e.pairs) for e in found.train] == [3] * 5
    assert all(len(e.answers) == 3 for e in found.train)
    assert sum(pair.weight for pair in found.train[0].pairs) == pytest.approx(1)
    assert found.mixture["sources"]["ai"] == {"test": 3, "train": 15, "weight": 1.0}


def test_a_mixture_is_filtered_weighted_and_told(tmp_path: Path) -> None:
    harmless = [dataclasses.replace(row, axis="harmless") for row in preferences(7)[18:]]
    folder = write(tmp_path / "trl", [*preferences(), *harmless])
    people = write(tmp_path / "people", [dataclasses.replace(r, source="human") for r in preferences(3)])
    sources = [
        PairSource("ai", folder, axes=("harmless",)),
        PairSource("people", people, sources=("human",), weight=2.0),
    ]
    found = read_pairs(sources)
    assert found.mixture["sources"]["ai"]["another axis or source"] == 18
    assert found.mixture["train_pairs_by_axis"] == {"ai/harmless": 3, "human/helpful": 9}
    weights = {pair.source: pair.weight for element in found.train for pair in element.pairs}
    assert weights == {"ai": pytest.approx(1 / 3), "human": pytest.approx(2 / 3)}


@pytest.mark.parametrize("asked", [{"axes": ("helpfull",)}, {"sources": ("human",)}])
def test_a_source_of_which_nothing_is_taken_is_said_with_what_there_is(tmp_path: Path, asked: Any) -> None:
    folder = write(tmp_path / "trl", preferences())
    for others in ([], [PairSource("others", folder)]):
        with pytest.raises(InputError, match=r"ai has no row of the axes and sources.*ai/helpful 18"):
            read_pairs([*others, PairSource("ai", folder, **asked)])


@pytest.mark.parametrize("folder_first", [True, False])
def test_a_file_follows_the_split_of_a_folder_over_the_same_prompts(tmp_path: Path, folder_first: bool) -> None:
    rows = preferences(40)
    folder = write(tmp_path / "trl", rows, test=30)  # ten prompts
    # People's labels of these prompts and of more, as a file.
    people = [dataclasses.replace(r, source="human") for r in preferences(60)]
    file = write(tmp_path / "people", people) / "train.jsonl"
    mixture = [PairSource("ai", folder, axes=("helpful",)), PairSource("people", file)]
    found = read_pairs(mixture if folder_first else mixture[::-1])
    held = {row.prompt_id for row in rows[-30:]}
    known = {row.prompt_id for row in rows}
    assert {e.prompt_id for e in found.test} & known == held
    assert found.mixture["sources"]["ai"]["test"] == 30
    new = [e.prompt_id for e in found.test if e.prompt_id not in known]
    assert 0 < len(new) < 10, "the others are held out by hash"
    first = PairSource("ai", write(tmp_path / "one", [dataclasses.replace(rows[0], axis="harmless"), *rows], test=30))
    one = read_pairs([dataclasses.replace(first, axes=("harmless",)), mixture[1]])
    assert one.mixture["sources"]["ai"]["train"] == 1
    assert {e.prompt_id for e in one.test} & known == held


def test_pairs_of_a_prompt_are_one_element_in_a_file_without_groups(tmp_path: Path) -> None:
    def row(prompt: str, chosen: str, rejected: str, **more: float) -> str:
        return json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}) + "\n"

    plain = tmp_path / "plain.jsonl"
    lines = [row("say red", "red", "blue"), row("say red", "red", "no"), row("say red", "blue", "no")]
    plain.write_text("".join([*lines, row("say yes", "yes", "no")]), "utf-8")
    source = PairSource("others", plain, weight=2.0, test_fraction=0.0)
    one, other = read_pairs([source]).train
    assert [pair.weight for pair in one.pairs] == pytest.approx([2 / 3] * 3)
    assert [pair.weight for pair in other.pairs] == [2.0]
    assert one.answers == ("red", "blue", "no")
    weighted = tmp_path / "weighted.jsonl"
    weighted.write_text(row("say red", "red", "blue", weight=0.5) + row("say red", "red", "no", weight=0.25), "utf-8")
    (kept,) = read_pairs([PairSource("others", weighted, test_fraction=0.0)]).train
    assert [pair.weight for pair in kept.pairs] == [0.5, 0.25]  # what a file says of weights is taken as it is


@pytest.mark.parametrize("named", ["group_id", "prompt_id"])
def test_prompts_of_one_id_are_not_one_element(tmp_path: Path, named: str) -> None:
    """Answers to another question would be compared under the first one's."""
    path = tmp_path / "others.jsonl"
    asked = [{"prompt": f"say {word}", "chosen": word, "rejected": "no", named: "1"} for word in ("red", "blue")]
    path.write_text("".join(json.dumps(row) + "\n" for row in asked), "utf-8")
    found = read_pairs([PairSource("others", path, test_fraction=0.0)]).train
    assert [(e.messages[0].content, e.answers) for e in found] == [
        ("say red", ("red", "no")),
        ("say blue", ("blue", "no")),
    ]


@pytest.mark.parametrize("weight", ["-1", "0", "NaN", "Infinity"])
def test_a_weight_that_teaches_nothing_or_the_opposite_is_refused(tmp_path: Path, weight: str) -> None:
    path = tmp_path / "others.jsonl"
    path.write_text('{"prompt": "say red", "chosen": "red", "rejected": "no", "weight": ' + weight + "}\n", "utf-8")
    with pytest.raises(InputError, match=r"begins 'say red': weight .* is not a finite number above 0"):
        read_pairs([PairSource("others", path)])


def test_ties_stay_for_soft_labels_and_go_for_hard_ones(tmp_path: Path) -> None:
    leaning = [dataclasses.replace(row, status="tie") for row in preferences(2, p=0.52)[3:]]
    folder = write(tmp_path / "trl", [*preferences(1, p=0.5), *leaning, *preferences(4, p=0.9)[6:]])
    kept = read_pairs([PairSource("ai", folder)])
    assert {pair.p for e in kept.train for pair in e.pairs} == {0.5, 0.52, 0.9}
    hard = read_pairs([PairSource("ai", folder)], hard=True)
    assert {pair.p for e in hard.train for pair in e.pairs} == {1.0}
    assert hard.mixture["sources"]["ai"]["ties dropped"] == 6


def test_rows_of_others_that_cannot_be_read_are_counted_and_told(tmp_path: Path) -> None:
    """HH-RLHF's own layout, with the faults that it has."""

    def row(question: str, answer: str, other: str = "No.") -> str:
        talk = f"\n\nHuman: {question}\n\nAssistant: "
        return json.dumps({"chosen": talk + answer, "rejected": talk + other}) + "\n"

    bad = [row("Really?", "No."), json.dumps({"chosen": "nobody speaks", "rejected": "nor here"}) + "\n"]
    folder, alone = tmp_path / "hh", tmp_path / "bad.jsonl"
    folder.mkdir()
    train = gzip.compress("".join([row("Is it?", "Yes."), *bad]).encode())
    (folder / "train.jsonl.gz").write_bytes(train)
    (folder / "test.jsonl.gz").write_bytes(gzip.compress(row("Was it?", "Yes.").encode()))
    said: list[str] = []
    found = read_pairs([PairSource("hh", folder)], say=said.append)
    assert (len(found.train), len(found.test)) == (1, 1)
    assert found.mixture["sources"]["hh"] == {"test": 1, "train": 1, "unreadable rows": 2, "weight": 1.0}
    assert len(said) == 1
    assert said[0].startswith("2 rows of hh cannot be read")
    assert "train.jsonl.gz:2" in said[0]
    alone.write_text("".join(bad), "utf-8")
    for source in (PairSource("bad", alone), PairSource("ours", folder, own=True)):
        with pytest.raises(InputError, match="same text"):
            read_pairs([source])
    (folder / "train.jsonl.gz").write_bytes(train[:-9])
    with pytest.raises(InputError, match="torn"):
        read_pairs([PairSource("hh", folder)])


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no preferences"):
        read_pairs([])
    with pytest.raises(InputError, match="no train split"):
        read_pairs([PairSource("ai", tmp_path)])
    folder = write(tmp_path / "same", preferences(1))
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]
    rows[0]["rejected"] = rows[0]["chosen"]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with pytest.raises(InputError, match=r"same text|identical"):
        read_pairs([PairSource("ai", folder, own=True)])
    folder = write(tmp_path / "both", preferences(2))
    (folder / "test.jsonl").write_bytes((folder / "train.jsonl").read_bytes())
    with pytest.raises(InputError, match="in train and test"):
        read_pairs([PairSource("ai", folder)])


def test_conversations_need_messages_and_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt": "x"}\n', "utf-8")
    with pytest.raises(InputError, match="no column messages"):
        read_conversations(tmp_path)
    path.write_text('{"messages": [{"role": "user", "content": "x"}]}\n', "utf-8")
    with pytest.raises(InputError, match="assistant"):
        read_conversations(tmp_path)
    path.write_text("", "utf-8")
    with pytest.raises(InputError, match=r"train\.jsonl has no row"):
        read_conversations(tmp_path)
    path.rename(tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"has no train\.jsonl"):
        read_conversations(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_conversations(tmp_path / "none")


def test_the_last_conversation_of_a_file_counts_without_its_newline(tmp_path: Path) -> None:
    row = json.dumps({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]})
    (tmp_path / "train.jsonl").write_text(f"{row}\n\n{row}", "utf-8")
    assert len(read_conversations(tmp_path)["train"]) == 2


def test_encoding_leaves_out_what_is_too_long(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_rl.write_model(tmp_path / "model"))
    found = read_pairs([PairSource("ai", write(tmp_path / "trl", preferences(4)))])
    kept, dropped = encode(found.train, tokenizer, longest=64)
    assert (len(kept), dropped) == (4, 0)
    prompt = tokenizer.decode(kept[0].prompt)
    assert prompt.startswith("<user>")
    assert tokenizer.decode(kept[0].completions[0]).split()[-1] == "<end>"
    with pytest.raises(InputError, match="longer than 5 tokens"):
        encode(found.train, tokenizer, longest=5)
    assert Message("user", "x").row() == {"role": "user", "content": "x"}
