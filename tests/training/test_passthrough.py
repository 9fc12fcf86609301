"""The `trl:` block: what is shipped builds, and a key that nobody would read is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch")
trl = pytest.importorskip("trl")

from cai import train as root  # noqa: E402
from cai.errors import InputError, MissingDependency  # noqa: E402
from cai.training import passthrough, runner  # noqa: E402
from cai.training.base import Job  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))
KINDS = {
    "sft": trl.SFTConfig,
    "rm": trl.RewardConfig,
    "dpo": trl.DPOConfig,
    "grpo": trl.GRPOConfig,
    "rloo": trl.RLOOConfig,
}


def built(name: str, block: dict[str, Any], folder: Path) -> Any:
    settings: Any = root.settings_of(name, block.get("settings", {}), f"train.{name}.settings")
    given = Job(name, folder, folder, seed=0, trl=block.get("trl", {}))
    return runner.arguments(KINDS[name], given, settings, settings.arguments()) if name in KINDS else settings


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_training_of_the_examples_builds(path: Path, tmp_path: Path) -> None:
    trained = yaml.safe_load(path.read_text("utf-8")).get("train", {})
    assert trained
    for name, block in trained.items():
        found = built(name, block, tmp_path)
        for key, value in block.get("trl", {}).items():
            assert getattr(found, key) == value


@pytest.mark.parametrize(
    ("name", "block", "said"),
    [
        ("dpo", {"loss_type": ["ipo"]}, "loss_type has no effect on dpo"),
        ("dpo", {"label_smoothing": 0.3}, "label_smoothing has no effect"),
        ("dpo", {"use_liger_kernel": True}, "use_liger_kernel has no effect"),
        ("dpo", {"beta": 0.5}, r"beta is said by settings.*train\.dpo\.settings\.beta"),
        ("dpo", {"max_length": 64}, "settings.max_length"),
        ("rm", {"label_smoothing_factor": 0.1}, "no effect on rm"),
        ("sft", {"packing": True}, "packing has no effect on sft"),
        ("sft", {"lr_scheduler_type": "cosine"}, "settings.schedule"),
        ("grpo", {"max_steps": 3}, "settings.steps"),
        ("rm", {"eval_strategy": "steps"}, "eval_strategy has no effect on rm"),
        ("grpo", {"load_best_model_at_end": True}, "no effect on grpo"),
        ("rm", {"seed": 3}, "seed is set by cai"),
        ("dpo", {"logging_nan_inf_filter": True}, "logging_nan_inf_filter is set by cai"),
        ("rm", {"warmup_ratio": 0.1}, "has no 'warmup_ratio'"),
    ],
)
def test_a_key_that_would_do_nothing_is_refused(name: str, block: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        built(name, {"trl": block}, tmp_path)


def test_a_key_with_an_effect_goes_through(tmp_path: Path) -> None:
    assert built("rm", {"trl": {"center_rewards_coefficient": 0.01}}, tmp_path).center_rewards_coefficient == 0.01
    assert built("rm", {"trl": {"lr_scheduler_type": "cosine"}}, tmp_path).lr_scheduler_type == "cosine"


def test_the_launcher_may_not_say_another_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(InputError, match=r"sft\.settings\.dtype: dtype is float32.*mixed_precision is bf16.*leave"):
        built("sft", {}, tmp_path)
    assert built("sft", {"settings": {"dtype": "bfloat16"}}, tmp_path).bf16
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert built("sft", {"settings": {"dtype": "bfloat16"}}, tmp_path).bf16


@pytest.mark.parametrize("path", sorted((EXAMPLES[0].parent / "accelerate").glob("*.yaml")), ids=lambda path: path.name)
def test_what_we_ship_for_accelerate_leaves_the_precision_to_the_recipe(path: Path) -> None:
    told = yaml.safe_load(path.read_text("utf-8"))
    assert told.get("mixed_precision", "no") == "no"
    assert "gradient_clipping" not in told.get("deepspeed_config", {})


@pytest.mark.parametrize("name", ["sft", "grpo"])
def test_a_tracker_that_is_not_there_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import integration_utils

    with pytest.raises(InputError, match=rf"train\.{name}\.trl\.report_to: nowhere is not supported"):
        built(name, {"trl": {"report_to": ["nowhere"]}}, tmp_path)
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: False)
    with pytest.raises(MissingDependency, match=r"the tracker wandb cannot be used: .*pip install wandb"):
        built(name, {"trl": {"report_to": "wandb"}}, tmp_path)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_several_gpus_for_one_process_are_told_how_to_be_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import TrainingArguments

    monkeypatch.setattr(TrainingArguments, "n_gpu", 4)
    said = rf"one process sees 4 GPUs.*accelerate launch -m cai train {name} .*CUDA_VISIBLE_DEVICES=0"
    with pytest.raises(InputError, match=said):
        built(name, {}, tmp_path)


def test_every_key_of_the_lists_is_one_of_trls() -> None:
    known = {key for kind in KINDS.values() for key in kind.__dataclass_fields__}
    assert {key for keys in passthrough.WITHOUT_EFFECT.values() for key in keys} <= known
    assert set(passthrough.SETTING) <= known
