"""The set of ids: a set, and a small one."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.prompts.idset import IdSet

# Few different bytes and one bucket: ids that look alike across the border between two of them.
close = st.lists(st.sampled_from(["00", "01"]), min_size=10, max_size=10).map(lambda rest: "abcd" + "".join(rest))


@given(st.lists(close, max_size=60))
def test_it_is_a_set(ids: list[str]) -> None:
    mine, real = IdSet(), set[str]()
    for each in ids:
        assert mine.add(each) == (each not in real)
        real.add(each)
    assert len(mine) == len(real)


def test_an_id_found_across_two_others_is_new() -> None:
    ids = IdSet()
    assert ids.add("abcd" + "00" * 5 + "11" * 5)
    assert ids.add("abcd" + "22" * 5 + "33" * 5)
    assert ids.add("abcd" + "11" * 5 + "22" * 5)


def test_it_is_small() -> None:
    random_ = random.Random(0)
    tracemalloc.start()
    ids = IdSet()
    for _ in range(150_000):
        ids.add(random_.randbytes(12).hex())
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 150_000 * 12 + 65_536 * 100  # an eighth of it for growth, the buckets themselves


def test_other_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="24 hex"):
        IdSet().add("abcd")
