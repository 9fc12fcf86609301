"""Which principles a row gets in a round: stable weighted rendezvous hashing.

Each principle gets its own number u in (0, 1) from a hash of (seed, prompt, round, principle) and the score
-weight / ln(u); the highest score wins. -ln(u) / weight is exponentially distributed with rate `weight`, and the least
of independent exponentials is the i-th with probability weight_i / sum of weights, so the frequencies are the weights.
No principle's score depends on another principle, which is what makes the draws stable: editing a text moves no row,
and adding, removing or re-weighting one principle moves only the rows that it gains or loses.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Collection, Sequence
from hashlib import sha256 as _hash
from math import log

from cai.constitution.load import Bound, Constitution
from cai.errors import InputError

_UNIT = 2.0**-52
_number = struct.Struct(">Q24x").unpack


def draw(
    constitution: Constitution,
    *,
    seed: int,
    prompt_id: str,
    round: int,
    count: int = 1,
    overrides: Collection[str] = (),
) -> tuple[Bound, ...]:
    """The principles to ask about in one round of one prompt; a pure function, about a microsecond a principle.

    Drawn without replacement, with probabilities in proportion to the weights, among the principles that have a
    critique request and a weight above 0.

    Args:
        count: how many; all of them where there are fewer.
        overrides: ids and tags; principles of an overridable level that match are set aside.

    Returns:
        The strongest level first, within a level in the order of the file.

    Raises:
        InputError: nothing can be drawn, or `count` is less than 1.
    """
    if count < 1:
        raise InputError(f"cannot draw {count} principles; the count must be at least 1", where=constitution.name)
    candidates = constitution.lots
    if overrides:
        candidates = tuple(lot for lot in candidates if not set_aside(lot[2], overrides))
    if not candidates:
        raise InputError(
            "no principle can be drawn",
            where=constitution.name,
            mend="give at least one principle with a critique request a weight above 0"
            + (f"; prompt {prompt_id} sets aside {', '.join(sorted(overrides))}" if overrides else ""),
        )
    # An id has no control characters and the prompt's id comes last, so no two rows share a hash input by accident.
    row = f"\x1f{seed}\x1f{round}\x1f{prompt_id}".encode("utf-8", "surrogatepass")
    # The inverse of the score, so the least wins; 52 bits and a half are never 0 and never rounded up to 1.
    times = [
        -log(((_number(_hash(key + row).digest())[0] >> 12) + 0.5) * _UNIT) / weight for key, weight, _ in candidates
    ]
    if count == 1:
        return (candidates[times.index(min(times))][2],)
    chosen = sorted(heapq.nsmallest(count, range(len(times)), key=times.__getitem__))  # in the order of the file
    return tuple(sorted((candidates[index][2] for index in chosen), key=lambda b: b.rank))


def draw_one(candidates: Sequence[Bound], *, seed: int, key: str) -> Bound:
    """One of `candidates` for the row `key`, with probabilities in proportion to the weights; as stable as `draw`.

    Raises:
        InputError: there are none.
    """
    if not candidates:
        raise InputError("no principle can be drawn", mend="give at least one a judge's question and a weight above 0")
    row = f"\x1f{seed}\x1fjudge\x1f{key}".encode("utf-8", "surrogatepass")

    def time(bound: Bound) -> float:
        return -log(((_number(_hash(bound.id.encode() + row).digest())[0] >> 12) + 0.5) * _UNIT) / bound.weight

    return min(candidates, key=time)


def set_aside(bound: Bound, overrides: Collection[str]) -> bool:
    """Whether a prompt with these `overrides` (ids and tags) sets the principle aside; only some levels allow it."""
    return bound.level.overridable and (bound.id in overrides or any(tag in overrides for tag in bound.principle.tags))
