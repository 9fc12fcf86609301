from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from cai.errors import InputError, StoreError
from cai.records import Message, Prompt, Response
from cai.stages.export import (
    COLUMNS,
    REASONS,
    SftOptions,
    SftRow,
    arrow_schema,
    choose,
    sft_rows,
    split_of,
    utf8,
    write_sft,
)

os.environ.setdefault("HF_HUB_OFFLINE", "1")

FLAGS = frozenset({"truncated"})
HOSTILE = 'say "no"\\ \n\r\n\t\x00\x1b[2J<b>|\u2028\u2029\x85 \U0001f600 \ud800 end \udfff'


def options(**changes: Any) -> SftOptions:
    given: dict[str, Any] = {"seed": 1, "drop_flags": FLAGS, "unrevised_tags": frozenset({"helpful"})}
    return SftOptions(**(given | changes))


def response(prompt: Prompt, round: int, text: str, *, name: str = "", **fields: Any) -> Response:
    fields = {"parent_id": f"{name}{round - 1}-{prompt.id}" if round else None} | fields
    if round:
        fields = {"principle_ids": (f"p{round}",), "critique": "Bad."} | fields
    return Response(
        id=f"{name}{round}-{prompt.id}",
        prompt_id=prompt.id,
        round=round,
        text=text,
        model="m1",
        sampling={"temperature": 1.0},
        finish_reason="stop",
        **fields,
    )


def chain(prompt: Prompt, *texts: str, name: str = "", **fields: Any) -> list[Response]:
    return [response(prompt, number, text, name=name, **fields) for number, text in enumerate(texts)]


def one(prompt: Prompt, responses: list[Response], **changes: Any) -> list[SftRow]:
    return list(sft_rows([prompt], {prompt.id: responses}, options(**changes)))


def many(n: int = 40) -> tuple[list[Prompt], dict[str, list[Response]]]:
    """`n` prompts: red-team ones with two revisions, every fourth helpful and unrevised."""
    prompts, responses = [], {}
    for i in range(n):
        tags = ("helpful",) if i % 4 == 0 else ("red-team",)
        prompt = Prompt.make(f"Question number {i}?", tags=tags, source="made.jsonl")
        prompts.append(prompt)
        responses[prompt.id] = chain(prompt, *([f"answer {i}"] if i % 4 == 0 else [f"d{i}", f"r{i}", f"s{i}"]))
    return prompts, responses


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- which responses become rows


def test_a_revised_prompt_gives_the_revisions_of_all_rounds_and_never_its_draft() -> None:
    prompt = Prompt.make("Hi", tags=("red-team", "helpful"), source="a.jsonl:3")
    rows = one(prompt, chain(prompt, "draft", "first", "second"), test_fraction=0.0)
    assert rows == [
        {
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": text}],
            "id": f"{number}-{prompt.id}",
            "prompt_id": prompt.id,
            "round": number,
            "kind": "revision",
            "principle_ids": [f"p{number}"],
            "model": "m1",
            "tags": ["red-team", "helpful"],
            "source": "a.jsonl:3",
            "parent_id": f"{number - 1}-{prompt.id}",
            "split": "train",
        }
        for number, text in ((1, "first"), (2, "second"))
    ]


def test_a_draft_enters_only_if_the_recipe_leaves_its_prompt_unrevised() -> None:
    helpful, red = Prompt.make("How?", tags=("helpful",)), Prompt.make("How?!", tags=("red-team",))
    (row,) = one(helpful, chain(helpful, "so"))
    assert (row["kind"], row["round"], row["principle_ids"], row["parent_id"]) == ("unrevised", 0, [], "")
    assert one(red, chain(red, "how to do harm")) == []
    assert one(helpful, chain(helpful, "so"), include_unrevised=False) == []
    assert len(one(red, chain(red, "a draft"), unrevised_tags=None)) == 1  # a recipe with 0 rounds


def test_every_sample_of_an_unrevised_prompt_enters() -> None:
    prompt = Prompt.make("How?", tags=("helpful",))
    samples = [*chain(prompt, "one", name="a"), *chain(prompt, "two", name="b")]
    assert [row["messages"][-1]["content"] for row in one(prompt, samples)] == ["one", "two"]


