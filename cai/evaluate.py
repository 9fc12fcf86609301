"""What `cai eval judge` and `cai constitution test` do, from top to bottom: pairs in, a judge asked, figures out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai.asking import Bench, Work, judged
from cai.constitution.find import shipped_dir
from cai.constitution.load import load_constitution, principle_files, read_principle
from cai.constitution.model import Principle
from cai.constitution.named import principle_named
from cai.errors import CaiError, InputError, MissingDependency, RunError
from cai.evals import stats
from cai.evals.calibration import FOLDER, Calibration, Method, load_calibration, save_calibration
from cai.evals.judge import Outcome, Scored, advice
from cai.evals.judge import measure as figures
from cai.evals.pairs import LabelledPair, read_pairs, subset_of
from cai.evals.plot import reliability_png
from cai.evals.principles import Tested, pair_of, tested
from cai.evals.report import Calibrated, apply_saved, calibrate, curves
from cai.judging import Question, check_asks, question_of
from cai.progress import Reporter
from cai.prompts.rows import BadRow
from cai.store import Lock, encode, read_rows, replacing, write_json


@dataclass(frozen=True)
class Task:
    """What `cai eval judge` is asked to do; see its options.

    Attributes:
        fit, folds: how `calibrate` is made and measured.
    """

    pairs: Path
    limit: int | None = None
    calibrate: Path | None = None
    fit: Method = "temperature"
    folds: int = 0
    calibration: Path | None = None
    against: Path | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Measured:
    """The report (JSON), and what a person should be warned of."""

    report: dict[str, Any]
    outcomes: tuple[Outcome, ...]
    warnings: tuple[str, ...]


def measure(bench: Bench, asked: Task, report: Reporter) -> Measured:
    """Judge the pairs, and say how good the judge is; with `out`, write the files and resume.

    Files: `requests.jsonl` every answer of the model, `votes.jsonl`, `verdicts.jsonl` one row a pair, `report.json`,
    `reliability.png`, and `eval.json`, what was asked: another question is refused in the same folder.

    Raises:
        CaiError: a file is wrong, the folder holds another measurement, the backend is down.
        KeyboardInterrupt: stopped.
    """
    saved = load_calibration(asked.calibration) if asked.calibration else None
    if saved is not None:
        saved.check(bench.judge.kind, bench.questions)
    if asked.calibrate:
        _can_calibrate(asked.calibrate, bench, asked)
    other = _verdicts(asked.against, asked.pairs) if asked.against else None
    every, broken = read(asked.pairs, report=report)
    pairs = subset_of(every, asked.limit, seed=bench.setting.seed)
    if asked.folds > (prompts := len({pair.cluster for pair in pairs})):
        raise InputError(f"{asked.folds} folds of {prompts} prompts", where="--folds", mend="at most one a prompt")
    said = {"file": asked.pairs.name, "sha256": digest(asked.pairs)}
    sampled = {"of": len(every), "seed": bench.setting.seed, "how": "hash"} if len(pairs) < len(every) else None
    with contextlib.ExitStack() as stack:
        if asked.out:
            stack.enter_context(Lock(asked.out))
            _same(asked.out, {"judge": bench.row(), "pairs": said, "seed": bench.setting.seed})
        work = Work()
        log = asked.out / "requests.jsonl" if asked.out else None
        outcomes = judged(bench, [(pair, bench.ask(pair.group())) for pair in pairs], work, report, log=log)
        found = figures(outcomes, seed=bench.setting.seed) | work.row()
        found |= {"sampled": sampled, "broken_rows": broken, "pairs": said, "judge": bench.row()}
        scored = Scored.of(outcomes)
        made, problem = _calibrated(scored, saved, bench, asked, said)
        if made or problem:
            found["calibration"] = made.row(bench.setting.seed) if made else {"error": problem}
        if other is not None:
            found["against"] = _difference(outcomes, other, seed=bench.setting.seed)
        found["advice"] = advice(found)
        warnings = [problem] if problem else []
        if asked.out:
            warnings += _write(asked.out, found, outcomes, scored, made, bench)
        if made and asked.calibrate:
            warnings += _save(asked.calibrate, made.calibration)
    return Measured(found, tuple(outcomes), tuple(warnings))


def _calibrated(
    scored: Scored, saved: Calibration | None, bench: Bench, asked: Task, said: dict[str, str]
) -> tuple[Calibrated | None, str]:
    """The calibration asked for, or why there is none: a failed fit must not lose the figures."""
    if saved is not None:
        return apply_saved(scored, saved), ""
    if asked.calibrate is None:
        return None, ""
    judge = {key: bench.row()[key] for key in ("method", "options", "backend", "model")}
    about = {**said, **bench.questions, "judge": judge}
    try:
        seed = bench.setting.seed
        made = calibrate(
            scored,
            bench.judge.kind,
            name=asked.calibrate.stem,
            method=asked.fit,
            folds=asked.folds,
            seed=seed,
            said=about,
        )
    except InputError as error:
        return None, f"no calibration was written: {error.what}"
    return made, ""


def _can_calibrate(path: Path, bench: Bench, asked: Task) -> None:
    """Refuse what would fail after all the judging.

    Raises:
        InputError: an offset that could not be applied, folds that are none, or a file that cannot be written.
    """
    if asked.fit == "platt" and bench.keeps_sides:
        raise InputError(
            "an offset on labels of both orders would prefer one of two equal answers, so no run could apply it",
            where="--fit platt",
            mend="leave it out (temperature), or ask in one order: --set orders=one",
        )
    if asked.folds == 1:
        raise InputError("one fold leaves nothing to fit on", where="--folds", mend="at least 2; or 0 for two halves")
    folder = path.parent.parent if path.parent.name == FOLDER and not path.parent.exists() else path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        what = "is a folder" if path.is_dir() else "its folder is not there, or cannot be written to"
        raise InputError(f"the calibration cannot be written: {what}", where=str(path))


def _save(path: Path, calibration: Calibration) -> list[str]:
    """Write it; else why not, since the figures must not be lost with it."""
    try:
        save_calibration(path, calibration)
    except (CaiError, OSError) as error:
        return [f"no calibration was written: {error}"]
    return []


def _difference(outcomes: Sequence[Outcome], other: dict[str, float], *, seed: int) -> dict[str, Any]:
    """This judge's accuracy less the other's, on the pairs that both have a verdict on."""
    both = [each for each in outcomes if each.scored and each.pair.id in other]
    if not both:
        raise InputError("has no verdict on any of these pairs", where="--against")
    ours = [stats.correct([each.p_chosen or 0.0], [1.0])[0] for each in both]
    theirs = [stats.correct([other[each.pair.id]], [1.0])[0] for each in both]
    return stats.paired_difference(ours, theirs, [each.pair.cluster for each in both], seed=seed).row()


# --- files ------------------------------------------------------------------------------------------------------------


def read(path: Path, *, report: Reporter, shown: int = 10) -> tuple[list[LabelledPair], int]:
    """All pairs of a file, and how many rows were broken; those are said, the first `shown` of them one by one.

    Raises:
        InputError: the file cannot be read, or holds no pair.
    """
    pairs: list[LabelledPair] = []
    broken = 0
    for each in read_pairs(path):
        if isinstance(each, LabelledPair):
            pairs.append(each)
            continue
        broken += 1
        if broken <= shown:
            report.say(f"left out: {each}" if isinstance(each, BadRow) else str(each))
    if broken > shown:
        report.say(f"left out: {broken - shown} more rows of {path}")
    if not pairs:
        raise InputError("holds no labelled pair", where=str(path))
    return pairs, broken


def digest(path: Path) -> str:
    """SHA-256 of a file, the first 24 hex digits."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()[:24]


