"""Supervised fine-tuning on the revisions (SL-CAI: Bai et al. 2022, arXiv 2212.08073, section 3), by TRL's
SFTTrainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from cai.errors import InputError
from cai.records import Messages
from cai.training.algorithms._common import Settings, finish, tidy
from cai.training.base import Job, Outcome
from cai.training.data import check_template, common_start, conversations_digest, read_conversations, tokens
from cai.training.models import check_parent, load_tokenizer, load_trained, peft_config

HELP = "Supervised fine-tuning on a run's revisions."


class Config(Settings):
    """Options of SFT; the defaults are the paper's where it has any (1 epoch, constant rate)."""

    schedule: str = Field("constant", description="Of the learning rate; transformers' names.")
    answers_only: bool = Field(True, description="Loss on the last answer alone; false: on every token, as the paper.")


def answer_begins(tokenizer: Any, messages: Messages, ids: Sequence[int]) -> int:
    """Where the last answer begins in a conversation's tokens `ids`: where they and the prompt's own part. A template
    may open an answer in another way than it shows a given one.
    """
    return common_start(tokens(tokenizer, messages[:-1], begin_answer=True), ids)


def train(job: Job, config: Config) -> Outcome:
    """Train; the same call resumes.

    Raises:
        InputError: no data, a row without messages, no chat template, nothing short enough, or another model.
        TrainingError: NaN loss.
    """
    if job.conversations is None:
        raise InputError("there are no conversations to train on", mend="run `cai run` on the recipe first")
    rows = read_conversations(job.conversations)
    check_parent(job.parent, "causal", config.lora)
    tokenizer = load_tokenizer(job.parent)
    check_template(tokenizer, str(job.parent))
    encoded: dict[str, list[dict[str, list[int]]]] = {}
    dropped = 0
    for split, conversations in rows.items():
        kept = []
        for messages in conversations:
            ids = tokens(tokenizer, messages)
            if len(ids) > config.max_length:
                dropped += 1
                continue
            begun = answer_begins(tokenizer, messages, ids) if config.answers_only else 0
            kept.append({"input_ids": ids, "labels": [-100] * begun + ids[begun:]})
        encoded[split] = kept
    if not encoded["train"]:
        raise InputError(f"all conversations are longer than {config.max_length} tokens", mend="raise max_length")
    if dropped:
        job.say(f"{dropped} conversations are longer than {config.max_length} tokens and were left out")
    digest = conversations_digest(rows)
    data = {"digest": digest, "rows": {split: len(found) for split, found in encoded.items()}, "too_long": dropped}

    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from cai.training import runner

    defaults = {**config.arguments(), "lr_scheduler_type": config.schedule, "packing": False}
    arguments = runner.arguments(SFTConfig, job, config, defaults | {"dataset_kwargs": {"skip_prepare_dataset": True}})
    resume = runner.begin(job, config.model_dump(mode="json"), digest)
    model = load_trained(
        job.parent, "causal", lora=config.lora, dtype=config.dtype, pad=tokenizer.pad_token_id, seed=job.seed
    )
    trainer = tidy(SFTTrainer)(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(encoded["train"]),
        eval_dataset=Dataset.from_list(encoded["test"]) if encoded.get("test") else None,
        processing_class=tokenizer,
        peft_config=peft_config(config.lora, "causal"),
    )
    metrics = runner.run(job, trainer, resume)
    if encoded.get("test"):
        metrics["eval_loss"] = float(trainer.evaluate()["eval_loss"])
    return finish(job, trainer, tokenizer, config, data, metrics)