def test_last_takes_the_last_clean_revision_of_each_draft() -> None:
    prompt = Prompt.make("Hi")
    first = chain(prompt, "d", "one", "two", name="a")
    first.append(response(prompt, 3, "cut o", name="a", flags=("truncated",)))
    both = [*first, *chain(prompt, "e", "three", name="b")]
    assert [row["messages"][-1]["content"] for row in one(prompt, both, revisions="last")] == ["two", "three"]
    assert [row["messages"][-1]["content"] for row in one(prompt, both)] == ["one", "two", "three"]


def test_flagged_blank_and_repeated_texts_stay_out_and_are_counted() -> None:
    prompt, gone = Prompt.make("Hi"), Prompt.make("Ho")
    responses = chain(prompt, "d", "same", "cut", "same", " \n", "other")
    responses[2] = dataclasses.replace(responses[2], flags=("refusal", "truncated"))
    responses[5] = dataclasses.replace(responses[5], flags=("refusal",))
    left_out: Counter[str] = Counter()
    mapping = {prompt.id: responses, gone.id: chain(gone, "alone")}
    rows = sft_rows([prompt, gone, prompt], mapping, options(), left_out=left_out)
    assert [row["messages"][-1]["content"] for row in rows] == ["same", "other"]
    assert left_out == {"draft_of_revised": 1, "flagged": 1, "duplicate": 1, "blank": 1, "not_revised": 1}
    assert set(left_out) <= set(REASONS)


def test_a_flagged_draft_is_not_a_helpful_answer() -> None:
    prompt = Prompt.make("How?", tags=("helpful",))
    assert one(prompt, chain(prompt, "so", flags=("truncated",))) == []


def test_all_turns_are_kept_and_the_system_prompt_comes_first() -> None:
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    plain, own = (
        Prompt.make(turns, tags=("helpful",)),
        Prompt.make((Message("system", "Be brief."), *turns), tags=("helpful",)),
    )
    spoken = [turn.row() for turn in turns] + [{"role": "assistant", "content": "d"}]
    assert one(plain, chain(plain, "d"))[0]["messages"] == spoken
    assert one(plain, chain(plain, "d"), system_prompt="Be kind.\n")[0]["messages"] == [
        {"role": "system", "content": "Be kind."},
        *spoken,
    ]
    assert one(own, chain(own, "d"), system_prompt="Be kind.\n")[0]["messages"] == [
        {"role": "system", "content": "Be kind.\n\nBe brief."},
        *spoken,
    ]
    assert own.messages[0].content == "Be brief."


def test_every_response_has_one_choice_and_those_with_a_kind_are_the_rows() -> None:
    prompts, responses = many(8)
    for prompt in prompts:
        choices = choose(prompt, responses[prompt.id], options())
        assert [c.response for c in choices] == responses[prompt.id]
        assert all((c.kind is None) == bool(c.reason) for c in choices)
        assert [c.response.id for c in choices if c.kind] == [row["id"] for row in one(prompt, responses[prompt.id])]


