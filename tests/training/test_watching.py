"""Watching a TRL trainer: all answers at once, from the policy itself, beside the parent, with no other trace."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

import torch

from cai.errors import InputError
from cai.training.algorithms._watching import Watching
from cai.training.base import Job
from cai.training.data import tokens
from cai.training.models import load_model, load_tokenizer
from cai.training.watch import WatchConfig, kept_step
from tests.training import tiny_rl

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """A policy that has left its parent."""
    folder = tiny_rl.write_model(tmp_path / "model")
    found = load_model(folder, "causal", dtype="float32", pad=0, seed=0)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(1.2)
    return found


def watching(folder: Path, model: Any, *, batch: int = 5, gold: Any = None, **more: Any) -> Watching:
    from accelerate import Accelerator

    golds = {"yes": gold or tiny_rl.Share("yes")}
    job = Job("dpo", folder, folder / "model", 0, watched=tiny_rl.prompts(5), gold=golds, say=lambda _: None)
    trainer = SimpleNamespace(
        accelerator=Accelerator(cpu=True),
        model=model,
        is_fsdp_enabled=False,
        is_deepspeed_enabled=False,
        args=SimpleNamespace(per_device_train_batch_size=batch),
    )
    config = WatchConfig(**({"prompts": 5, "max_tokens": 6} | more))
    return Watching(job, config, trainer, load_tokenizer(folder / "model"), total=10)


def test_answers_come_together_and_depend_on_nothing_else(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    generate = model.generate

    def counted(**given: Any) -> Any:
        calls.append(given)
        return generate(**given)

    monkeypatch.setattr(model, "generate", counted)
    before = torch.get_rng_state()
    texts, gaps, spread = watching(tmp_path, model).answers()
    assert len(calls) == 1
    assert torch.equal(torch.get_rng_state(), before)  # the training draws what it would have drawn
    assert len(set(texts)) > 1
    # Neither the size of a batch nor what the checkpoint says of decoding bends the policy.
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.top_k = 1
    again = watching(tmp_path, model, batch=1).answers()
    assert again[0] == texts
    assert again[1] == pytest.approx(gaps, abs=1e-4)
    assert again[2] == pytest.approx(spread, abs=1e-4)


def test_a_look_leaves_the_generation_config_of_the_model_under_adapters(tmp_path: Path, model: Any) -> None:
    from peft import LoraConfig, get_peft_model

    before = model.generation_config
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    watching(tmp_path, wrapped).answers()
    assert model.generation_config is before
    assert wrapped.generation_config is before


@pytest.mark.parametrize("temperature", [0.5, 0.0])
def test_the_log_ratio_is_of_what_was_drawn_from(tmp_path: Path, model: Any, temperature: float) -> None:
    looker = watching(tmp_path, model, temperature=temperature)
    texts, gaps, spread = looker.answers()
    parent = load_model(tmp_path / "model", "causal", dtype="float32", pad=0, seed=0)
    tokenizer = load_tokenizer(tmp_path / "model")
    place = next(i for i, text in enumerate(texts) if len(text.split()) == 6)  # cut off: text and tokens are the same
    prompt = tokens(tokenizer, looker.watch.prompts[place].messages, begin_answer=True)
    answer = tokenizer.encode(texts[place], add_special_tokens=False)
    sums, entropies = [], []
    for one in (model, parent):
        with torch.no_grad():
            logits = one(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        said = torch.log_softmax(logits / (temperature or 1.0), -1)
        sums.append(float(said[range(len(answer)), answer].sum()))
        entropies.append(float(-(said.exp() * said).sum(-1).mean()))
    assert gaps[place] == pytest.approx(sums[0] - sums[1], abs=1e-4)
    assert spread[place] == pytest.approx(entropies[0], abs=1e-4)


def test_prompts_without_room_are_refused(tmp_path: Path, model: Any) -> None:
    with pytest.raises(InputError, match="room for 128 tokens"):
        watching(tmp_path, model, max_tokens=125)


def test_the_best_looks_weights_come_back_and_no_others(tmp_path: Path, model: Any) -> None:
    def state(step: int) -> Any:
        return SimpleNamespace(global_step=step)

    class First(tiny_rl.Share):
        """Highest at the first look."""

        asked = 0

        def __call__(self, prompts: Any, answers: Any) -> list[float]:
            self.asked += 1
            return [1.0 / self.asked] * len(answers)

    looker = watching(tmp_path, model, every=1, gold=First("yes"))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    looker.on_train_begin(None, state(0), None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    looker.on_step_end(None, state(1), SimpleNamespace())
    assert looker.finish()["watch"]["best_step"] == 0
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    # Weights of another step, as a kill between a look and its weights leaves them, are not taken.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    looker._keep(7)
    with torch.no_grad():
        model.model.norm.weight.fill_(3.0)
    looker.finish()
    assert float(model.model.norm.weight[0]) == 3


def test_weights_lost_between_a_look_and_their_file_are_kept_when_it_is_passed_again(
    tmp_path: Path, model: Any
) -> None:
    def looks_at(step: int) -> Watching:
        looker = watching(tmp_path, model, every=1)
        looker.on_train_begin(None, SimpleNamespace(global_step=step), None)
        return looker

    looks_at(0)
    file = tmp_path / "best.safetensors"
    file.unlink()  # as a kill right after the look leaves it
    looks_at(0)
    assert kept_step(file) == 0
    written = file.stat().st_mtime_ns
    looker = looks_at(0)
    assert file.stat().st_mtime_ns == written
    # What was not put back is not said to be the result.
    looker.finish()
    assert looker.step is None
