"""Measures of a set of answers beside the reference policy's answers to the same prompts: one a file, found by name.

Each file has `HELP` and `measure(answers, reference) -> (value, baseline) a prompt`, two lists of floats in the
answers' order. Here they get their paired difference with an interval by prompt, so that drift can be told from noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cai import plugins
from cai.errors import MissingDependency
from cai.evals import stats


def names() -> list[str]:
    """Every measure there is."""
    return plugins.names(__name__)


def _nobody(text: str) -> None:
    """Is not told."""


def measure_all(
    answers: Sequence[str],
    reference: Sequence[str],
    prompts: Sequence[str],
    *,
    lacking: Callable[[str], None] = _nobody,
) -> dict[str, Any]:
    """All measures: mean, the reference's mean, and their difference with its interval.

    Args:
        prompts: the prompt's id of each answer; answers and reference are in the same order.
        lacking: is told of a measure that is left out because its optional package is missing.
    """
    found: dict[str, Any] = {}
    for name in names():
        module = plugins.load(__name__, name)
        try:
            value, baseline = module.measure(answers, reference)
        except MissingDependency as error:
            lacking(f"{name} is not measured: {error}")
            continue
        found[name] = beside(value, baseline, prompts)
    return found


def beside(value: Sequence[float], baseline: Sequence[float], prompts: Sequence[str]) -> dict[str, Any]:
    """Means of a measure and of its reference, and their paired difference with its 95 % interval, by prompt."""
    gap = stats.paired_difference(value, baseline, list(prompts), seed=0, draws=500)
    return {
        "mean": round(float(np.mean(value)), 4),
        "reference": round(float(np.mean(baseline)), 4),
        "difference": round(gap.mean, 4),
        "ci": [round(end, 4) for end in gap.interval.row()],
    }