def _same(folder: Path, now: dict[str, Any]) -> None:
    """Refuse a folder that holds another measurement; else note what this one is.

    How many of the pairs are drawn may change: a larger limit only adds some.
    """
    path = folder / "eval.json"
    if path.is_file():
        before = json.loads(path.read_text("utf-8"))
        changed = sorted(key for key in now if before.get(key) != now[key])
        if changed:
            raise RunError(
                f"holds another measurement: {', '.join(changed)} differ",
                where=str(folder),
                mend="give another --out",
            )
    write_json(path, now)


def _write(
    folder: Path,
    report: dict[str, Any],
    outcomes: Sequence[Outcome],
    scored: Scored,
    made: Calibrated | None,
    bench: Bench,
) -> list[str]:
    with replacing(folder / "votes.jsonl") as file:
        for each in outcomes:
            file.writelines(encode({"pair": each.pair.id, **vote.row()}) for vote in each.votes)
    with replacing(folder / "verdicts.jsonl") as file:
        file.writelines(encode(each.row()) for each in outcomes)
    write_json(folder / "report.json", report)
    drawn = curves(scored, made, seed=bench.setting.seed)
    if not drawn:
        return []
    try:
        reliability_png(folder / "reliability.png", drawn, title=f"{bench.setting.method} by {bench.fingerprint}")
    except MissingDependency as error:
        return [f"no diagram: {error}"]
    return []


