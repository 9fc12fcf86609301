"""How good verdicts are, by how they are asked: one model, one run, the same pairs.

    python -m benchmarks.judge_model                  # build the model first
    python -m benchmarks.judge_quality [--model FOLDER] [--data FOLDER] [--minutes 60] [--every 3] [--cot 8]

On LLMBar (pairs with an objective label) and PandaLM (pairs with three people's labels; only those of which more people
prefer one answer than the other). Pairs are taken in the order of a hash of their ids, so those that were done when the
time is over are a random sample of both.

- `a_parsed`: one order, a reply is generated greedily and its first letter taken, as most tools do; no letter counts as
  a coin's toss, 1/2, for accuracy and ECE (it has to: there is no probability);
- `b_one_order`: one order, probability of the letters;
- `c_both_orders`: both orders averaged, the default of `cai judge`;
- `d_principles`: both orders, three principles of the default constitution averaged; on one pair of `--every`;
- `e_cot`: both orders, a rationale first, clamped to 0.4 to 0.6 as in the paper; on one pair of `--cot`
  (`e_unclamped`: the same as it was read).

Accuracy with 95 % intervals by prompt; differences paired by pair and clustered by prompt. ECE is of equal-mass bins,
seen from both sides of each pair. Temperature scaling is cross-fitted over five folds by prompt. Nothing of prompts,
options or principles was tuned on these pairs.

What was said of each pair, without any text, is kept in `judge_quality.jsonl` beside the result, with the model and a
hash of how a pair was put to it. Another run with the same two goes on behind it, so that a slow machine adds pairs day
by day, and whoever doubts a figure can compute it anew (`--minutes 0 --put HASH`, the hash is in the result); rows of
others stay, and are not mixed in.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import GPU, RESULTS, report
from benchmarks.judge_model import OUT
from benchmarks.people_data import DATA, folder_of_data
from cai.backends import vllm
from cai.constitution import load_constitution
from cai.engine import Engine, Generate, Request, Sampling
from cai.errors import InputError
from cai.evals import stats
from cai.evals.calibration import cross_fitted, fit
from cai.evals.pairs import LabelledPair, read_pairs
from cai.evals.plot import Curve, reliability_png
from cai.judges import cot, logprob
from cai.judging import Question
from cai.judging.quoting import pair_slots
from cai.processor import resolved_dtype
from cai.records import Candidate, Group, Prompt, content_hash
from cai.scheduler import run_rows, together
from cai.stages.prefer import clamped
from cai.store import Log, read_rows

PRINCIPLES = ("answer-the-question", "no-made-up-facts", "plain-words")
IN_FLIGHT = 256 if GPU else 24
LETTER = re.compile(r"\b(B\b|A\b(?!\s+(?!is\b|was\b|seems\b)[a-z]))")
"""The first letter that stands alone; the article of "A better answer is B" is none."""
PICTURE, ROWS = RESULTS / "judge_reliability.png", RESULTS / "judge_quality.jsonl"


def labelled(data: Path) -> list[tuple[str, LabelledPair]]:
    """Data set and pair, of those of which people prefer one answer, in the order of a hash."""
    found = []
    for name, path in (("llmbar", "judge/llmbar.jsonl.gz"), ("pandalm", "labels/pandalm.jsonl.gz")):
        for row in read_pairs(data / path):
            if isinstance(row, LabelledPair) and row.gold == "chosen":
                found.append((name, row))
    return sorted(found, key=lambda each: content_hash("judge_quality", each[0], each[1].id))


async def verdicts(
    pairs: list[tuple[str, LabelledPair]],
    minutes: float,
    every: int,
    cot_every: int,
    engine: Engine,
    judges: dict[str, Any],
    known: Log,
    asked_by: dict[str, str],
) -> None:
    """Of each pair: y, and by method the probability of the comparison's `a`; of as many pairs as the time allows.

    Those in `known` are not asked again; the others are appended to it as they are done.
    """
    constitution = load_constitution("default")
    principles = [constitution.get(name).principle for name in PRINCIPLES]

    async def one(item: tuple[int, str, LabelledPair], generate: Generate) -> dict[str, Any]:
        number, data_set, pair = item
        (comparison,) = pair.group().comparisons()
        general = Question()
        prompt = judges["c"].prompt
        parsed = prompt.messages(pair_slots(comparison, prompt.question), reply="")
        more = principles if number % every == 0 else []
        questions = [general, *(Question(p.judge.strip(), (p.id,)) for p in more)]
        asked = [judges["c"](comparison, question, generate) for question in questions]
        reply, *votes = await together(
            [generate(Request(parsed, Sampling(max_tokens=12, temperature=0.0), 0, "judge")), *asked]
        )
        letter = LETTER.search(reply.text)
        by = [[vote.p for vote in found] for found in votes]
        row: dict[str, Any] = {
            "key": row_key(data_set, pair, asked_by),
            "id": key(data_set, pair),
            **asked_by,
            "set": data_set,
            "subset": f"{data_set} {pair.subset}".strip(),
            "y": float(comparison.a.text == pair.chosen),
            "a_parsed": None if letter is None else float(letter.group(1) == "A"),
            "b_one_order": by[0][0],
            "second_order": by[0][1],
            "c_both_orders": _mean(by[0]),
            "d_principles": _mean([_mean(each) for each in by[1:]]) if more else None,
            "mass": [vote.mass for vote in votes[0]],
        }
        if number % cot_every == 0:
            given = await judges["e"](comparison, general, generate)
            row["e_unclamped"] = _mean(
                [vote.raw["p"][0 if vote.order == "ab" else 1] if vote.p is not None else None for vote in given]
            )
        return row

    begun = time.monotonic()
    left = (
        (number, *pair)
        for number, pair in enumerate(pairs)
        if f"{key(*pair)} {asked_by['model']} {asked_by['put']}" not in known
        and time.monotonic() - begun < 60 * minutes
    )
    async for done in run_rows(left, one, engine.generate, in_flight=IN_FLIGHT):
        if done.error is not None:
            raise done.error
        known.append(done.result)
        if len(known) % (100 if GPU else 5) == 0:
            print(
                f"{len(known)}/{len(pairs)} pairs, {time.monotonic() - begun:.0f} s, {engine.usage.row()}", flush=True
            )


def key(data_set: str, pair: LabelledPair) -> str:
    return f"{data_set}:{pair.id}"


def row_key(data_set: str, pair: LabelledPair, asked_by: dict[str, str]) -> str:
    return f"{key(data_set, pair)} {asked_by['model']} {asked_by['put']}"


def put(judge: Any) -> str:
    """A hash of how a pair is put to the model: of the words, tags and marks around one that is made up."""
    (comparison,) = Group.make(Prompt.make("Which?"), [Candidate("1", "This."), Candidate("2", "That.")]).comparisons()
    messages = judge.prompt.messages(pair_slots(comparison, judge.prompt.question))
    return content_hash([turn.row() for turn in messages], length=8)


def _mean(values: list[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return sum(kept) / len(kept) if len(kept) == len(values) else None


def cot_label(p: float | None) -> float | None:
    """The soft label of a chain of thought, as `cai judge` makes it of votes that are kept as they were read."""
    return None if p is None else clamped(p, 0.0, cot.Config().clamp)


METHODS = ("a_parsed", "b_one_order", "c_both_orders", "d_principles", "e_cot", "e_unclamped")


def scores(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy with interval, ECE, Brier and log loss by method; flips of the two orders."""
    table: dict[str, Any] = {}
    for name in METHODS:
        kept = [row for row in rows if row.get(name) is not None or (name == "a_parsed" and name in row)]
        if not kept:
            continue
        p = np.array([0.5 if row[name] is None else row[name] for row in kept])
        y = np.array([row["y"] for row in kept])
        prompts = [row["prompt"] for row in kept]
        right = stats.correct(p, y)
        interval = stats.share_interval(right, prompts, seed=0)
        table[name] = {
            "n": len(kept),
            "accuracy": round(float(right.mean()), 4),
            "interval": [round(interval.low, 4), round(interval.high, 4)],
            "ece": round(stats.ece(p, y), 4),
            "brier": round(stats.brier(p, y), 4),
            "log_loss": round(stats.log_loss(p, y), 4),
        }
        if name == "a_parsed":
            table[name]["no_letter"] = sum(row[name] is None for row in kept)
        elif len(set(prompts)) > 50:
            table[name]["calibrated"] = recalibrated(p, y, prompts)
    both = [row for row in rows if row["b_one_order"] is not None and row["second_order"] is not None]
    table["flip_rate"] = round(
        sum((r["b_one_order"] - 0.5) * (r["second_order"] - 0.5) < 0 for r in both) / len(both), 4
    )
    first = [(r["b_one_order"] > 0.5) + (r["second_order"] < 0.5) for r in both]
    table["first_slot_rate"] = round(sum(first) / (2 * len(both)), 4)
    return table


