"""Label Studio's and Argilla's own SDKs accept what we write, and we read what they write."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from cai.labels.exchange import read_labels_from
from cai.labels.export import export_labels, export_tasks
from cai.labels.formats import label_studio
from cai.labels.items import Item, by_id
from cai.records import HumanLabel
from tests.labels.test_exchange import make_items

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def exported(path: Path, items: list[Item], name: str) -> list[dict[str, Any]]:
    export_tasks(path, items, name)
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return found


def turned(label: HumanLabel, order: str) -> str:
    """The verdict in the words of what was shown."""
    sides = {"a": "left", "b": "right"} if order == "ab" else {"a": "right", "b": "left"}
    return sides.get(label.verdict, label.verdict)


# --- Label Studio -----------------------------------------------------------------------------------------------------

REGIONS: list[tuple[dict[str, Any], str]] = [
    ({"from_name": "winner", "to_name": "prompt", "type": "choices", "value": {"choices": ["left"]}}, "left"),
    ({"from_name": "winner", "to_name": "prompt", "type": "choices", "value": {"choices": ["both_bad"]}}, "both_bad"),
    ({"from_name": "comparison", "to_name": "answer1", "type": "pairwise", "value": {"selected": "right"}}, "right"),
]


@pytest.fixture(scope="module")
def interface() -> Any:
    module = pytest.importorskip("label_studio_sdk.label_interface")
    found = module.LabelInterface(label_studio.CONFIG)
    found.validate()
    return found


def test_label_studio_takes_our_tasks(interface: Any, tmp_path: Path) -> None:
    tasks = exported(tmp_path / "tasks.json", make_items(4), "label_studio")
    assert all(interface.validate_task(task) for task in tasks)
    less = {"data": {key: value for key, value in tasks[0]["data"].items() if key != "answer2"}}
    assert not interface.validate_task(less), "the validator validates"


def test_what_label_studio_calls_valid_is_read(interface: Any, tmp_path: Path) -> None:
    items = make_items(len(REGIONS))
    tasks = exported(tmp_path / "tasks.json", items, "label_studio")
    for number, (task, (region, _)) in enumerate(zip(tasks, REGIONS, strict=True)):
        annotation = {"id": number, "completed_by": {"email": "ann"}, "result": [{"id": "r", **region}]}
        assert interface.validate_annotation(annotation), region
        task["annotations"] = [annotation]
    (tmp_path / "done.json").write_text(json.dumps(tasks), "utf-8")
    labels, report = read_labels_from(tmp_path / "done.json", "label_studio", by_id(items))
    assert report.said == len(REGIONS)
    orders = {task["data"]["pair_id"]: task["data"]["order"] for task in tasks}
    assert [turned(label, orders[label.comparison_id]) for label in labels] == [word for _, word in REGIONS]


def test_label_studio_takes_our_predictions_and_labels_on_each_axis(tmp_path: Path) -> None:
    module = pytest.importorskip("label_studio_sdk.label_interface")
    axes = ("", "helpful", "harmless")
    interface = module.LabelInterface(label_studio.config(axes))
    interface.validate()
    items = make_items(3)
    judged = {(item.comparison_id, axis): p for item in items for axis, p in zip(axes, (0.5, 0.9, 0.2), strict=True)}
    export_tasks(tmp_path / "tasks.json", items, "label_studio", judged=judged)
    tasks = json.loads((tmp_path / "tasks.json").read_text("utf-8"))
    assert all(interface.validate_prediction(task["predictions"][0]) for task in tasks)
    labels = [
        HumanLabel(
            f"{number}{axis}", item.comparison_id, item.group_id, axis, "ann", "a", strength=2, note="n", edit="e"
        )
        for number, item in enumerate(items)
        for axis in axes
    ]
    export_labels(tmp_path / "labels.json", labels, by_id(items), "label_studio")
    for task in json.loads((tmp_path / "labels.json").read_text("utf-8")):
        assert interface.validate_annotation(task["annotations"][0])
        assert {part["type"] for part in task["annotations"][0]["result"]} == {"choices", "rating", "textarea"}


# --- Argilla ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def argilla() -> Any:
    return pytest.importorskip("argilla")


def test_argilla_takes_our_records_and_its_exports_are_read(argilla: Any, tmp_path: Path) -> None:
    from argilla.records._io import GenericIO  # type: ignore[import-untyped,import-not-found,unused-ignore]

    items = make_items(4)
    rows = exported(tmp_path / "records.json", items, "argilla")
    ann = uuid.uuid4()
    said = [("left", "submitted"), ("right", "submitted"), ("tie", "submitted"), ("left", "discarded")]
    records = [
        argilla.Record(**row, responses=[argilla.Response("preference", word, user_id=ann, status=status)])
        for row, (word, status) in zip(rows, said, strict=True)
    ]
    for row in rows:
        sent = argilla.Record(**row).api_model()  # its pydantic model, as the server gets it
        assert (sent.external_id, sent.fields) == (row["id"], row["fields"])
    orders = {row["metadata"]["pair_id"]: row["metadata"]["order"] for row in rows}

    flat = tmp_path / "flat.json"
    flat.write_text(json.dumps(GenericIO.to_list(records, flatten=True)), "utf-8")
    labels, report = read_labels_from(flat, "argilla", by_id(items))
    assert [(turned(each, orders[each.comparison_id]), each.status) for each in labels] == said
    assert {each.annotator for each in labels} == {str(ann)}
    assert "status_unknown" not in report.traps

    nested = tmp_path / "nested.json"
    nested.write_text(json.dumps(GenericIO.to_list(records, flatten=False)), "utf-8")
    labels, report = read_labels_from(nested, "argilla", by_id(items))
    assert report.traps["status_unknown"] == 4, "this export hides that the last was discarded, and the report says so"
    assert [turned(each, orders[each.comparison_id]) for each in labels] == [word for word, _ in said]


def test_argilla_takes_our_suggestions(argilla: Any, tmp_path: Path) -> None:
    items = make_items(2)
    judged = {(item.comparison_id, ""): 0.9 for item in items}
    export_tasks(tmp_path / "records.json", items, "argilla", judged=judged, model="judge")
    for row in json.loads((tmp_path / "records.json").read_text("utf-8")):
        (suggestion,) = argilla.Record.from_dict(row).suggestions
        word = "left" if row["metadata"]["order"] == "ab" else "right"
        assert (suggestion.question_name, suggestion.value, suggestion.score) == ("preference", word, 0.9)
