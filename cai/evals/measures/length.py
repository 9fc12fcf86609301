"""Words an answer has."""

from __future__ import annotations

from collections.abc import Sequence

HELP = "words an answer"


def measure(answers: Sequence[str], reference: Sequence[str]) -> tuple[list[float], list[float]]:
    return [float(len(a.split())) for a in answers], [float(len(a.split())) for a in reference]
