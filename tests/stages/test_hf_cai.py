from __future__ import annotations

import json
import os
from pathlib import Path

from cai.constitution.load import load_constitution
from cai.records import Message, Prompt, Response
from cai.stages.export import SftOptions
from cai.stages.hf_cai import COLUMNS, REASONS, hf_cai_rows, write_hf_cai
from cai.stages.transcript import wording

os.environ.setdefault("HF_HUB_OFFLINE", "1")

CONSTITUTION = load_constitution("default")
ONE, TWO = CONSTITUTION.revising[:2]
OPTIONS = SftOptions(seed=1, test_fraction=0.5, unrevised_tags=frozenset({"helpful"}))


def chain(
    prompt: Prompt, *texts: str, critique: str | None = "Too curt.", names: tuple[str, ...] = ()
) -> list[Response]:
    return [
        Response(
            id=f"{number}-{prompt.id}",
            prompt_id=prompt.id,
            round=number,
            text=text,
            model="m",
            sampling={},
            finish_reason="stop",
            parent_id=f"{number - 1}-{prompt.id}" if number else None,
            principle_ids=(names or (ONE.id, TWO.id)) if number else (),
            critique=critique if number else None,
        )
        for number, text in enumerate(texts)
    ]


def test_each_round_is_a_row_with_what_was_asked_and_said(tmp_path: Path) -> None:
    import datasets

    prompts = [Prompt.make(f"Question {number} \ud800?") for number in range(12)]
    made = {prompt.id: chain(prompt, "Draft.", "Better.", "Best.") for prompt in prompts}
    counts = write_hf_cai(tmp_path, hf_cai_rows(prompts, made, OPTIONS, CONSTITUTION))
    assert sum(counts.values()) == 24
    assert set(counts) == {"train", "test"}
    asked = wording(CONSTITUTION, [ONE, TWO])
    files = {split: str(tmp_path / f"{split}.jsonl") for split in counts}
    for split, data in datasets.load_dataset("json", data_files=files, cache_dir=str(tmp_path / "c")).items():
        assert data.column_names == list(COLUMNS)
        assert len(data) == counts[split]
        for row in data:
            assert row["init_prompt"].startswith("Question ")
            assert (row["critic_prompt"], row["critic_response"]) == (asked.critique, "Too curt.")
            assert row["revision_prompt"] == asked.revision
        assert {(row["init_response"], row["revision_response"]) for row in data} == {
            ("Draft.", "Better."),
            ("Better.", "Best."),
        }
    asked_in = [
        {json.loads(line)["init_prompt"] for line in Path(file).read_text("utf-8").splitlines()}
        for file in files.values()
    ]
    assert sum(map(len, asked_in)) == 12, "a prompt's rounds are in one split"


def test_what_the_columns_cannot_carry_is_counted(tmp_path: Path) -> None:
    turns = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Why?"))
    plain = [Prompt.make(text) for text in ("a", "b", "c")]
    several, mixed_in = Prompt.make(turns), Prompt.make("d", tags=("helpful",))
    made = {
        plain[0].id: chain(plain[0], "Draft.", "Better."),
        plain[1].id: chain(plain[1], "Draft.", "Better.", critique=None),
        plain[2].id: chain(plain[2], "Draft.", "Better.", names=("nobody",)),
        several.id: chain(several, "Draft.", "Better."),
        mixed_in.id: chain(mixed_in, "Only."),
    }
    left_out: dict[str, int] = {}
    rows = list(hf_cai_rows([*plain, several, mixed_in], made, OPTIONS, CONSTITUTION, left_out=left_out))
    assert [row["init_prompt"] for _, row in rows] == ["a"]
    assert left_out == {"no_critique": 1, "principle_gone": 1, "several_turns": 1, "unrevised": 1}
    assert set(left_out) == set(REASONS)
    (tmp_path / "test.jsonl").write_text("old")
    (tmp_path / "train.jsonl").write_text("old")
    assert write_hf_cai(tmp_path, []) == {}
    assert list(tmp_path.iterdir()) == []
