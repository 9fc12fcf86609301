"""What is said of all pairs comes from pairs drawn at random, and the run remembers which."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cai.labels.audit import record, sample
from cai.labels.certify import certify
from cai.labels.ppi import LEAST, prediction_powered
from cai.labels.route import choose, draw

IDS = [f"c{n:03d}" for n in range(200)]


def test_a_draw_is_of_all_pairs_and_asks_about_those_without_a_label() -> None:
    free = list(range(0, 200, 2))
    first = draw(IDS, free, 40)
    assert len(first.new) == 40
    assert set(first.asked) == set(first.new) & set(free)
    assert 8 < len(first.asked) < 32, "some of the drawn have a label already; they are drawn all the same"
    again = draw(IDS, free, 40, drawn=first.new)
    assert set(again.asked) >= set(first.asked), "what waits for a label is asked again before anything new is drawn"
    later = draw(IDS, [i for i in free if i not in first.asked], 40, drawn=first.new)
    assert not set(later.new) & set(first.new)


def test_labels_given_for_doubt_do_not_stand_for_all() -> None:
    rows = record([], [("c001", []), ("c002", []), ("c003", ["x"]), ("c004", ["x"])], ["c010", "c011"], 0)
    assert {row["round"] for row in rows} == {1}
    found = sample(rows, "x", {"c001", "c003", "c004", "c010", "c011"}, IDS)
    assert (found.how, found.drawn, found.waiting) == ("drawn", 4, 1)
    assert "c001" in found.ids
    assert not {"c010", "c011"} & found.ids
    assert len({"c003", "c004"} & found.ids) == 1, "half of the others have a label yet, so half of these count"
    assert "1 of the 4" in found.warning
    none = sample(rows, "x", {"c010"}, IDS)
    assert not none.ids
    assert "nothing can be said" in none.warning


def test_where_nothing_was_routed_a_warning_says_what_is_assumed() -> None:
    found = sample([], "", {"c001"}, IDS)
    assert (found.how, found.ids) == ("assumed", frozenset({"c001"}))
    assert "only if" in found.warning
    rows = record([], [("c001", [])], ["c002"], 0)
    assert sample(rows, "", IDS, IDS).how == "all", "with a label on every pair nothing was chosen"
    assert sample(rows, "", {"c002"}, IDS, every=True).ids == {"c002"}
    assert sample(rows, "", {"x1"}, ["x1", "x2"]).how == "assumed", "the draws were of pairs that are gone"
    assert "--audit 0" in sample(record([], [], ["c002"], 0), "", {"c002"}, IDS).warning


def test_figures_from_the_sample_cover_where_those_from_all_labels_do_not() -> None:
    """A judge that is right where it is sure and wrong where it is not; three rounds of routing."""
    hit = {"sample": 0, "all": 0}
    tries = 60
    for seed in range(tries):
        rng = np.random.default_rng(seed)
        f = rng.beta(0.6, 0.4, len(IDS))
        q = np.where(abs(f - 0.5) > 0.3, f, 0.2)
        y = (rng.random(len(IDS)) < q).astype(float)
        labelled, rows = np.zeros(len(IDS), dtype=bool), list[dict[str, Any]]()
        for number in range(3):
            free = np.flatnonzero(~labelled).tolist()
            before = [i for i, name in enumerate(IDS) if any(row["comparison_id"] == name for row in rows)]
            slice_ = draw(IDS, free, 8, seed=1000 * seed + number, drawn=before)
            picks = choose(IDS, f, IDS, labelled, 26, seed=seed, at_random=slice_)
            rows += record(rows, [(IDS[i], ["x"] if labelled[i] else []) for i in slice_.new], [], seed)
            labelled[[pick.index for pick in picks]] = True
        have = {IDS[i] for i in np.flatnonzero(labelled)}
        for name, ids in (("sample", sample(rows, "x", have, IDS).ids), ("all", have)):
            inside = np.array([each in ids for each in IDS])
            low, high = prediction_powered(y[inside], f[inside], f[~inside])["ci"]
            hit[name] += low <= q.mean() <= high
    assert hit["sample"] >= 0.85 * tries
    assert hit["all"] <= 0.5 * tries


def test_few_or_equal_labels_do_not_give_an_interval_without_width() -> None:
    with pytest.raises(ValueError, match=str(LEAST)):
        prediction_powered(np.ones(2), np.array([0.9, 0.8]), np.full(50, 0.5))
    low, high = prediction_powered(np.ones(12), np.full(12, 0.9), np.full(50, 0.5))["ci"]
    assert (low, high) == (0.75, 1.0)
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        y = (rng.random(LEAST) < 0.7).astype(float)
        f = rng.random(LEAST)
        low, high = prediction_powered(y, f, rng.random(100))["ci"]
        covered += low <= 0.7 <= high
    assert covered >= 180


def test_a_certificate_tells_its_share_of_all_pairs() -> None:
    certainty, right = np.full(100, 0.95), np.ones(100)
    every = np.concatenate([certainty, np.full(300, 0.6), np.full(100, np.nan)])
    found = certify(certainty, right, 0.9, every=every)
    assert found.threshold == 0.95
    assert found.coverage == pytest.approx(0.2)
    assert "20% of all pairs" in found.said


def test_a_pair_is_worth_a_look_for_the_axes_that_are_open() -> None:
    p = np.array([[0.5, 0.99], [0.99, 0.99], [0.5, 0.5]])
    labelled = np.array([[True, False], [False, False], [True, True]])
    picks = choose(["c0", "c1", "c2"], p, ["x", "y", "z"], labelled, 1, audit=0)
    assert [pick.index for pick in picks] == [1], "c0 has its label on the axis that was open, c2 on both"
    assert [pick.index for pick in choose(["c0", "c1"], p[:2], ["x", "y"], np.zeros((2, 2), bool), 1, audit=0)] == [0]
