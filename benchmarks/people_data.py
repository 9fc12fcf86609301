"""PandaLM and llmfao as ballots, and as pairs to train on. Not a benchmark itself."""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cai.records import Candidate, Group, Prompt, content_hash
from cai.training.data import Element, Pair

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
Array = NDArray[np.float64]
A, TIE, B = range(3)
PANDALM = {1: 1.0, 0: 0.5, 2: 0.0}
LLMFAO = {"left": 1.0, "tie": 0.5, "right": 0.0}
"""What a label of the file is worth for the first answer."""
Votes = list[tuple[int, str, int]]
"""Index of the item, person, label."""


def folder_of_data(given: str) -> Path:
    """`--data` of the benchmarks that need people's data.

    Raises:
        ArgumentTypeError: there is none.
    """
    path = Path(given)
    if not (path / "labels").is_dir():
        raise argparse.ArgumentTypeError(f"{path} holds no data of people: benchmarks/README.md says what is needed")
    return path


@dataclass(frozen=True)
class DataSet:
    """Items with votes of people and verdicts of AI judges.

    Attributes:
        texts: of the prompts, by item.
        ai: shape (items, judges): 1 where the judge says a, 0.5 a tie, 0 b; NaN where it says nothing.
    """

    name: str
    prompts: list[str]
    texts: list[str]
    votes: Votes
    ai: Array


def pandalm(data: Path) -> DataSet:
    """999 pairs, each with the votes of three people and of two judges (0 tie, 1, 2)."""
    with gzip.open(data / "labels" / "pandalm.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    said = {1: A, 0: TIE, 2: B}
    votes = [(i, f"p{n}", said[int(row[f"annotator{n}"])]) for i, row in enumerate(rows) for n in (1, 2, 3)]
    ai = [[_number(row[name], PANDALM) for name in ("gpt35_result", "pandalm7b_result")] for row in rows]
    texts = [f"{row['instruction']}\n{row['input']}" for row in rows]
    return DataSet("pandalm", texts, texts, votes, np.array(ai))


def _number(value: Any, worth: dict[int, float]) -> float:
    try:
        return worth[int(value)]
    except (KeyError, TypeError, ValueError):
        return float("nan")


def llmfao(data: Path) -> DataSet:
    """2,139 pairs with the votes of 124 workers and one judge; answers are of many models, prompts few."""
    import pandas as pd

    folder = data / "labels" / "llmfao"
    crowd = pd.read_csv(folder / "crowd-comparisons.csv.gz")
    judge = pd.read_csv(folder / "gpt4-crowd-comparisons.csv.gz")
    said = {"left": A, "tie": TIE, "right": B}
    ids = sorted(crowd["id"].unique())
    place = {name: number for number, name in enumerate(ids)}
    prompt = dict(zip(crowd["id"], crowd["prompt"], strict=True))
    votes = [
        (place[row.id], f"w{row.worker}", said[row.winner]) for row in crowd[["id", "worker", "winner"]].itertuples()
    ]
    ai = np.full((len(ids), 1), np.nan)
    for row in judge[["id", "winner"]].itertuples():
        if row.id in place:
            ai[place[row.id], 0] = LLMFAO.get(row.winner, np.nan)
    prompts = [str(prompt[name]) for name in ids]
    return DataSet("llmfao", prompts, prompts, votes, ai)


@dataclass(frozen=True)
class Rated:
    """A pair of answers and what single people said of it.

    Attributes:
        element: with one pair, whose label is the mean of `votes`.
        votes: 1 for the first answer, 0.5 for a tie, 0 for the second.
    """

    element: Element
    votes: list[float]

    @property
    def p(self) -> float:
        return self.element.pairs[0].p

    @classmethod
    def make(cls, text: str, first: str, second: str, votes: list[float], key: str) -> Rated:
        prompt = Prompt.make(text)
        group = Group.make(prompt, [Candidate("1", first), Candidate("2", second)])
        name = content_hash(group.id, key)
        pair = Pair(0, 1, sum(votes) / len(votes), 1.0, "", "human", name)
        return cls(Element(name, prompt.id, prompt.messages, (first, second), (pair,)), votes)


def rated(name: str, data: Path) -> list[Rated]:
    """Pairs of PandaLM or llmfao whose answers are two different texts, in an order that depends on them alone."""
    rows = {"pandalm": _pandalm_rated, "llmfao": _llmfao_rated}[name](data)
    return sorted(rows, key=lambda row: row.element.group_id)


def _pandalm_rated(data: Path) -> Iterator[Rated]:
    with gzip.open(data / "labels" / "pandalm.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            first, second = row["response1"], row["response2"]
            if all(isinstance(answer, str) and answer.strip() for answer in (first, second)) and first != second:
                # six answers of the file are `true`, not text
                votes = [PANDALM[int(row[f"annotator{n}"])] for n in (1, 2, 3)]
                text = f"{row['instruction']}\n\n{row['input']}".strip()
                yield Rated.make(text, first, second, votes, row["cmp_key"])


def _llmfao_rated(data: Path) -> Iterator[Rated]:
    import pandas as pd

    folder = data / "labels" / "llmfao"
    crowd = pd.read_csv(folder / "crowd-comparisons.csv.gz")
    votes = {int(key): [LLMFAO[winner] for winner in rows] for key, rows in crowd.groupby("id")["winner"]}
    with gzip.open(folder / "pairs-crowd.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            first, second = row["result_x"], row["result_y"]
            if row["id"] in votes and first.strip() and second.strip() and first != second:
                yield Rated.make(row["text"], first, second, votes[row["id"]], str(row["id"]))


def left_out(data: DataSet, seed: int) -> tuple[Votes, dict[int, int]]:
    """Votes with those of the reference taken out, and the reference: what the other people say.

    Each item's votes are split at random: one person's vote (PandaLM) or about half of them (larger crowds) are the
    votes to merge, the label that most of the others give is the reference; an item whose others are divided, or say
    tie, has none and is not scored.
    """
    rng = np.random.default_rng(seed)
    by_item: dict[int, list[tuple[int, str, int]]] = {}
    for vote in data.votes:
        by_item.setdefault(vote[0], []).append(vote)
    kept: Votes = []
    truth: dict[int, int] = {}
    for item, votes in sorted(by_item.items()):
        order = rng.permutation(len(votes))
        size = max(1, len(votes) // 2)
        kept += [votes[i] for i in order[:size]]
        counts = Counter(votes[i][2] for i in order[size:]).most_common()
        if counts and counts[0][0] != TIE and (len(counts) == 1 or counts[0][1] > counts[1][1]):
            truth[item] = counts[0][0]
    return kept, truth


def with_noise(votes: Votes, share: float, seed: int) -> Votes:
    """Votes of which a share is replaced by labels drawn evenly."""
    rng = np.random.default_rng(seed)
    hit = rng.random(len(votes)) < share
    drawn = rng.integers(0, 3, len(votes))
    return [
        (item, person, int(label) if noisy else said)
        for (item, person, said), noisy, label in zip(votes, hit, drawn, strict=True)
    ]
