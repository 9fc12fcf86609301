"""Aggregation, agreement, certificates: against hand-computed values and against the libraries that others use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cai.errors import InputError
from cai.labels.aggregate import aggregate
from cai.labels.agreement import agreement
from cai.labels.alttest import alt_test
from cai.labels.annotators import at_random
from cai.labels.certify import certify, upper_bound
from cai.labels.persons import cohen_kappa, pairs_of_people
from cai.labels.ppi import prediction_powered
from cai.labels.route import choose, clusters, curve
from cai.labels.table import VoteTable, read_votes


def crowd(
    *, tasks: int = 300, workers: int = 12, per: int = 5, seed: int = 0, skill: float = 0.85
) -> tuple[VoteTable, np.ndarray]:
    """Votes on a, tie, b by workers of whom the last answers at random; and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, tasks)
    rows = []
    for task in range(tasks):
        for worker in rng.permutation(workers)[:per]:
            right = worker != workers - 1 and rng.random() < skill
            said = truth[task] if right else rng.integers(0, 3)
            rows.append((f"t{task:04d}", f"w{worker:02d}", ("a", "tie", "b")[said]))
    table = VoteTable.of(*zip(*rows, strict=True), order=("a", "tie", "b"))
    return table, truth


def test_the_last_vote_of_a_worker_on_a_task_counts() -> None:
    table = VoteTable.of(["t", "t", "t"], ["w", "v", "w"], ["a", "b", "b"])
    assert (len(table), table.repeated) == (2, 1)
    assert table.counts().tolist() == [[2.0]] or table.labels == ("a", "b")
    assert aggregate(table, "majority").rows()[0]["label"] == "b"


@pytest.mark.parametrize("policy", ["majority", "weighted", "dawid_skene"])
def test_policies_find_the_truth_and_the_worker_at_random(policy: str) -> None:
    table, truth = crowd()
    found = aggregate(table, policy)
    assert found.p.sum(axis=1) == pytest.approx(np.ones(len(table.tasks)))
    assert (found.p.argmax(axis=1) == truth).mean() > 0.93
    assert found.workers()[0]["worker"] == "w11"
    assert set(at_random(table)) == {"w11"}


@pytest.mark.filterwarnings("ignore")
def test_dawid_skene_is_at_least_crowd_kits() -> None:
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    table, truth = crowd(per=3, skill=0.7, seed=3)
    frame = pd.DataFrame({"task": table.task, "worker": table.worker, "label": table.label})
    theirs = DawidSkene(n_iter=100).fit_predict(frame).sort_index().to_numpy()
    ours = aggregate(table, "dawid_skene").p.argmax(axis=1)
    assert (ours == truth).mean() >= (theirs == truth).mean() - 0.02
    assert (ours == theirs).mean() > 0.9


def test_labels_come_in_their_natural_order_or_in_none() -> None:
    def labels(*names: str, order: tuple[str, ...] = ()) -> tuple[tuple[str, ...], bool]:
        table = VoteTable.of(["t"] * len(names), [f"w{n}" for n in range(len(names))], names, order=order)
        return table.labels, bool(table.unordered)

    assert labels("10", "9", "1", "2") == (("1", "2", "9", "10"), False)
    assert labels("b", "tie", "a") == (("a", "tie", "b"), False)
    assert labels("right", "left") == (("left", "right"), False)
    assert labels("no", "yes") == (("no", "yes"), False), "two labels are ordinal in either order"
    assert labels("good", "bad", "fair") == (("bad", "fair", "good"), True)
    assert labels("good", "bad", "fair", order=("bad", "fair", "good")) == (("bad", "fair", "good"), False)
    assert labels("good", "bad", "fair", order=("bad", "good"))[1]


def test_ordinal_alpha_of_numbers_is_the_packages(tmp_path: Path) -> None:
    import krippendorff

    rng = np.random.default_rng(0)
    truth = rng.integers(1, 11, 40)
    said = np.clip(truth[:, None] + rng.integers(-2, 3, (40, 4)), 1, 10)
    path = tmp_path / "votes.csv"
    rows = [f"t{t},w{w},{said[t, w]}" for t in range(40) for w in range(4)]
    path.write_text("task,worker,label\n" + "\n".join(rows) + "\n", "utf-8")
    found = agreement(read_votes(path), draws=50)
    theirs = krippendorff.alpha(said.T, level_of_measurement="ordinal")
    assert found.alpha_ordinal.value == pytest.approx(theirs, abs=1e-9)


def test_alpha_is_the_packages() -> None:
    import krippendorff

    table, _ = crowd(tasks=60, per=4)
    found = agreement(table, draws=200)
    for level, ours in (("nominal", found.alpha_nominal), ("ordinal", found.alpha_ordinal)):
        theirs = krippendorff.alpha(value_counts=table.counts().astype(int), level_of_measurement=level)
        assert ours.value == pytest.approx(theirs, abs=1e-9)
        assert ours.interval is not None
        assert ours.value is not None
        assert ours.interval.low < ours.value < ours.interval.high


