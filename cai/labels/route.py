"""Which pairs people should see next, and what their labels are expected to buy.

A pair is worth a person's time where the calibrated judge is unsure, where it does not repeat a prompt that is already
being asked about, and, for a slice drawn at random, whatever the judge says: only a random slice can show where the
judge is sure and wrong.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cai.labels.audit import AUDIT, UNSURE
from cai.records import content_hash

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pick:
    """A pair chosen: its place in the input, why (`unsure` or `audit`), and the judge's entropy in bits."""

    index: int
    why: str
    entropy: float


def entropy(p: Array) -> Array:
    """Of a yes/no with probability p, in bits; 1 where p is unknown (NaN)."""
    held = np.clip(np.where(np.isnan(p), 0.5, p), 1e-9, 1 - 1e-9)
    return np.asarray(-(held * np.log2(held) + (1 - held) * np.log2(1 - held)))


@dataclass(frozen=True)
class Draw:
    """A slice drawn at random.

    Attributes:
        new: places drawn now, of all pairs, also of some that have labels: else it would be no sample of all pairs.
        asked: places to ask people about: of these and of earlier draws those without a label.
    """

    new: tuple[int, ...]
    asked: tuple[int, ...]


def draw(ids: Sequence[str], free: Collection[int], count: int, *, seed: int = 0, drawn: Collection[int] = ()) -> Draw:
    """Draw so many pairs uniformly from all that were not drawn before; those that wait for a label count as drawn.

    Args:
        free: places without a label.
        drawn: places drawn before.
    """
    lots = {index: content_hash("route", seed, ids[index]) for index in range(len(ids))}
    waiting = sorted(set(drawn) & set(free), key=lots.__getitem__)[:count]
    left = sorted(set(lots) - set(drawn), key=lots.__getitem__)
    new = left[: count - len(waiting)]
    return Draw(tuple(new), (*waiting, *(index for index in new if index in free)))


def choose(
    ids: Sequence[str],
    p: Array,
    prompts: Sequence[str],
    labelled: NDArray[np.bool_],
    n: int,
    *,
    audit: float = 0.1,
    seed: int = 0,
    at_random: Draw | None = None,
) -> list[Pick]:
    """The next `n` pairs, those at random among them at random places, so that nobody can tell which they are.

    Args:
        ids: of the pairs.
        p: shape (pairs,) or (pairs, axes), the judge's calibrated probability; NaN where it has none.
        prompts: the cluster of prompts (near-duplicates are one) of each pair. The most uncertain pair of each cluster
            is taken before the second most uncertain of any.
        labelled: the same shape as `p`: which pairs people have labelled, on which axis. A pair with labels on all axes
            is not chosen again, and axes that have a label add nothing to a pair's doubt.
        audit: share of `n` drawn uniformly from all pairs, whatever the judge says.
        at_random: the draw, where it has been made.
    """
    done = labelled.reshape(len(ids), -1)
    bits = (entropy(p).reshape(done.shape) * ~done).mean(axis=1) if len(ids) else np.zeros(0)
    free = np.flatnonzero(~done.all(axis=1)).tolist()
    n = min(n, len(free))
    slice_ = at_random or draw(ids, free, math.ceil(n * audit), seed=seed)
    lots = {index: content_hash("route", seed, ids[index]) for index in free}
    drawn = slice_.asked[:n]
    ranked = sorted((i for i in free if i not in drawn), key=lambda i: (-bits[i], lots[i]))
    turn: dict[str, int] = {}
    rounds = []
    for index in ranked:
        turn[prompts[index]] = turn.get(prompts[index], -1) + 1
        rounds.append((turn[prompts[index]], index))
    unsure = [index for _, index in sorted(rounds, key=lambda pair: (pair[0], -bits[pair[1]], lots[pair[1]]))]
    picks = [Pick(i, AUDIT, float(bits[i])) for i in drawn]
    picks += [Pick(i, UNSURE, float(bits[i])) for i in unsure[: n - len(drawn)]]
    return sorted(picks, key=lambda pick: content_hash("mixed", seed, ids[pick.index]))


def curve(p: Array, order: Sequence[int], person: float, points: Sequence[int]) -> list[dict[str, Any]]:
    """Expected share of pairs decided rightly after so many more labels, taken in `order`.

    A judge that is calibrated is right with probability max(p, 1 - p); a label replaces that by `person`, how often one
    person is right, where that is more (a person who is worse than the judge on a pair is outvoted by it).
    """
    sure = np.where(np.isnan(p), 0.5, np.maximum(p, 1 - p))
    gain = np.maximum(0.0, person - sure)[list(order)]
    gained = np.concatenate([[0.0], np.cumsum(gain)])
    start = float(sure.sum())
    return [
        {"labels": int(k), "accuracy": round((start + float(gained[min(k, len(gain))])) / max(1, len(p)), 4)}
        for k in points
    ]


def clusters(texts: Sequence[str], keys: Sequence[str], *, threshold: float = 0.8) -> list[str]:
    """The cluster of each prompt: near-duplicates (MinHash, see `cai.prompts.near`) share the key of their first."""
    from datasketch import MinHash, MinHashLSH

    from cai.prompts.near import jaccard, shingles

    index = MinHashLSH(threshold=threshold, num_perm=64)
    kept: dict[str, frozenset[str]] = {}
    of: dict[str, str] = {}
    for key, text in zip(keys, texts, strict=True):
        if key in of:
            continue
        grams = shingles(text)
        sketch = MinHash(num_perm=64, seed=1)
        sketch.update_batch([gram.encode("utf-8", "surrogatepass") for gram in grams])
        alike = sorted(other for other in index.query(sketch) if jaccard(grams, kept[other]) >= threshold)
        if alike:
            of[key] = alike[0]
        else:
            of[key] = key
            kept[key] = grams
            index.insert(key, sketch)
    return [of[key] for key in keys]
