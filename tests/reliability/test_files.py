"""What may happen to a run's files and disk, and what must come of it: the bytes of an undisturbed run.

Real limits of the kernel. The backend is scripted and fails on purpose now and then.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.reliability.rehearsal import (
    FAST,
    assert_same,
    inside,
    lines,
    outcome,
    size,
    start,
)

# --- torn and corrupt files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", [("journal.jsonl",), ("requests.jsonl",), ("journal.jsonl", "requests.jsonl")])
@pytest.mark.parametrize(
    "tail",
    [b"", b"\0" * 700, b'{"id": "abc", "respo\xff\n', b'["not", "a", "row"]\n'],
    ids=["half a line", "zeros", "rubbish", "another shape"],
)
def test_a_torn_last_line_is_set_aside_and_made_again(
    recipe: Path, undisturbed: Path, copy: Path, files: tuple[str, ...], tail: bytes
) -> None:
    torn = {}
    for name in files:
        path = copy / name
        whole = path.read_bytes().splitlines(keepends=True)
        kept = whole[: len(whole) // 2]
        torn[name] = tail or whole[len(kept)][: len(whole[len(kept)]) // 2]
        path.write_bytes(b"".join(kept) + torn[name])
    if "journal.jsonl" not in files:
        (copy / "journal.jsonl").unlink()
    result = inside("run", recipe, "--run-dir", copy, *FAST)
    assert result.exit_code == 0, result.stderr
    assert_same(copy, undisturbed)
    for name in files:
        assert (copy / f"{name}.torn").read_bytes().rstrip(b"\n") == torn[name].rstrip(b"\n")
        assert lines(copy / name)


@pytest.mark.parametrize("name", ["journal.jsonl", "requests.jsonl", "attempts.jsonl"])
def test_a_corrupt_line_in_the_middle_is_an_error_that_destroys_nothing(recipe: Path, copy: Path, name: str) -> None:
    path = copy / name
    if name == "attempts.jsonl":
        path.write_bytes(path.read_bytes() * 3)
    whole = path.read_bytes().splitlines(keepends=True)
    whole[1] = b"\xfe\xff" + whole[1][2:]
    path.write_bytes(b"".join(whole))
    if name != "journal.jsonl":
        (copy / "journal.jsonl").write_bytes(b"")
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name not in ("run.log", ".lock")}
    result = inside("run", recipe, "--run-dir", copy, *FAST)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"cai: error: {path}: line 2 is not a row")
    assert result.stderr.count("\n") == 1
    assert "restore the file from a copy, or delete that line" in result.stderr
    unchanged = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name not in ("run.log", ".lock")}
    assert unchanged.keys() >= before.keys()
    assert [p.name for p in before if before[p] != unchanged[p] and p.name != "recipe.yaml"] == []


def test_a_corrupt_line_can_be_deleted_as_the_error_says(recipe: Path, undisturbed: Path, copy: Path) -> None:
    for name in ("journal.jsonl", "requests.jsonl"):
        whole = (copy / name).read_bytes().splitlines(keepends=True)
        del whole[3]
        (copy / name).write_bytes(b"".join(whole))
    assert inside("run", recipe, "--run-dir", copy, *FAST).exit_code == 0
    assert_same(copy, undisturbed)


def test_a_journal_row_with_a_flipped_byte_is_an_error_not_a_wrong_result(recipe: Path, copy: Path) -> None:
    path = copy / "journal.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    whole[5] = whole[5][:60] + b'"' + whole[5][61:]
    path.write_bytes(b"".join(whole))
    result = inside("run", recipe, "--run-dir", copy, *FAST)
    assert result.exit_code == 2
    assert f"cai: error: {path}: the row at byte" in result.stderr
    assert not (copy / "metrics.json").exists()


# --- full disk -------------------------------------------------------------------------------------------------------


def file_limit(limit: int) -> Callable[[], None]:
    """No file may grow past `limit` bytes; the write that would fails with EFBIG (Python ignores SIGXFSZ)."""

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return prepare


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_a_full_disk_stops_the_run_and_the_same_command_finishes_it(
    recipe: Path, undisturbed: Path, tmp_path: Path, share: float
) -> None:
    folder = tmp_path / "run"
    limit = int(size(undisturbed / "requests.jsonl") * share)
    arguments = ("run", recipe, "--run-dir", folder, *FAST)
    code, stderr = outcome(start(*arguments, prepare=file_limit(limit)))
    assert code == 2, stderr
    error = stderr.splitlines()[-1]
    assert error.startswith(f"cai: error: {folder}/"), stderr
    assert "the disk is full (free some space and run the same command again; nothing finished is lost)" in error
    assert "Traceback" not in stderr
    for name in ("journal.jsonl", "requests.jsonl"):  # no half row stays behind
        assert not (folder / name).exists() or (folder / name).read_bytes()[-1:] in (b"", b"\n")
    assert list(folder.rglob("*.new")) == []
    kept = size(folder / "requests.jsonl")
    assert share < 0.1 or kept > 0.8 * limit
    code, stderr = outcome(start(*arguments))
    assert code == 0, stderr
    assert_same(folder, undisturbed)
    assert list(folder.glob("*.torn")) == []


def test_no_room_for_the_results(recipe: Path, undisturbed: Path, copy: Path) -> None:
    limit = size(undisturbed / "responses.jsonl") // 2
    code, stderr = outcome(start("export", recipe, "--run-dir", copy, prepare=file_limit(limit)))
    assert code == 2, stderr
    assert stderr.splitlines()[-1].startswith(f"cai: error: {copy}/responses.jsonl: the disk is full")
    assert not (copy / "responses.jsonl").exists()
    assert list(copy.rglob("*.new")) == []
    assert inside("run", recipe, "--run-dir", copy).exit_code == 0
    assert_same(copy, undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Take all the room but `leave` bytes."""
    found = os.statvfs(disk)
    path = disk / "filler"
    path.write_bytes(b"x" * (found.f_bavail * found.f_frsize - leave))
    return path


def test_a_really_full_disk(recipe: Path, undisturbed: Path, small_disk: Path) -> None:
    arguments = ("run", recipe, "--run-dir", small_disk / "run", *FAST)
    filler = fill(small_disk, 200_000)
    for _ in range(2):  # the second time it is full from the start
        code, stderr = outcome(start(*arguments))
        assert code == 2, stderr
        assert stderr.splitlines()[-1].startswith(f"cai: error: {small_disk}/run")
        assert "the disk is full" in stderr
        assert "Traceback" not in stderr
    filler.unlink()
    assert inside(*arguments).exit_code == 0
    assert_same(small_disk / "run", undisturbed)


@pytest.mark.parametrize("share", [0.2, 0.55, 0.75, 0.9, 0.97])
def test_a_disk_that_is_full_before_the_last_result(
    recipe: Path, undisturbed: Path, copy: Path, small_disk: Path, share: float
) -> None:
    folder = small_disk / "run"
    shutil.copytree(copy, folder)
    names = ("responses.jsonl", "quarantine.jsonl", "metrics.json", "sft/train.jsonl", "sft/train.parquet")
    filler = fill(small_disk, int(sum(size(undisturbed / name) for name in names) * share))
    result = inside("export", recipe, "--run-dir", folder)
    assert result.exit_code == 2
    error = result.stderr.splitlines()[-1]
    assert error.startswith(f"cai: error: {folder}/")
    assert "the disk is full (free some space" in error
    assert not (folder / "metrics.json").exists()
    assert list(folder.rglob("*.new")) == []
    filler.unlink()
    assert inside("export", recipe, "--run-dir", folder).exit_code == 0
    assert_same(folder, undisturbed)
