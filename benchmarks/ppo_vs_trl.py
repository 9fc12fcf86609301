"""PPO's samples per second beside TRL 1.12's PPOTrainer: same model, batch, answer length and epochs.

    python -m benchmarks.ppo_vs_trl [--updates 2] [--batch 32] [--epochs 4] [--tokens 64] ...

TRL removed its PPOTrainer after 1.12, so that version is installed into an environment of its own, `.build/trl112`, by
pip from the index it is configured with. Each side runs alone in a process, one after the other; loading is not counted
on either. The reward is a rule (answers of --words words), which costs nothing. Two ways of ours:

- `ours`: as we mean PPO to be run: LoRA over one base in memory, a value head on the policy, rollouts by vLLM, bfloat16
  where the processor has units for it;
- `alike`: what TRL does: every weight trained, a value model of its own, float32, rollouts by transformers.

`ppo_speed` compares `ours` with TRL, with `alike` in its details. What is learnt is compared in `ppo_quality`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from benchmarks.common import GPU, report

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / ".build" / "smollm2-135m-instruct"
ENVIRONMENT = ROOT / ".build" / "trl112"
PINNED = ("trl==1.12.0", "accelerate", "pandas", "rich")
TEMPERATURE = 1.0


def main() -> None:
    options = parsed()
    if options.side:
        ours(json.loads(Path(options.side).read_text("utf-8")))
        return
    python = trl_environment()
    told = settings(options, options.updates)
    found = {"ours": run_ours(told, way="ours"), "trl": run_trl(python, told), "alike": run_ours(told, way="alike")}
    rates = {name: round(side["samples_per_second"], 4) for name, side in found.items()}
    ratio = rates["ours"] / rates["trl"]
    report(
        claim="ppo_speed",
        value=round(ratio, 2),
        threshold=3.0,
        holds=ratio >= 3.0,
        unit="ratio of samples per second to TRL 1.12's PPOTrainer; at least",
        details={
            "samples_per_second": rates,
            "ratio_trained_alike": round(rates["alike"] / rates["trl"], 2),
            "seconds_of_an_update": {name: found[name]["rows"][-1]["seconds"] for name in ("ours", "alike")},
            "mean_answer_tokens": {name: mean(found[name]["rows"], "length") for name in ("ours", "alike")},
            "answer_tokens_per_second": {name: round(written(found[name], told)) for name in ("ours", "alike")},
            # On a GPU vLLM takes what it is allowed to; see ppo_memory.
            **({} if GPU else {"peak_mib": {name: round(side["peak_mib"]) for name, side in found.items()}}),
            **shown(told),
        },
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=2, help="timed updates of each side")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--minibatches", type=int, default=4)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64, help="longest answer")
    parser.add_argument("--words", type=int, default=8, help="words that the rule wants in an answer")
    parser.add_argument("--learning-rate", type=float, default=1e-5, help="where every weight is trained")
    parser.add_argument("--lora-learning-rate", type=float, default=2e-4)
    parser.add_argument("--kl", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the environment --------------------------------------------------------------------------------------------------


def trl_environment() -> Path:
    """Python of an environment with TRL 1.12 and the torch and transformers that are installed here."""
    from importlib import metadata

    python = ENVIRONMENT / "bin" / "python"
    check = [str(python), "-c", "import trl, sys; sys.exit(trl.__version__ != '1.12.0')"]
    if python.is_file() and subprocess.run(check, check=False, capture_output=True).returncode == 0:
        return python
    print("installing TRL 1.12 into .build/trl112", file=sys.stderr, flush=True)
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", f"torch=={metadata.version('torch')}"], check=True)
    subprocess.run([*pip, *PINNED, f"transformers=={metadata.version('transformers')}"], check=True)
    return python


# --- both sides -------------------------------------------------------------------------------------------------------


def settings(options: argparse.Namespace, updates: int) -> dict[str, Any]:
    """What both sides are told."""
    return {
        "model": str(options.model),
        "prompts": [text for text, _ in prompts(options.model)],
        "batch": options.batch,
        "minibatches": options.minibatches,
        "micro_batch": options.micro_batch,
        "rollout_batch": options.batch,
        "epochs": options.epochs,
        "max_new_tokens": options.tokens,
        "words": options.words,
        "updates": updates,
        "temperature": TEMPERATURE,
        "missing_eos_penalty": 1.0,
        "learning_rate": options.learning_rate,
        "lora_learning_rate": options.lora_learning_rate,
        "kl": options.kl,
        "seed": options.seed,
        "threads": options.threads,
        "marker": "<|im_start|>assistant\n",  # its last one begins the answer
        "first_marker": False,
        "pad_token": "<|endoftext|>",
    }


def prompts(model: Path) -> list[tuple[str, Any]]:
    """Prompts of at most 96 tokens, through the chat template, and as records: the model's own, else those shipped."""
    from transformers import AutoTokenizer

    from cai.records import Prompt, messages_from

    tokenizer = AutoTokenizer.from_pretrained(model)
    found = []
    own = model / "prompts.jsonl"
    for line in (own if own.is_file() else ROOT / "examples" / "prompts.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        turns = messages_from(row["messages"] if "messages" in row else [{"role": "user", "content": row["prompt"]}])
        text = tokenizer.apply_chat_template([t.row() for t in turns], tokenize=False, add_generation_prompt=True)
        if len(tokenizer.encode(text, add_special_tokens=False)) <= 96:
            found.append((text, Prompt.make(turns)))
    return found


def run(command: list[str], told: dict[str, Any]) -> dict[str, Any]:
    """What a side wrote."""
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder) / "options.json", Path(folder) / "result.json"
        given.write_text(json.dumps({**told, "result": str(result), "folder": folder}), "utf-8")
        filled = [part.format(options=given, result=result) for part in command]
        environment = {**os.environ, "OMP_NUM_THREADS": str(told["threads"]), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(filled, cwd=ROOT, env=environment, check=False, stdout=sys.stderr)
        if done.returncode:
            raise SystemExit(f"{' '.join(command[:3])} ended with {done.returncode}")
        found: dict[str, Any] = json.loads(result.read_text("utf-8"))
    return found


def run_trl(python: Path, told: dict[str, Any]) -> dict[str, Any]:
    return run([str(python), "benchmarks/others/trl112_ppo.py", "{options}", "{result}"], told)


def run_ours(told: dict[str, Any], **how: Any) -> dict[str, Any]:
    return run([sys.executable, "-m", "benchmarks.ppo_vs_trl", "--side", "{options}"], {**told, **how})


def ours(told: dict[str, Any]) -> None:
    """Our side, in this process."""
    import resource

    import torch

    from cai.processor import resolved_dtype
    from cai.store import read_rows
    from cai.training.algorithms import ppo
    from cai.training.base import Job
    from cai.training.rewards.rules import Rules, Term

    torch.set_num_threads(told["threads"])
    best = told["way"] == "ours"
    config = ppo.Config.model_validate(
        {key: told[key] for key in ("batch", "minibatches", "micro_batch", "epochs", "max_new_tokens", "updates")}
        | {
            "temperature": told["temperature"],
            "missing_eos": {"how": "penalty", "value": told["missing_eos_penalty"]},
            "kl": {"coefficient": told["kl"]},
            "learning_rate": told["lora_learning_rate"] if best else told["learning_rate"],
            "lora": {"rank": 16, "alpha": 32} if best else None,
            "value": "shared" if best else "separate",
            "dtype": resolved_dtype("auto") if best else "float32",
            "rollouts": "vllm" if best else "transformers",
            "rollout_options": {"context": 256, "seats": told["batch"], "compile": "yes" if GPU else "no"}
            if best
            else {"batch": told["batch"]},
            "save_every": 10**6,
        }
    )
    folder = Path(told["folder"])
    job = Job(
        "ppo",
        folder,
        Path(told["model"]),
        seed=told["seed"],
        prompts=tuple(prompt for _, prompt in prompts(Path(told["model"]))),
        reward=Rules([Term(length=told["words"])]),
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    ppo.train(job, config)
    rows = list(read_rows(job.metrics))
    seconds = sum(row["batch_seconds"] for row in rows)
    result = {
        "seconds": seconds,
        "samples_per_second": told["batch"] * len(rows) / seconds,
        "rows": rows,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    Path(told["result"]).write_text(json.dumps(result), "utf-8")


def written(side: dict[str, Any], told: dict[str, Any]) -> float:
    """Tokens of answers drawn and trained on, per second."""
    return float(sum(row["length"] for row in side["rows"]) * told["batch"] / side["seconds"])


def mean(rows: list[dict[str, Any]], key: str) -> float:
    return round(statistics.fmean(row[key] for row in rows), 4)


def shown(told: dict[str, Any]) -> dict[str, Any]:
    left_out = {"model", "prompts", "marker", "pad_token"}
    return {
        "settings": {key: value for key, value in told.items() if key not in left_out},
        "prompts": len(told["prompts"]),
    }


if __name__ == "__main__":
    main()
