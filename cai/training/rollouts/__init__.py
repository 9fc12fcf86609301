"""What writes the answers that RL learns from: one file each, found by name, with `Config` and `build`.

A sampler is given token ids and a seed for each row, and gives back the tokens it drew. The trainer computes the
log-probabilities itself; those of an engine are for comparison only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Written:
    """An answer as it was drawn.

    Attributes:
        tokens: of the answer, the one that ends it included where there is one.
        finished: whether it ended by itself; else the token limit cut it off.
        logprobs: of these tokens under the distribution they were drawn from, by the engine's own arithmetic; None
            where the sampler is the trained model itself.
    """

    tokens: tuple[int, ...]
    finished: bool
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Drawing:
    """How to draw: from softmax(logits / temperature), whole: a truncated distribution would not be the policy's."""

    max_tokens: int
    temperature: float
    ends: tuple[int, ...]
    pad: int


class Sampler(Protocol):
    """`sync` gives it the policy's newest weights, by their names in the checkpoint, before each `write`."""

    def sync(self, weights: Iterator[tuple[str, Tensor]]) -> None: ...

    def write(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], drawing: Drawing) -> list[Written]:
        """One answer to each prompt; the same seed draws the same answer, whatever else is in the call, up to
        rounding.
        """

    def close(self) -> None: ...
