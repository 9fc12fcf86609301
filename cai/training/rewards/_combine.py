"""Several rewards as one: the sum of their scores times their weights."""

from __future__ import annotations

from collections.abc import Sequence

from cai.records import Messages, content_hash
from cai.training.base import Reward
from cai.training.lineage import described


class Combined:
    """sum_k w_k r_k(x, y); see `cai.training.base.Reward`.

    Attributes:
        parts: the rewards.
        last: of the last call, the scores by reward, before weights; for reports.
        doubt: that of the first reward that has one.
    """

    def __init__(self, rewards: Sequence[tuple[Reward, float]]) -> None:
        self._rewards = tuple(rewards)
        self.parts = tuple(reward for reward, _ in rewards)
        self.name = " + ".join(f"{weight:g} {reward.name}" for reward, weight in self._rewards)
        self.origin = {"parts": [{"weight": weight, **described(reward)} for reward, weight in self._rewards]}
        self.id = content_hash([[getattr(reward, "id", reward.name), weight] for reward, weight in self._rewards])
        self.doubt = next((doubt for reward, _ in self._rewards if (doubt := getattr(reward, "doubt", ""))), "")
        self.last: dict[str, list[float]] = {}

    def check(self, prompts: Sequence[Messages]) -> None:
        """That each reward can score answers to these prompts, as far as that can be known before.

        Raises:
            InputError: one cannot.
        """
        for reward in self.parts:
            if hasattr(reward, "check"):
                reward.check(prompts)

    def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]:
        totals = [0.0] * len(answers)
        for index, (reward, weight) in enumerate(self._rewards):
            scores = reward(prompts, answers)
            self.last[f"{index}:{reward.name}"] = scores
            totals = [total + weight * score for total, score in zip(totals, scores, strict=True)]
        return totals


def measures(reward: Reward) -> set[str]:
    """What a reward measures, whatever the scale: one, or one for each part."""
    parts: Sequence[Reward] = getattr(reward, "parts", (reward,))
    return {str(getattr(part, "measure", getattr(part, "id", part.name))) for part in parts}


def combined(rewards: Sequence[tuple[Reward, float]]) -> Reward:
    """One reward for all: the only one itself if its weight is 1."""
    if len(rewards) == 1 and rewards[0][1] == 1:
        return rewards[0][0]
    return Combined(rewards)
