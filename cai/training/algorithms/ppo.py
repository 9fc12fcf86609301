"""PPO: the policy learns from a reward on its own answers, held near its parent by a KL penalty. See `..ppo`."""

from __future__ import annotations

from cai.training.algorithms._online import check
from cai.training.base import Job, Outcome
from cai.training.ppo.config import Config

__all__ = ["HELP", "Config", "train"]

HELP = "Proximal policy optimisation against a reward model, judge or rules, with a KL penalty to the parent model."


def train(job: Job, config: Config) -> Outcome:
    """Train; the same call resumes.

    Raises:
        InputError: no reward, no prompts, or a reward model that its own report calls unusable.
        TrainingError: the loss is not a number, or an answer cannot be scored.
        KeyboardInterrupt: stopped; `job.steps` holds the state.
    """
    check(job, config)
    from cai.training.ppo.session import open_session
    from cai.training.stop import Stop

    with Stop(job.say) as stop, open_session(job, config) as session:
        resumed = session.loop.resume()
        if resumed:
            job.say(f"resumes after update {session.loop.done} of {config.updates}")
        # A training that its watch ended stays ended.
        ended = session.look_if_due() or session.ended()
        for _ in () if ended else session.updates():
            ended = session.look_if_due()
            asked = session.agreed(stop.asked)
            if ended or asked or session.loop.done % config.save_every == 0 or session.loop.done == config.updates:
                session.loop.save()
            if asked:
                raise KeyboardInterrupt
            if ended:
                break
        return Outcome(job.checkpoint, session.finish())
