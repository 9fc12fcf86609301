"""What counts of the events of a log, and what an import adds to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cai.labels.events import append_labels, append_said, effective, label_id, news, read_labels
from cai.records import HumanLabel


def label(verdict: str, ts: str = "", *, who: str = "ann", key: str = "", note: str = "") -> HumanLabel:
    """An event as an import makes it."""
    name = label_id("c", "", who, verdict, ts, key)
    return HumanLabel(name, "c", "g", "", who, verdict, ts=ts, note=note)


def said(log: Path) -> list[tuple[str, str]]:
    return [(each.annotator, each.verdict) for each in effective(read_labels(log))]


def test_an_answer_that_was_changed_and_changed_back_counts_again(tmp_path: Path) -> None:
    log = tmp_path / "labels.jsonl"
    for verdict, added in (("a", 1), ("a", 0), ("b", 1), ("b", 0), ("a", 1), ("a", 0), ("b", 1), ("a", 1), ("a", 0)):
        assert append_said(log, [label(verdict)]) == added, verdict
        assert said(log) == [("ann", verdict)]
    assert len({each.id for each in read_labels(log)}) == 5


def test_an_import_corrects_what_the_page_was_told(tmp_path: Path) -> None:
    log = tmp_path / "labels.jsonl"
    page = [label("a", "2026-01-01T00:00:00+00:00"), label("a", "2026-01-02T00:00:00+00:00")]
    append_labels(log, page)
    assert append_said(log, [label("b")]) == 1
    assert said(log) == [("ann", "b")], "also over the page's other answers, though the file has no times"
    append_labels(log, [label("a", "2026-01-03T00:00:00+00:00")])
    assert said(log) == [("ann", "a")], "and the page the import"


def test_times_are_believed(tmp_path: Path) -> None:
    log = tmp_path / "labels.jsonl"
    append_labels(log, [label("a", "2026-01-02")])
    assert append_said(log, [label("b", "2026-01-01")]) == 1, "kept, as what was said before"
    assert said(log) == [("ann", "a")]
    assert append_said(log, [label("b", "2026-01-01")]) == 0
    assert append_said(log, [label("b", "2026-01-03")]) == 1
    assert said(log) == [("ann", "b")]


def test_a_file_that_contradicts_itself_is_known_as_a_whole(tmp_path: Path) -> None:
    log = tmp_path / "labels.jsonl"
    rows = [label("a", key="1"), label("b", key="2"), label("a", who="bea")]
    assert append_said(log, rows) == 3
    assert append_said(log, rows) == 0
    assert said(log) == [("ann", "b"), ("bea", "a")]


def test_a_format_that_carries_less_takes_nothing_away() -> None:
    known = replace(label("a", "2026-01-02", note="because"), strength=2, edit="Better.")
    assert news([known], [label("a")]) == []
    assert news([known], [replace(label("a"), strength=3)])[0].supersedes == known.id
    assert news([known], [replace(label("a"), status="skipped")])


def test_the_same_verdict_on_other_texts_is_another(tmp_path: Path) -> None:
    log = tmp_path / "labels.jsonl"
    old, new = replace(label("a"), text_hash="changed"), replace(label("a"), text_hash="now")
    assert [append_said(log, [each]) for each in (old, old, new, new)] == [1, 0, 1, 0]
    (counts,) = effective(read_labels(log))
    assert counts.text_hash == "now"


@pytest.mark.parametrize("status", ["skipped", "discarded"])
def test_what_was_taken_back_can_be_said_again(tmp_path: Path, status: str) -> None:
    log = tmp_path / "labels.jsonl"
    first = label("a")
    append_said(log, [first])
    append_labels(log, [replace(first, id="undone", status=status, supersedes=first.id)])
    assert said(log) == []
    assert append_said(log, [first]) == 1
    assert said(log) == [("ann", "a")]


def test_a_person_has_one_name_wherever_they_came_from(tmp_path: Path) -> None:
    log = tmp_path / "labels.jsonl"
    append_said(log, [label("a", who="Ann")])
    append_labels(log, [label("b", "2026-01-01T00:00:00Z", who="ann ")])  # as the page has her
    assert said(log) == [("Ann", "b")]
