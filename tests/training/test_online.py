"""GRPO and RLOO by TRL with our rewards: they learn, resume, and refuse what PPO refuses."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from cai import plugins  # noqa: E402
from cai.errors import InputError  # noqa: E402
from cai.training.base import Job, TrainingError  # noqa: E402
from tests.training import tiny_rl  # noqa: E402

# TRL, accelerate and vLLM warn of their own affairs.
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]


def job(name: str, out: Path, model: Path, reward: Any) -> Job:
    return Job(name, out, model, seed=3, prompts=tiny_rl.prompts(5), reward=reward, say=lambda _: None)


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_the_reward_rises(tmp_path: Path, name: str) -> None:
    model = tiny_rl.write_model(tmp_path / "model")
    module = plugins.load("cai.training.algorithms", name)
    config = module.Config.model_validate(
        {"steps": 12, "batch": 32, "micro_batch": 32, "samples_per_prompt": 8, "max_new_tokens": 3, "lora": None}
        | {"learning_rate": 0.01, "beta": 0.0, "watch": {"prompts": 0}}
    )
    outcome = module.train(job(name, tmp_path / "out", model, tiny_rl.Share("red")), config)
    rewards = [row["reward"] for row in tiny_rl.metrics(tmp_path / "out" / "metrics.jsonl") if "reward" in row]
    assert len(rewards) == 12
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.3, rewards
    assert (outcome.checkpoint / "model.safetensors").is_file()
    assert (outcome.checkpoint / "lineage.json").is_file()
    assert list((tmp_path / "out" / "steps").glob("checkpoint-*"))
    assert not list((tmp_path / "out").rglob("*.bin"))


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_one_that_died_in_a_later_pass_goes_on_with_the_same_curve(tmp_path: Path, name: str, model: Path) -> None:
    class Dies(tiny_rl.Share):
        """Is killed while it scores the answers of this step."""

        left = 5

        def __call__(self, prompts: Any, answers: Any) -> list[float]:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            return super().__call__(prompts, answers)

    module = plugins.load("cai.training.algorithms", name)
    config = module.Config.model_validate(  # two prompts a step of five: two steps a pass
        {"steps": 8, "batch": 8, "micro_batch": 8, "samples_per_prompt": 4, "max_new_tokens": 4, "lora": None}
        | {"learning_rate": 0.01, "save_every": 1, "watch": {"prompts": 0}}
    )
    curves = []
    for out, reward in (("whole", tiny_rl.Share("red")), ("died", Dies("red"))):
        given = job(name, tmp_path / out, model, reward)
        with contextlib.suppress(KeyboardInterrupt):
            module.train(given, config)
        if out == "died":
            assert (given.steps / "checkpoint-4").is_dir()
            assert not (given.steps / "checkpoint-5").is_dir()
            shutil.rmtree(given.steps / "checkpoint-4")  # in the middle of the second pass
            module.train(dataclasses.replace(given, reward=tiny_rl.Share("red")), config)
        rows = tiny_rl.metrics(given.metrics)
        curves.append([(row["step"], row["loss"], row["reward"]) for row in rows if "reward" in row])
    assert len(curves[0]) == 8
    for one, other in zip(*curves, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_too_few_prompts_for_a_step_are_said(tmp_path: Path, name: str, model: Path) -> None:
    module = plugins.load("cai.training.algorithms", name)
    config = module.Config(batch=48, micro_batch=8, samples_per_prompt=8, max_new_tokens=3)
    given = job(name, tmp_path / "out", model, tiny_rl.Share("red"))
    with pytest.raises(InputError, match=r"5 prompts, and each step takes 6: 48 answers .* 8 to each.*lower batch"):
        module.train(given, config)
    assert not given.steps.exists(), "it has not begun"


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_a_template_that_writes_the_day_is_given_the_same_day(tmp_path: Path, name: str) -> None:
    model = tiny_rl.write_model(tmp_path / "model")
    today = "{% if strftime_now('%Y') != '2024' %}{{ raise_exception('another day') }}{% endif %}"
    (model / "chat_template.jinja").write_text(today + tiny_rl.TEMPLATE, "utf-8")
    module = plugins.load("cai.training.algorithms", name)
    config = module.Config.model_validate(
        {"steps": 1, "batch": 8, "micro_batch": 8, "samples_per_prompt": 4, "max_new_tokens": 3, "lora": None}
        | {"watch": {"prompts": 0}}
    )
    module.train(job(name, tmp_path / "out", model, tiny_rl.Share("red")), config)
    assert tiny_rl.metrics(tmp_path / "out" / "metrics.jsonl")


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    module = plugins.load("cai.training.algorithms", "grpo")
    model = tiny_rl.write_model(tmp_path / "model")
    with pytest.raises(InputError, match="grpo needs a reward"):
        module.train(job("grpo", tmp_path / "out", model, None), module.Config())
    doubtful = tiny_rl.Share("red")
    doubtful.doubt = "accuracy 0.5"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="trust_reward_model"):
        module.train(job("grpo", tmp_path / "out", model, doubtful), module.Config())
    with pytest.raises(ValueError, match="multiple"):
        module.Config(batch=30)


def test_a_score_that_is_no_number_stops_it() -> None:
    from cai.training.algorithms._online import reward_function

    class Broken(tiny_rl.Share):
        def __call__(self, prompts: Any, answers: Any) -> list[float]:
            return [float("inf")] * len(answers)

    prompts, answers = [[{"role": "user", "content": "hello"}]], [[{"role": "assistant", "content": "red"}]]
    assert reward_function(tiny_rl.Share("red"))(prompts, answers, completion_ids=[[1]]) == [1.0]
    with pytest.raises(TrainingError, match="finite score"):
        reward_function(Broken("red"))(prompts, answers)
