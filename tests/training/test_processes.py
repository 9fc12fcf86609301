"""Two processes of `accelerate launch` on the CPU train and watch together as one does."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from cai.processes import leave_processes, no_teardown
from cai.training import algorithms
from cai.training.base import Job, TrainingError
from tests.training import tiny_rl
from tests.training.jobs import job, losses

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
ROOT = Path(__file__).resolve().parents[2]
WATCH: dict[str, Any] = {"every": 2, "prompts": 5, "max_tokens": 6}
SETTINGS: dict[str, dict[str, Any]] = {
    "dpo": {"batch": 2, "micro_batch": 2, "max_steps": 2, "learning_rate": 0.01, "watch": WATCH},
    "grpo": {
        "steps": 2,
        "batch": 4,
        "micro_batch": 4,
        "samples_per_prompt": 2,
        "max_new_tokens": 4,
        "lora": {"rank": 4},
        "watch": WATCH,
    },
}


def watched(folder: Path, name: str, out: str) -> Job:
    """A training that is watched, with a gold score."""
    more = {"prompts": tiny_rl.prompts(5), "reward": tiny_rl.Share("red")} if name == "grpo" else {}
    given = job(folder, name, watched=tiny_rl.prompts(7), gold={"yes": tiny_rl.Share("yes")}, **more)
    given = dataclasses.replace(given, out=folder / out)
    given.steps.mkdir(parents=True, exist_ok=True)
    return given


def train(given: Job, **more: Any) -> Any:
    module = algorithms.load(given.name)
    return module.train(given, module.Config(**(SETTINGS[given.name] | more)))


def looks(given: Job) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (given.out / "watch.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", ["dpo", "grpo"])
def test_two_processes_watch_as_one(tmp_path: Path, name: str) -> None:
    alone = watched(tmp_path, name, "alone")
    train(alone, **({"batch": 4} if name == "dpo" else {}))
    together = watched(tmp_path, name, "together")
    config = ROOT / "examples" / "accelerate" / "cpu.yaml"
    command = [sys.executable, "-W", "ignore", "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command += ["--main_process_port", "0", "-m", "tests.training.test_processes", str(tmp_path), name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = looks(alone), looks(together)
    assert [look["step"] for look in one] == [look["step"] for look in two] == ["0", "2"]
    # The same answers before the first step, whoever wrote them.
    assert one[0]["proxy"] == two[0]["proxy"]
    assert one[0]["gold"] == two[0]["gold"]
    assert two[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert (together.out / "watch.png").is_file()
    assert not any(together.out.glob(".*new"))
    if name == "dpo":
        # Wrong reference log-probabilities in either process would show here: at first policy and parent are one.
        assert losses(together)[1] == pytest.approx(losses(alone)[1], abs=1e-5)


def test_all_processes_end_where_one_was_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from accelerate import Accelerator

    from cai.training import runner
    from cai.training.ppo.rollout import Processes
    from cai.training.stop import Stop

    told = runner._callback(job(tmp_path, "dpo"), Stop(lambda _: None), Accelerator(cpu=True), None)
    state = SimpleNamespace(is_world_process_zero=False, global_step=3)
    for asked in (0.0, 1.0):  # by another process: this one got no signal
        monkeypatch.setattr(Processes, "summed", lambda self, values, asked=asked: [values[0] + asked, *values[1:]])
        control = SimpleNamespace(should_save=False, should_training_stop=False)
        told.on_step_end(None, state, control)
        assert (control.should_save, control.should_training_stop, told.stopped) == (bool(asked),) * 3
    # A loss that is no number ends every process, not only the one that writes it down, or has it.
    monkeypatch.setattr(Processes, "summed", lambda self, values: [values[0], values[1] + float("nan"), values[2]])
    with pytest.raises(TrainingError, match="the loss is nan at step 3"):
        told.on_step_end(None, state, None)
    with pytest.raises(TrainingError, match="is nan at step 3"):
        told.on_log(None, state, None, logs={"loss": float("nan")})


@pytest.mark.parametrize("count", [1, 2])
def test_a_pass_that_is_resumed_has_the_order_that_it_began_in(tmp_path: Path, count: int) -> None:
    from types import SimpleNamespace

    from accelerate import Accelerator
    from accelerate.data_loader import prepare_data_loader, skip_first_batches
    from torch.utils.data import DataLoader
    from trl.trainer.utils import RepeatSampler

    from cai.training import runner
    from cai.training.algorithms._online import Passes
    from cai.training.stop import Stop

    told = runner._callback(job(tmp_path, "dpo"), Stop(lambda _: None), Accelerator(cpu=True), None)

    def order(passes: Sequence[float], skipped: int = 0) -> list[list[int]]:
        sampler = Passes(RepeatSampler(range(8), 1, 2, shuffle=True, seed=3))
        loader = DataLoader(list(range(8)), 2, sampler=sampler)
        loader = prepare_data_loader(loader, num_processes=count, process_index=count - 1, put_on_device=False)
        seen: list[list[int]] = []
        for number in passes:
            told.on_epoch_begin(None, SimpleNamespace(epoch=number), None, train_dataloader=loader)
            seen = [batch.tolist() for batch in (skip_first_batches(loader, skipped) if skipped else loader)]
        return seen

    first, second = order([0.0]), order([0.0, 1.0])
    assert first != second
    assert order([1.5], skipped=1) == second[1:]


def _empty(load: Any) -> Any:
    """`load` as it is under FSDP's `cpu_ram_efficient_loading`: weights in the first process alone."""

    def loaded(*arguments: Any, **options: Any) -> Any:
        model = load(*arguments, **options)
        if os.environ["RANK"] != "0":
            for parameter in model.parameters():
                parameter.data.zero_()
        return model

    return loaded


if __name__ == "__main__":
    import torch

    for part, name in (("dpo", "load_trained"), ("_online", "load_trained"), ("_watching", "load_model")):
        loading: Any = importlib.import_module(f"cai.training.algorithms.{part}")
        setattr(loading, name, _empty(getattr(loading, name)))
    torch.set_num_threads(1)
    with no_teardown():
        train(watched(Path(sys.argv[1]), sys.argv[2], "together"))
        leave_processes()