@pytest.mark.parametrize("wrong", [{"test_fraction": 1.5}, {"test_fraction": float("nan")}, {"revisions": "first"}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be"):
        options(**wrong)


# --- splits

texts = st.text(st.characters(exclude_categories=()), min_size=1, max_size=30)


@hypothesis.given(opening=texts, more=st.lists(texts, max_size=3), fraction=st.floats(0, 1), seed=st.integers(0, 9))
def test_conversations_that_open_alike_are_on_one_side(
    opening: str, more: list[str], fraction: float, seed: int
) -> None:
    turns = [Message("user", opening)]
    expected = split_of(Prompt.make(opening), fraction, seed)
    for text in more:
        turns += [Message("assistant", text), Message("user", text)]
        assert split_of(Prompt.make(tuple(turns)), fraction, seed) == expected
        assert split_of(Prompt.make((Message("system", text), *turns)), fraction, seed) == expected
    assert split_of(Prompt.make(f"  {opening}\n"), fraction, seed) == expected
    assert split_of(Prompt.make(opening), min(1.0, fraction + 0.2), seed) == "test" or expected == "train"


@hypothesis.settings(max_examples=30)
@hypothesis.given(openings=st.lists(texts, max_size=12), fraction=st.floats(0, 1), seed=st.integers(0, 99))
def test_no_opening_leaks_between_the_splits(openings: list[str], fraction: float, seed: int) -> None:
    prompts = [Prompt.make(text) for text in openings]
    prompts += [Prompt.make((Message("user", t), Message("assistant", "b"), Message("user", "c"))) for t in openings]
    mapping = {p.id: chain(p, "d", "one", "two") for p in prompts}
    sides: dict[str, set[str]] = {}
    for row in sft_rows(prompts, mapping, options(test_fraction=fraction, seed=seed)):
        sides.setdefault(row["messages"][0]["content"], set()).add(row["split"])
    assert len(sides) == len(set(openings))
    assert all(len(side) == 1 for side in sides.values())


def test_case_spacing_punctuation_and_unicode_form_do_not_part_an_opening() -> None:
    alike = ["How do I bake bread?", "how do i  bake bread", "HOW DO I BAKE BREAD!!", "\uff28ow do I bake bread?"]
    for seed in range(40):
        assert len({split_of(Prompt.make(text), 0.5, seed) for text in alike}) == 1
    assert (
        len({split_of(Prompt.make("!!!"), 0.5, seed) == split_of(Prompt.make("???"), 0.5, seed) for seed in range(40)})
        == 2
    )


def test_the_share_of_the_test_split_is_the_fraction_and_the_seed_moves_it() -> None:
    prompts = [Prompt.make(f"Question {i}") for i in range(4_000)]
    sides = [[split_of(p, 0.05, seed) == "test" for p in prompts] for seed in (1, 2)]
    for side in sides:
        assert 150 < sum(side) < 250  # 200 expected, standard deviation 14
    assert sum(a and b for a, b in zip(*sides, strict=True)) < 40  # 10 expected if independent
    assert {split_of(p, 0.0, 1) for p in prompts} == {"train"}
    assert {split_of(p, 1.0, 1) for p in prompts} == {"test"}


# --- files


def test_jsonl_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    prompts, responses = many()
    rows = list(sft_rows(prompts, responses, options(test_fraction=0.3)))
    counts = write_sft(tmp_path, iter(rows), row_group=7)
    for split in ("train", "test"):
        expected = [row for row in rows if row["split"] == split]
        assert expected
        assert [json.loads(line) for line in (tmp_path / f"{split}.jsonl").read_text().splitlines()] == expected
        table = pq.read_table(tmp_path / f"{split}.parquet")
        assert table.to_pylist() == expected
        assert table.schema.equals(arrow_schema())
        assert table.column_names == [name for name, _, _ in COLUMNS]
        assert pq.ParquetFile(tmp_path / f"{split}.parquet").num_row_groups == -(-len(expected) // 7)
        assert counts.by_split[split] == len(expected)
        assert counts.prompts[split] == len({row["prompt_id"] for row in expected})
    assert counts.rows == 70
    assert counts.by_kind == {"revision": 60, "unrevised": 10}
    assert counts.by_round == {0: 10, 1: 30, 2: 30}
    assert counts.by_principle == {"p1": 30, "p2": 30}
    assert counts.by_tag == {"helpful": 10, "red-team": 60}
    assert counts.by_model == {"m1": 70}
    assert counts.mended == 0
    assert json.loads(json.dumps(counts.row()))["by_round"] == {"0": 10, "1": 30, "2": 30}


def test_no_column_name_means_another_format_to_a_reader() -> None:
    names = {name for name, _, _ in COLUMNS}
    assert not names & {
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "text",
        "label",
        "images",
        "tools",
        "system_prompt",
    }


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    prompts, responses = many()
    for name in ("a", "b", "b"):
        write_sft(tmp_path / name, sft_rows(prompts, responses, options(test_fraction=0.3)), row_group=7)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert set(files(tmp_path / "a")) == {"train.jsonl", "train.parquet", "test.jsonl", "test.parquet"}


def test_hostile_text_survives_and_lone_surrogates_are_replaced_and_counted(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    prompt = Prompt.make(HOSTILE, tags=("helpful", "\ud800"), source="\udcff.jsonl")
    clean = Prompt.make("clean", tags=("helpful",))
    mapping = {prompt.id: chain(prompt, HOSTILE), clean.id: chain(clean, "\x00\u2028")}
    counts = write_sft(tmp_path, sft_rows([prompt, clean], mapping, options(test_fraction=0.0)))
    assert counts.mended == 1
    lines = (tmp_path / "train.jsonl").read_text("utf-8").splitlines()  # breaks at every Unicode line separator
    assert len(lines) == 2
    row = json.loads(lines[0])
    mended = HOSTILE.replace("\ud800", "\ufffd").replace("\udfff", "\ufffd")
    assert [turn["content"] for turn in row["messages"]] == [mended, mended]
    assert (row["tags"], row["source"]) == (["helpful", "\ufffd"], "\ufffd.jsonl")
    assert pq.read_table(tmp_path / "train.parquet").to_pylist() == [json.loads(line) for line in lines]


@hypothesis.given(st.text(st.characters(exclude_categories=())))
def test_utf8_changes_only_lone_surrogates(text: str) -> None:
    mended = utf8(text)
    mended.encode()
    # Two halves in a row are one character; everything else keeps its place.
    assert mended == text or any("\ud800" <= c <= "\udfff" for c in text)
    assert [c for c in mended if c != "\ufffd" and ord(c) < 0x10000] == [
        c for c in text if c != "\ufffd" and not "\ud800" <= c <= "\udfff" and ord(c) < 0x10000
    ]


def test_halves_of_a_surrogate_pair_are_joined() -> None:
    assert utf8("\ud83d\ude00 \ude00\ud83d!") == "\U0001f600 \ufffd\ufffd!"


def test_a_split_without_rows_has_no_files_and_old_ones_go(tmp_path: Path) -> None:
    prompts, responses = many()
    write_sft(tmp_path, sft_rows(prompts, responses, options(test_fraction=0.3)))
    counts = write_sft(tmp_path, sft_rows(prompts, responses, options(test_fraction=0.0)))
    assert set(files(tmp_path)) == {"train.jsonl", "train.parquet"}
    assert (counts.by_split, counts.prompts) == ({"train": 70}, {"train": 40})
    assert write_sft(tmp_path, []).rows == 0
    assert files(tmp_path) == {}


def test_an_error_among_the_rows_leaves_the_old_files(tmp_path: Path) -> None:
    prompts, responses = many()

    def failing() -> Iterator[SftRow]:
        yield from list(sft_rows(prompts, responses, options(test_fraction=0.3)))[:30]
        raise StoreError("torn")

    write_sft(tmp_path, sft_rows(prompts, responses, options()))
    before = files(tmp_path)
    with pytest.raises(StoreError, match="torn"):
        write_sft(tmp_path, failing(), row_group=4)
    assert files(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    prompts, responses = many(4)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError):
        write_sft(tmp_path / "file", sft_rows(prompts, responses, options()))


# --- training


def byte_tokenizer() -> Any:
    """A tokenizer over bytes with a chat template, made here: no download."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = ["<|start|>", "<|end|>", "<|pad|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(special + letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|start|>", eos_token="<|end|>", pad_token="<|pad|>"
    )
    fast.chat_template = (
        "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    return fast


def test_trl_trains_on_the_files_as_they_are(tmp_path: Path) -> None:
    import datasets
    import transformers
    import trl

    prompts, responses = many()
    counts = write_sft(tmp_path, sft_rows(prompts, responses, options(test_fraction=0.3, system_prompt="Be kind.")))
    paths = {split: str(tmp_path / f"{split}.parquet") for split in ("train", "test")}
    data = datasets.load_dataset("parquet", data_files=paths, cache_dir=str(tmp_path / "cache"))
    tokenizer = byte_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    trainer = trl.SFTTrainer(
        model=transformers.LlamaForCausalLM(config),
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "out"),
            max_steps=2,
            per_device_train_batch_size=4,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        ),
        train_dataset=data["train"],
        eval_dataset=data["test"],
        processing_class=tokenizer,
    )
    assert len(trainer.train_dataset) == counts.by_split["train"]
    seen = tokenizer.decode(next(iter(trainer.train_dataset))["input_ids"])
    first = data["train"][0]["messages"]
    assert seen.startswith("<|start|>system\nBe kind.<|end|><|start|>user\n" + first[1]["content"])
    assert seen.rstrip("\n").endswith("<|start|>assistant\n" + first[2]["content"] + "<|end|>")
    result = trainer.train()
    assert result.global_step == 2
    assert 0 < result.training_loss < 20
    assert trainer.evaluate()["eval_loss"] > 0
