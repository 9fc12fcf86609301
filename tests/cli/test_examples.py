"""The recipes of `examples/`, run as their headers say, on made-up answers and a tiny model."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("trl")

from cai.cli.main import app
from cai.config import load_recipe
from tests.training import tiny_rl

pytestmark = pytest.mark.filterwarnings("ignore")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODELS = ("policy", "judge", "gold")
SMALL = {
    "sft": {"max_steps": 1, "batch": 2, "micro_batch": 2, "max_length": 2048, "lora": {"rank": 2}},
    "dpo": {"max_steps": 1, "batch": 2, "micro_batch": 2, "max_length": 2048, "lora": {"rank": 2}},
    "rm": {"max_steps": 1, "batch": 2, "micro_batch": 2, "max_length": 2048, "lora": {"rank": 2}},
    "ppo": {"updates": 1, "batch": 4, "minibatches": 2, "micro_batch": 2, "max_new_tokens": 4, "lora": {"rank": 2}},
}


def commands(path: Path) -> list[list[str]]:
    """What the comment at a recipe's top says to run, without the `cai` at its beginning."""
    lines = path.read_text("utf-8").split("\nname:")[0].splitlines()
    return [shlex.split(line.removeprefix("#"))[1:] for line in lines if line.startswith("#   cai ")]


@pytest.mark.parametrize("name", ["dpo", "paper"])
def test_a_recipe_runs_in_the_order_that_it_says(tmp_path: Path, name: str) -> None:
    import torch

    torch.set_num_threads(1)
    path = EXAMPLES / f"{name}.yaml"
    tiny = tiny_rl.write_model(tmp_path / "model")
    config = json.loads((tiny / "config.json").read_text("utf-8"))
    (tiny / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 8192}), "utf-8")
    prompts = [{"prompt": f"Say {a} and {b}."} for a in tiny_rl.WORDS for b in tiny_rl.WORDS[:3]]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts), "utf-8")
    scripted = {model: {"backend": "scripted", "name": model} for model in MODELS}
    missing = {"backend": "vllm", "model": str(tmp_path / "not yet")}
    train = yaml.safe_load(path.read_text("utf-8"))["train"]
    for algorithm, block in train.items():
        more: dict[str, Any] = {"watch": {"prompts": 2, "max_tokens": 3}} if "gold" in block else {}
        if algorithm == "ppo":
            more["trust_reward_model"] = True
        block["settings"] = SMALL[algorithm] | more
    train["sft"]["parent"] = str(tiny)
    changes = {"prompts": [{"path": str(tmp_path / "prompts.jsonl")}], "sft.test_fraction": 0.2, "train": train}

    done = []
    for command, *arguments in commands(path):
        given = arguments[: arguments.index(str(path.relative_to(EXAMPLES.parent)))]
        rest = arguments[len(given) + 1 :]
        made = {"backend": "scripted", "name": "tuned"} if "train sft" in done else missing
        sets = {**changes, "models": {**scripted, "sft": made}}
        small = [text for key, value in sets.items() for text in ("--set", f"{key}={json.dumps(value)}")]
        called = [command, *given, str(path), "--run-dir", str(tmp_path / "run"), *small, *rest]
        result = CliRunner().invoke(app, called)
        assert result.exit_code == 0, (called, result.output)
        done.append(" ".join([command, *given]))
    last = name.replace("paper", "ppo")
    lineage = json.loads((tmp_path / "run" / "train" / last / "checkpoint" / "lineage.json").read_text("utf-8"))
    assert lineage["parent"]["lineage"]["algorithm"] == "sft"
    assert lineage["gold"]["rating"]["model"].startswith("gold@")


def test_a_gold_judge_is_not_one_that_writes_or_labels() -> None:
    for name in ("dpo", "paper"):
        loaded = load_recipe(EXAMPLES / f"{name}.yaml")
        for block in loaded.recipe.train.values():
            for gold in block.gold.values():
                _, config = loaded.models[gold["backend"]]
                assert model_of(config) not in {model_of(loaded.models[role][1]) for role in ("policy", "judge", "sft")}
                assert config.gpu_memory_utilization <= 0.3  # type: ignore[attr-defined]


def model_of(config: Any) -> str:
    return str(config.model)