def recalibrated(p: Any, y: Any, prompts: list[str]) -> dict[str, Any]:
    """ECE and Brier score behind a cross-fitted temperature; why not, for a judge that is no better than chance."""
    try:
        found = cross_fitted(p, y, prompts, method="temperature", folds=5, seed=0)
        slope = fit(p, y).a
    except InputError as error:
        return {"not": error.what}
    return {"ece": round(stats.ece(found, y), 4), "brier": round(stats.brier(found, y), 4), "slope": round(slope, 3)}


def difference(rows: list[dict[str, Any]], one: str, other: str) -> dict[str, Any]:
    """Accuracy of `one` less that of `other` on the pairs that both have."""
    kept = [row for row in rows if row.get(one) is not None and (row.get(other) is not None or other == "a_parsed")]
    y = [row["y"] for row in kept]

    def right(name: str) -> stats.Array:
        return stats.correct([0.5 if row[name] is None else row[name] for row in kept], y)

    found = stats.paired_difference(right(one), right(other), [row["prompt"] for row in kept], seed=0)
    interval = found.interval
    return {"n": len(kept), "mean": round(found.mean, 4), "interval": [round(interval.low, 4), round(interval.high, 4)]}


def curve(name: str, p: Any, y: Any, prompts: list[str]) -> Curve:
    return Curve(name, stats.reliability(p, y, prompts, seed=0), len(y), stats.ece(p, y))


