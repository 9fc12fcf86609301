"""`cai train` on a run of the scripted backend, and the tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("trl")

from cai.cli.main import app
from tests.training import tiny_rl

pytestmark = pytest.mark.filterwarnings("ignore")
RECIPE = """
name: tiny
constitution: humanity
prompts:
  - {path: prompts.jsonl}
models:
  policy: {backend: scripted}
revise: {rounds: 1}
sft: {test_fraction: 0.3}
sample: {sources: [{count: 3}]}
judge: {method: logprob}
train:
  sft:
    parent: model
    settings: {max_steps: 2, batch: 2, micro_batch: 2, max_length: 2048}
  rm:
    settings: {max_steps: 2, batch: 2, micro_batch: 2, max_length: 2048}
  dpo:
    settings: {max_steps: 2, batch: 2, micro_batch: 2, max_length: 2048, beta: 0.3}
    trl: {warmup_steps: 1}
"""


def cai(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, its recipe and a tiny model beside it."""
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("train")
    words = tiny_rl.WORDS
    prompts = [f"Say {a} and {b}, please." for a in words for b in words[:3]]
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts), "utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, "utf-8")
    tiny_rl.write_model(folder / "model")
    # Long answers of the scripted backend: positions for them.
    config = json.loads((folder / "model" / "config.json").read_text("utf-8"))
    (folder / "model" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}), "utf-8")
    done = cai("run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run"))
    assert done.exit_code == 0, done.output
    return folder


def test_the_dpo_path(place: Path) -> None:
    for name in ("sft", "dpo"):
        done = cai("train", name, str(place / "recipe.yaml"), "--run-dir", str(place / "run"), "--json")
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert told["checkpoint"].endswith(f"train/{name}/checkpoint")
        assert told["metrics"]["steps"] == 2
    lineage = json.loads((place / "run" / "train" / "dpo" / "checkpoint" / "lineage.json").read_text("utf-8"))
    assert lineage["parent"]["lineage"]["algorithm"] == "sft"
    assert lineage["constitution"] == "humanity"
    assert len(lineage["constitution_hash"]) >= 16
    assert lineage["data"]["mixture"]["sources"]["preferences"]["train"] > 0


def test_the_reward_model_and_fresh(place: Path) -> None:
    recipe, run = str(place / "recipe.yaml"), str(place / "run")
    assert cai("train", "rm", str(place / "run" / "recipe.yaml")).exit_code == 0  # the run's own recipe means that run
    changed = ("--set", "train.rm.settings.learning_rate=0.1")
    refused = cai("train", "rm", recipe, "--run-dir", run, *changed)
    assert refused.exit_code == 2
    assert "--fresh" in refused.stderr
    assert cai("train", "rm", recipe, "--run-dir", run, *changed, "--fresh").exit_code == 0
    assert (place / "run" / "train" / "rm" / "history" / "001" / "checkpoint" / "report.json").is_file()


def test_what_is_wrong_is_said_before_anything_loads(place: Path) -> None:
    recipe, run = str(place / "recipe.yaml"), str(place / "run")
    for overrides, said in (
        (["--set", "train.dpo.settings.bet=1"], "bet"),
        (["--set", "train.dpi={}"], "dpi"),
        (["--set", "train.dpo.parent=nowhere"], "config.json is missing"),
        (["--set", "train.dpo.rewards=[{kind: model}]"], "dpo does not read rewards"),
        (["--set", "train.dpo.data=sft"], "dpo does not read data"),
    ):
        done = cai("train", "dpo", recipe, "--run-dir", run, "--out", str(place / "other"), *overrides)
        assert done.exit_code == 2, done.output
        assert said in done.stderr
    for name, override, said in (
        ("sft", "train.sft.gold={rating: {kind: rating}}", "sft does not read gold"),
        ("rm", "train.rm.rewards=[{kind: model}]", "rm does not read rewards"),
        ("ppo", "train.ppo.trl={report_to: wandb}", "ppo does not read trl"),
    ):
        done = cai("train", name, recipe, "--run-dir", run, "--out", str(place / "other"), "--set", override)
        assert done.exit_code == 2, done.output
        assert said in done.stderr
    assert cai("train", "dpu", recipe, "--run-dir", run).exit_code == 2


