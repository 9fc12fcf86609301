"""TRL 1.12's experimental PPOTrainer, timed; started by `benchmarks.ppo_vs_trl` with the Python of an environment of
its own.

    python trl112_ppo.py OPTIONS.json RESULT.json

Imports nothing of cai, which is not installed there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


def main() -> None:
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    options = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(options["threads"])
    tokenizer = AutoTokenizer.from_pretrained(options["model"], padding_side="left")
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        # TRL finds a response's end by its first pad token, so the two must differ.
        tokenizer.pad_token = options["pad_token"]
    policy = AutoModelForCausalLM.from_pretrained(options["model"], dtype="float32")
    reference = AutoModelForCausalLM.from_pretrained(options["model"], dtype="float32")
    value = AutoModelForSequenceClassification.from_pretrained(options["model"], num_labels=1, dtype="float32")
    torch.nn.init.zeros_(value.score.weight)  # as ours begins

    class Rule(torch.nn.Module):  # type: ignore[misc]
        """The rule as TRL wants a reward model: hidden states by its `base_model_prefix`, scores by `score`."""

        base_model_prefix = "base"

        def __init__(self) -> None:
            super().__init__()
            self.base = torch.nn.Module()
            self.base.forward = self.states

        @staticmethod
        def states(input_ids: Any, attention_mask: Any, **_: Any) -> Any:
            kept = torch.where(attention_mask.bool(), input_ids, -1)
            return SimpleNamespace(hidden_states=(kept.unsqueeze(-1),))

        @staticmethod
        def score(hidden: Any) -> Any:
            scores = [answer_score([t for t in row if t >= 0]) for row in hidden.squeeze(-1).tolist()]
            return torch.tensor(scores, device=hidden.device).view(-1, 1, 1).expand(-1, hidden.shape[1], 1)

    def answer_score(tokens: list[int]) -> float:
        text = tokenizer.decode(tokens, skip_special_tokens=False)
        split = text.split if options["first_marker"] else text.rsplit
        text = split(options["marker"], 1)[-1]
        for token in tokenizer.all_special_tokens:
            text = text.replace(token, "")
        return max(0.0, 1 - abs(len(text.split()) / float(options["words"]) - 1))

    class Timer(TrainerCallback):  # type: ignore[misc]
        """TRL logs once an update."""

        rows: list[dict[str, Any]]

        def __init__(self) -> None:
            self.rows = []

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            row = {key: float(found) for key, found in (logs or {}).items() if isinstance(found, int | float)}
            self.rows.append({**row, "at": time.perf_counter()})

    timer = Timer()
    batch, minibatches = options["batch"], options["minibatches"]
    if options["micro_batch"] * minibatches != batch:
        raise SystemExit("TRL is compared with passes of a whole minibatch: micro_batch times minibatches is the batch")
    config = PPOConfig(
        output_dir=str(Path(sys.argv[2]).parent / "trl"),
        # Not minibatches by accumulation: TRL 1.12 would then step the optimizer once for all of them, since it counts
        # every pass of a minibatch as one of accelerate's accumulation. So it steps after each, as ours does.
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        num_mini_batches=minibatches,
        num_ppo_epochs=options["epochs"],
        total_episodes=batch * options["updates"],
        local_rollout_forward_batch_size=options["rollout_batch"],
        response_length=options["max_new_tokens"],
        temperature=options["temperature"],
        stop_token="eos",
        missing_eos_penalty=options["missing_eos_penalty"],
        learning_rate=options["learning_rate"],
        lr_scheduler_type="constant",
        kl_coef=options["kl"],
        cliprange=0.2,
        cliprange_value=0.2,
        vf_coef=0.1,
        gamma=1.0,
        lam=0.95,
        num_sample_generations=0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        seed=options["seed"],
    )
    rows = [{"input_ids": tokenizer.encode(text, add_special_tokens=False)} for text in options["prompts"]]
    data = Dataset.from_list(rows * (batch * options["updates"] // len(rows) + 1))
    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=Rule(),
        value_model=value,
        train_dataset=data,
        eval_dataset=data.select(range(min(len(data), 8))),
        callbacks=[timer],
    )
    begun = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begun
    import trl

    result = {
        "seconds": seconds,
        "samples_per_second": batch * options["updates"] / seconds,
        "rows": [{**row, "at": row["at"] - begun} for row in timer.rows],
        "peak_mib": peak_mib(),
        "trl": trl.__version__,
    }
    Path(sys.argv[2]).write_text(json.dumps(result, indent=1), "utf-8")


def peak_mib() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
