"""Mending a judge's probabilities: a line through its log-odds, fitted to people's verdicts.

`logit p' = a * logit p + b`. `temperature` has b = 0 and a = 1/T (Guo et al. 2017, arXiv 1706.04599); `platt` fits both
(Platt 1999). The soft label of a pair whose two orders were averaged is antisymmetric, p(b) = 1 - p(a), and must stay
so, which is why b = 0 is the default; b is for a judge that is asked in one order only, where it takes out what the
judge gives to the first slot. Fitted by Newton's method, as the loss is convex.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from cai.errors import InputError
from cai.evals import stats
from cai.judging import Judge, depends_on_group
from cai.records import content_hash
from cai.store import write_json

Method = Literal["temperature", "platt"]
METHODS: tuple[str, ...] = get_args(Method)
SCHEMA = 1
FOLDER = "calibrations"
"""Where calibrations are kept by name, beside the recipe or in the current folder."""
_NAME = re.compile(r"(?!.*\.json$)[A-Za-z0-9][\w.-]*")
STEEPEST = 1e3
"""A slope beyond this means that the judge makes no error on what it is fitted to."""


@dataclass(frozen=True)
class Calibration:
    """A fitted line, and what it was fitted on.

    Attributes:
        judge_id: the judge's `kind`, a hash of model, method, options and prompt: for another one it means nothing.
        fitted_on: `n` pairs, `file` and its `sha256`; `prompts`, short hashes of the prompts, which are never evaluated
            on; and what was asked, see `cai.stages.judge.asked`.
        name: by which it is applied and reported; the file's name. No part of the file.
        log_loss_before, log_loss_after: on the pairs fitted on, so the gain is what fitting saw, not what to expect.
    """

    method: Method
    a: float
    b: float
    judge_id: str
    log_loss_before: float
    log_loss_after: float
    fitted_on: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    def apply(self, p: float) -> float:
        """The calibrated probability; `p` is clipped to `stats.EPSILON` from 0 and 1."""
        return float(self.apply_all([p])[0])

    def apply_all(self, p: ArrayLike) -> stats.Array:
        """`apply`, to each of an array."""
        return _sigmoid(self.a * stats.logit(p) + self.b)

    def check(self, judge_id: str, asked: Mapping[str, Any]) -> None:
        """Refuse another judge than the one it was fitted to, and other questions or another rule.

        Args:
            judge_id: the judge's `kind`.
            asked: as `cai.stages.judge.asked` tells it.

        Raises:
            InputError: says what differs.
        """
        where = f"calibration {self.name}".strip()
        if judge_id != self.judge_id:
            raise InputError(
                f"was fitted to the judge {self.judge_id}, and this is {judge_id}",
                where=where,
                mend="the model, the method, its options or its prompt is another: fit it anew with --calibrate",
            )
        decisive = [key for key in asked if key != "constitution"]  # its hash is of critiques too
        if any(key not in self.fitted_on for key in decisive):
            raise InputError(
                "does not say to what questions it was fitted", where=where, mend="fit it anew with --calibrate"
            )
        differing = [key for key in decisive if self.fitted_on[key] != asked[key]]
        if differing:
            mend = "fit it anew with `cai eval judge --calibrate`, asking the same questions"
            if asked.get("axes") or not asked.get("need_both", True):
                mend = "fitted are verdicts over all axes that need both orders; leave out the calibration, or ask so"
            raise InputError(
                f"was fitted to {_told(self.fitted_on)}, and this is {_told(asked)}; "
                f"what differs: {', '.join(differing)}",
                where=where,
                mend=mend,
            )

    def check_groups(self, judge: Judge, largest: int) -> None:
        """Refuse groups of another size than the two answers that it was fitted to, where the size plays a part.

        A list of K has other letters and rotations than a list of two, and a tournament infers labels in larger groups
        only.

        Args:
            judge: that it is applied to.
            largest: the most answers that a group of the run can hold.

        Raises:
            InputError: such a judge, and larger groups.
        """
        if largest > 2 and depends_on_group(judge):
            raise InputError(
                f"was fitted to groups of two answers, and those of this run hold up to {largest}; what the judge "
                f"{judge.name} says of two answers depends on the others of their group",
                where=f"calibration {self.name}".strip(),
                mend="leave the calibration out, compare two answers a prompt, or take a judge that looks at each pair "
                "(logprob, cot) or answer (rating) by itself",
            )

    def saw(self, prompt_id: str) -> bool:
        """Whether it was fitted on a pair of this prompt."""
        return short(prompt_id) in self.fitted_on.get("prompts", ())

    def row(self) -> dict[str, Any]:
        """JSON object; `load_calibration` reads it."""
        found = {"schema": SCHEMA, **asdict(self), "parameters": self.parameters}
        del found["name"]
        return found

    @property
    def parameters(self) -> dict[str, float]:
        """As its literature names them."""
        return {"temperature": 1 / self.a} if self.method == "temperature" else {"a": self.a, "b": self.b}


def _told(asked: Mapping[str, Any]) -> str:
    """What is asked, for people."""
    axes = f", axes {' and '.join(asked['axes'])}" if asked.get("axes") else ""
    both = "" if asked.get("need_both", True) else ", one order enough"
    of = f"the questions of {asked.get('constitution') or 'no constitution'}"
    return f"{of} (principles {asked.get('principles')}{axes}, rule {asked.get('rule')}{both})"


def keeps_sides(options: object) -> bool:
    """Whether a judge with these options treats its two answers alike, so that an offset would prefer one of equals."""
    return getattr(options, "orders", "both") == "both"


def fit(
    p: ArrayLike,
    y: ArrayLike,
    *,
    method: Method = "temperature",
    judge_id: str = "",
    fitted_on: dict[str, Any] | None = None,
) -> Calibration:
    """The line of least log loss.

    Raises:
        InputError: unknown method; no pairs; a judge that is always or never right here, or no better than chance: a
            slope of 0 or less would turn its verdicts into nothing or into their opposites.
    """
    if method not in METHODS:
        raise InputError(f"no calibration method {method!r}", mend=f"one of: {', '.join(METHODS)}")
    x, truth = stats.logit(p), stats.array(y)
    columns = np.stack([x, np.ones_like(x)], axis=1)[:, : 1 if method == "temperature" else 2]
    if len(x) == 0 or not np.any(x):
        raise InputError("there is no verdict that leans to a side, so nothing to calibrate", where="calibration")
    slope, offset = _newton(columns, truth)
    if not math.isfinite(slope + offset) or abs(slope) > STEEPEST:
        raise InputError(f"a judge without an error on the {len(x)} pairs has no finite slope", where="calibration")
    if slope <= 0:
        raise InputError(
            f"on the {len(x)} pairs fitted on, the surer the judge the less it is right (slope {slope:.2g})",
            where="calibration",
            mend="a calibration cannot mend that; fit it on more pairs, or take another judge",
        )
    made = Calibration(method, slope, offset, judge_id, stats.log_loss(p, y), 0.0, fitted_on or {})
    return Calibration(**{**asdict(made), "log_loss_after": stats.log_loss(made.apply_all(p), y)})


def _newton(columns: stats.Array, y: stats.Array) -> tuple[float, float]:
    """Minimum of the logistic loss; halves a step that would not lower it. Slope and offset; infinite if separable."""
    found = np.zeros(columns.shape[1])
    found[0] = 1.0
    for _ in range(100):
        said = _sigmoid(columns @ found)
        gradient = columns.T @ (said - y)
        curvature = (columns * (said * (1 - said))[:, None]).T @ columns
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError:
            return math.inf, 0.0
        loss, size = _loss(columns @ found, y), 1.0
        while size > 1e-8 and _loss(columns @ (found - size * step), y) > loss:
            size /= 2
        found = found - size * step
        if np.abs(found).max() > STEEPEST:
            return math.inf, 0.0
        if np.abs(size * step).max() < 1e-10:
            break
    return float(found[0]), float(found[1]) if len(found) > 1 else 0.0


def _loss(x: stats.Array, y: stats.Array) -> float:
    return float(np.sum(np.logaddexp(0, x) - y * x))


def _sigmoid(x: stats.Array) -> stats.Array:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)), dtype=np.float64)  # never overflows


# --- parts ------------------------------------------------------------------------------------------------------------


def parts(prompts: Sequence[str], count: int, *, seed: int) -> list[int]:
    """A part (0 ... count - 1) for each entry, by hash of its prompt: the entries of a prompt share a part."""
    drawn = {prompt: int(content_hash("part", seed, prompt, length=12), 16) % count for prompt in set(prompts)}
    return [drawn[prompt] for prompt in prompts]


def cross_fitted(
    p: ArrayLike, y: ArrayLike, prompts: Sequence[str], *, method: Method, folds: int, seed: int
) -> stats.Array:
    """Each probability calibrated by a line fitted on the other folds, so that none judges what it was fitted on.

    Raises:
        InputError: as `fit`; or fewer prompts than folds.
    """
    if not 2 <= folds <= len(set(prompts)):
        raise InputError(
            f"{folds} folds of {len(set(prompts))} prompts", where="--folds", mend="at least 2, and a prompt a fold"
        )
    said, truth = stats.array(p), stats.array(y)
    where = np.asarray(parts(prompts, folds, seed=seed))
    made = np.empty_like(said)
    for fold in sorted(set(where.tolist())):
        inside = where == fold
        made[inside] = fit(said[~inside], truth[~inside], method=method).apply_all(said[inside])
    return made


def short(prompt_id: str) -> str:
    """A prompt as `fitted_on` names it."""
    return prompt_id[:12]


# --- files ------------------------------------------------------------------------------------------------------------


def calibration_path(given: str, folder: Path) -> Path:
    """The file that `given` means: a path, or a bare name for `calibrations/NAME.json`.

    Args:
        folder: a recipe's, to which a path is relative, and where a name is looked up before the current folder, into
            which `cai eval judge` writes it.
    """
    if not _NAME.fullmatch(given):
        return folder / Path(given).expanduser()
    beside, here = (place / FOLDER / f"{given}.json" for place in (folder, Path()))
    return here if here.is_file() and not beside.is_file() else beside


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write it as JSON, atomically.

    Raises:
        StoreError: it cannot be written.
    """
    if path.parent.name == FOLDER:
        path.parent.mkdir(exist_ok=True)
    write_json(path, calibration.row())


def load_calibration(path: Path | str) -> Calibration:
    """What `save_calibration` wrote.

    Raises:
        InputError: no such file, or it is none.
    """
    try:
        data = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        known = (
            sorted(file.stem for file in Path(path).parent.glob("*.json")) if Path(path).parent.name == FOLDER else []
        )
        mend = f"those saved: {', '.join(known)}; " if known else ""
        mend += f"`cai eval judge --calibrate NAME` writes {FOLDER}/NAME.json in the current folder, where a name is "
        mend += "looked up if it is not beside the recipe"
        raise InputError(f"cannot read the file: {error.strerror}", where=str(path), mend=mend) from error
    except ValueError as error:
        raise InputError("not a calibration: not JSON", where=str(path)) from error
    try:
        values = {key: value for key, value in data.items() if key not in ("schema", "parameters", "name")}
        found = Calibration(**values, name=Path(path).stem)
        sound = data["schema"] == SCHEMA and found.method in METHODS and found.a > 0
        sound = sound and all(math.isfinite(value) for value in (found.a, found.b))
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError("not a calibration that `cai eval judge --calibrate` wrote", where=str(path)) from error
    if not sound:
        raise InputError("not a calibration that this version of cai can read", where=str(path))
    return found
