"""The KL penalty to the reference policy: per token, its coefficient fixed or adapted."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


def kl_per_token(policy: Tensor, reference: Tensor, mask: Tensor, *, estimator: str = "k1") -> Tensor:
    """An estimate of KL(policy || reference) at each token of a response that the policy sampled; 0 off the mask.

    Args:
        policy, reference: log-probabilities of the sampled tokens, (rows, tokens).
        estimator: `k1`: log pi - log ref, without bias, and the one whose sum over a response is its log ratio (Ziegler
            et al. 2019, eq. 2); `k3`: exp(log ref - log pi) - 1 - (log ref - log pi), never negative (Schulman 2020,
            "Approximating KL divergence"). As a penalty inside the reward only k1 has the right
            gradient in expectation.
    """
    gap = (policy - reference) * mask
    return gap if estimator == "k1" else ((-gap).exp() - 1 + gap) * mask


class Coefficient(Protocol):
    """The penalty's weight beta, in units of reward per nat."""

    value: float

    def update(self, kl: float, samples: int) -> None:
        """After an update: the mean KL of its responses, in nats a response, and how many there were."""


class Fixed:
    """beta stays."""

    def __init__(self, value: float) -> None:
        self.value = value

    def update(self, kl: float, samples: int) -> None:
        return None


class Adaptive:
    """beta follows a target in nats per response.

    Ziegler et al. 2019 (arXiv 1909.08593), section 2.2, with their K = 0.1 taken per 1/`horizon` samples as in their
    code:

        e    = clamp((KL - target) / target, -0.2, 0.2)
        beta = beta (1 + e samples / horizon)
    """

    def __init__(self, value: float, *, target: float, horizon: int) -> None:
        self.value = value
        self.target = target
        self.horizon = horizon

    def update(self, kl: float, samples: int) -> None:
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        # A horizon shorter than a few batches would otherwise turn the sign of the penalty.
        self.value *= max(1 + error * samples / self.horizon, 0.1)
