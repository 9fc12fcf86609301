"""Logs, atomic files and the lock."""

from __future__ import annotations

import contextlib
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai import store
from cai.errors import InputError, RunError, StoreError
from cai.store import Lock, Log, encode, given_rows, read_rows, replacing, write_json, write_text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sub" / "log.jsonl"


# --- logs ------------------------------------------------------------------------------------------------------------


def test_rows_are_found_by_key_now_and_after_reopening(path: Path) -> None:
    with Log(path) as log:
        assert log.get("a") is None
        log.append({"id": "a", "n": 1})
        log.append({"id": "b", "n": 2})
        assert log.get("a") == {"id": "a", "n": 1}
        assert "b" in log
        assert "c" not in log
        assert len(log) == 2
    with Log(path) as log:
        assert log.get("b") == {"id": "b", "n": 2}
        assert len(log) == 2
    assert path.read_bytes() == b'{"id": "a", "n": 1}\n{"id": "b", "n": 2}\n'


def test_a_key_appended_again_replaces_the_row_for_readers_and_keeps_both_in_the_file(path: Path) -> None:
    with Log(path) as log:
        for number in range(3):
            log.append({"id": "a", "n": number})
        assert log.get("a") == {"id": "a", "n": 2}
        assert len(log) == 1
    with Log(path) as log:
        assert log.get("a") == {"id": "a", "n": 2}
        assert len(log) == 1
    assert [row["n"] for row in read_rows(path)] == [0, 1, 2]


@pytest.mark.parametrize(
    "row",
    [
        {"key": "k"},
        {"schema": 1, "key": "k"},
        {"text": "before the key", "key": "k"},
        {"nested": {"key": "other"}, "key": "k"},
        {"key": "k", "last": {"key": "other"}},
    ],
    ids=str,
)
def test_the_key_is_found_wherever_it_stands(path: Path, row: dict[str, Any]) -> None:
    with Log(path, key="key") as log:
        log.append(row)
        log.append({"key": "end"})
    with Log(path, key="key") as log:
        assert log.get("k") == row
        assert "other" not in log


@pytest.mark.parametrize(
    "text",
    [
        "ä",
        "日本語",
        "🙂",
        "\ud83d",
        "x\udfffy",
        'quo"te',
        "back\\slash",
        "line\nbreak\r\n",
        "\u2028\u2029\x85",
        "\0\x1f",
        "",
    ],
    ids=ascii,
)
def test_any_text_comes_back_as_key_and_as_value(path: Path, text: str) -> None:
    with Log(path) as log:
        log.append({"id": text, "text": text})
        assert log.get(text) == {"id": text, "text": text}
        log.append({"id": "next"})
    with Log(path) as log:
        assert log.get(text) == {"id": text, "text": text}
        assert "next" in log
    assert path.read_bytes().count(b"\n") == 2