def ask(pairs: list[tuple[str, LabelledPair]], options: argparse.Namespace) -> None:
    """Have the model judge what is not in `ROWS` yet."""
    # Small batches of tokens: on a CPU that is short of memory bandwidth, large ones are slower.
    how: dict[str, Any] = {} if GPU else {"seats": 32, "compile": "no", "engine": {"max_num_batched_tokens": 2048}}
    config = vllm.Config(model=str(options.model), context=2048, **how)
    backend = vllm.build(config, seed=0)
    models = {"judge": backend.fingerprint}
    judges = {
        "c": logprob.build(logprob.Config(), models=models, seed=0),
        "e": cot.build(cot.Config(max_tokens=160), models=models, seed=0),
    }
    asked_by = {"model": options.model.name, "put": put(judges["c"]), "dtype": resolved_dtype(config.dtype)}

    async def work() -> None:
        with Log(options.log, key="key") as log, Log(ROWS, key="key") as known:
            asked = Engine({"judge": backend}, log)
            await verdicts(pairs, options.minutes, options.every, options.cot, asked, judges, known, asked_by)

    asyncio.run(work())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=OUT)
    parser.add_argument("--data", type=folder_of_data, default=str(DATA))
    parser.add_argument("--minutes", type=float, default=60, help="no further pair is begun; 0: only compute")
    parser.add_argument("--every", type=int, default=3, help="one pair of so many is judged by three principles too")
    parser.add_argument("--cot", type=int, default=8, help="one pair of so many is judged by chain of thought too")
    parser.add_argument(
        "--log", type=Path, default=OUT.parent / "judge-quality.jsonl", help="request log: a stopped run goes on"
    )
    parser.add_argument("--put", default="", help="with --minutes 0: of rows that were put to it in another way")
    options = parser.parse_args()
    pairs = labelled(options.data)
    if options.minutes > 0:
        ask(pairs, options)
    judge = logprob.build(logprob.Config(), models={}, seed=0)
    clusters = {key(name, pair): pair.cluster for name, pair in pairs}
    rows = [
        {**row, "prompt": clusters[str(row["id"])], "e_cot": cot_label(row.get("e_unclamped"))}
        for row in sorted(read_rows(ROWS), key=lambda row: str(row["id"]))
        if row["id"] in clusters and (row["model"], row["put"]) == (options.model.name, options.put or put(judge))
    ]
    if not rows:
        there = sorted({f"--put {row['put']} (of {row['model']})" for row in read_rows(ROWS)})
        raise SystemExit(f"no pair was put to {options.model.name} as today; {ROWS.name} has {', '.join(there)}")
    sets = {name: sum(row["set"] == name for row in rows) for name in ("llmbar", "pandalm")}
    tables = {name: scores([row for row in rows if row["set"] == name]) for name in sets}
    tables["all"] = scores(rows)
    contrasts = [("c_both_orders", "a_parsed"), ("c_both_orders", "b_one_order"), ("d_principles", "c_both_orders")]
    contrasts.append(("e_cot", "c_both_orders"))
    differences = {f"{one} - {other}": difference(rows, one, other) for one, other in contrasts}
    by_subset = {
        subset: difference([row for row in rows if row["subset"] == subset], "c_both_orders", "a_parsed")
        for subset in sorted({row["subset"] for row in rows})
    }
    found = differences["c_both_orders - a_parsed"]
    report(
        claim="judge_both_orders_vs_parsed_letter",
        value=found["interval"][0],
        threshold=0.0,
        holds=found["interval"][0] > 0,
        unit="lower end of the 95 % interval of the difference in accuracy; above",
        details={
            "model": options.model.name + (", from Q4_K_M" if options.model == OUT else ""),
            "put": options.put or put(judge),
            "pairs": sets,
            "of": len(pairs),
            "precision": dict(Counter(row["dtype"] for row in rows)),
            "scores": tables,
            "differences": differences,
            "both_orders_vs_parsed_by_subset": by_subset,
        },
    )
    curves = []
    for label, name in (("one order", "b_one_order"), ("both orders", "c_both_orders")):
        kept = [row for row in rows if row[name] is not None]
        p, y = [row[name] for row in kept], [row["y"] for row in kept]
        prompts = [row["prompt"] for row in kept]
        curves.append(curve(label, p, y, prompts))
        if name == "c_both_orders":
            with contextlib.suppress(InputError):  # no better than chance: nothing to calibrate
                calibrated = cross_fitted(p, y, prompts, method="temperature", folds=5, seed=0)
                curves.append(curve("both orders, temperature", calibrated, y, prompts))
    reliability_png(PICTURE, curves, title=f"{options.model.name} on LLMBar and PandaLM")


if __name__ == "__main__":
    main()
