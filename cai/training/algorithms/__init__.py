"""Training algorithms: one file each, found by name, with `Config`, `HELP` and `train(job, config) -> Outcome`."""

from __future__ import annotations

from typing import Any, Protocol, cast

from cai import plugins
from cai.training.base import Job, Outcome


class Algorithm(Protocol):
    """What an algorithm's module offers."""

    Config: type[Any]
    HELP: str

    def train(self, job: Job, config: Any) -> Outcome: ...


def names() -> list[str]:
    """Every algorithm there is."""
    return plugins.names(__name__)


def load(name: str) -> Algorithm:
    """The algorithm `name`; loads neither torch nor TRL.

    Raises:
        InputError: there is none; says which there are and which is nearest.
    """
    return cast(Algorithm, plugins.load(__name__, name))