@given(
    st.lists(st.tuples(st.text(max_size=20), st.recursive(st.none() | st.text(), st.lists, max_leaves=5)), max_size=20)
)
def test_a_log_is_a_mapping_that_remembers(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    expected: dict[str, Any] = {}
    with Log(path) as log:
        for key, value in rows:
            log.append({"id": key, "value": value})
            expected[key] = value
    with Log(path) as log:
        assert len(log) == len(expected)
        assert {key: (log.get(key) or {})["value"] for key in expected} == expected


def test_rows_of_several_megabytes(path: Path) -> None:
    rows = [{"id": str(size), "text": "ä" * size} for size in (4_000, 4_096, 3_000_000, 10)]
    with Log(path) as log:
        for row in rows:
            log.append(row)
        assert [log.get(row["id"]) for row in rows] == rows
    with Log(path) as log:
        assert [log.get(row["id"]) for row in rows] == rows


def test_a_hundred_thousand_rows_are_reopened_by_their_keys_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 100_000
    path.parent.mkdir()
    with path.open("wb") as file:
        for number in range(count):
            file.write(encode({"id": f"row{number}", "text": "word " * 20}))
    parsed = 0
    loads = json.loads

    def counted(*args: Any) -> Any:
        nonlocal parsed
        parsed += 1
        return loads(*args)

    with monkeypatch.context() as patch:
        patch.setattr("cai.store.json.loads", counted)
        with Log(path) as log:
            assert parsed <= 1  # parsing every line would take a hundred times as long
            assert len(log) == count
    with Log(path) as log:
        for number in (0, 1, count // 2, count - 1):
            assert (log.get(f"row{number}") or {})["id"] == f"row{number}"


def test_two_keys_are_told_apart_even_if_their_digests_were_equal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_digest", lambda key: b"same")
    with Log(path) as log:
        log.append({"id": "a"})
        assert log.get("b") is None


@pytest.mark.parametrize(
    "tail", [b'{"id": "c", "n', b"\0\0\0", b'{"id": "c"}garbage\n', b"\0\0\0\n", b"[1]\n", b"{}\n", b"\n"]
)
def test_a_torn_last_line_is_set_aside(path: Path, tail: bytes) -> None:
    whole = b'{"id": "a", "n": 1}\n{"id": "b", "n": 2}\n'
    path.parent.mkdir()
    path.write_bytes(whole + tail)
    with Log(path) as log:
        assert len(log) == 2
        assert "c" not in log
        log.append({"id": "c", "n": 3})
        assert log.get("c") == {"id": "c", "n": 3}
    assert path.read_bytes() == whole + b'{"id": "c", "n": 3}\n'
    assert path.with_name("log.jsonl.torn").read_bytes() == tail.rstrip(b"\n") + b"\n"


def test_a_torn_replacement_leaves_the_row_it_was_to_replace(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"id": "a", "n": 1}\n{"id": "b", "n": 2}\n{"id": "a", "n"}\n')
    with Log(path) as log:
        assert log.get("a") == {"id": "a", "n": 1}


def test_several_torn_lines_are_all_kept(path: Path) -> None:
    for number in range(3):
        with Log(path) as log:
            log.append({"id": str(number)})
        with path.open("ab") as file:
            file.write(b'{"id": "torn%d' % number)
    with Log(path) as log:
        assert len(log) == 3
    assert path.with_name("log.jsonl.torn").read_bytes() == b'{"id": "torn0\n{"id": "torn1\n{"id": "torn2\n'


@pytest.mark.parametrize("middle", [b"garbage", b"", b"[1]", b"{}", b"\0\0", b'{"id": "a\xff"}', b'{"id": "x'])
def test_a_bad_line_in_the_middle_is_an_error_that_changes_nothing(path: Path, middle: bytes) -> None:
    content = b'{"id": "a"}\n' + middle + b'\n{"id": "b"}\n{"id": "half'
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(
        StoreError, match=r"log\.jsonl: line 2 is not a row with the key 'id' \(restore the file"
    ) as caught:
        Log(path)
    assert caught.value.exit_code == 2
    assert path.read_bytes() == content
    assert not path.with_name("log.jsonl.torn").exists()


def test_a_row_that_cannot_be_read_back_is_an_error(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"id": "a"} rubbish}\n{"id": "b"}\n')
    with Log(path) as log:
        assert log.get("b") == {"id": "b"}
        with pytest.raises(StoreError, match=r"log\.jsonl: the row at byte 0 cannot be read \(restore the file"):
            log.get("a")


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file can grow past `size` bytes within it, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_append_that_fails_leaves_the_log_as_it_was(path: Path) -> None:
    with Log(path) as log:
        log.append({"id": "a"})
        with (
            files_end_at(30),  # room for half of the next row
            pytest.raises(StoreError, match=r"log\.jsonl: the disk is full \(free some space"),
        ):
            log.append({"id": "b", "text": "x" * 100})
        assert path.read_bytes() == b'{"id": "a"}\n'
        assert "b" not in log
        assert log.get("a") == {"id": "a"}
        with files_end_at(30):
            log.append({"id": "c"})  # a small one still fits
        log.append({"id": "b", "text": "x" * 100})
        assert log.get("b") == {"id": "b", "text": "x" * 100}
    assert [row["id"] for row in read_rows(path)] == ["a", "c", "b"]


def test_a_row_that_is_no_json_or_has_no_key_is_refused_before_anything_is_written(path: Path) -> None:
    with Log(path) as log:
        with pytest.raises(TypeError):
            log.append({"id": "a", "value": object()})
        with pytest.raises(KeyError):
            log.append({"other": "a"})
        log.append({"id": "b"})
    assert path.read_bytes() == b'{"id": "b"}\n'


def test_a_log_opened_to_read_only_is_left_as_it_is(path: Path) -> None:
    with Log(path) as log:
        log.append({"id": "a"})
    with path.open("ab") as file:
        file.write(b'{"id": "half')
    path.chmod(0o444)
    before = path.read_bytes()
    with Log(path, read_only=True) as log:
        assert log.get("a") == {"id": "a"}
        assert len(log) == 1
        with pytest.raises(StoreError, match=r"log\.jsonl"):
            log.append({"id": "b"})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["log.jsonl"]  # noqa: PTH208


def test_a_log_that_is_not_there_cannot_be_read(path: Path) -> None:
    with pytest.raises(StoreError, match=r"log\.jsonl: cannot read: No such file"):
        Log(path, read_only=True)
    assert not path.parent.exists()


def test_a_folder_in_the_place_of_a_log(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match="Is a directory"):
        Log(path)


def test_closing_twice_does_no_harm(path: Path) -> None:
    log = Log(path)
    log.append({"id": "a"})
    log.close()
    log.close()


# --- rows ------------------------------------------------------------------------------------------------------------


def test_read_rows_leaves_out_a_line_still_being_written(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a": ')
    assert list(read_rows(path)) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("line", [b"x", b"[]", b"", b"\xff"])
def test_read_rows_names_a_bad_line(path: Path, line: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(StoreError, match=r"log\.jsonl:2: not a JSON object"):
        list(read_rows(path))


def test_read_rows_of_nothing(path: Path) -> None:
    with pytest.raises(StoreError, match=r"log\.jsonl: cannot read: No such file or directory"):
        list(read_rows(path))


def test_given_rows_end_without_a_newline_and_may_stand_apart(path: Path) -> None:
    """As other tools and editors leave files; what of a log is torn is a row of a user's."""
    path.parent.mkdir()
    path.write_bytes(b'{"a": 1}\n\n  \r\n{"a": 2}\r\n{"a": 3}')
    assert list(given_rows(path)) == [(1, {"a": 1}), (4, {"a": 2}), (5, {"a": 3})]


@pytest.mark.parametrize("line", [b"x", b"[]", b"\xff", b'{"a": ', b"[" * 100_000])
def test_given_rows_name_a_bad_line_the_last_too(path: Path, line: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(b'\n{"a": 1}\n' + line)
    with pytest.raises(InputError, match=r"log\.jsonl:3: not a JSON object"):
        list(given_rows(path))
    with pytest.raises(InputError, match="cannot read it: No such file"):
        list(given_rows(path.with_name("none.jsonl")))


# --- whole files -----------------------------------------------------------------------------------------------------


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, StoreError("x")])
def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: Any) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def write() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


@pytest.mark.parametrize("size", [100, 5_000_000], ids=["at its end", "in the middle"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    message = r"file: the disk is full \(free some space and run the same command again"
    with files_end_at(50), pytest.raises(StoreError, match=message):
        write_text(path, "x" * size)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_a_lone_surrogate_does_not_stop_a_file_from_being_written(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"a": "x\ud800ä"})
    assert json.loads((tmp_path / "file").read_text()) == {"a": "x\ud800ä"}


def test_a_leftover_of_a_killed_process_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_text("x" * 1000)
    write_text(tmp_path / "file", "new")
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208
    assert (tmp_path / "file").read_text() == "new"


# --- the lock --------------------------------------------------------------------------------------------------------


def test_one_holds_a_folder_at_a_time(tmp_path: Path) -> None:
    with Lock(tmp_path / "run"):
        for _ in range(2):  # being turned away does not loosen it
            with pytest.raises(RunError, match=rf"run: another process \(pid {os.getpid()}\) is working on this run"):
                Lock(tmp_path / "run")
    with Lock(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").read_text() == str(os.getpid())


def test_a_lock_left_behind_by_a_longer_pid_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("12345678901234")
    with Lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        Lock(tmp_path / "file" / "run")
