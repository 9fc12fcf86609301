"""GAE, whitening, losses and KL against cases worked by hand and against slow code that shares nothing with ours."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

torch = pytest.importorskip("torch")

from cai.training.ppo.advantages import gae, whiten  # noqa: E402
from cai.training.ppo.kl import Adaptive, Fixed, kl_per_token  # noqa: E402
from cai.training.ppo.losses import entropy, policy_loss, token_logprobs, value_loss  # noqa: E402


def slow_gae(rewards: Sequence[float], values: Sequence[float], gamma: float, lam: float) -> list[float]:
    """Schulman et al. 2015, eq. 16, as the sum it is: A_t = sum_l (gamma lam)^l delta_{t+l}."""
    padded = [*values, 0.0]
    deltas = [r + gamma * padded[t + 1] - padded[t] for t, r in enumerate(rewards)]
    return [
        sum((gamma * lam) ** step * deltas[t + step] for step in range(len(deltas) - t)) for t in range(len(deltas))
    ]


def test_gae_by_hand() -> None:
    # T = 3, gamma = 0.5, lam = 0.5, r = (0, 0, 1), V = (0.2, 0.4, 0.6):
    # deltas (0 + 0.2 - 0.2, 0.3 - 0.4, 1 - 0.6) = (0, -0.1, 0.4)
    # A_2 = 0.4; A_1 = -0.1 + 0.25 * 0.4 = 0; A_0 = 0 + 0.25 * 0 = 0
    advantages, returns = gae(
        torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.2, 0.4, 0.6]]), torch.ones(1, 3), gamma=0.5, lam=0.5
    )
    assert torch.allclose(advantages, torch.tensor([[0.0, 0.0, 0.4]]), atol=1e-7)
    assert torch.allclose(returns, torch.tensor([[0.2, 0.4, 1.0]]), atol=1e-7)


def test_gae_is_the_sum_of_the_paper_whatever_stands_behind_the_end() -> None:
    draw = random.Random(1)
    lengths = [1, 4, 7, 3]
    width = max(lengths)
    rewards = torch.full((4, width), math.nan)
    values = torch.full((4, width), math.nan)
    mask = torch.zeros(4, width)
    for row, length in enumerate(lengths):
        rewards[row, :length] = torch.tensor([draw.gauss(0, 1) for _ in range(length)])
        values[row, :length] = torch.tensor([draw.gauss(0, 1) for _ in range(length)])
        mask[row, :length] = 1
    for gamma, lam in ((1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)):
        advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam)
        for row, length in enumerate(lengths):
            wanted = slow_gae(rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, lam)
            assert advantages[row, :length].tolist() == pytest.approx(wanted, abs=1e-5)
            assert returns[row, :length].tolist() == pytest.approx(
                [a + v for a, v in zip(wanted, values[row, :length].tolist(), strict=True)], abs=1e-5
            )
            assert not advantages[row, length:].any()
            assert not returns[row, length:].any()


def test_with_lambda_1_advantages_are_monte_carlo_returns_less_values() -> None:
    rewards = torch.tensor([[1.0, 2.0, 3.0]])
    values = torch.tensor([[0.5, 0.5, 0.5]])
    advantages, returns = gae(rewards, values, torch.ones(1, 3), gamma=1.0, lam=1.0)
    assert returns.tolist() == [[6.0, 5.0, 3.0]]
    assert advantages.tolist() == [[5.5, 4.5, 2.5]]


def test_whitening() -> None:
    x = torch.tensor([[1.0, 2.0, 99.0], [3.0, 6.0, 99.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    kept = x[mask.bool()]
    white = whiten(x, mask)
    assert white[mask.bool()].mean().item() == pytest.approx(0, abs=1e-6)
    assert white[mask.bool()].std().item() == pytest.approx(1, abs=1e-5)
    assert not white[:, 2].any()
    scaled = whiten(x, mask, shift=False)
    assert scaled[mask.bool()].mean().item() == pytest.approx(kept.mean().item())
    # One token, or none that differ: nothing to scale by, and no division by 0.
    assert torch.isfinite(whiten(torch.ones(1, 1), torch.ones(1, 1))).all()
    assert torch.isfinite(whiten(torch.ones(2, 3), torch.ones(2, 3))).all()


def slow_policy_loss(new: float, old: float, advantage: float, clip: float) -> float:
    ratio = math.exp(new) / math.exp(old)
    held = min(max(ratio, 1 - clip), 1 + clip)
    return -min(ratio * advantage, held * advantage)


def test_policy_loss_by_hand_and_against_a_slow_one() -> None:
    # Ratios 1.5 and 0.5, clip 0.2. A = 1: min(1.5, 1.2) = 1.2 and min(0.5, 0.8) = 0.5; A = -1: -1.5 and -0.8.
    ratios = torch.tensor([[1.5, 0.5, 1.5, 0.5, 7.0]])
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0, 1.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    found = policy_loss(ratios.log(), torch.zeros(1, 5), advantages, mask, clip=0.2)
    assert found.loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8), abs=1e-6)
    assert found.clipped.item() == 2  # 1.5 with A > 0, and 0.5 with A < 0
    assert found.ratio.item() == pytest.approx(4.0)
    draw = random.Random(2)
    new = [[draw.gauss(-2, 1) for _ in range(6)] for _ in range(3)]
    old = [[draw.gauss(-2, 1) for _ in range(6)] for _ in range(3)]
    adv = [[draw.gauss(0, 1) for _ in range(6)] for _ in range(3)]
    wanted = sum(slow_policy_loss(new[i][j], old[i][j], adv[i][j], 0.3) for i in range(3) for j in range(6))
    ours = policy_loss(torch.tensor(new), torch.tensor(old), torch.tensor(adv), torch.ones(3, 6), clip=0.3)
    assert ours.loss.item() == pytest.approx(wanted, rel=1e-5)


def test_where_the_ratio_is_clipped_there_is_no_gradient() -> None:
    new = torch.tensor([[1.5, 1.1, 0.5]]).log().requires_grad_()
    policy_loss(new, torch.zeros(1, 3), torch.ones(1, 3), torch.ones(1, 3), clip=0.2).loss.backward()
    assert new.grad is not None
    assert new.grad.tolist()[0] == pytest.approx([0.0, -1.1, -0.5])


def test_value_loss() -> None:
    # Old 0, clip 0.2. New 1 and return 1: free 0, held (0.2 - 1)^2 = 0.64, the larger counts. New 1, return 0: free 1.
    new, old = torch.tensor([[1.0, 1.0, 5.0]]), torch.zeros(1, 3)
    returns, mask = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    loss, clipped = value_loss(new, old, returns, mask, clip=0.2)
    assert loss.item() == pytest.approx((0.64 + 1.0) / 2)
    assert clipped.item() == 1
    loss, clipped = value_loss(new, old, returns, mask, clip=None)
    assert (loss.item(), clipped.item()) == (0.5, 0.0)


def test_logprobs_and_entropy_of_a_known_distribution() -> None:
    probabilities = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]])
    logits = probabilities.log() + 3.0
    assert token_logprobs(logits, torch.tensor([[0, 2]])).exp().tolist()[0] == pytest.approx([0.5, 0.7])
    wanted = [-sum(p * math.log(p) for p in row) for row in probabilities[0].tolist()]
    assert entropy(logits)[0].tolist() == pytest.approx(wanted, abs=1e-6)


def test_kl_estimators_have_the_right_mean() -> None:
    policy, reference = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.4, 0.4, 0.2])
    true = (policy * (policy / reference).log()).sum().item()
    for estimator in ("k1", "k3"):
        each = kl_per_token(
            policy.log().unsqueeze(0), reference.log().unsqueeze(0), torch.ones(1, 3), estimator=estimator
        )
        assert (policy * each[0]).sum().item() == pytest.approx(true, abs=1e-6)
    k3 = kl_per_token(policy.log().unsqueeze(0), reference.log().unsqueeze(0), torch.ones(1, 3), estimator="k3")
    assert (k3 >= 0).all()


def test_coefficients() -> None:
    fixed = Fixed(0.1)
    fixed.update(100.0, 64)
    assert fixed.value == 0.1
    adaptive = Adaptive(0.1, target=6.0, horizon=1000)
    adaptive.update(12.0, 100)  # the error is held at 0.2: 0.1 * (1 + 0.2 * 100 / 1000)
    assert adaptive.value == pytest.approx(0.102)
    adaptive.update(5.4, 100)  # error -0.1
    assert adaptive.value == pytest.approx(0.102 * 0.99)
    hasty = Adaptive(0.1, target=1.0, horizon=10)
    hasty.update(0.0, 1000)
    assert hasty.value > 0
