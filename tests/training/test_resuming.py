"""SFT, reward model and DPO on a tiny model: stopping, going on and ending, and errors in one line."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from cai.errors import InputError, StoreError  # noqa: E402
from cai.training import algorithms  # noqa: E402
from cai.training.base import TrainingError  # noqa: E402
from tests.training import tiny_rl  # noqa: E402
from tests.training.jobs import job, losses, rows, train  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize("name", ["sft", "rm", "dpo"])
def test_a_stopped_training_goes_on_with_the_same_curve(tmp_path: Path, name: str) -> None:
    whole = job(tmp_path, name)
    train(whole, epochs=4, save_every=1)
    code = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1);"
        "from tests.training.jobs import job, train;"
        "train(job(Path(sys.argv[1]), sys.argv[2], out=Path(sys.argv[1]) / 'killed'), epochs=4, save_every=1)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, str(tmp_path), name], env=environment)
    steps = tmp_path / "killed" / "steps"
    while process.poll() is None and not any(steps.glob("checkpoint-*/trainer_state.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert any(steps.glob("checkpoint-*"))
    again = job(tmp_path, name, out=tmp_path / "killed")
    train(again, epochs=4, save_every=1)
    one, other = losses(whole), losses(again)
    assert one.keys() == other.keys()
    for step, loss in one.items():
        assert other[step] == pytest.approx(loss, abs=1e-5)


def test_another_setting_on_begun_steps_is_refused(tmp_path: Path) -> None:
    given = job(tmp_path, "sft")
    train(given, max_steps=2)
    with pytest.raises(InputError, match="another settings"):
        train(given, max_steps=2, learning_rate=0.5)


def test_what_changes_memory_alone_may_change_on_the_way(tmp_path: Path) -> None:
    given = job(tmp_path, "sft")
    train(given, max_steps=2, batch=4, micro_batch=4)
    again = dataclasses.replace(given, trl={"gradient_checkpointing": True})
    assert train(again, max_steps=2, batch=4, micro_batch=2).metrics["steps"] == 2
    with pytest.raises(ValueError, match="multiple of micro_batch"):
        train(given, batch=6, micro_batch=4)


def test_another_number_of_processes_on_begun_steps_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cai.training import runner

    given = job(tmp_path, "sft")
    train(given, max_steps=1)
    monkeypatch.setattr(runner, "processes", lambda: 2)
    with pytest.raises(InputError, match="another process count"):
        train(given, max_steps=1)
    path = given.steps / "inputs.json"
    told = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({key: told[key] for key in told if key != "process count"}), "utf-8")
    assert train(given, max_steps=1).metrics["steps"] == 1, "an older version did not tell"


def test_a_checkpoint_that_was_not_written_to_its_end_is_none(tmp_path: Path) -> None:
    given = job(tmp_path, "sft")
    train(given, max_steps=2, save_every=1)
    path = given.steps / "checkpoint-2" / "trainer_state.json"
    path.write_bytes(path.read_bytes()[:100])
    said: list[str] = []
    train(dataclasses.replace(given, say=said.append), max_steps=2, save_every=1)
    assert "resumes from step 1" in said
    assert list(losses(given)) == [1, 2]


def test_figures_are_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cai.training import runner

    def full(row: Any) -> bytes:
        raise OSError(28, "No space left on device")

    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n', "utf-8")
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(runner, "encode", full)
        with pytest.raises(StoreError, match="the disk is full"):
            runner._forget_after(path, 1)
    assert path.read_bytes() == before
    runner._forget_after(path, 1)
    assert path.read_text("utf-8") == '{"step": 1}\n'


def test_a_training_without_a_step_has_not_been_one(tmp_path: Path) -> None:
    given = job(tmp_path, "sft", trl={"dataloader_drop_last": True})
    with pytest.raises(TrainingError, match="no step was made"):
        train(given, max_steps=2, batch=16, micro_batch=16)


@pytest.mark.parametrize("name", ["sft", "rm", "dpo"])
def test_what_was_refused_or_died_before_a_checkpoint_has_begun_nothing(tmp_path: Path, name: str) -> None:
    given = job(tmp_path, name)
    with pytest.raises(InputError, match="has no 'warmup_ratio'"):
        train(dataclasses.replace(given, trl={"warmup_ratio": 0.1}), max_steps=1)
    assert not any(given.steps.iterdir())
    given.metrics.write_text('{"step":1,"loss":9.0}\n', "utf-8")  # of one that died before its first checkpoint
    (given.steps / "inputs.json").write_text(json.dumps({"settings": {"learning_rate": 5.0}}), "utf-8")
    train(dataclasses.replace(given, trl={"warmup_steps": 0.1}), max_steps=1)
    assert [row["step"] for row in rows(given) if "loss" in row] == [1]


def test_what_can_be_known_before_is_said_before(tmp_path: Path) -> None:
    given = job(tmp_path, "sft")
    with pytest.raises(InputError, match=r"config\.json is missing"):
        train(dataclasses.replace(given, parent=tmp_path / "nowhere"))
    with pytest.raises(InputError, match="has no 'learning_rat'"):
        train(dataclasses.replace(given, trl={"learning_rat": 1}))
    (tmp_path / "long").mkdir()
    row = {"messages": [{"role": "user", "content": "say " * 40}, {"role": "assistant", "content": "yes"}]}
    (tmp_path / "long" / "train.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    with pytest.raises(InputError, match="longer than 16 tokens"):
        train(dataclasses.replace(given, conversations=tmp_path / "long"), max_length=16)
    config = json.loads((given.parent / "config.json").read_text("utf-8"))
    (given.parent / "config.json").write_text(json.dumps({**config, "vocab_size": 3}), "utf-8")
    with pytest.raises(InputError, match="of different models"):
        train(given)
    (given.parent / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaModel"]}), "utf-8")
    with pytest.raises(InputError, match="not a language model"):
        train(given)


def test_no_chat_template_is_said(tmp_path: Path) -> None:
    given = job(tmp_path, "rm")
    path = given.parent / "tokenizer_config.json"
    told = json.loads(path.read_text("utf-8"))
    told.pop("chat_template", None)
    path.write_text(json.dumps(told), "utf-8")
    (given.parent / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(InputError, match="no chat template"):
        train(given)


@pytest.mark.parametrize("name", ["sft", "rm", "ppo"])
def test_a_template_that_refuses_a_conversation_is_one_line(tmp_path: Path, name: str) -> None:
    given = job(tmp_path, name, prompts=tiny_rl.prompts(3), reward=tiny_rl.Share("red"))
    no_users = "{{ raise_exception('Only a system may speak') }}"
    (given.parent / "chat_template.jinja").write_text(no_users, "utf-8")
    module = algorithms.load(name)
    with pytest.raises(InputError, match=r"begins 'say.*refuses the turns user.*Only a system may speak.*leave such"):
        module.train(given, module.Config())


def test_a_loss_that_is_no_number_ends_it(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    given = job(tmp_path, "sft")
    path = given.parent / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("nan"))
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match="is nan at step"):
        train(given)


@pytest.mark.parametrize("what", ["loss", "grad_norm"])
@pytest.mark.parametrize("adapters", [False, True])
def test_what_is_no_number_is_seen_in_its_step_however_rarely_it_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, adapters: bool
) -> None:
    from transformers import Trainer

    steps = []
    computes = Trainer.training_step

    def spoilt(self: Any, model: Any, *given: Any, **named: Any) -> Any:
        loss = computes(self, model, *given, **named)
        steps.append(loss)
        if len(steps) != 3:
            return loss
        if what == "loss":
            return loss * float("nan")
        next(p for p in model.parameters() if p.grad is not None).grad[0, 0] = float("inf")
        return loss

    monkeypatch.setattr(Trainer, "training_step", spoilt)
    given = job(tmp_path, "dpo", trl={"logging_steps": 500})
    lora = {"rank": 2} if adapters else None
    with pytest.raises(TrainingError, match=f"the {what} is (nan|inf) at step 3"):
        train(given, max_steps=4, save_every=1, lora=lora)
    assert len(steps) == 3
    assert [path.name for path in sorted(given.steps.glob("checkpoint-*"))] == ["checkpoint-1", "checkpoint-2"]


def test_what_is_finished_makes_no_further_step(tmp_path: Path) -> None:
    given = job(tmp_path, "dpo")
    first = train(given, max_steps=1)
    told = losses(given)
    again = train(given, max_steps=1)
    assert losses(given) == told
    assert list(told) == [1]
    assert again.metrics["steps"] == first.metrics["steps"] == 1
    assert again.metrics["train_loss"] == pytest.approx(first.metrics["train_loss"])


def test_what_the_watch_ended_stays_ended(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    class Falling:
        """Less with every look, by nearly the same for each answer."""

        name = "falls"
        calls = 0

        def __call__(self, prompts: Any, answers: Any) -> list[float]:
            self.calls += 1
            return [-self.calls - 0.01 * place for place, _ in enumerate(answers)]

    given = dataclasses.replace(job(tmp_path, "dpo"), watched=tiny_rl.prompts(6), gold={"falls": Falling()})
    settings: dict[str, Any] = {"epochs": 3, "watch": {"every": 2, "prompts": 6, "max_tokens": 3}}
    first = train(given, **settings)
    told = losses(given)
    assert max(told) < 10, "it did not stop"
    assert first.metrics["watch"]["best_step"] == 0
    lineage = json.loads((first.checkpoint / "lineage.json").read_text("utf-8"))
    assert (lineage["step"], lineage["gold"]["falls"]["name"]) == (0, "falls")
    weights = load_file(first.checkpoint / "model.safetensors")
    again = train(given, **settings)
    assert losses(given) == told
    assert again.metrics["watch"] == first.metrics["watch"]
    same = load_file(again.checkpoint / "model.safetensors")
    assert all(torch.equal(weights[name], same[name]) for name in weights)