def test_coefficients_by_hand() -> None:
    # Two people, four tasks: aa, aa, bb, ab.
    table = VoteTable.of([1, 1, 2, 2, 3, 3, 4, 4], ["p", "q"] * 4, ["a", "a", "a", "a", "b", "b", "a", "b"])
    found = agreement(table)
    assert found.observed.value == pytest.approx(0.75)
    chance = (5 / 8) ** 2 + (3 / 8) ** 2
    assert found.fleiss_kappa.value == pytest.approx((0.75 - chance) / (1 - chance))
    gwet = 2 * (5 / 8) * (3 / 8)
    assert found.ac1.value == pytest.approx((0.75 - gwet) / (1 - gwet))
    cohen = 3 / 4 * 2 / 4 + 1 / 4 * 2 / 4
    assert cohen_kappa([0, 0, 1, 0], [0, 0, 1, 1], 2) == pytest.approx((0.75 - cohen) / (1 - cohen))
    assert pairs_of_people(table, least=4)[0]["workers"] == ["p", "q"]


def test_agreement_needs_two_votes_on_something() -> None:
    with pytest.raises(InputError, match="two people"):
        agreement(VoteTable.of([1, 2], ["p", "q"], ["a", "b"]))


def test_votes_are_read_with_their_faults(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text("task,worker,label\n1,p,a\n1,q,\n", "utf-8")
    with pytest.raises(InputError, match=r"votes\.csv:3: the label is empty"):
        read_votes(path)
    path.write_text("task,worker\n1,p\n", "utf-8")
    with pytest.raises(InputError, match="no column label"):
        read_votes(path)
    path.write_text("task,worker,label\n1,p,a\n1,q,b\n", "utf-8")
    assert len(read_votes(path)) == 2


def test_certificates_hold_what_they_promise() -> None:
    assert upper_bound(0, 29, 0.05) == pytest.approx(1 - 0.05 ** (1 / 29))
    broken, seen = 0, 0
    risk: float
    for seed in range(150):
        rng = np.random.default_rng(seed)
        sure = rng.uniform(0.5, 1, 400)
        right = (rng.random(400) < sure).astype(float)  # calibrated
        found = certify(sure, right, 0.9, delta=0.1)
        if found.threshold is not None:
            seen += 1
            risk = 1 - float(np.mean(np.linspace(found.threshold, 1, 1000)))
            broken += int(risk > 0.1)
    assert seen > 50
    assert broken / 150 <= 0.1
    none = certify(np.full(200, 0.9), (np.random.default_rng(0).random(200) < 0.6).astype(float), 0.9)
    assert none.threshold is None
    assert "cannot certify" in none.said


def test_the_alternative_annotator_test() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200)
    people = {f"p{k}": np.where(rng.random(200) < 0.85, truth, 1 - truth) for k in range(4)}
    votes = {str(i): {name: float(said[i]) for name, said in people.items()} for i in range(200)}
    good = alt_test(votes, {str(i): float(truth[i]) for i in range(200)})
    bad = alt_test(votes, {str(i): float(rng.integers(0, 2)) for i in range(200)})
    assert good["passes"] is True
    assert bad["passes"] is False
    assert alt_test({}, {})["passes"] is None


def test_prediction_powered_intervals_cover_and_are_narrower() -> None:
    covered, ratios = 0, []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        y = (rng.random(1000) < 0.6).astype(float)
        f = np.where(rng.random(1000) < 0.85, y, 1 - y)
        found = prediction_powered(y[:100], f[:100], f[100:])
        covered += found["ci"][0] <= 0.6 <= found["ci"][1]
        width = found["ci"][1] - found["ci"][0]
        ratios.append(width / (found["classical"]["ci"][1] - found["classical"]["ci"][0]))
    assert covered >= 180
    assert np.mean(ratios) < 0.85


def test_routing_takes_the_unsure_spreads_over_prompts_and_audits() -> None:
    p = np.array([0.5, 0.51, 0.9, 0.99, 0.52, np.nan])
    prompts = ["x", "x", "y", "z", "w", "v"]
    labelled = np.array([False] * 6)
    ids = [f"c{n}" for n in range(6)]
    first = {pick.index for pick in choose(ids, p, prompts, labelled, 3, audit=0)}
    assert first == {0, 4, 5}  # c1 is as unsure as they are, but of c0's prompt
    audited = choose(ids, p, prompts, labelled, 4, audit=0.5)
    assert sum(pick.why == "audit" for pick in audited) == 2
    labelled[0] = True
    assert 0 not in {pick.index for pick in choose(ids, p, prompts, labelled, 6)}
    points = curve(np.array([0.5, 0.9, 0.6]), [0, 2, 1], 0.95, [0, 1, 3])
    assert [point["accuracy"] for point in points] == [0.6667, 0.8167, 0.95]


def test_near_duplicate_prompts_are_one_cluster() -> None:
    texts = [
        "How do I clean a copper kettle at home?",
        "How do I clean a copper kettle at home??",
        "Name three rivers.",
    ]
    assert clusters(texts, ["k1", "k2", "k3"]) == ["k1", "k1", "k3"]