def test_a_gold_score_that_is_the_reward_is_refused(place: Path) -> None:
    """Left out, the model is this run's own in both places."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    made = place / "run" / "train" / "rm" / "checkpoint"
    if not made.is_dir():
        AutoModelForSequenceClassification.from_pretrained(place / "model", num_labels=1).save_pretrained(made)
    length, yes = "{kind: rules, terms: [{length: 2}]}", "{kind: rules, terms: [{words: ['yes']}]}"
    for rewards, gold, refused in (
        ("", "{kind: model}", True),
        ("{kind: model, weight: 2}, " + length, "{kind: model, scale: 3, shift: 1, dtype: bfloat16}", True),
        ("{kind: model}, " + length, length, True),
        ("{kind: model}, " + length, yes, False),
    ):
        override = f"train.ppo={{parent: nowhere, rewards: [{rewards}], gold: {{mine: {gold}}}}}"
        done = cai("train", "ppo", str(place / "recipe.yaml"), "--run-dir", str(place / "run"), "--set", override)
        assert done.exit_code == 2, done.output
        assert ("the gold score 'mine' is what is maximised" in done.stderr) is refused, done.stderr


def test_settings_are_listed() -> None:
    done = cai("train", "dpo", "--settings")
    assert done.exit_code == 0
    assert "  beta = 0.1  " in done.stdout
    assert "  lora = None  Adapters" in done.stdout
    assert "    rank = 16\n" in done.stdout, "what stands inside a block is told too"
    assert "names `gold`, or `every` is set" in done.stdout
    assert "train.dpo.trl" in done.stdout
    assert "train.ppo.trl" not in cai("train", "ppo", "--settings").stdout, "which PPO does not read"


def test_two_processes_train_together(place: Path) -> None:
    import os
    import subprocess
    import sys

    config = Path(__file__).resolve().parents[2] / "examples" / "accelerate" / "cpu.yaml"
    launch = [sys.executable, "-W", "ignore", "-m", "accelerate.commands.launch", "--config_file", str(config)]
    out = place / "both"
    command = [*launch, "--main_process_port", "0", "-m", "cai", "train", "sft", str(place / "recipe.yaml")]
    command += ["--run-dir", str(place / "run"), "--out", str(out), "--fresh", "--json"]
    # Of an earlier training: neither process may resume from it, nor trip over its going.
    (out / "steps" / "checkpoint-1").mkdir(parents=True)
    (out / "steps" / "checkpoint-1" / "trainer_state.json").write_text("{}", "utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(config.parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["metrics"]["steps"] == 2
    assert (out / "checkpoint" / "model.safetensors").is_file()
    assert (out / "history" / "001" / "steps" / "checkpoint-1").is_dir()
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_rl_by_a_rule(place: Path, name: str) -> None:
    settings = {
        "ppo": "{updates: 2, batch: 4, minibatches: 2, micro_batch: 2, epochs: 1, max_new_tokens: 4, lora: {rank: 4}}",
        "grpo": "{steps: 2, batch: 4, micro_batch: 2, samples_per_prompt: 2, max_new_tokens: 4, lora: {rank: 4}}",
    }[name]
    overrides = [
        f"train.{name}={{parent: model, rewards: [{{kind: rules, terms: [{{length: 2}}]}}]}}",
        f"train.{name}.settings={settings}",
    ]
    given = [part for override in overrides for part in ("--set", override)]
    out = place / name
    command = ["train", name, str(place / "recipe.yaml"), "--run-dir", str(place / "run"), "--out", str(out), *given]
    done = cai(*command, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"]
    assert (out / "checkpoint" / "config.json").is_file()
    lineage = json.loads((out / "checkpoint" / "lineage.json").read_text("utf-8"))
    assert lineage["reward"]["terms"] == [{"length": 2}]
    assert lineage["reward"]["id"]
