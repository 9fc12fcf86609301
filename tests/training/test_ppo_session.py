"""PPO as a session: bfloat16, trackers, what the checkpoint is of and what its lineage says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from safetensors.torch import load_file  # noqa: E402

from cai.errors import InputError, MissingDependency  # noqa: E402
from cai.records import Messages  # noqa: E402
from cai.training.algorithms import ppo  # noqa: E402
from cai.training.ppo.config import Lora  # noqa: E402
from cai.training.ppo.loop import Loop  # noqa: E402
from cai.training.ppo.parts import Parts  # noqa: E402
from cai.training.ppo.rollout import encode, number  # noqa: E402
from cai.training.rewards import _combine, rules  # noqa: E402
from cai.training.rollouts import Drawing  # noqa: E402
from cai.training.rollouts.transformers import Sampler  # noqa: E402
from cai.training.watch import BEST, kept_step  # noqa: E402
from tests.training import tiny_rl  # noqa: E402
from tests.training.test_ppo import SMALL, job, same_weights  # noqa: E402
from tests.training.test_ppo_parts import disturbed, rows  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("one_thread", "another_precision"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning"),
]


@pytest.fixture
def another_precision() -> Iterator[None]:
    """accelerate keeps one precision a process; a command trains once, these tests several times."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def test_adapters_on_a_bfloat16_base_are_float32_and_learn(tmp_path: Path, model: Path) -> None:
    outcome = ppo.train(job(tmp_path, model), ppo.Config.model_validate({**SMALL, "updates": 2, "dtype": "bfloat16"}))
    state = load_file(tmp_path / "steps" / "update-0000002" / "weights.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    # B begins at 0: in bfloat16 each of its numbers would be a multiple of 2^-8 of itself, here they are finer.
    moved = [tensor for name, tensor in state.items() if "lora_B.policy" in name]
    assert all(bool((tensor != tensor.bfloat16().float()).any()) for tensor in moved)
    config_told = json.loads((outcome.checkpoint / "config.json").read_text("utf-8"))
    assert config_told["dtype"] == "float32"
    for row in tiny_rl.metrics(tmp_path / "metrics.jsonl"):
        assert row["first_ratio"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "ratio", "lines"),
    [
        ({}, 1.0005, 0),
        ({}, 0.98, 1),
        ({"dtype": "bfloat16"}, 0.95, 0),
        ({"dtype": "bfloat16"}, 1.2, 1),
        ({"ratio_tolerance": 0.5}, 1.2, 0),
    ],
)
def test_a_first_ratio_beyond_its_tolerance_is_said_once(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], ratio: float, lines: int
) -> None:
    learns = Loop.improve
    monkeypatch.setattr(Loop, "improve", lambda self, buffer: {**learns(self, buffer), "first_ratio": ratio})
    said: list[str] = []
    given = dataclasses.replace(job(tmp_path, model), say=said.append)
    ppo.train(given, ppo.Config.model_validate({**SMALL, "updates": 2, **settings}))
    assert sum(f"{ratio:.3f}, farther from 1 than ratio_tolerance" in line for line in said) == lines


def test_what_changes_memory_alone_may_change_on_the_way(tmp_path: Path, model: Path) -> None:
    ppo.train(job(tmp_path, model), ppo.Config.model_validate({**SMALL, "updates": 2}))
    more = ppo.Config.model_validate({**SMALL, "updates": 3, "micro_batch": 6, "gradient_checkpointing": True})
    assert ppo.train(job(tmp_path, model), more).metrics["update"] == 3


def test_merged_and_streamed_weights_are_the_policy_on_a_bfloat16_base(model: Path) -> None:
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="bfloat16")
    parts = disturbed(Parts(loaded, lora=Lora(rank=4, alpha=8), shared=False, temperature=1.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = parts(rows())
    assert wanted.values.dtype == torch.float32
    streamed = dict(parts.policy_weights())
    merged = parts.merged().state_dict()
    tied = {"lm_head.weight"}
    assert set(streamed) == set(merged) - tied
    assert all(torch.equal(streamed[name].float(), merged[name]) for name in streamed)
    assert {tensor.dtype for tensor in merged.values()} == {torch.float32}
    learnt = [name for name, tensor in streamed.items() if tensor.dtype == torch.float32]
    assert learnt
    assert all(bool((streamed[name] != streamed[name].bfloat16()).any()) for name in learnt)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    plain.load_state_dict({name: tensor.float() for name, tensor in streamed.items()}, strict=False)
    found = Parts(plain, lora=None, shared=True, temperature=1.0)(rows())
    assert torch.allclose(found.logprobs, wanted.logprobs, atol=0.1)


class Falling(tiny_rl.Share):
    """Pays less with every call, so that each look's proxy is below the first's."""

    calls = 0

    def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]:
        self.calls += 1
        return [score - self.calls for score in super().__call__(prompts, answers)]


@pytest.mark.parametrize("gold", [False, True])
def test_the_result_is_the_last_without_gold_and_the_best_with_it(tmp_path: Path, model: Path, gold: bool) -> None:
    more: dict[str, Any] = {"watched": tiny_rl.prompts(4), "reward": Falling("red")}
    if gold:
        more["gold"] = {"falls": Falling("red")}
    config = ppo.Config.model_validate(
        {**SMALL, "lora": None, "value": "shared", "learning_rate": 1e-3}
        | {"watch": {"every": 2, "prompts": 4, "max_tokens": 3, "stop": False}}
    )
    outcome = ppo.train(job(tmp_path, model, **more), config)
    assert outcome.metrics["update"] == (0 if gold else 4)
    assert same_weights(outcome.checkpoint, model) is gold
    told = json.loads((outcome.checkpoint / "lineage.json").read_text("utf-8"))
    assert told["step"] == (0 if gold else 4)
    assert f"weights of step {told['step']}" in (outcome.checkpoint / "README.md").read_text("utf-8")
    assert set(told.get("gold", {})) == ({"falls"} if gold else set())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 0.0])
