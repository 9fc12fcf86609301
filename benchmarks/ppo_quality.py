"""What PPO learns beside TRL 1.12's PPOTrainer: reward at no more KL, on a task whose best answer is known.

    python -m benchmarks.ppo_quality [--seeds 5] [--first 1] [--updates 48] [--batch 64] [--tokens 24] [--words 8]

Both sides train every weight of the same small random Llama (two layers, a vocabulary of words) with the same learning
rate, KL coefficient, clipping, epochs and minibatches, a value model of their own, float32, rollouts by transformers.
At a learning rate of 1e-3 TRL's loop, which clips no gradients, collapses in a third of the seeds; so it is lower.
The reward is a rule: answers of --words words are worth 1, less the further from it, and one is taken off where an
answer does not end. A model this small makes several seeds affordable, of which the interval is made; a single run of
a larger one would be one draw.

Each seed runs TRL first, and takes reward and KL of its last quarter of updates; then ours with TRL's KL coefficient
and its multiples, until one spends no more KL than TRL did, and --refine times more with a coefficient between the last
that spent more and the first that did not. Of those that spent no more, the one that spent most is compared: it is
chosen by its KL, never by its reward. (To compare with a run where it passes TRL's KL on its way up would be unfair: it
is still learning there, and TRL has settled.) The claim is that its reward is not worse by more than `MARGIN`, a
hundredth of the distance from the worst reward to the best.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import report
from benchmarks.ppo_vs_trl import ROOT, mean, prompts, run_ours, run_trl, shown, trl_environment
from cai.records import content_hash
from cai.store import Log

MODEL = ROOT / ".build" / "tiny-words"
ROWS = ROOT / ".build" / "ppo-quality.jsonl"  # a stopped run goes on behind its last seed
MARGIN = 0.02
FACTORS = (1, 1.5, 2, 3, 4)
SPECIAL = ("<pad>", "<unk>", "<end>", "<user>", "<assistant>", "<system>")
WORDS = (
    "red green blue white black one two three four five six seven eight nine ten stone river tree cloud rain sun moon "
    "bread milk salt tea cup door window table chair street garden bird fish horse cat dog music song word letter book"
).split()
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + ' <end> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def build(folder: Path) -> None:
    """The model, its tokenizer and 64 prompts of single turns."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<end>", pad_token="<pad>", unk_token="<unk>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        eos_token_id=vocabulary["<end>"],
        pad_token_id=0,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    rng = np.random.default_rng(0)
    rows = [{"prompt": " ".join(rng.choice(WORDS, size=int(rng.integers(2, 8))))} for _ in range(64)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--refine", type=int, default=2, help="coefficients tried between two that bracket TRL's KL")
    parser.add_argument("--updates", type=int, default=48)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=24, help="longest answer")
    parser.add_argument("--words", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--kl", type=float, default=0.02)
    options = parser.parse_args()
    if not (MODEL / "prompts.jsonl").is_file():
        build(MODEL)
    python = trl_environment()
    told: dict[str, Any] = {
        "model": str(MODEL),
        "prompts": [text for text, _ in prompts(MODEL)],
        "batch": options.batch,
        "minibatches": 4,
        "micro_batch": options.batch // 4,
        "rollout_batch": options.batch,
        "epochs": options.epochs,
        "max_new_tokens": options.tokens,
        "words": options.words,
        "updates": options.updates,
        "temperature": 1.0,
        "missing_eos_penalty": 1.0,
        "learning_rate": options.learning_rate,
        "kl": options.kl,
        "threads": 1,
        "marker": "<assistant>",  # single turns: its first one begins the answer, whatever the answer says
        "first_marker": True,
        "pad_token": "<pad>",
    }
    rows: list[dict[str, dict[str, float]]] = []
    quarter = max(1, options.updates // 4)
    known = Log(ROWS, key="key")
    for seed in range(options.first, options.first + options.seeds):
        key = content_hash({**told, "model": MODEL.name}, options.refine, seed)
        if (before := known.get(key)) is not None:
            rows.append(before["row"])
            continue
        theirs = [row for row in run_trl(python, {**told, "seed": seed})["rows"] if "objective/kl" in row]
        trl = ended(theirs[-quarter:], "objective/scores", "objective/kl")
        tried: dict[float, dict[str, float]] = {}

        def run(coefficient: float, seed: int = seed, tried: dict[float, dict[str, float]] = tried) -> dict[str, float]:
            mine = run_ours({**told, "seed": seed, "kl": coefficient}, way="alike")["rows"]
            tried[coefficient] = ended(mine[-quarter:], "paid", "kl")
            return tried[coefficient]

        for factor in FACTORS:
            if run(options.kl * factor)["kl"] <= trl["kl"]:
                break
        for _ in range(options.refine):
            above = [each for each, found in tried.items() if found["kl"] > trl["kl"]]
            below = [each for each, found in tried.items() if found["kl"] <= trl["kl"]]
            if not above or not below:
                break
            run((max(above) + min(below)) / 2)
        within = [found for found in tried.values() if found["kl"] <= trl["kl"]] or list(tried.values())[-1:]
        row = {"trl": trl, "ours": max(within, key=lambda found: found["kl"])}
        row |= {f"ours, {coefficient:.4g}": found for coefficient, found in sorted(tried.items())}
        rows.append(row)
        known.append({"key": key, "seed": seed, "row": row})
        print(f"seed {seed}: {row}", flush=True)
    gaps = np.array([row["ours"]["reward"] - row["trl"]["reward"] for row in rows])
    low, high = interval(gaps)
    spent = np.mean([row["ours"]["kl"] / row["trl"]["kl"] for row in rows])
    report(
        claim="ppo_quality",
        value=round(low, 4),
        threshold=-MARGIN,
        holds=bool(low >= -MARGIN and spent <= 1),
        unit="lower end of the 95 % interval of the reward above TRL 1.12's at no more KL, over seeds; at least",
        details={
            "mean_difference": round(float(gaps.mean()), 4),
            "interval": [round(low, 4), round(high, 4)],
            "kl_spent_by_trls": round(float(spent), 3),
            "seeds": rows,
            **shown(told),
        },
    )


def ended(last: list[dict[str, Any]], reward: str, kl: str) -> dict[str, float]:
    """Mean reward, and KL in nats an answer."""
    return {"reward": mean(last, reward), "kl": mean(last, kl)}


def interval(gaps: Any) -> tuple[float, float]:
    """Student's, 95 %."""
    from scipy.stats import t

    half = float(t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)))
    return float(gaps.mean()) - half, float(gaps.mean()) + half


if __name__ == "__main__":
    main()
