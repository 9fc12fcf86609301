"""Reward model on soft labels, by TRL's RewardTrainer with our loss; ends with a report on held-out pairs."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from cai.training import rmreport
from cai.training.algorithms._common import Settings, finish
from cai.training.base import Job, Outcome
from cai.training.data import check_template, encode, read_pairs
from cai.training.models import check_parent, load_tokenizer, load_trained, pad_for_scores, peft_config

HELP = "Reward model on soft preference labels; reports whether it can be used."


class Config(Settings):
    """Options of the reward model."""

    soft: bool = Field(True, description="Train on the probability; false: on which side it falls, without ties.")
    usable_from: float = Field(0.55, ge=0.5, le=1, description="Held-out accuracy below which PPO refuses it.")


def train(job: Job, config: Config) -> Outcome:
    """Train; the same call resumes.

    Raises:
        InputError: no pairs, identical answers, an empty split, no chat template, or another model.
        TrainingError: NaN loss.
    """
    pairs = read_pairs(job.pairs, hard=not config.soft, say=job.say)
    check_parent(job.parent, "reward", config.lora)
    tokenizer = load_tokenizer(job.parent)
    check_template(tokenizer, str(job.parent))
    encoded, dropped = encode(pairs.train, tokenizer, longest=config.max_length)
    held, dropped_test = encode(pairs.test, tokenizer, longest=config.max_length) if pairs.test else ([], 0)
    pad = pad_for_scores(tokenizer, {ids[-1] for e in (*encoded, *held) for ids in e.completions if ids})
    if pad is None:
        job.say("no special token is left to pad with: scores are read one token before the end, elsewhere at the end")
    else:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    data = {"digest": pairs.digest, "mixture": pairs.mixture, "too_long": dropped + dropped_test}
    if dropped + dropped_test:
        job.say(f"{dropped + dropped_test} groups with a row of over {config.max_length} tokens were left out whole")
    job.say(f"{sum(len(e.element.pairs) for e in encoded)} pairs in {len(encoded)} groups; {len(held)} groups held out")

    from datasets import Dataset
    from trl import RewardConfig

    from cai.training import runner
    from cai.training.batches import PairCollator
    from cai.training.trainers import SoftRewardTrainer

    arguments = runner.arguments(RewardConfig, job, config, config.arguments())
    resume = runner.begin(job, config.model_dump(mode="json", exclude={"usable_from"}), pairs.digest)
    trainer = SoftRewardTrainer(
        model=load_trained(
            job.parent, "reward", lora=config.lora, dtype=config.dtype, pad=tokenizer.pad_token_id, seed=job.seed
        ),
        args=arguments,
        data_collator=PairCollator(tokenizer.pad_token_id),
        train_dataset=Dataset.from_list([e.row() for e in encoded]),
        processing_class=tokenizer,
        peft_config=peft_config(config.lora, "reward"),
    )
    metrics = runner.run(job, trainer, resume)
    told = rmreport.report(held, scorer(trainer, tokenizer.pad_token_id), threshold=config.usable_from, seed=job.seed)
    if "accuracy" in told:
        metrics |= {"held_out_accuracy": told["accuracy"]["mean"], "held_out_ece": told["ece"]}
    if trainer.accelerator.is_main_process:
        rmreport.withdraw(job.checkpoint)
    outcome = finish(job, trainer, tokenizer, config, data, metrics | {"usable": told["usable"]})
    if trainer.accelerator.is_main_process:
        rmreport.write(job.checkpoint, told)
    job.say("the reward model can be used" if told["usable"] else f"PPO will refuse this reward model: {told['why']}")
    return outcome


def scorer(trainer: Any, pad: int) -> rmreport.Score:
    """Scores of token rows by the trainer's model."""
    import torch

    def score(rows: Any, batch: int) -> list[float]:
        model = trainer.accelerator.unwrap_model(trainer.model).eval()
        found: list[float] = []
        for begin in range(0, len(rows), batch):
            some = rows[begin : begin + batch]
            ids = torch.full((len(some), max(map(len, some))), pad)
            mask = torch.zeros_like(ids)
            for place, row in enumerate(some):
                ids[place, : len(row)] = torch.tensor(list(row))
                mask[place, : len(row)] = 1
            device = next(model.parameters()).device
            with torch.no_grad():
                logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
            found += logits[:, 0].float().tolist()
        return found

    return score
