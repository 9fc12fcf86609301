"""PPO's rollouts by real vLLM: after every update the live engine has the policy's newest weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.vllm

PROGRAM = """
import sys
from pathlib import Path
from cai.records import Message, Prompt
from cai.training.algorithms import ppo
from cai.training.base import Job
from cai.training.rewards.rules import Rules, Term

prompts = tuple(
    Prompt.make(turns)
    for turns in (
        "Name a colour.",
        "What is the capital of France?",
        (Message("user", "Hello!"), Message("assistant", "Hello! How can I help?"), Message("user", "Tell me a joke.")),
        "Give me three words that rhyme with cat.",
    )
)
reward = Rules([Term(length=5)])
config = ppo.Config.model_validate_json(sys.argv[3])
job = Job("ppo", Path(sys.argv[1]), Path(sys.argv[2]), seed=1, prompts=prompts, reward=reward)
ppo.train(job, config)
"""


def test_the_engine_follows_the_policy(tmp_path: Path, model: Path) -> None:
    options = {
        "updates": 3,
        "batch": 8,
        "minibatches": 2,
        "micro_batch": 4,
        "epochs": 2,
        "max_new_tokens": 12,
        # Steps so large that an engine with yesterday's weights could not be mistaken for one with today's.
        "learning_rate": 2e-3,
        "value": "shared",
        "kl": {"coefficient": 0.0},
        "temperature": 0.8,
        "save_every": 100,
        "rollouts": "vllm",
        "logprob_tolerance": 0.02,
        "rollout_options": {"dtype": "float32", "context": 128, "compile": "no", "kv_cache_gib": 1, "seats": 16},
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(model), json.dumps(options)],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [row["update"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["engine_gap"] < 0.02, rows
        assert row["first_ratio"] == pytest.approx(1.0, abs=1e-3)
    # In the last rollout the policy is far from where it began, and the engine is where the policy is.
    assert abs(rows[-1]["kl"]) / rows[-1]["length"] > 5 * rows[-1]["engine_gap"], rows
    assert "log-probabilities are" not in done.stdout
