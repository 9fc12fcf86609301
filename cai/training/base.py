"""What every training algorithm is given and gives back; plain values, no recipe and no YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cai.errors import CaiError
from cai.progress import Reporter, Silent
from cai.records import Messages, Prompt
from cai.training.data import PairSource


class TrainingError(CaiError):
    """Training cannot go on: NaN loss, memory that does not suffice, a reward that could not be computed."""

    ends_run = True


class Reward(Protocol):
    """A score of answers; higher is better.

    `name` stands in reports. Called with as many answers as prompts, it returns one finite score for each, in their
    order, which must not depend on what else is in the call.

    Raises:
        TrainingError: an answer could not be scored. Never a made-up score.
    """

    name: str

    def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]: ...


@dataclass(frozen=True)
class Job:
    """All that an algorithm is given.

    Attributes:
        name: the algorithm.
        out: folder of this training: `checkpoint/` the result, `steps/` what a stopped one resumes from, and
            `metrics.jsonl`.
        parent: folder of the model that is trained, in Hugging Face format.
        conversations: folder with `train.jsonl` and, where anything is held out, `test.jsonl`, rows with `messages`.
        pairs: the mixture of preferences.
        prompts: what RL draws from; never a held-out prompt.
        watched: the fixed set of held-out prompts on which training is watched.
        reward: what RL maximises.
        gold: measures that are not trained on, by name.
        lineage: where the data came from; ends in `lineage.json` and in the card.
        trl: for TRL's own config object, as it is.
        say, progress: one line to the user, and how far the steps are.
    """

    name: str
    out: Path
    parent: Path
    seed: int
    conversations: Path | None = None
    pairs: tuple[PairSource, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    watched: tuple[Prompt, ...] = ()
    reward: Reward | None = None
    gold: Mapping[str, Reward] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    trl: Mapping[str, Any] = field(default_factory=dict)
    say: Callable[[str], None] = print
    progress: Reporter = field(default_factory=Silent)

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint"

    @property
    def steps(self) -> Path:
        return self.out / "steps"

    @property
    def metrics(self) -> Path:
        return self.out / "metrics.jsonl"


@dataclass(frozen=True)
class Outcome:
    """What came of it: the checkpoint's folder and the last figures."""

    checkpoint: Path
    metrics: dict[str, Any]
