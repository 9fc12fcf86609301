"""RLOO (Ahmadian et al. 2024, arXiv 2402.14740) by TRL's trainer: REINFORCE with a leave-one-out baseline."""

from __future__ import annotations

from cai.training.algorithms._online import OnlineSettings, check, train_online
from cai.training.base import Job, Outcome

HELP = "REINFORCE leave-one-out: the mean reward of the other answers to a prompt is the baseline."


class Config(OnlineSettings):
    """Options of RLOO."""


def train(job: Job, config: Config) -> Outcome:
    """Train; the same call resumes.

    Raises:
        InputError: no reward, too few prompts, a prompt that is too long, or a reward model that is not usable.
        TrainingError: NaN loss, or an answer that cannot be scored.
    """
    check(job, config)
    from trl import RLOOConfig, RLOOTrainer  # late: imports vLLM where that is installed

    return train_online(job, config, RLOOTrainer, RLOOConfig, {})
