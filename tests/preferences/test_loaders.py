"""Our files, read as the libraries that train on them do: by TRL itself, by RewardBench's own code, and by what others'
loaders ask of a file.

OpenRLHF and NeMo-RL are not installed for this: they ask for DeepSpeed, flash-attention, Ray and CUDA builds of torch,
gigabytes that need an NVIDIA GPU to import. What their loaders do to a row is written down in the tests.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cai.preferences import write_preferences
from cai.records import Message, Prompt
from cai.stages.select import Choice
from tests.preferences.made import TURNS, made, many

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def tokenizer() -> Any:
    """Over bytes, with a chat template, made here: no download."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = ["<|start|>", "<|end|>", "<|pad|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made_here = Tokenizer(models.BPE({token: i for i, token in enumerate(special + letters)}, []))
    made_here.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made_here.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made_here, bos_token="<|start|>", eos_token="<|end|>", pad_token="<|pad|>"
    )
    fast.chat_template = (
        "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    return fast


def rendered(*turns: tuple[str, str]) -> str:
    return "".join(f"<|start|>{role}\n{text}<|end|>" for role, text in turns)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Loads what was written in a format, as the data set of a split."""
    import datasets

    folder = tmp_path_factory.mktemp("set")

    def load(name: str, kind: str = "jsonl", split: str = "train", choices: list[Choice] | None = None) -> Any:
        write_preferences(folder / name, choices or many(12), name)
        file = str(folder / name / f"{split}.{kind}")
        builder = "parquet" if kind == "parquet" else "json"
        return datasets.load_dataset(builder, data_files=file, cache_dir=str(folder / "cache"))["train"]

    return load


def config(letters: Any, **changes: Any) -> Any:
    import transformers

    return transformers.LlamaConfig(
        vocab_size=len(letters),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=letters.bos_token_id,
        eos_token_id=letters.eos_token_id,
        pad_token_id=letters.pad_token_id,
        **changes,
    )


ARGS: dict[str, Any] = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "report_to": [],
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
    "disable_tqdm": True,
}


def test_trls_dpo_trains_on_the_files_as_they_are(rows: Callable[..., Any], tmp_path: Path) -> None:
    import transformers
    import trl

    letters = tokenizer()
    data = {split: rows("trl", "parquet", split) for split in ("train", "test")}
    model = transformers.LlamaForCausalLM(config(letters))
    trainer = trl.DPOTrainer(
        model=model,
        ref_model=copy.deepcopy(model),
        args=trl.DPOConfig(output_dir=str(tmp_path / "out"), **ARGS),
        train_dataset=data["train"],
        eval_dataset=data["test"],
        processing_class=letters,
    )
    seen = next(iter(trainer.train_dataset))
    row = data["train"][0]
    turns = [(turn["role"], turn["content"]) for turn in row["prompt"]]
    assert letters.decode(seen["prompt_ids"]) == rendered(*turns) + "<|start|>assistant\n"
    assert letters.decode(seen["chosen_ids"]).startswith(row["chosen"][0]["content"] + "<|end|>")
    assert letters.decode(seen["rejected_ids"]).startswith(row["rejected"][0]["content"] + "<|end|>")
    result = trainer.train()
    assert result.global_step == 2
    assert 0 < result.training_loss < 20
    assert trainer.evaluate()["eval_loss"] > 0


def test_trls_reward_trainer_trains_and_takes_the_margin_for_its_own(rows: Callable[..., Any], tmp_path: Path) -> None:
    import torch
    import transformers
    import trl

    letters = tokenizer()
    data = rows("trl", "parquet")
    losses = {}
    for name, given in (("with", data), ("without", data.remove_columns("margin"))):
        torch.manual_seed(1)
        trainer = trl.RewardTrainer(
            model=transformers.LlamaForSequenceClassification(config(letters, num_labels=1)),
            args=trl.RewardConfig(output_dir=str(tmp_path / name), learning_rate=0.0, **ARGS),
            train_dataset=given,
            processing_class=letters,
        )
        losses[name] = trainer.train().training_loss
    # Rewards of a new model are near 0, so the losses are near log(1 + exp(margin)) and log 2.
    assert losses["without"] == pytest.approx(0.693, abs=0.05)
    assert losses["with"] > losses["without"] + 0.05


def test_trl_takes_the_unpaired_rows_for_what_they_are(rows: Callable[..., Any]) -> None:
    import trl

    letters = tokenizer()
    paired, unpaired = rows("trl"), rows("trl_unpaired")
    ours = [
        trl.data_utils.maybe_apply_chat_template(_only(row, "prompt completion label"), letters) for row in unpaired
    ]
    pairs = paired.select_columns(["prompt", "chosen", "rejected"])
    theirs = [
        trl.data_utils.maybe_apply_chat_template(row, letters)
        for row in trl.data_utils.unpair_preference_dataset(pairs)
    ]
    key = sorted((row["prompt"], row["completion"], row["label"]) for row in ours)
    assert key == sorted((row["prompt"], row["completion"], row["label"]) for row in theirs)
    assert [row["label"] for row in ours] == [True, False] * (len(ours) // 2)


def _only(row: dict[str, Any], names: str) -> dict[str, Any]:
    return {name: row[name] for name in names.split()}


# --- loaders that are not installed: what they ask of a row, after their source


def test_openrlhf_without_a_prompt_key_reads_openrlhf_and_with_one_reads_trl(rows: Callable[..., Any]) -> None:
    """`RewardDataset` with `--apply_chat_template`: whole conversations; or prompt and answer lists, joined."""
    letters = tokenizer()

    def template(messages: Any, **options: Any) -> str:
        return str(letters.apply_chat_template(messages, tokenize=False, **options))

    for whole, parts, choice in zip(rows("openrlhf"), rows("trl"), _train(12), strict=True):
        preference = choice.preference
        turns = [(turn.role, turn.content) for turn in preference.messages]
        start = rendered(*turns) + "<|start|>assistant\n"
        # The reward model sees the conversation; DPO takes the prompt from all turns of `chosen` but the last.
        assert template(whole["chosen"]) == rendered(*turns, ("assistant", preference.chosen))
        prompt = template(whole["chosen"][:-1], add_generation_prompt=True)
        assert prompt == start == template(parts["prompt"], add_generation_prompt=True)
        for key, text in (("chosen", preference.chosen), ("rejected", preference.rejected)):
            assert template(whole[key])[len(prompt) :] == f"{text}<|end|>"
            assert template(parts["prompt"] + parts[key])[len(prompt) :] == f"{text}<|end|>"
        assert whole["margin"] == parts["margin"] == preference.margin


def test_nemo_rl_adds_its_task_name_and_finds_the_better_completion_by_rank(rows: Callable[..., Any]) -> None:
    """`PreferenceDataset` adds a column; its preprocessor wants two completions of different rank, the lower better."""
    data = rows("nemo_rl")
    data = data.add_column("task_name", ["ours"] * len(data))  # refused if the file had one
    for row, choice in zip(data, _train(12), strict=True):
        one, other = row["completions"]
        assert one["rank"] != other["rank"]
        better, worse = sorted((one, other), key=lambda completion: int(completion["rank"]))
        preference = choice.preference
        assert [Message(**turn) for turn in row["context"]] == list(preference.messages)
        assert [turn["content"] for turn in better["completion"]] == [preference.chosen]
        assert [turn["content"] for turn in worse["completion"]] == [preference.rejected]


def test_rewardbench_gives_the_turns_to_their_speakers(rows: Callable[..., Any]) -> None:
    """Its loader asks for a list of turns and texts as answers, and deals the turns out to user and assistant."""
    choices = [Choice(made(Prompt.make(TURNS), axis="harmless"), "train"), Choice(made("Hi", axis="helpful"), "train")]
    data = rows("rewardbench", choices=choices)
    assert data.features["chosen"].dtype == data.features["rejected"].dtype == "string"
    assert list(data["subset"]) == ["harmless", "helpful"]
    for row, choice in zip(data, choices, strict=True):
        assert isinstance(row["prompt"], list)
        dealt = [("assistant" if i % 2 else "user", turn["content"]) for i, turn in enumerate(row["prompt"])]
        assert dealt == [(turn.role, turn.content) for turn in choice.preference.messages]
        assert dealt[-1][0] == "user"


@pytest.fixture(scope="module")
def rewardbench() -> Iterator[Any]:
    """Its module of data functions. The package itself imports every reward model that it knows, for an old
    transformers; of that, and of fastchat, the data functions use only names in annotations."""
    spec = importlib.util.find_spec("rewardbench")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("rewardbench is not installed: see requirements/validators.txt")
    file = Path(spec.submodule_search_locations[0]) / "utils.py"
    stubs = {
        "fastchat": types.ModuleType("fastchat"),
        "fastchat.conversation": types.ModuleType("fastchat.conversation"),
        "rewardbench": types.ModuleType("rewardbench"),
        "rewardbench.models": types.ModuleType("rewardbench.models"),
    }
    vars(stubs["fastchat.conversation"])["Conversation"] = object
    vars(stubs["rewardbench.models"])["REWARD_MODEL_CONFIG"] = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, stub in stubs.items():
            patch.setitem(sys.modules, name, stub)
        found = importlib.util.spec_from_file_location("rewardbench.utils", file)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        yield module


def test_rewardbenchs_own_code_puts_our_rows_into_dialogues(rows: Callable[..., Any], rewardbench: Any) -> None:
    letters = tokenizer()
    choices = [Choice(made(Prompt.make(TURNS), axis="harmless"), "train"), Choice(made("Hi", axis="helpful"), "train")]
    data = rows("rewardbench", choices=choices)
    for row, choice in zip(data, choices, strict=True):
        preference = choice.preference
        turns = [(turn.role, turn.content) for turn in preference.messages]
        made_of = rewardbench.prepare_dialogue_from_tokenizer(dict(row), letters)
        assert made_of["prompt"] == rendered(*turns)
        assert made_of["text_chosen"] == rendered(*turns, ("assistant", preference.chosen))
        assert made_of["text_rejected"] == rendered(*turns, ("assistant", preference.rejected))
        whole = rewardbench.map_conversations_testsets(dict(row))
        assert whole["text_chosen"] == [*row["prompt"], {"role": "assistant", "content": preference.chosen}]


def test_ultrafeedback_is_what_the_alignment_handbook_splits(rows: Callable[..., Any]) -> None:
    """The handbook takes the prompt from all turns of `chosen` but the last, and the answers from the last turns."""
    for row, choice in zip(rows("ultrafeedback"), _train(12), strict=True):
        preference = choice.preference
        assert row["chosen"][:-1] == row["rejected"][:-1] == [turn.row() for turn in preference.messages]
        assert row["chosen"][-1] == {"role": "assistant", "content": preference.chosen}
        assert row["rejected"][-1] == {"role": "assistant", "content": preference.rejected}
        assert row["messages"] == row["chosen"]
        assert row["score_chosen"] > row["score_rejected"]


def _train(count: int) -> list[Choice]:
    return [choice for choice in many(count) if choice.split == "train"]