def test_a_looks_kl_is_of_what_its_answers_were_drawn_from(tmp_path: Path, model: Path, temperature: float) -> None:
    """Whatever the training's own temperature is: that of the looks may be another."""
    watched = tiny_rl.prompts(4)
    watch = {"every": 1, "prompts": 4, "max_tokens": 5, "temperature": temperature}
    settings = {**SMALL, "updates": 1, "lora": None, "value": "shared", "learning_rate": 1e-2, "temperature": 1.5}
    given = job(tmp_path, model, watched=watched)
    outcome = ppo.train(given, ppo.Config.model_validate({**settings, "watch": watch}))
    policy, tokenizer = tiny_rl.load(outcome.checkpoint)
    reference, _ = tiny_rl.load(model)
    rows = [one.ids for one in encode(sorted(watched, key=lambda prompt: prompt.id), tokenizer, longest=128)]
    seeds = [number("watch", given.seed, row) for row in range(4)]
    drawing = Drawing(5, temperature, (tiny_rl.END,), tokenizer.pad_token_id)
    gaps = []
    for prompt, one in zip(rows, Sampler(policy, batch=4).write(rows, seeds, drawing), strict=True):
        place = slice(len(prompt) - 1, len(prompt) + len(one.tokens) - 1)
        said = []
        for read in (policy, reference):
            with torch.no_grad():
                logits = read(input_ids=torch.tensor([[*prompt, *one.tokens]])).logits[0, place]
            logprobs = torch.log_softmax(logits / (temperature or 1.0), -1)
            said.append(float(logprobs[range(len(one.tokens)), list(one.tokens)].sum()))
        gaps.append(said[0] - said[1])
    look = tiny_rl.metrics(tmp_path / "watch.jsonl")[-1]
    assert look["step"] == "1"
    assert abs(look["kl"]) > 0.05
    assert look["kl"] == pytest.approx(sum(gaps) / 4, abs=1e-3)


def test_looks_of_a_training_that_left_no_state_are_not_the_next_ones(tmp_path: Path, model: Path) -> None:
    class Dies(tiny_rl.Share):
        """Pays most, until it is killed."""

        calls = 0

        def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]:
            self.calls += 1
            if self.calls > 2:
                raise KeyboardInterrupt
            return [float(self.calls)] * len(answers)

    watch = {"every": 1, "prompts": 4, "max_tokens": 3, "stop": False}
    settings = {**SMALL, "updates": 2, "save_every": 10, "watch": watch}
    more: dict[str, Any] = {"watched": tiny_rl.prompts(4)}
    with pytest.raises(KeyboardInterrupt):
        ppo.train(job(tmp_path, model, gold={"one": Dies("red")}, **more), ppo.Config.model_validate(settings))
    assert kept_step(tmp_path / BEST) == 1
    changed = ppo.Config.model_validate({**settings, "learning_rate": 1e-3})
    outcome = ppo.train(job(tmp_path, model, gold={"one": Falling("red")}, **more), changed)
    assert outcome.metrics["update"] == 0, "the best of its own looks"


def test_the_lineage_says_what_was_paid_for(tmp_path: Path, model: Path) -> None:
    one = rules.Rules([rules.Term(words=("red",), weight=2.0)])
    reward = _combine.combined([(one, 1.0), (tiny_rl.Share("blue"), 0.5)])
    outcome = ppo.train(job(tmp_path, model, reward), ppo.Config.model_validate({**SMALL, "updates": 1}))
    told = json.loads((outcome.checkpoint / "lineage.json").read_text("utf-8"))["reward"]
    assert told["id"] == reward.id  # type: ignore[attr-defined]
    assert told["parts"][0] == {
        "weight": 1.0,
        "name": "rules",
        "id": one.id,
        "terms": [{"words": ["red"], "weight": 2.0}],
    }
    assert told["parts"][1]["weight"] == 0.5


def test_figures_reach_a_tracker(tmp_path: Path, model: Path) -> None:
    from accelerate import tracking

    class Kept(tracking.GeneralTracker):  # type: ignore[misc]
        name = "kept"
        requires_logging_directory = False
        events: ClassVar[list[Any]] = []

        def __init__(self, run_name: str, **_: Any) -> None:
            super().__init__()

        @property
        def tracker(self) -> None:
            return None

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            self.events.append(values)

        def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
            self.events.append((step, values))

        def finish(self) -> None:
            self.events.append("finished")

    tracking.register_tracker_class(Kept)
    try:
        config = ppo.Config.model_validate({**SMALL, "updates": 2, "report_to": ["kept"]})
        ppo.train(job(tmp_path, model), config)
    finally:
        tracking.LOGGER_TYPE_TO_CLASS.pop("kept")
    first, *updates, last = Kept.events
    assert first["kl/coefficient"] == config.kl.coefficient
    assert [step for step, _ in updates] == [1, 2]
    assert {"reward", "kl", "seconds/write"} <= set(updates[0][1])
    assert last == "finished"


def test_a_tracker_that_is_not_there_is_said(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import tracking

    with pytest.raises(InputError, match=r"nowhere.*report_to|report_to.*nowhere"):
        ppo.train(job(tmp_path, model), ppo.Config.model_validate({**SMALL, "report_to": ["nowhere"]}))
    monkeypatch.setattr(tracking, "_available_trackers", [])
    with pytest.raises(MissingDependency, match="tensorboard is not installed"):
        ppo.train(job(tmp_path, model), ppo.Config.model_validate({**SMALL, "report_to": ["tensorboard"]}))
