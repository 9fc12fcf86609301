"""Claim: editing one of 16 equal principles makes a run of 2 rounds generate at most a tenth of its tokens anew.

The real pipeline on synthetic prompts, with the scripted backend (its answers, like a model's, depend on all that was
asked): a run, then the critique and the revision request of one principle are reworded, then the same run with
`update`. The figure is the completion tokens that the second attempt generated, over those of the first, as
`attempts.jsonl` has them. Done for four principles, each from a copy of the first run; the worst counts.

In theory: round r is generated anew if one of the rounds 1..r drew the principle, with probability 1 - (15/16)^r, so
9.2 % of the rounds, and less of the tokens, since the drafts stay. How many prompts draw a principle is a matter of
chance; with 2,000 prompts the standard deviation is about a twentieth of the share.

    python -m benchmarks.edit_cost [--prompts 2000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import report
from cai import pipeline
from cai.config import load_recipe
from cai.progress import Silent
from cai.store import read_rows

THRESHOLD = 0.1
PRINCIPLES, ROUNDS = 16, 2
EDITED = (0, 5, 10, 15)


def project(folder: Path, prompts: int) -> None:
    """Prompts, 16 principles, a constitution of equal weights and a recipe."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(3000)]
    for name in ("principles", "constitution"):
        (folder / name).mkdir()
    with (folder / "prompts.jsonl").open("w", encoding="utf-8") as file:
        for number in range(prompts):
            text = f"Question {number}: " + " ".join(chance.choices(words, k=chance.randint(8, 40))) + "?"
            file.write(json.dumps({"prompt": text}) + "\n")
    for number in range(PRINCIPLES):
        matter = " ".join(chance.choices(words, k=6))
        write_principle(folder, number, f"Where does the last answer fall short of {matter}?", f"Mend {matter}.")
    constitution = {"name": "even", "principles": [{"id": name_of(number)} for number in range(PRINCIPLES)]}
    recipe = {
        "name": "edit-cost",
        "seed": 0,
        "constitution": "constitution/even.yaml",
        "prompts": [{"path": "prompts.jsonl"}],
        "models": {"policy": {"backend": "scripted", "words": 60}},
        "revise": {"rounds": ROUNDS},
    }
    (folder / "constitution" / "even.yaml").write_text(yaml.safe_dump(constitution), "utf-8")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")


def name_of(number: int) -> str:
    return f"principle-{number:02d}"


def write_principle(folder: Path, number: int, critique: str, revision: str) -> None:
    name = name_of(number)
    said = {"id": name, "title": name, "critique": critique, "revision": revision}
    (folder / "principles" / f"{name}.yaml").write_text(yaml.safe_dump(said), "utf-8")


def run(folder: Path, *, update: bool) -> dict[str, Any]:
    """Run the project's recipe; the attempt's row."""
    job = pipeline.prepare(load_recipe(folder / "recipe.yaml"))
    pipeline.run(job, folder / "run", Silent(), update=update)
    *_, attempt = read_rows(folder / "run" / "attempts.jsonl")
    return attempt


def draws(folder: Path, number: int) -> dict[str, float]:
    """Of a finished run: the share of rounds that drew a principle, and of those that stand on or after such a one."""
    drew = touched = rounds = 0
    chain: dict[str, bool] = {}
    for row in read_rows(folder / "run" / "responses.jsonl"):
        if row["round"]:
            here = name_of(number) in row["principle_ids"]
            chain[row["prompt_id"]] = chain.get(row["prompt_id"], False) or here
            drew, touched, rounds = drew + here, touched + chain[row["prompt_id"]], rounds + 1
    return {"rounds_that_drew_it": round(drew / rounds, 4), "rounds_on_or_after_it": round(touched / rounds, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="where the runs are made for the time being (default: /tmp)")
    args = parser.parse_args()
    edits: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        first = Path(temporary, "first")
        first.mkdir()
        project(first, args.prompts)
        usage = run(first, update=False)["usage"]
        made = usage["fresh_completion_tokens"]
        by_round = tokens_by_round(first)
        for number in EDITED:
            copy = Path(temporary, name_of(number))
            shutil.copytree(first, copy)
            write_principle(copy, number, "What would a careful reader object to?", "Answer that objection.")
            again = run(copy, update=True)["usage"]
            edits[name_of(number)] = {
                "tokens_anew": again["fresh_completion_tokens"],
                "share_of_tokens": round(again["fresh_completion_tokens"] / made, 4),
                "requests_anew": again["fresh_requests"],
                "requests_reused": again["reused_requests"],
                **draws(first, number),
            }
            print(f"  {name_of(number)}: {edits[name_of(number)]}", file=sys.stderr, flush=True)
            shutil.rmtree(copy)
    worst = max(edit["share_of_tokens"] for edit in edits.values())
    theory = [1 - (1 - 1 / PRINCIPLES) ** r for r in range(1, ROUNDS + 1)]
    rounds_share = by_round["revised"] / sum(by_round.values())
    report(
        claim="edit_cost",
        value=worst,
        threshold=THRESHOLD,
        holds=worst <= THRESHOLD,
        unit="share of a run's tokens that editing one principle generates anew, the worst of four (at most)",
        details={
            "prompts": args.prompts,
            "principles": PRINCIPLES,
            "rounds": ROUNDS,
            "first_run": {"tokens": made, "requests": usage["fresh_requests"], "tokens_by_step": by_round},
            "edits": edits,
            "mean_share_of_tokens": round(sum(e["share_of_tokens"] for e in edits.values()) / len(edits), 4),
            "theory": {
                "share_of_rounds": round(sum(theory) / ROUNDS, 4),
                "share_of_tokens": round(sum(theory) / ROUNDS * rounds_share, 4),
            },
        },
    )


def tokens_by_round(folder: Path) -> dict[str, int]:
    """Tokens of drafts and of critiques with revisions."""
    found = {"drafts": 0, "revised": 0}
    for row in read_rows(folder / "run" / "responses.jsonl"):
        found["revised" if row["round"] else "drafts"] += row["tokens"]
    return found


if __name__ == "__main__":
    main()
