"""What an import must not take for something else, whatever stands in a file."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cai.errors import InputError
from cai.labels import formats
from cai.labels.events import append_labels
from cai.labels.exchange import ImportReport, read_labels_from
from cai.labels.files import rows_of
from cai.labels.formats._named import Named, named
from cai.labels.items import Item, by_id
from cai.records import Candidate, HumanLabel, Message
from tests.labels.test_exchange import fill, make_items, write

ITEM = make_items(1)[0]


def imported(folder: Path, rows: list[dict[str, Any]], name: str, **more: Any) -> tuple[list[HumanLabel], ImportReport]:
    path = write(folder / f"done.{'json' if formats.load(name).SUFFIX == 'json' else 'jsonl'}", rows)
    return read_labels_from(path, name, by_id(more.pop("items", [ITEM])), **more)


# --- broken rows ------------------------------------------------------------------------------------------------------

SAMPLES: list[tuple[str, dict[str, Any]]] = [
    *((name, fill(name, formats.load(name).task(ITEM, "ab"), 0)) for name in formats.names()),
    (
        "argilla",
        {
            "id": ITEM.comparison_id,
            "fields": {"prompt": "p", "answer1": ITEM.a.text, "answer2": ITEM.b.text},
            "metadata": {"pair_id": ITEM.comparison_id, "order": "ab"},
            "responses": {"preference": [{"value": "left", "user_id": "u", "status": "submitted"}]},
        },
    ),
    (
        "label_studio",
        {
            "data": {"pair_id": ITEM.comparison_id, "order": "ab"},
            "annotations": [
                {
                    "id": 1,
                    "completed_by": 1,
                    "lead_time": 3,
                    "created_at": "2026-01-01T00:00:00Z",
                    "was_cancelled": False,
                    "result": [
                        {"from_name": "winner", "to_name": "prompt", "value": {"choices": ["left"]}},
                        {"from_name": "strength", "to_name": "prompt", "value": {"rating": 3}},
                        {"from_name": "rank_helpful", "value": {"ranker": {"rank": ["answer1", "answer2"]}}},
                        {"from_name": "note", "value": {"text": ["n"]}},
                    ],
                }
            ],
        },
    ),
    ("label_studio", {"id": 4, "pair_id": ITEM.comparison_id, "annotator": 1, "comparison": '[{"selected": "left"}]'}),
    ("helpsteer", {"pair_id": ITEM.comparison_id, "preference_strength": -3, "context": "p"}),
    ("multipref", {"comparison_id": ITEM.comparison_id, "annotations": [{"evaluator": "e", "helpful_pref": "Tie"}]}),
]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["left", "[", "4", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["value", "rank", "a"]), inner),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a row."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


@pytest.mark.parametrize("number", range(len(SAMPLES)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_a_row_it_is_read_or_told_to_be_broken(
    tmp_path: Path, number: int, data: st.DataObject
) -> None:
    name, row = SAMPLES[number]
    changed = copy.deepcopy(row)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(places(changed))))
        inside: Any = changed
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = data.draw(JSON)
    labels, report = imported(tmp_path, [changed, row], name)
    assert report.rows == 2
    assert labels[-1].verdict in ("a", "tie"), "the row after it is read"
    assert json.dumps(report.row(), ensure_ascii=False).encode()
    assert append_labels(tmp_path / "labels.jsonl", labels) <= len(labels)
    for label in labels:
        assert HumanLabel.from_row(label.row()) == label
        assert label.strength is None or 1 <= label.strength <= 7


def test_a_broken_row_does_not_stop_an_import(tmp_path: Path) -> None:
    name, row = "label_studio", copy.deepcopy(SAMPLES[-4][1])
    bad = copy.deepcopy(row)
    bad["annotations"][0]["result"][1]["value"]["rating"] = None
    worse = copy.deepcopy(row)
    worse["annotations"][0]["result"][0]["value"]["choices"] = 7
    labels, report = imported(tmp_path, [bad, worse, row], name)
    assert report.traps["broken"] == 1, "a rating left open is no fault"
    assert {label.axis for label in labels} == {"", "helpful"}
    with pytest.raises(InputError, match=r"done\.json:2"):
        imported(tmp_path, [bad, worse], name, strict=True)


def test_long_and_odd_cells_are_read(tmp_path: Path) -> None:
    path = tmp_path / "done.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows(
            [["pair_id", "annotator", "verdict", "note"], [ITEM.comparison_id, "ann", "left", "x" * 200_000]]
        )
    labels, _ = read_labels_from(path, "csv", by_id([ITEM]))
    assert len(labels[0].note) == 200_000
    deep = tmp_path / "deep.jsonl"
    deep.write_text("[" * 100_000, "utf-8")
    with pytest.raises(InputError, match="not JSON"):
        list(rows_of(deep))


# --- Label Studio -----------------------------------------------------------------------------------------------------


def sitting(*results: dict[str, Any]) -> list[dict[str, Any]]:
    data = {"pair_id": ITEM.comparison_id, "order": "ab", "answer1": ITEM.a.text, "answer2": ITEM.b.text}
    return [{"data": data, "annotations": [{"id": 9, "completed_by": {"email": "ann"}, "result": list(results)}]}]


def result(name: str, to: str = "prompt", **value: Any) -> dict[str, Any]:
    return {"from_name": name, "to_name": to, "value": value}


def test_each_control_speaks_on_the_axis_in_its_name(tmp_path: Path) -> None:
    rows = sitting(result("helpful", choices=["left"]), result("winner_harmless", choices=["right"]))
    labels, _ = imported(tmp_path, rows, "label_studio")
    assert {label.axis: label.verdict for label in labels} == {"helpful": "a", "harmless": "b"}


@pytest.mark.parametrize(
    ("name", "kind", "axis", "side"),
    [
        ("Winner-helpful", "verdict", "helpful", ""),
        ("helpful_preference", "verdict", "helpful", ""),
        ("free-choice", "", "free-choice", ""),
        ("winner_left", "verdict", "left", ""),
        ("rating_left-leaning_answer1", "rating", "left-leaning", "left"),
        ("answer2_stars_self-harm", "rating", "self-harm", "right"),
        ("helpful_rating_right", "rating", "helpful", "right"),
        ("edit_answer1", "edit", "", "left"),
    ],
)
def test_a_name_gives_up_only_the_words_at_its_ends(name: str, kind: str, axis: str, side: str) -> None:
    assert named(name) == Named(kind, axis, side)


def test_a_ranking_is_a_verdict_and_an_unknown_part_is_told(tmp_path: Path) -> None:
    (label,), report = imported(tmp_path, sitting(result("r", ranker={"rank": ["answer2", "answer1"]})), "label_studio")
    assert (label.axis, label.verdict, label.status) == ("r", "b", "submitted")
    (label,), report = imported(
        tmp_path, sitting(result("winner", choices=["right"]), result("quality", rating=2)), "label_studio"
    )
    assert (label.verdict, label.strength) == ("b", None), "stars are no strength"
    assert report.traps["unknown_result"] == 1
    none, report = imported(tmp_path, sitting(result("where", polygonlabels=["x"])), "label_studio")
    assert not none
    assert report.traps["broken"] == 1, "not an abstention"
    (label,), _ = imported(tmp_path, sitting(), "label_studio")
    assert label.verdict == "abstain"


def test_ratings_of_both_answers_are_a_verdict(tmp_path: Path) -> None:
    rows = sitting(result("stars1", "answer1", rating=2), result("stars2", "answer2", rating=5))
    rows[0]["annotations"][0]["result"][0]["from_name"] = "rating_answer1"
    rows[0]["annotations"][0]["result"][1]["from_name"] = "rating_answer2"
    (label,), _ = imported(tmp_path, rows, "label_studio")
    assert (label.axis, label.verdict) == ("", "b")


def test_answers_that_contradict_one_another_are_broken(tmp_path: Path) -> None:
    for parts in (
        (result("comparison", selected="left"), result("winner", choices=["right"])),
        (result("winner", choices=["right"]), result("strength", rating=2)),
    ):
        labels, report = imported(tmp_path, sitting(*parts), "label_studio")
        assert (labels, report.traps["broken"]) == ([], 1)


def test_a_flat_export_is_read_by_its_columns(tmp_path: Path) -> None:
    row = {
        "id": 77,
        "annotator": 3,
        "pair_id": ITEM.comparison_id,
        "order": "ba",
        "comparison": '{"selected": "left"}',
        "winner_harmless": '{"choices": ["right"]}',
        "strength_harmless": "6",
        "helpful": "tie",
        "note": "so",
        "rank": 12,
        "topic": "left-handed",
    }
    labels, report = imported(tmp_path, [row], "label_studio")
    assert {label.axis: (label.verdict, label.strength) for label in labels} == {
        "": ("b", None),
        "harmless": ("a", 2),
        "helpful": ("tie", None),
    }
    assert {label.note for label in labels} == {"so"}
    assert not report.traps["broken"], "a column of the data is no answer"
    ranked = {
        "id": 1,
        "annotator": 3,
        "pair_id": ITEM.comparison_id,
        "rank_fair": ["answer2", "answer1"],
        "order": "ab",
    }
    (label,), _ = imported(tmp_path, [ranked], "label_studio")
    assert (label.axis, label.verdict) == ("fair", "b")
    _, report = imported(tmp_path, [row | {"winner_harmless": "maybe"}], "label_studio")
    assert report.traps["broken"] == 1


def test_gold_keeps_its_right_verdict_whichever_side_it_stood_on(tmp_path: Path) -> None:
    row = {"pair_id": ITEM.comparison_id, "order": "ba", "annotator": "ann", "verdict": "left", "gold": "right"}
    (label,), _ = imported(tmp_path, [row], "jsonl")
    assert (label.verdict, label.gold, label.extra["gold"]) == ("b", True, "a")
    from cai.labels.export import said_of

    assert said_of(label).gold == "right"


def test_argilla_asks_by_question(tmp_path: Path) -> None:
    row = {
        "id": ITEM.comparison_id,
        "metadata.order": "ab",
        "preference_helpful.responses": ["left", "right"],
        "preference_helpful.responses.users": ["u", "v"],
        "preference_helpful.responses.status": ["submitted", "discarded"],
        "preference_harmless.responses": ["right"],
        "preference_harmless.responses.users": ["u"],
        "preference_harmless.responses.status": ["submitted"],
        "spans.responses": [{"start": 1}],
        "spans.responses.users": ["u"],
    }
    labels, report = imported(tmp_path, [row], "argilla")
    found = {(label.annotator, label.axis, label.verdict, label.status) for label in labels}
    assert found >= {("u", "helpful", "a", "submitted"), ("u", "harmless", "b", "submitted")}
    assert ("v", "helpful", "b", "discarded") in found
    assert report.traps["unknown_result"]


# --- which pair, which axis, which person -----------------------------------------------------------------------------


def twins() -> list[Item]:
    """Two prompts with the same two answers."""
    return [
        Item(
            f"c{n}", f"g{n}", f"p{n}", (Message("user", asked),), Candidate(f"a{n}", "No."), Candidate(f"b{n}", "Yes.")
        )
        for n, asked in enumerate(("Is it late?", "Is it early?"))
    ]


def test_a_label_without_an_id_goes_to_the_pair_of_its_own_prompt(tmp_path: Path) -> None:
    row = {"output_1": "No.", "output_2": "Yes.", "preference": 2, "annotator": "x"}
    for number, asked in enumerate(("Is it late?", " Is it  early?")):
        (label,), _ = imported(tmp_path, [row | {"instruction": asked}], "alpaca_eval", items=twins())
        assert label.comparison_id == f"c{number}"
    labels, report = imported(tmp_path, [row], "alpaca_eval", items=twins())
    assert (labels, report.traps["ambiguous"]) == ([], 1)
    labels, report = imported(tmp_path, [row | {"instruction": "What is it?"}], "alpaca_eval", items=twins())
    assert (labels, report.traps["unknown_pair"]) == ([], 1)


@pytest.mark.parametrize("name", formats.names())
def test_a_prompt_that_has_changed_is_told_by_every_format_that_has_it(tmp_path: Path, name: str) -> None:
    row = fill(name, formats.load(name).task(ITEM, "ab"), 0)
    for place in (row, row.get("data", {}), row.get("fields", {})):
        for column in ("prompt", "instruction", "text"):
            if column in place:
                place[column] = "Another question?"
    for column in ("context", "conversation_a", "conversation_b"):
        if column in row:
            row[column][0]["content"] = "Another question?"
    (label,), report = imported(tmp_path, [row], name)
    assert (report.traps["text_changed"], label.text_hash) == (1, "changed")


def test_an_axis_that_the_run_does_not_know_is_told(tmp_path: Path) -> None:
    row = {"pair_id": ITEM.comparison_id, "order": "ab", "annotator": "ann", "verdict": "left"}
    rows = [row | {"axis": "helpfull"}, row, row | {"axis": "helpful"}]
    labels, report = imported(tmp_path, rows, "jsonl", axes={"helpful", "harmless"})
    assert (len(labels), report.traps["unknown_axis"]) == (3, 2)
    assert "'helpfull'; this run has harmless, helpful" in report.examples["unknown_axis"][0]
    with pytest.raises(InputError, match="helpfull"):
        imported(tmp_path, rows, "jsonl", axes={"helpful"}, strict=True)
    labels, report = imported(tmp_path, [row], "jsonl", axes={"helpful"}, axis="helpful", strict=True)
    assert labels[0].axis == "helpful"


def test_an_axis_is_known_in_another_spelling_where_only_one_can_be_meant(tmp_path: Path) -> None:
    row = {"pair_id": ITEM.comparison_id, "order": "ab", "annotator": "ann", "verdict": "left"}
    told = ["SELF_harm", "self.harm", "self-harm", "b.c", "B_C", "B-C"]
    rows = [row | {"axis": axis} for axis in told]
    labels, report = imported(tmp_path, rows, "jsonl", axes={"self-harm", "B_C", "b-c"})
    assert [label.axis for label in labels] == ["self-harm"] * 3 + ["b.c", "B_C", "B-C"]
    assert report.traps["unknown_axis"] == 2, "b.c and B-C may be either"


def test_a_person_is_one_person_in_all_files(tmp_path: Path) -> None:
    row = {"pair_id": ITEM.comparison_id, "order": "ab", "annotator": " ANN ", "verdict": "left"}
    (label,), report = imported(tmp_path, [row], "jsonl", people=["bea", "Ann"])
    assert (label.annotator, report.traps["duplicate_person"]) == ("Ann", 1)


def test_times_are_compared_in_one_form(tmp_path: Path) -> None:
    row = {"pair_id": ITEM.comparison_id, "order": "ab", "annotator": "ann", "verdict": "left"}
    times = ["2026-01-02T12:00:00+02:00", "2026-01-02 10:00:00", 1767348000, 1767348000000.0, "2026-01-02T10:00:00Z"]
    labels, _ = imported(tmp_path, [row | {"ts": ts} for ts in times], "jsonl")
    assert {label.ts for label in labels} == {"2026-01-02T10:00:00Z"}
    (label,), report = imported(tmp_path, [row | {"ts": "yesterday"}], "jsonl")
    assert (label.ts, report.traps["time_unknown"]) == ("", 1)


def test_people_without_names_are_told(tmp_path: Path) -> None:
    row = {"pair_id": ITEM.comparison_id, "order": "ab", "individual_preference": [{"score": 1}, {"score": -1}]}
    _, report = imported(tmp_path, [row], "helpsteer")
    assert "need not be the same person" in report.notes[0]