def _verdicts(folder: Path, pairs: Path) -> dict[str, float]:
    """p of people's better answer by pair, from another measurement's folder, which must be of the same file."""
    path = folder / "verdicts.jsonl"
    if not path.is_file():
        raise InputError("no verdicts.jsonl here", where=str(folder), mend="give the --out folder of a measurement")
    asked = json.loads((folder / "eval.json").read_text("utf-8")) if (folder / "eval.json").is_file() else {}
    if (asked.get("pairs") or {}).get("sha256") != digest(pairs):
        raise InputError("measured other pairs", where=str(folder), mend=f"measure it on {pairs.name} too")
    return {row["id"]: float(row["p_chosen"]) for row in read_rows(path) if row["p_chosen"] is not None}


# --- principles -------------------------------------------------------------------------------------------------------


def try_principles(
    bench: Bench,
    principles: Sequence[Principle],
    work: Work,
    report: Reporter,
    *,
    margin: float,
    out: Path | None = None,
) -> list[Tested]:
    """Put every example of every principle to the judge, by the principle's question and by the general one.

    Args:
        out: folder that keeps every answer, so that nothing is asked twice.

    Raises:
        CaiError, KeyboardInterrupt: as `judged`. InputError: an example whose two answers are the same,
            or a principle that says nothing to a judge who sees one answer.
    """
    tried = [
        (principle, example, pair_of(principle, index, example))
        for principle in principles
        if principle.judge.strip()
        for index, example in enumerate(principle.examples)
    ]
    check_asks(bench.judge, (principle for principle, _, _ in tried))
    asked: list[tuple[LabelledPair, tuple[Question, ...]]] = []
    for principle, _, pair in tried:
        asked += [(pair, (question_of(principle),)), (pair, (Question(),))]
    with Lock(out) if out else contextlib.nullcontext():
        log = out / "requests.jsonl" if out else None
        outcomes = judged(bench, asked, work, report, log=log) if asked else []
    by_principle: dict[str, list[Any]] = {}
    for (principle, example, _), ours, general in zip(tried, outcomes[::2], outcomes[1::2], strict=True):
        by_principle.setdefault(principle.id, []).append((example, ours, general))
    return [tested(each, by_principle.get(each.id, ()), margin=margin) for each in principles]


def principles_of(name: str) -> tuple[str, tuple[Principle, ...]]:
    """The principles that `name` means, with what to call them: a constitution (name, file or run), one principle (id
    or file); "" for all of ./principles, else the shipped ones.

    Raises:
        InputError: nothing is called so. InvalidFile: it is wrong; every problem with its position.
    """
    if not name:
        folder = Path("principles") if Path("principles").is_dir() else shipped_dir("principles")
        files = principle_files((folder,))
        return folder.name, tuple(read_principle(file) for file in files.values())
    found = principle_named(name)
    if found is not None:
        return found.id, (found,)
    constitution = load_constitution(name)
    return constitution.name, tuple(bound.principle for bound in constitution.principles)
