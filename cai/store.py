"""Files that survive what happens to them: append-only logs found by key, atomic replacement, one writer at a time.

A `Log` is JSONL. Appending is one `write` of whole lines, so a killed process leaves at most one torn line, at the end;
opening the log sets that line aside (`<name>.torn`) and goes on. A failed write (full disk) is undone before the error
is raised, so the file never holds half a row followed by more.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from cai.errors import InputError, RunError, StoreError

_SYNC_EVERY = 2.0
"""Seconds between fsyncs: what a power cut may cost. A killed process loses nothing that was appended."""

_CHUNK = 1 << 20

_RESTORE = "restore the file from a copy, or delete that line: what it held is made again"


@contextlib.contextmanager
def readable(path: Path, *, where: str = "", mend: str) -> Iterator[None]:
    """Within it, what a user gave and cannot be read is theirs to mend, and no bug.

    Args:
        where: instead of the path, as the error names it.

    Raises:
        InputError: a file cannot be read, or is not UTF-8 text.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read it: {error.strerror}", where=where or str(path), mend=mend) from error
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text", where=where or str(path), mend=mend) from error


def encode(row: Mapping[str, Any]) -> bytes:
    """One JSON line with its newline. Text stays readable; a lone surrogate, which UTF-8 cannot carry, is escaped."""
    try:
        return json.dumps(row, ensure_ascii=False, separators=(", ", ": ")).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row, ensure_ascii=True, separators=(", ", ": ")).encode() + b"\n"


def disk_error(error: OSError, path: Path) -> StoreError:
    """The `StoreError` that a failed read or write means to a user."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    what = "the disk is full" if full else f"cannot write: {error.strerror}"
    mend = "free some space and run the same command again; nothing finished is lost" if full else "check the folder"
    return StoreError(what, where=str(path), mend=mend)


def _unreadable(error: OSError, path: Path) -> StoreError:
    return StoreError(
        f"cannot read: {error.strerror}", where=str(path), mend="check the disk and the file's permissions"
    )


class Log:
    """Append-only JSONL whose rows are found by the text under `key`.

    Memory: about 150 bytes a row (a 12-byte digest and an offset), whatever the rows' size. A key that is appended
    again replaces the earlier row for readers; both stay in the file.

    Args:
        path: created with its folder when missing.
        key: the field whose text names a row.
        read_only: leave the file as it is, a torn last line (which its writer may be about to finish) included.

    Raises:
        StoreError: the file cannot be opened, or a line before the last is not a row.
    """

    def __init__(self, path: Path, *, key: str = "id", read_only: bool = False) -> None:
        self.path = path
        self.key = key
        self._read_only = read_only
        self._index: dict[bytes, int] = {}
        # The key is near the front of every line we write; parsing the whole line only to find it would cost minutes.
        # A short prefix of plain values may stand before it (`schema`), anything else takes the slow way.
        self._key_pattern = re.compile(rb'\{(?:"schema": \d+, )?"' + re.escape(key).encode() + rb'": "([^"\\]*)"')
        try:
            if read_only:
                self._fd = os.open(path, os.O_RDONLY)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise (_unreadable if read_only else disk_error)(error, path) from error
        self._synced = time.monotonic()
        try:
            self._size = self._scan()
        except OSError as error:
            os.close(self._fd)
            raise _unreadable(error, path) from error
        except BaseException:
            os.close(self._fd)
            raise

    def _scan(self) -> int:
        offset = number = 0
        last = b""
        with open(os.dup(self._fd), "rb", buffering=_CHUNK) as file:  # noqa: PTH123 (a descriptor, not a path)
            file.seek(0)
            for line in file:
                if last:
                    self._index[_digest(self._key_of(last, number))] = offset
                    offset += len(last)
                last = line
                number += 1
        if last:
            # A killed process leaves half a line; a crash of the machine can also leave zeros or stale bytes in the
            # last block. Only the last line may be so.
            try:
                if not last.endswith(b"\n"):
                    raise ValueError("torn")
                key = str(json.loads(last)[self.key])
            except (ValueError, KeyError, TypeError):
                self._set_aside(last, offset)
            else:
                self._index[_digest(key)] = offset
                offset += len(last)
        return offset

    def _set_aside(self, torn: bytes, offset: int) -> None:
        if self._read_only:
            return
        try:
            with self.path.with_name(self.path.name + ".torn").open("ab") as file:
                file.write(torn.rstrip(b"\n") + b"\n")
            os.ftruncate(self._fd, offset)
        except OSError as error:
            raise disk_error(error, self.path) from error

    def _key_of(self, line: bytes, number: int) -> str:
        try:
            match = self._key_pattern.match(line)
            if match and line.endswith(b"}\n"):
                return match.group(1).decode()
            return str(json.loads(line)[self.key])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"line {number} is not a row with the key {self.key!r}",
                where=str(self.path),
                mend=_RESTORE,
            ) from error

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: str) -> bool:
        return _digest(key) in self._index

    def get(self, key: str) -> dict[str, Any] | None:
        """The newest row with this key, or None.

        Raises:
            StoreError: the row cannot be read back.
        """
        offset = self._index.get(_digest(key))
        if offset is None:
            return None
        row = self._read_at(offset)
        return row if row.get(self.key) == key else None

    def _read_at(self, offset: int) -> dict[str, Any]:
        data, size = b"", 4096
        while not data.endswith(b"\n"):
            try:
                data = os.pread(self._fd, size, offset)
            except OSError as error:
                raise _unreadable(error, self.path) from error
            end = data.find(b"\n")
            if end >= 0:
                data = data[: end + 1]
            elif len(data) < size:
                break
            size *= 4
        try:
            row = json.loads(data)
            if not isinstance(row, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise StoreError(f"the row at byte {offset} cannot be read", where=str(self.path), mend=_RESTORE) from error
        return row

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row behind the others.

        Raises:
            StoreError: the disk is full or the file cannot be written; the log is left as it was before.
        """
        line, digest = encode(row), _digest(str(row[self.key]))
        try:
            written = os.write(self._fd, line)
            if written < len(line):  # a full disk takes what fits; the next write says why
                os.write(self._fd, line[written:])
                if os.fstat(self._fd).st_size != self._size + len(line):
                    raise OSError(errno.ENOSPC, "short write")
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise disk_error(error, self.path) from error
        self._index[digest] = self._size
        self._size += len(line)
        if time.monotonic() - self._synced > _SYNC_EVERY:
            self.sync()

    def sync(self) -> None:
        """Force what was appended to the disk."""
        if self._read_only:
            return
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise disk_error(error, self.path) from error
        self._synced = time.monotonic()

    def close(self) -> None:
        if self._fd >= 0:
            try:
                self.sync()
            finally:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file of ours, streaming; a torn last line is left out: its writer was killed, or writes.

    Raises:
        StoreError: the file cannot be read, or a line before the last is not a JSON object.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError("not an object")
                except ValueError as error:
                    raise StoreError("not a JSON object", where=f"{path}:{number}", mend=_RESTORE) from error
                yield row
    except OSError as error:
        raise _unreadable(error, path) from error


