"""Labels out and in again, in every format: what comes back, and that what does not is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cai.errors import InputError
from cai.labels import formats
from cai.labels.events import news
from cai.labels.exchange import read_labels_from
from cai.labels.export import LOSSES, export_labels, export_tasks
from cai.labels.files import rows_of
from cai.labels.items import by_id
from cai.records import HumanLabel
from tests.labels.test_exchange import make_items

ITEMS = make_items(8)
KNOWN = by_id(ITEMS)
VERDICTS = (("a", 2), ("b", 6), ("tie", 4), ("both_bad", None), ("a", None), ("abstain", None), ("b", 7), ("a", 1))


def labels(*axes: str) -> list[HumanLabel]:
    """Two people, who see the answers in different orders and say all that can be said."""
    found = []
    for who in ("ann", "bea"):
        for number, (item, (verdict, strength)) in enumerate(zip(ITEMS, VERDICTS, strict=True)):
            for axis in axes or ("",):
                turned = axis == "harmless" and verdict in ("a", "b")
                found.append(
                    HumanLabel(
                        id=f"{who}{number}{axis}",
                        comparison_id=item.comparison_id,
                        group_id=item.group_id,
                        axis=axis,
                        annotator=who,
                        verdict={"a": "b", "b": "a"}[verdict] if turned else verdict,
                        strength=8 - strength if turned and strength is not None else strength,
                        shown_order="ab" if (who == "ann") == (number % 2 == 0) else "ba",
                        seconds=12.5 + number,
                        note="because it,\nis" if number == 2 else "",
                        ts=f"2026-01-0{number + 1}T10:00:00Z",
                        edit="Better so." if number == 4 and axis != "harmless" else "",
                        text_hash=item.text_hash,
                    )
                )
    return found


def back(path: Path, name: str, axis: str = "") -> list[HumanLabel]:
    found, report = read_labels_from(path, name, KNOWN, axis=axis, strict=True)
    assert not report.traps["text_changed"]
    return found


LOST: dict[str, tuple[str, ...]] = {
    "axis": ("axis",),
    "strength": ("strength",),
    "seconds": ("seconds",),
    "note": ("note",),
    "edit": ("edit",),
    "ts": ("ts",),
    "order": ("shown_order",),
    "both_bad": ("verdict",),
}
"""By the word for a loss, the attributes that may come back otherwise."""


@pytest.mark.parametrize("name", formats.names())
@pytest.mark.parametrize("axes", [("",), ("helpful", "harmless")])
def test_what_comes_back_is_what_went_out_but_for_what_was_told(
    tmp_path: Path, name: str, axes: tuple[str, ...]
) -> None:
    mine, chosen = labels(*axes), formats.load(name)
    path = tmp_path / f"labels.{chosen.SUFFIX}"
    axis = ""
    if len(axes) > 1 and "axis" not in chosen.CARRIES:
        with pytest.raises(InputError, match="names no axes"):
            export_labels(path, mine, KNOWN, name)
        axis = "helpful"
    report = export_labels(path, mine, KNOWN, name, axis=axis or None)
    free = {attribute for word in report.lost for attribute in LOST.get(word, ())}
    there = {(each.comparison_id, each.annotator, each.axis): each for each in back(path, name, axis)}
    assert len(there) == report.labels
    for label in mine:
        twin = there.get((label.comparison_id, label.annotator, label.axis))
        if twin is None:
            assert (label.verdict == "abstain" and report.lost["abstain"]) or (axis and label.axis != axis), label
            continue
        for attribute in ("verdict", "strength", "shown_order", "seconds", "note", "ts", "edit", "text_hash"):
            if attribute not in free:
                assert getattr(twin, attribute) == getattr(label, attribute), attribute
        if label.verdict in ("a", "b", "tie"):
            assert twin.verdict == label.verdict, "a side is never lost"
    if name in ("csv", "jsonl", "label_studio"):
        assert not report.lost, "carries everything that these labels have"
    known = {(label.comparison_id, label.annotator, label.axis): label for label in mine}
    same = [twin for key, twin in there.items() if twin.verdict == known[key].verdict]
    assert len(same) > len(there) / 2
    assert "strength" in free or not news(mine, same), "what went out adds nothing to where it came from"


@pytest.mark.parametrize("name", ["label_studio", "argilla"])
@pytest.mark.parametrize(
    "axis",
    [
        "self-harm",
        "self_harm",
        "Helpful",
        "free-choice",
        "choice",
        "edit_quality",
        "v1.2",
        "left-leaning",
        "left_right",
    ],
)
def test_an_axis_comes_back_from_a_questions_name_as_it_is_spelled(tmp_path: Path, name: str, axis: str) -> None:
    mine, path = labels(axis), tmp_path / "labels.json"
    export_labels(path, mine, KNOWN, name)
    found, _ = read_labels_from(path, name, KNOWN, axes={axis, "helpfulness"}, strict=True)
    assert {label.axis for label in found} == {axis}
    assert not news(mine, found)


def test_what_a_format_cannot_carry_is_counted(tmp_path: Path) -> None:
    mine = labels()
    lost = export_labels(tmp_path / "x.json", mine, KNOWN, "alpaca_eval").lost
    assert lost["abstain"] == 2
    assert lost["both_bad"] == 2
    assert lost["edit"] == 2
    assert lost["strength"] == 10
    assert set(lost) <= set(LOSSES)
    # HelpSteer asks for a strength always: one is made up for the two verdicts without.
    assert export_labels(tmp_path / "x.jsonl", mine, KNOWN, "helpsteer").lost["strength"] == 2
    changed = [replace(mine[0], text_hash="changed"), replace(mine[1], shown_order=""), *mine[2:]]
    lost = export_labels(tmp_path / "x.jsonl", changed, KNOWN, "jsonl").lost
    assert (lost["stale"], lost["order"]) == (1, 1)
    strange = [replace(label, axis="style") for label in mine[:3]]
    with pytest.raises(InputError, match="no labels"):
        export_labels(tmp_path / "x.jsonl", strange, KNOWN, "multipref")


def test_crowd_kits_labels_of_two_people_can_be_counted_together(tmp_path: Path) -> None:
    from cai.labels.aggregate import aggregate
    from cai.labels.table import read_votes

    path = tmp_path / "votes.csv"
    export_labels(path, labels(), KNOWN, "crowdkit")
    found = {row["task"]: row["label"] for row in aggregate(read_votes(path), "majority").rows()}
    assert found[ITEMS[0].comparison_id] == "a", "though they saw the answers in different orders"
    assert found[ITEMS[1].comparison_id] == "b"


@pytest.mark.parametrize("name", formats.names())
def test_people_see_nothing_of_the_judge_unless_it_is_asked_for(tmp_path: Path, name: str) -> None:
    judged = {(item.comparison_id, "harmless"): 0.875 for item in ITEMS}
    chosen = formats.load(name)
    path = tmp_path / f"tasks.{chosen.SUFFIX}"
    export_tasks(path, ITEMS, name)
    assert "875" not in path.read_text("utf-8")
    if name not in ("label_studio", "argilla"):
        with pytest.raises(InputError, match="no place for predictions"):
            export_tasks(path, ITEMS, name, judged=judged)
        return
    export_tasks(path, ITEMS, name, judged=judged, model="m")
    rows: list[Any] = [row for _, row in rows_of(path)]
    for row in rows:
        if name == "label_studio":
            (guess,) = row["predictions"]
            said, score, order = guess["result"][0]["value"]["choices"][0], guess["score"], row["data"]["order"]
        else:
            guess = row["suggestions"]["preference_harmless"]
            said, score, order = guess["value"], guess["score"], row["metadata"]["order"]
        assert (said, score) == ("left" if order == "ab" else "right", 0.875)
