"""DPO on soft labels (Rafailov et al. 2023, arXiv 2305.18290), by TRL's DPOTrainer with our loss."""

from __future__ import annotations

from pydantic import Field

from cai.training.algorithms._common import Settings, finish
from cai.training.base import Job, Outcome
from cai.training.data import check_template, encode, read_pairs
from cai.training.models import check_parent, load_tokenizer, load_trained, peft_config
from cai.training.watch import WatchConfig

HELP = "Direct preference optimisation on soft labels: the simple way, without a reward model."


class Config(Settings):
    """Options of DPO."""

    learning_rate: float = Field(1e-6, gt=0)
    beta: float = Field(0.1, gt=0, description="How strongly the policy is held to its parent.")
    soft: bool = Field(True, description="Train on the probability; false: on which side it falls, without ties.")
    watch: WatchConfig = Field(WatchConfig(), description="Where the recipe's block names `gold`, or `every` is set.")


def train(job: Job, config: Config) -> Outcome:
    """Train; the same call resumes.

    Raises:
        InputError: no pairs, identical answers, an empty split, no chat template, or another model.
        TrainingError: NaN loss.
    """
    pairs = read_pairs(job.pairs, hard=not config.soft, say=job.say)
    check_parent(job.parent, "causal", config.lora)
    tokenizer = load_tokenizer(job.parent)
    check_template(tokenizer, str(job.parent))
    encoded, dropped = encode(pairs.train, tokenizer, longest=config.max_length)
    held, dropped_test = encode(pairs.test, tokenizer, longest=config.max_length) if pairs.test else ([], 0)
    data = {"digest": pairs.digest, "mixture": pairs.mixture, "too_long": dropped + dropped_test}
    if dropped + dropped_test:
        job.say(f"{dropped + dropped_test} groups with a row of over {config.max_length} tokens were left out whole")
    job.say(f"{sum(len(e.element.pairs) for e in encoded)} pairs in {len(encoded)} groups; {len(held)} groups held out")

    from datasets import Dataset
    from trl import DPOConfig

    from cai.processes import launched
    from cai.training import runner
    from cai.training.algorithms._watching import Watching
    from cai.training.batches import PairCollator
    from cai.training.trainers import SoftDPOTrainer

    # Adapters can be switched off at any time, so a training that ends before it has seen every group once asks the
    # reference about what it sees; not where several processes train, whose wrapper around the model hides them.
    few = config.lora is not None and not launched() and 0 < config.max_steps * config.batch < len(encoded)
    arguments = runner.arguments(
        DPOConfig, job, config, {**config.arguments(), "beta": config.beta, "precompute_ref_log_probs": not few}
    )
    resume = runner.begin(job, config.model_dump(mode="json", exclude={"watch"}), pairs.digest)
    trainer = SoftDPOTrainer(
        model=load_trained(
            job.parent, "causal", lora=config.lora, dtype=config.dtype, pad=tokenizer.pad_token_id, seed=job.seed
        ),
        args=arguments,
        data_collator=PairCollator(tokenizer.pad_token_id),
        train_dataset=Dataset.from_list([e.row() for e in encoded]),
        eval_dataset=Dataset.from_list([e.row() for e in held]) if held else None,
        processing_class=tokenizer,
        peft_config=peft_config(config.lora, "causal"),
    )
    watching = Watching(job, config.watch, trainer, tokenizer, total=runner.steps_of(trainer))
    metrics = runner.run(job, trainer, resume, watch=watching)
    metrics |= watching.finish()
    if held:
        told = trainer.evaluate()
        metrics |= {key: float(value) for key, value in told.items() if key in ("eval_loss", "eval_rewards/accuracies")}
    return finish(job, trainer, tokenizer, config, data, metrics, step=watching.step)
