"""Draws: stable, in proportion to the weights, and independent of what does not concern them."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from cai.constitution.draw import draw
from cai.constitution.load import Constitution
from cai.errors import InputError

from .conftest import Make

ROWS = [f"{index:024x}" for index in range(6000)]


def drawn(constitution: Constitution, *, seed: int = 7, round: int = 1, count: int = 1) -> list[tuple[str, ...]]:
    return [tuple(b.id for b in draw(constitution, seed=seed, prompt_id=row, round=round, count=count)) for row in ROWS]


def moved(old: list[tuple[str, ...]], new: list[tuple[str, ...]]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(before, after) for before, after in zip(old, new, strict=True) if before != after]


def chi_square(counts: Counter[str], weights: dict[str, float]) -> float:
    total, share = sum(weights.values()), sum(counts.values())
    expected = {name: share * weight / total for name, weight in weights.items()}
    return sum((counts[name] - value) ** 2 / value for name, value in expected.items())


def test_draws_are_the_same_for_ever(make: Make) -> None:
    # Runs on disk depend on these: a change here changes every resumed run.
    constitution = make({"a": {}, "b": {"weight": 2}, "c": {"weight": 0.5}, "d": {}})
    got = [draw(constitution, seed=1, prompt_id=p, round=r)[0].id for p in ("x", "y", "é") for r in (1, 2, 3)]
    assert "".join(got) == "abdacadbd"


def test_frequencies_follow_the_weights(make: Make) -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 0.25, "e": 5.0}
    counts = Counter(ids[0] for ids in drawn(make({name: {"weight": weight} for name, weight in weights.items()})))
    assert chi_square(counts, weights) < 18.5  # 4 degrees of freedom, p = 0.001


def test_second_places_are_drawn_without_replacement_by_weight(make: Make) -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 3.0}
    pairs = Counter(frozenset(ids) for ids in drawn(make({n: {"weight": w} for n, w in weights.items()}), count=2))

    def chance(x: str, y: str) -> float:  # x first then y, or y first then x
        total = sum(weights.values())
        return sum(weights[p] / total * weights[q] / (total - weights[p]) for p, q in ((x, y), (y, x)))

    expected = {"".join(pair): chance(*pair) for pair in (("a", "b"), ("a", "c"), ("b", "c"))}
    counts = Counter({"".join(sorted(pair)): number for pair, number in pairs.items()})
    assert chi_square(counts, expected) < 13.8  # 2 degrees of freedom, p = 0.001


@pytest.mark.parametrize("other", [{"seed": 8}, {"round": 2}])
def test_another_seed_or_round_draws_independently(make: Make, other: dict[str, int]) -> None:
    constitution = make([f"p{i}" for i in range(10)])
    same = len(ROWS) - len(moved(drawn(constitution), drawn(constitution, **other)))
    assert same / len(ROWS) == pytest.approx(0.1, abs=0.015)


def test_editing_texts_and_order_moves_no_row(make: Make) -> None:
    names = [f"p{i}" for i in range(8)]
    edited = make({name: {"critique": "Other.", "revision": "Other.", "title": "Other"} for name in reversed(names)})
    assert drawn(make(names)) == drawn(edited)


def test_scaling_all_weights_moves_no_row(make: Make) -> None:
    one, ten = ({f"p{i}": {"weight": scale * (1 + i)} for i in range(8)} for scale in (1, 10))
    assert drawn(make(one)) == drawn(make(ten))


def test_adding_one_principle_moves_one_nth_of_the_rows_all_to_it(make: Make) -> None:
    names = [f"p{i}" for i in range(15)]
    changes = moved(drawn(make(names)), drawn(make([*names[:5], "new", *names[5:]])))
    assert {after for _, after in changes} == {("new",)}
    assert len(changes) / len(ROWS) == pytest.approx(1 / 16, abs=0.012)


def test_raising_a_weight_only_gains_rows(make: Make) -> None:
    names = {f"p{i}": {"weight": 1.0} for i in range(10)}
    changes = moved(drawn(make(names)), drawn(make({**names, "p3": {"weight": 2.0}})))
    assert {after for _, after in changes} == {("p3",)}
    assert len(changes) / len(ROWS) == pytest.approx(2 / 11 - 1 / 10, abs=0.015)


def test_the_strongest_level_comes_first_then_the_order_of_the_file(make: Make) -> None:
    constitution = make(
        {"d": {"level": "default"}, "g2": {"level": "goal"}, "r": {"level": "rule"}, "g1": {"level": "goal"}}
    )
    assert [b.id for b in draw(constitution, seed=0, prompt_id="x", round=1, count=4)] == ["r", "g2", "g1", "d"]
    assert len(draw(constitution, seed=0, prompt_id="x", round=1, count=9)) == 4


def test_judge_only_and_switched_off_principles_are_never_drawn(make: Make) -> None:
    constitution = make({"a": {}, "off": {"weight": 0}, "j": {"critique": "", "revision": "", "judge": "Which?"}})
    assert set(drawn(constitution, count=3)) == {("a",)}


def test_a_prompt_sets_aside_overridable_principles_by_id_or_tag(make: Make) -> None:
    constitution = make(
        {
            "rule": {"level": "rule", "tags": ["tone"]},
            "by-tag": {"level": "default", "tags": ["tone"]},
            "by-id": {"level": "default"},
            "other": {"level": "default"},
        }
    )
    left = draw(constitution, seed=0, prompt_id="x", round=1, count=4, overrides=("tone", "by-id", "rule"))
    assert [b.id for b in left] == ["rule", "other"]


def test_setting_one_aside_moves_only_the_rows_that_drew_it(make: Make) -> None:
    constitution = make({f"p{i}": {"level": "default"} for i in range(6)})
    for row, (before,) in zip(ROWS[:500], drawn(constitution), strict=False):
        after = draw(constitution, seed=7, prompt_id=row, round=1, overrides=("p2",))[0].id
        assert after != "p2"
        assert before in (after, "p2")


def test_nothing_to_draw_is_an_error_that_says_why(make: Make) -> None:
    with pytest.raises(InputError, match="no principle can be drawn"):
        draw(make({"off": {"weight": 0}}), seed=0, prompt_id="x", round=1)
    with pytest.raises(InputError, match="sets aside tone"):
        draw(make({"d": {"level": "default", "tags": ["tone"]}}), seed=0, prompt_id="x", round=1, overrides=["tone"])
    with pytest.raises(InputError, match="at least 1"):
        draw(make(["a"]), seed=0, prompt_id="x", round=1, count=0)


def test_odd_prompt_ids_are_fine(make: Make) -> None:
    constitution = make(["a", "b", "c"])
    lone = json.loads('"\\ud800"')
    assert {draw(constitution, seed=-1, prompt_id=f"{lone}{i}", round=1)[0].id for i in range(50)} == {"a", "b", "c"}


def test_a_million_draws_take_a_minute_at_most(make: Make) -> None:
    constitution = make([f"p{i}" for i in range(16)])
    start = time.process_time()
    drawn(constitution)
    assert (time.process_time() - start) / len(ROWS) < 100e-6  # measured: 15 us
