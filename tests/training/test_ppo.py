"""PPO on a model of a few thousand weights: it finds the known optimum, and the same one however it is run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
from cai.errors import InputError, RunError  # noqa: E402
from cai.records import Message, Messages, Prompt  # noqa: E402
from cai.training.algorithms import ppo  # noqa: E402
from cai.training.base import Job, TrainingError  # noqa: E402
from cai.training.ppo.rollout import drawn, encode  # noqa: E402
from cai.training.watch import WatchConfig  # noqa: E402
from tests.training import tiny_rl  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning"),
]


SMALL = {
    "updates": 4,
    "batch": 12,
    "minibatches": 2,
    "micro_batch": 4,
    "epochs": 2,
    "max_new_tokens": 5,
    "save_every": 1,
}


ENV = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def job(out: Path, model: Path, reward: Any = None, **more: Any) -> Job:
    return Job(
        "ppo",
        out,
        model,
        seed=3,
        prompts=tiny_rl.prompts(5),
        reward=reward or tiny_rl.Share("red"),
        say=lambda _: None,
        **more,
    )


def distribution(model: Any, ids: tuple[int, ...]) -> Any:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)


@pytest.mark.parametrize(("lora", "value"), [(True, "separate"), (True, "shared"), (False, "shared")])
def test_it_learns_the_known_optimum(tmp_path: Path, model: Path, lora: bool, value: str) -> None:
    """With one-token answers the optimum of E[r] - beta KL is known: pi(y) ~ ref(y) exp(r(y) / beta)."""
    beta, points = 0.5, {"red": 1.0, "green": 0.5, "no": -1.0}
    config = ppo.Config.model_validate(
        {"updates": 40, "batch": 64, "minibatches": 2, "micro_batch": 32, "epochs": 4, "max_new_tokens": 1}
        | {"learning_rate": 0.005 if lora else 0.003, "schedule": "linear", "save_every": 100, "value": value}
        | {
            "missing_eos": {"how": "ignore"},
            "kl": {"coefficient": beta},
            "lora": {"rank": 8, "alpha": 16} if lora else None,
        }
    )
    outcome = ppo.train(job(tmp_path, model, tiny_rl.Words(**points)), config)
    before, tokenizer = tiny_rl.load(model)
    after, _ = tiny_rl.load(outcome.checkpoint)
    reward = torch.tensor([points.get(tokenizer.convert_ids_to_tokens(i), 0.0) for i in range(len(tokenizer))])
    for encoded in encode(tiny_rl.prompts(5), tokenizer, longest=100):
        reference = distribution(before, encoded.ids)
        optimum = (reference + reward / beta).log_softmax(-1)
        found = distribution(after, encoded.ids)
        far = 0.5 * (reference.exp() - optimum.exp()).abs().sum().item()
        near = 0.5 * (found.exp() - optimum.exp()).abs().sum().item()
        assert near < min(0.12, far / 2), (near, far)


def test_the_ratio_is_1_on_the_first_pass_and_every_figure_is_told(tmp_path: Path, model: Path) -> None:
    ppo.train(job(tmp_path, model), ppo.Config.model_validate({**SMALL, "updates": 2, "temperature": 0.7}))
    told = tiny_rl.metrics(tmp_path / "metrics.jsonl")
    assert [row["update"] for row in told] == [1, 2]
    for row in told:
        assert row["first_ratio"] == pytest.approx(1.0, abs=1e-5)
        assert row["samples_per_second"] > 0
        assert {"reward", "kl", "entropy", "clipped", "value_clipped", "tokens_per_second", "beta"} <= set(row)
    assert told[0]["kl"] == pytest.approx(0.0, abs=1e-5)


def test_killed_it_resumes_on_the_same_curve(tmp_path: Path, model: Path) -> None:
    config = ppo.Config.model_validate({**SMALL, "updates": 5, "save_every": 2, "kl": {"target": 1.0, "horizon": 50}})
    whole = ppo.train(job(tmp_path / "whole", model), config)
    program = (
        "import sys, os, signal; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from tests.training import test_ppo, tiny_rl; from cai.training.algorithms import ppo\n"
        "class Killing(tiny_rl.Share):\n"
        "    calls = 0\n"
        "    def __call__(self, prompts, answers):\n"
        "        Killing.calls += 1\n"
        "        if Killing.calls == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().__call__(prompts, answers)\n"
        "config = ppo.Config.model_validate_json(sys.argv[3])\n"
        "ppo.train(test_ppo.job(Path(sys.argv[1]), Path(sys.argv[2]), Killing('red')), config)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "cut"), str(model), config.model_dump_json()]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert not (tmp_path / "cut" / "checkpoint").exists()
    assert len(tiny_rl.metrics(tmp_path / "cut" / "metrics.jsonl")) == 3  # of which the third will be made again
    again = ppo.train(job(tmp_path / "cut", model), config)
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")
    assert same_weights(whole.checkpoint, again.checkpoint)


def timeless(folder: Path) -> list[dict[str, Any]]:
    told = tiny_rl.metrics(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if "second" not in key} for row in told]


def same_weights(one: Path, other: Path, *, tolerance: float = 0.0) -> bool:
    a, b = (tiny_rl.load(path)[0].state_dict() for path in (one, other))
    return all(torch.allclose(a[name], b[name], rtol=0, atol=tolerance) for name in a)


def test_a_stop_leaves_a_state_and_other_options_are_refused(tmp_path: Path, model: Path) -> None:
    class Interrupting(tiny_rl.Share):
        def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]:
            os.kill(os.getpid(), signal.SIGINT)
            return super().__call__(prompts, answers)

    config = ppo.Config.model_validate({**SMALL, "save_every": 100})
    with pytest.raises(KeyboardInterrupt):
        ppo.train(job(tmp_path, model, Interrupting("red")), config)
    assert [path.name for path in (tmp_path / "steps").iterdir()] == ["update-0000001"]
    with pytest.raises(RunError, match=r"another settings was begun here.*--fresh"):
        ppo.train(job(tmp_path, model), config.model_copy(update={"clip": 0.3}))
    other = dataclasses.replace(job(tmp_path, model, tiny_rl.Words(red=1.0)), prompts=tiny_rl.prompts(3))
    with pytest.raises(RunError, match="another prompts, reward was begun here"):
        ppo.train(other, config)
    assert ppo.train(job(tmp_path, model), config).metrics["update"] == 4


def test_two_processes_give_what_one_gives(tmp_path: Path, model: Path) -> None:
    config = ppo.Config.model_validate({**SMALL, "updates": 3, "learning_rate": 1e-3})
    one = ppo.train(job(tmp_path / "one", model), config)
    program = tmp_path / "program.py"
    program.write_text(
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from tests.training import test_ppo; from cai.training.algorithms import ppo\n"
        "config = ppo.Config.model_validate_json(sys.argv[3])\n"
        "ppo.train(test_ppo.job(Path(sys.argv[1]), Path(sys.argv[2])), config)\n",
        "utf-8",
    )
    # Without MPI, accelerate's --cpu starts a single process; this is its launcher over torchrun, on the CPU.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += "--num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0".split()
    arguments = [str(program), str(tmp_path / "two"), str(model), config.model_dump_json()]
    root = str(Path(__file__).resolve().parents[2])
    environment = {
        **ENV,
        "ACCELERATE_USE_CPU": "true",
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [*launch, *arguments], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for ours, theirs in zip(timeless(tmp_path / "one"), timeless(tmp_path / "two"), strict=True):
        assert theirs == pytest.approx(ours, abs=2e-4, rel=1e-3)
    assert same_weights(one.checkpoint, tmp_path / "two" / "checkpoint", tolerance=1e-4)


def test_all_turns_of_a_prompt_are_kept_and_a_long_one_is_refused(model: Path) -> None:
    _, tokenizer = tiny_rl.load(model)
    turns = (Message("user", "hello"), Message("assistant", "one two"), Message("user", "again"))
    (found,) = encode([Prompt.make(turns)], tokenizer, longest=50)
    wanted = "<user> hello <end> <assistant> one two <end> <user> again <end> <assistant>"
    assert tokenizer.decode(found.ids) == wanted
    with pytest.raises(InputError, match="max_prompt_tokens"):
        encode([Prompt.make(turns)], tokenizer, longest=5)


def test_each_pass_draws_every_prompt_once() -> None:
    first = [drawn(range(6), 4, update=update, seed=1) for update in range(3)]
    flat = [item for draw in first for item in draw]
    assert sorted(flat[:6]) == sorted(flat[6:]) == list(range(6))
    assert flat[:6] != flat[6:]


def test_it_is_watched_and_the_best_look_is_the_result(tmp_path: Path, model: Path) -> None:
    """The proxy pays for `red`, the gold score for anything else: the better it trains, the worse the gold score."""
    gold = tiny_rl.Share("red")
    wanted = ppo.Config.model_validate(
        {**SMALL, "updates": 12, "batch": 48, "micro_batch": 24, "learning_rate": 0.01, "lora": None}
        | {"missing_eos": {"how": "ignore"}, "kl": {"coefficient": 0.0}, "value": "shared"}
        | {"watch": {"every": 2, "prompts": 24, "max_tokens": 5}}
    )

    class Against:
        name = "not red"

        def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]:
            return [-score for score in gold(prompts, answers)]

    held_out = tuple(Prompt.make(f"say {i} {word}") for i in range(6) for word in tiny_rl.WORDS[:4])
    more = {"watched": held_out, "gold": {"against": Against()}}
    outcome = ppo.train(job(tmp_path, model, **more), wanted)
    looks = [int(row["step"]) for row in tiny_rl.metrics(tmp_path / "watch.jsonl")]
    assert looks[:2] == [0, 2]
    assert looks[-1] < 12, "it did not stop"
    best = outcome.metrics["watch"]["best_step"]
    assert best < looks[-1]
    lineage = json.loads((outcome.checkpoint / "lineage.json").read_text("utf-8"))
    assert lineage["algorithm"] == "ppo"
    assert (tmp_path / "watch.png").stat().st_size > 1000
    if best == 0:
        assert same_weights(outcome.checkpoint, model, tolerance=1e-7)
    again = ppo.train(job(tmp_path, model, **more), wanted)  # what the watch ended stays ended
    assert again.metrics == outcome.metrics


def test_a_reward_or_loss_that_is_no_number_ends_in_one_line(tmp_path: Path, model: Path) -> None:
    class Broken(tiny_rl.Share):
        def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]:
            return [float("nan")] * len(answers)

    class Huge(tiny_rl.Share):
        def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]:
            return [1e38 * (-1) ** i for i in range(len(answers))]

    config = ppo.Config.model_validate(SMALL)
    with pytest.raises(TrainingError, match="finite score"):
        ppo.train(job(tmp_path / "a", model, Broken("red")), config)
    with pytest.raises(TrainingError, match=r"not a number in update 1.*learning_rate"):
        ppo.train(job(tmp_path / "b", model, Huge("red")), config)


def test_what_is_missing_is_said_before_anything_loads(tmp_path: Path, model: Path) -> None:
    good = job(tmp_path, model)
    config = ppo.Config.model_validate(SMALL)
    with pytest.raises(InputError, match="needs a reward"):
        ppo.train(dataclasses.replace(good, reward=None), config)
    with pytest.raises(InputError, match="no prompts"):
        ppo.train(dataclasses.replace(good, prompts=()), config)
    with pytest.raises(InputError, match="no model here"):
        ppo.train(dataclasses.replace(good, parent=tmp_path), config)
    doubtful = tiny_rl.Share("red")
    doubtful.doubt = "held-out accuracy 0.51"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"accuracy 0.51.*trust_reward_model"):
        ppo.train(job(tmp_path, model, doubtful), config)
    assert ppo.train(job(tmp_path, model, doubtful), config.model_copy(update={"trust_reward_model": True}))


def test_answers_must_fit_and_nothing_may_shard(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ppo.Config.model_validate(SMALL)
    with pytest.raises(InputError, match="the model has room for 128 tokens"):
        ppo.train(job(tmp_path, model), config.model_copy(update={"max_new_tokens": 128}))
    vllm = {"rollouts": "vllm", "rollout_options": {"context": 16}, "max_new_tokens": 16}
    with pytest.raises(InputError, match="the engine's context has room for 16 tokens"):
        ppo.train(job(tmp_path, model), config.model_copy(update=vllm))
    watched = job(tmp_path, model, watched=tiny_rl.prompts(3))
    with pytest.raises(InputError, match="with answers of 120 need more"):
        ppo.train(watched, config.model_copy(update={"watch": WatchConfig(max_tokens=120)}))
    for name, variable in (("FSDP", "ACCELERATE_USE_FSDP"), ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED")):
        monkeypatch.setenv(variable, "true")
        with pytest.raises(InputError, match=f"does not run under {name}"):
            ppo.train(job(tmp_path, model), config)
        monkeypatch.delenv(variable)
