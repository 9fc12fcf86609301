"""GRPO (Shao et al. 2024, arXiv 2402.03300) by TRL: advantages from the answers to one prompt, no value model."""

from __future__ import annotations

from cai.training.algorithms._online import OnlineSettings, check, train_online
from cai.training.base import Job, Outcome

HELP = "Group relative policy optimisation: PPO's clipped step, with the other answers to a prompt as the baseline."


class Config(OnlineSettings):
    """Options of GRPO."""


def train(job: Job, config: Config) -> Outcome:
    """Train; the same call resumes.

    Raises:
        InputError: no reward, too few prompts, a prompt that is too long, or a reward model that is not usable.
        TrainingError: NaN loss, or an answer that cannot be scored.
    """
    check(job, config)
    from trl import GRPOConfig, GRPOTrainer  # late: imports vLLM where that is installed

    return train_online(job, config, GRPOTrainer, GRPOConfig, {"num_iterations": 1})
