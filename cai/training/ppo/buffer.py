"""What an update learns from: the answers of a rollout with all their figures. Every process holds the whole of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai.training.ppo.advantages import gae, whiten
from cai.training.ppo.config import Config
from cai.training.ppo.kl import kl_per_token


@dataclass(frozen=True)
class Sample:
    """One answer: token ids, text, whether it ended by itself, and the reward's score (None until it is asked)."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    text: str
    finished: bool
    score: float
    engine: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Buffer:
    """Samples, and (rows, tokens) figures on the CPU.

    Attributes:
        old: log-probabilities under the policy that wrote the answers.
        values: of the value function before the update.
        kl: to the reference, per token.
        advantages, returns: see `advantages.gae`.
        mask: 1 on answer tokens.
        scores: of the rows, as they were paid.
    """

    samples: tuple[Sample, ...]
    old: Tensor
    values: Tensor
    kl: Tensor
    entropy: Tensor
    advantages: Tensor
    returns: Tensor
    mask: Tensor
    scores: Tensor


def mask_of(samples: Sequence[Sample]) -> Tensor:
    """(rows, tokens): 1 where there is an answer token."""
    lengths = torch.tensor([len(sample.answer) for sample in samples])
    return (torch.arange(int(lengths.max())) < lengths.unsqueeze(1)).float()


def paid(samples: Sequence[Sample], config: Config) -> Tensor:
    """The scores as they enter the reward: clipped, then changed for answers without an end; see `MissingEos`."""
    scores = torch.tensor([sample.score for sample in samples], dtype=torch.float32)
    if config.reward_clip is not None:
        scores = scores.clamp(-config.reward_clip, config.reward_clip)
    cut = torch.tensor([not sample.finished for sample in samples])
    if config.missing_eos.how == "penalty":
        scores = torch.where(cut, scores - config.missing_eos.value, scores)
    elif config.missing_eos.how == "score":
        scores = torch.where(cut, torch.full_like(scores, config.missing_eos.value), scores)
    return scores


def build(samples: Sequence[Sample], figures: dict[str, Tensor], config: Config, *, beta: float) -> Buffer:
    """The buffer of one update.

    The reward of token t is -beta KL_t, and on the last token of a row its score is added (Ziegler et al. 2019, eq. 2;
    Stiennon et al. 2020, section 3.4).

    Args:
        figures: `old`, `reference`, `values`, `entropy`, each (rows, tokens).
    """
    mask = mask_of(samples)
    kl = kl_per_token(figures["old"], figures["reference"], mask, estimator=config.kl.estimator)
    scores = paid(samples, config)
    rewards = -beta * kl
    last = mask.sum(1).long() - 1
    rewards[torch.arange(len(samples)), last] += scores
    if config.whiten_rewards:
        rewards = whiten(rewards, mask, shift=False)
    advantages, returns = gae(rewards, figures["values"], mask, gamma=config.gamma, lam=config.lam)
    if config.whiten_advantages:
        advantages = whiten(advantages, mask)
    true_kl = kl_per_token(figures["old"], figures["reference"], mask)
    return Buffer(
        tuple(samples),
        figures["old"],
        figures["values"],
        true_kl,
        figures["entropy"],
        advantages,
        returns,
        mask,
        scores,
    )


def figures_of(buffer: Buffer) -> dict[str, Any]:
    """What `metrics.jsonl` says of a rollout; KL in nats per answer, entropy in nats per token."""
    tokens = buffer.mask.sum()
    raw = torch.tensor([sample.score for sample in buffer.samples])
    explained = 1 - _variance(buffer.returns - buffer.values, buffer.mask) / _variance(buffer.returns, buffer.mask)
    return {
        "reward": raw.mean().item(),
        "reward_sd": raw.std(unbiased=False).item(),
        "paid": buffer.scores.mean().item(),
        "kl": buffer.kl.sum(1).mean().item(),
        "entropy": ((buffer.entropy * buffer.mask).sum() / tokens).item(),
        "length": (tokens / len(buffer.samples)).item(),
        "finished": sum(sample.finished for sample in buffer.samples) / len(buffer.samples),
        "value": ((buffer.values * buffer.mask).sum() / tokens).item(),
        "explained_variance": explained.item(),
    }


def _variance(x: Tensor, mask: Tensor) -> Tensor:
    mean = (x * mask).sum() / mask.sum()
    return (((x - mean).square() * mask).sum() / mask.sum()).clamp(min=1e-12)
