"""What a rollout leaves behind: draws from the policy's own distribution, answers without an end, states on the
disk.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cai.errors import InputError, RunError  # noqa: E402
from cai.training.ppo import state  # noqa: E402
from cai.training.ppo.buffer import Sample, build, paid  # noqa: E402
from cai.training.ppo.config import Config  # noqa: E402
from cai.training.ppo.rollout import engine_gap  # noqa: E402
from cai.training.rollouts import Drawing, vllm  # noqa: E402
from cai.training.rollouts.transformers import Gumbel, Sampler, cut  # noqa: E402
from tests.training import tiny_rl  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning"),
]


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    draw = Gumbel(range(20_000), temperature=0.5)
    chosen = draw(None, logits.expand(20_000, 4)).argmax(-1)
    shares = torch.bincount(chosen, minlength=4) / 20_000
    assert torch.allclose(shares, (logits / 0.5).softmax(-1), atol=0.012)
    assert torch.equal(Gumbel([1], 0.0)(None, logits.unsqueeze(0)), logits.unsqueeze(0))


def test_an_answer_depends_on_its_seed_and_not_on_its_batch(tmp_path: Path) -> None:
    model, _ = tiny_rl.load(tiny_rl.write_model(tmp_path))
    prompts, seeds = [[5, 6], [7, 8, 9, 10], [11]], [1, 2, 3]
    drawing = Drawing(max_tokens=6, temperature=1.0, ends=(tiny_rl.END,), pad=0)
    together = Sampler(model, batch=8).write(prompts, seeds, drawing)
    alone = [Sampler(model, batch=1).write([p], [s], drawing)[0] for p, s in zip(prompts, seeds, strict=True)]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert together != Sampler(model, batch=8).write(prompts, [4, 5, 6], drawing)
    assert all(1 <= len(one.tokens) <= 6 for one in together)


def test_an_answer_ends_at_its_first_end_token() -> None:
    assert cut([5, 2, 0, 0], (2, 9)).tokens == (5, 2)
    assert cut([5, 2, 0, 0], (2, 9)).finished
    assert not cut([5, 6], (2,)).finished


def test_what_vllm_tells_is_read() -> None:
    told = [{5: SimpleNamespace(logprob=-0.5)}, {2: SimpleNamespace(logprob=-1.0)}]
    found = vllm.written(SimpleNamespace(token_ids=[5, 2], logprobs=told), (2,))
    assert (found.tokens, found.finished, found.logprobs) == ((5, 2), True, (-0.5, -1.0))
    cut_off = vllm.written(SimpleNamespace(token_ids=[5], logprobs=None), (2,))
    assert (cut_off.finished, cut_off.logprobs) == (False, None)
    with pytest.raises(InputError, match="one process"):
        vllm.build(vllm.Config(), folder=Path(), seed=1, processes=2)


SAMPLES = (
    Sample((5,), (6, 2), "a", finished=True, score=0.5),
    Sample((5,), (6, 7, 8), "b", finished=False, score=3.0, engine=(-1.0, -1.5, -2.0)),
)


@pytest.mark.parametrize(
    ("missing", "scores"),
    [
        ({"how": "penalty", "value": 1.0}, [0.5, 1.0]),
        ({"how": "score", "value": -1.0}, [0.5, -1.0]),
        ({"how": "ignore"}, [0.5, 2.0]),
    ],
)
def test_answers_without_an_end(missing: dict[str, object], scores: list[float]) -> None:
    config = Config.model_validate({"missing_eos": missing, "reward_clip": 2.0})
    assert paid(SAMPLES, config).tolist() == scores


def test_rewards_are_kl_at_each_token_and_the_score_at_the_last() -> None:
    old = torch.tensor([[-1.0, -2.0, 0.0], [-1.0, -1.0, -1.0]])
    reference = torch.tensor([[-1.5, -2.0, 0.0], [-1.0, -2.0, -1.0]])
    figures = {"old": old, "reference": reference, "values": torch.zeros(2, 3), "entropy": torch.ones(2, 3)}
    config = Config.model_validate(
        {"gamma": 1.0, "lam": 1.0, "whiten_advantages": False, "missing_eos": {"how": "ignore"}}
    )
    buffer = build(SAMPLES, figures, config, beta=0.1)
    # Rewards: (-0.05, 0.5) and (0, -0.1, 3); with lambda 1 and no values, advantages are their sums from each token on.
    assert buffer.advantages.flatten().tolist() == pytest.approx([0.45, 0.5, 0.0, 2.9, 2.9, 3.0])
    assert torch.equal(buffer.returns, buffer.advantages)
    assert buffer.kl.sum(1).tolist() == pytest.approx([0.5, 1.0])
    assert engine_gap(buffer) == pytest.approx((0.0 + 0.5 + 1.0) / 3)


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        Config(batch=10, samples_per_prompt=4)
    with pytest.raises(ValueError, match="empty"):
        Config(batch=2, minibatches=4)


def test_a_state_that_is_not_whole_is_not_one(tmp_path: Path) -> None:
    one = {"w": torch.ones(2)}
    first = state.save(tmp_path, update=3, tensors=one, optimizer={}, told={"inputs": {"seed": "d"}})
    (tmp_path / ".update-0000009.new").mkdir()
    (tmp_path / "update-0000007").mkdir()
    assert state.newest(tmp_path) == first
    adam = {"w/step": torch.ones(())}
    second = state.save(tmp_path, update=5, tensors=one, optimizer=adam, told={"inputs": {"seed": "d"}})
    assert state.newest(tmp_path) == second
    assert not first.exists()
    told, weights, moments = state.load(second, inputs={"seed": "d", "reward": "r"})
    assert (told["update"], list(weights), list(moments)) == (5, ["w"], ["w/step"])
    with pytest.raises(RunError, match=r"another seed was begun here.*--fresh"):
        state.load(second, inputs={"seed": "e", "reward": "r"})
    (second / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(RunError, match="cannot be read"):
        state.load(second, inputs={"seed": "d", "reward": "r"})


def test_metrics_behind_a_state_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"update": n}) + "\n" for n in (1, 2, 3)) + '{"upd', "utf-8")
    state.trim_metrics(path, 2)
    assert [row["update"] for row in tiny_rl.metrics(path)] == [1, 2]
