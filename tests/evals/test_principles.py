"""What a judge's verdicts on a principle's examples are called."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cai.constitution.model import Example, Principle
from cai.evals import principles
from cai.evals.judge import Outcome
from cai.records import Candidate, Group

EXAMPLES = tuple(Example(prompt=f"Say {n}.", better=f"Plain {n}.", worse=f"Ornate {n}.") for n in range(3))
PRINCIPLE = Principle(id="plain", title="t", judge="Which is plainer?", examples=EXAMPLES)


def outcome(index: int, p_better: float | None) -> Outcome:
    pair = principles.pair_of(PRINCIPLE, index, EXAMPLES[index])
    group = Group.make(pair.prompt, [Candidate(id=text, text=text) for text in (pair.chosen, pair.rejected)])
    found = Outcome(pair, group, ())
    p = p_better if p_better is None or found.y else 1 - p_better
    return Outcome(pair, group, (), p)


@pytest.mark.parametrize(
    ("by_principle", "general", "word"),
    [
        ([0.9, 0.9, 0.4], [0.5, 0.5, 0.5], "tells apart"),
        ([0.995, 0.998, 0.999], [0.99, 0.995, 0.99], "adds nothing"),  # nothing can be added to what is sure already
        ([0.9, 0.9, 0.9], [0.99, 0.99, 0.99], "tells apart"),  # it does something, and is right
        ([0.9, 0.9, 0.9], [0.8, 0.8, 0.8], "tells apart"),
        ([0.9, 0.9, 0.9], [None, None, None], "tells apart"),
        ([0.53, 0.53, 0.53], [0.9, 0.9, 0.9], "does nothing"),
        ([0.99, 0.45, 0.45], [0.5, 0.5, 0.5], "does nothing"),  # by one example only
        ([0.2, 0.3, 0.4], [0.9, 0.9, 0.9], "opposite"),
        ([None, None, None], [0.9, 0.9, 0.9], "no verdict"),
    ],
)
def test_the_word(by_principle: Sequence[float | None], general: Sequence[float | None], word: str) -> None:
    found = [
        (example, outcome(index, p), outcome(index, q))
        for index, (example, p, q) in enumerate(zip(EXAMPLES, by_principle, general, strict=True))
    ]
    got = principles.tested(PRINCIPLE, found, margin=0.05)
    assert got.verdict == word
    assert (word in principles.FAULTS) == (word in ("does nothing", "opposite", "no verdict"))
    both = [(p, q) for p, q in zip(by_principle, general, strict=True) if p is not None and q is not None]
    expected = sum(p - q for p, q in both) / len(both) if both else None
    assert got.difference == (None if expected is None else pytest.approx(expected))
