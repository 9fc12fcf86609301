"""Share of answers that refuse, by the phrases of `cai.faults.refusal`."""

from __future__ import annotations

from collections.abc import Sequence

from cai.faults.refusal import refuses

HELP = "share of refusals"


def measure(answers: Sequence[str], reference: Sequence[str]) -> tuple[list[float], list[float]]:
    return [float(refuses(a)) for a in answers], [float(refuses(a)) for a in reference]
