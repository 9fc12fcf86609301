"""The part of a judge's report that is about calibration, and the curves that show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cai.evals import stats
from cai.evals.calibration import Calibration, Method, cross_fitted, fit, parts, short
from cai.evals.judge import Scored
from cai.evals.plot import Curve


@dataclass(frozen=True)
class Calibrated:
    """Raw and calibrated probabilities side by side, on pairs that the calibration was not fitted on.

    Attributes:
        how: `held_out`, `cross_fitted` or `saved`.
        left_out: pairs that are not evaluated because the calibration was fitted on their prompts.
    """

    calibration: Calibration
    how: str
    raw: Scored
    p: stats.Array
    left_out: int

    def row(self, seed: int) -> dict[str, Any]:
        """JSON object; `log_loss_difference` is calibrated less raw, below 0 where calibrating helps."""
        made = Scored(self.p, self.raw.y, self.raw.prompts)
        gap = None
        if len(self.p):
            losses = stats.surprise(made.p, made.y), stats.surprise(self.raw.p, self.raw.y)
            gap = stats.paired_difference(*losses, made.prompts, seed=seed).row()
        return {
            "how": self.how,
            "name": self.calibration.name,
            "method": self.calibration.method,
            "parameters": self.calibration.parameters,
            "fitted_on": self.calibration.fitted_on.get("n"),
            "left_out": self.left_out,
            "n": len(self.p),
            "raw": {**self.raw.row(), **self.raw.accuracy(seed)},
            "calibrated": {**made.row(), **made.accuracy(seed)},
            "log_loss_difference": gap,
        }


def calibrate(
    scored: Scored,
    judge_id: str,
    *,
    method: Method,
    folds: int,
    seed: int,
    said: Mapping[str, Any],
    name: str = "",
) -> Calibrated:
    """Fit a calibration, and measure it on pairs that it was not fitted on; both parts are drawn by prompt.

    Args:
        folds: 0: fit on one half and measure on the other. Else: measured by cross-fitting, each fold by a line fitted
            on the others, and the calibration itself is fitted on all pairs.
        said: about the file and the questions, for `fitted_on`.
        name: of the calibration.

    Raises:
        InputError: it cannot be fitted; see `cai.evals.calibration.fit`.
    """
    if folds:
        p = cross_fitted(scored.p, scored.y, scored.prompts, method=method, folds=folds, seed=seed)
        made = replace(_fit(scored, judge_id, method, said), name=name)
        return Calibrated(made, "cross_fitted", scored, p, 0)
    halves = np.asarray(parts(scored.prompts, 2, seed=seed), dtype=np.int64)
    made = replace(_fit(_part(scored, halves == 0), judge_id, method, said), name=name)
    rest = _part(scored, halves == 1)
    return Calibrated(made, "held_out", rest, made.apply_all(rest.p), int((halves == 0).sum()))


def apply_saved(scored: Scored, calibration: Calibration) -> Calibrated:
    """Measure a calibration that was fitted elsewhere; pairs of prompts that it has seen are left out."""
    unseen = np.asarray([not calibration.saw(prompt) for prompt in scored.prompts], dtype=bool)
    rest = _part(scored, unseen)
    return Calibrated(calibration, "saved", rest, calibration.apply_all(rest.p), int((~unseen).sum()))


def curves(scored: Scored, calibrated: Calibrated | None, *, seed: int) -> tuple[Curve, ...]:
    """What the diagram shows: the raw curve, and beside it the calibrated one over the same pairs."""
    base = calibrated.raw if calibrated else scored
    if not len(base.p):
        return ()
    both = [("raw", base.p)] + ([(calibrated.calibration.method, calibrated.p)] if calibrated else [])
    return tuple(
        Curve(name, stats.reliability(p, base.y, base.prompts, seed=seed), len(p), stats.ece(p, base.y))
        for name, p in both
    )


def _part(scored: Scored, kept: Any) -> Scored:
    prompts = tuple(prompt for prompt, keep in zip(scored.prompts, kept, strict=True) if keep)
    return Scored(scored.p[kept], scored.y[kept], prompts)


def _fit(scored: Scored, judge_id: str, method: Method, said: Mapping[str, Any]) -> Calibration:
    prompts = sorted({short(prompt) for prompt in scored.prompts})
    about = {"n": len(scored.p), **said, "prompts": prompts}
    return fit(scored.p, scored.y, method=method, judge_id=judge_id, fitted_on=about)