def given_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a JSONL file that a user gave, streaming, each with its line's number; blank lines are skipped.

    Many tools leave out the last newline: such a last line is a row like the others.

    Raises:
        InputError: the file cannot be read, or a line is not a JSON object.
    """
    with readable(path, mend="check the path and the file's permissions"), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("not an object")
            except (ValueError, RecursionError) as error:
                raise InputError(
                    "not a JSON object", where=f"{path}:{number}", mend="write one JSON object a line"
                ) from error
            yield number, row


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a whole file anew: readers see the old one or the new one, never half of it.

    Raises:
        StoreError: the disk is full or the folder cannot be written; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb", buffering=_CHUNK) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise disk_error(error, path) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """`text` as the whole content of `path`, atomically."""
    with replacing(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """`value` as an indented JSON document, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _release_in_child() -> None:
    for lock in list(_held):
        lock.release()


# A forked child shares the descriptor: a backend's worker that outlives a killed run would go on holding its folder.
os.register_at_fork(after_in_child=_release_in_child)


class Lock:
    """An exclusive hold on a folder, freed by the kernel when the process ends, however it ends.

    Raises:
        RunError: another process holds it; names its pid.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / ".lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise disk_error(error, path) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self.release()
            raise RunError(
                f"another process (pid {holder}) is working on this run",
                where=str(folder),
                mend="wait for it to end, or give another --run-dir",
            ) from error
        with contextlib.suppress(OSError):  # on a full disk the hold stands even if the pid cannot be written
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, str(os.getpid()).encode(), 0)
        _held.add(self)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
