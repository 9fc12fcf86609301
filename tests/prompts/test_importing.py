"""Imports: nothing lost, nothing half written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from cai.errors import InputError
from cai.prompts import read_prompts
from cai.prompts.importing import ImportOptions, import_prompts, size_of
from cai.records import Prompt

LONG = "Please explain to me in simple words how a sailing ship can move against the wind, and why"


def write(path: Path, *texts: str, **more: Any) -> Path:
    path.write_text("".join(json.dumps({"prompt": text, **more}) + "\n" for text in texts))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(path: Path) -> list[str]:
    return [prompt.messages[-1].content for prompt in read_prompts(path)]


def test_the_output_is_ours_and_in_order(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.jsonl", "b", "a", tags=["x"]), write(tmp_path / "2.jsonl", "c")
    out = tmp_path / "new" / "out.jsonl"
    summary = import_prompts([one, two], out, options=ImportOptions(tags=("y",)))
    assert [Prompt.from_row(row).messages[0].content for row in rows(out)] == ["b", "a", "c"]
    assert (summary.written, summary.found, dict(summary.tags)) == (3, 3, {"x": 2, "y": 3})
    assert rows(out)[2]["source"] == f"{two.name}:1"


def test_no_folder_of_this_machine_enters_the_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "near").mkdir()
    given = [
        write(tmp_path / "near" / "1.jsonl", "a", "b", "b"),
        write(Path("near/2.jsonl"), "c"),
        tmp_path / "ours.jsonl",
        tmp_path / "set",
    ]
    given[2].write_text(json.dumps(Prompt.make("d", source="a collection").row()) + "\n")
    pyarrow = pytest.importorskip("pyarrow")
    given[3].mkdir()
    table = pyarrow.table({"prompt": ["e"]})
    with pyarrow.ipc.new_stream(given[3] / "data.arrow", table.schema) as stream:
        stream.write_table(table)
    import_prompts(given, Path("out.jsonl"), dropped=Path("dropped.jsonl"))
    sources = [row["source"] for row in rows(Path("out.jsonl"))]
    assert sources == ["1.jsonl:1", "1.jsonl:2", "near/2.jsonl:1", "a collection", "set/data.arrow:1"]
    assert rows(Path("dropped.jsonl"))[0]["where"] == f"{given[0]}:3"  # to be looked up, not published


def test_importing_an_import_changes_nothing(tmp_path: Path) -> None:
    out, again = tmp_path / "out.jsonl", tmp_path / "again.jsonl"
    import_prompts([write(tmp_path / "1.jsonl", "a", "ü\u2028", tags=["x"], overrides=["o"])], out)
    import_prompts([out], again)
    assert again.read_bytes() == out.read_bytes()


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    source = write(tmp_path / "1.jsonl", LONG + "?", "b", "b", LONG + "??", "")
    out, dropped = tmp_path / "out.jsonl", tmp_path / "dropped.jsonl"
    summary = import_prompts([source], out, options=ImportOptions(near=0.85), dropped=dropped)
    assert contents(out) == [LONG + "?", "b"]
    assert (summary.found, summary.written, summary.exact, summary.near, summary.skipped) == (5, 2, 1, 1, 1)
    exact, near, broken = rows(dropped)
    kept = Prompt.make("b").id
    assert (exact["reason"], exact["id"], exact["kept"], exact["where"]) == ("exact", kept, kept, f"{source}:3")
    assert (near["reason"], near["id"], near["kept"]) == (
        "near",
        Prompt.make(LONG + "??").id,
        Prompt.make(LONG + "?").id,
    )
    assert 0.85 <= near["similarity"] < 1
    assert (broken["reason"], broken["where"], broken["detail"]) == ("unreadable", f"{source}:5", "empty prompt")
    assert [str(bad) for bad in summary.problems] == [f"{source}:5: empty prompt"]


def test_near_duplicates_stay_unless_asked(tmp_path: Path) -> None:
    source = write(tmp_path / "1.jsonl", LONG + "?", LONG + "??")
    assert import_prompts([source], tmp_path / "out.jsonl").written == 2


def test_copies_are_kept_and_counted_without_dedup(tmp_path: Path) -> None:
    source = write(tmp_path / "1.jsonl", "a", "a")
    summary = import_prompts([source], tmp_path / "out.jsonl", options=ImportOptions(dedup=False))
    assert (summary.written, summary.copies, summary.exact) == (2, 1, 0)
    with pytest.raises(InputError, match="near-duplicates"):
        import_prompts([source], tmp_path / "o.jsonl", options=ImportOptions(dedup=False, near=0.9))


def test_a_limit_counts_what_is_written_and_says_that_there_is_more(tmp_path: Path) -> None:
    source = write(tmp_path / "1.jsonl", "a", "a", "b", "c")
    summary = import_prompts([source], tmp_path / "out.jsonl", options=ImportOptions(limit=2))
    assert contents(tmp_path / "out.jsonl") == ["a", "b"]
    assert (summary.found, summary.limited) == (3, True)
    assert not import_prompts([source], tmp_path / "o.jsonl", options=ImportOptions(limit=3)).limited


def test_strict_stops_and_leaves_no_file(tmp_path: Path) -> None:
    source = write(tmp_path / "1.jsonl", "a", "", "b")
    with pytest.raises(InputError, match="empty prompt") as caught:
        import_prompts([source], tmp_path / "out.jsonl", options=ImportOptions(strict=True))
    assert caught.value.where == f"{source}:2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.jsonl"]


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("old\n")
    with pytest.raises(InputError):
        import_prompts([write(tmp_path / "1.jsonl", "a", "")], out, options=ImportOptions(strict=True), force=True)
    assert out.read_text() == "old\n"


def test_nothing_readable_is_an_error_not_an_empty_file(tmp_path: Path) -> None:
    source = tmp_path / "1.jsonl"
    source.write_text('{"question": "a"}\n' * 3)
    with pytest.raises(InputError, match="no row could be read; the first: no messages or") as caught:
        import_prompts([source], tmp_path / "out.jsonl")
    assert caught.value.where == f"{source}:1"
    assert not (tmp_path / "out.jsonl").exists()


def test_an_empty_source_is_an_error_not_an_empty_file(tmp_path: Path) -> None:
    source = tmp_path / "1.jsonl"
    source.write_text("\n")
    with pytest.raises(InputError, match="no prompt in it"):
        import_prompts([source], tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_torn_file_is_an_error_unless_it_is_allowed(tmp_path: Path) -> None:
    whole = write(tmp_path / "1.jsonl", *(f"{n} {LONG}" for n in range(2000))).read_bytes()
    packed, plain = tmp_path / "1.jsonl.gz", tmp_path / "2.jsonl"
    packed.write_bytes(gzip.compress(whole)[:-2000])
    plain.write_bytes(whole[:-10])
    for source in (packed, plain):
        with pytest.raises(InputError, match="--allow-torn"):
            import_prompts([source], tmp_path / "out.jsonl")
        assert not (tmp_path / "out.jsonl").exists()
        summary = import_prompts([source], tmp_path / "out.jsonl", options=ImportOptions(allow_torn=True))
        assert (summary.torn, summary.skipped) == (1, 1)
        assert 0 < summary.written < 2000
        (tmp_path / "out.jsonl").unlink()


def test_a_json_document_over_many_lines_is_not_called_torn(tmp_path: Path) -> None:
    for text in ('[\n  {"prompt": "a"},\n  5\n]', '{\n  "prompt": "a"\n}'):
        (tmp_path / "1.jsonl").write_text(text)
        with pytest.raises(InputError, match="jq -c") as told:
            import_prompts([tmp_path / "1.jsonl"], tmp_path / "out.jsonl")
        assert "torn" not in str(told.value)


def test_outputs_are_not_overwritten_unasked(tmp_path: Path) -> None:
    source, out = write(tmp_path / "1.jsonl", "a"), write(tmp_path / "out.jsonl", "old")
    with pytest.raises(InputError, match="--force"):
        import_prompts([source], out)
    with pytest.raises(InputError, match="--force"):
        import_prompts([source], tmp_path / "new.jsonl", dropped=out)
    assert contents(out) == ["old"]
    import_prompts([source], out, force=True)
    assert contents(out) == ["a"]


def test_outputs_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "1.jsonl", "a")
    with pytest.raises(InputError, match="also an input"):
        import_prompts([source], source, force=True)
    with pytest.raises(InputError, match="one file"):
        import_prompts([source], tmp_path / "o", dropped=tmp_path / "o")
    with pytest.raises(InputError, match="uncompressed"):
        import_prompts([source], tmp_path / "o.jsonl.gz")
    with pytest.raises(InputError, match="no such file"):
        import_prompts([source, tmp_path / "missing"], tmp_path / "o")
    with pytest.raises(InputError, match="is a folder"):
        import_prompts([source], tmp_path, force=True)


def test_progress_ends_at_the_size_of_the_sources(tmp_path: Path) -> None:
    sources = [write(tmp_path / "1.jsonl", "a"), write(tmp_path / "2.jsonl", "b", "c")]
    seen: list[int] = []
    import_prompts(sources, tmp_path / "out.jsonl", on_bytes=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == size_of(sources) == sum(path.stat().st_size for path in sources)
