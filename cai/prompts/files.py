"""Bytes of a file, decompressed by what they are (not by what the file is called), and its lines.

Memory does not depend on the file's size, nor on how far it has been compressed.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol, cast

from cai.errors import InputError
from cai.prompts.rows import BadRow, Tick

CHUNK = 1 << 20

MAX_LINE = 16 << 20
"""Bytes of the longest line that is read; a longer one is reported as broken instead of filling the memory."""

READ_ERRORS = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)
"""What reading a torn or corrupt compressed file raises; pyarrow's errors are OSError and ValueError."""

_BATCH = 512
"""Rows of a Parquet file that are held at once."""

_BOM = b"\xef\xbb\xbf"


class _Chunks(Protocol):
    def read1(self, size: int, /) -> bytes: ...


class _ZstdChunks:
    """Zstandard by pyarrow, which Parquet needs anyway."""

    def __init__(self, raw: IO[bytes]) -> None:
        import pyarrow

        self._stream: Any = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), "zstd")

    def read1(self, size: int, /) -> bytes:
        return bytes(self._stream.read(min(size, 1 << 16)))


class _Ticking(io.RawIOBase):
    """A raw stream over `chunks`, so that a buffered reader on top never loses what was read before an error.

    `GzipFile.read` does: an EOFError in the middle of filling a large buffer takes the bytes before it along.
    """

    def __init__(self, chunks: _Chunks, raw: IO[bytes], tick: Tick | None) -> None:
        self._chunks, self._raw, self._tick = chunks, raw, tick

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._chunks.read1(len(buffer))
        buffer[: len(data)] = data
        if self._tick:
            self._tick(self._raw.tell())
        return len(data)


@contextlib.contextmanager
def open_bytes(path: Path, tick: Tick | None = None) -> Iterator[io.BufferedReader]:
    """The content of `path`, decompressed if its first bytes say gzip, xz, bzip2 or Zstandard.

    Raises:
        InputError: there is no such file, or it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        try:
            raw = stack.enter_context(io.BufferedReader(io.FileIO(path), CHUNK))
            chunks = _decompressed(raw)
        except OSError as error:
            raise InputError(f"cannot read the file: {error.strerror}", where=str(path)) from error
        yield io.BufferedReader(_Ticking(chunks, raw, tick), CHUNK)


def _decompressed(raw: io.BufferedReader[io.FileIO]) -> _Chunks:
    head = raw.peek(6)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if head.startswith(b"\xfd7zXZ\x00"):
        # LZMAFile and BZ2File have read1; only their stubs' parameter is named otherwise.
        return cast(_Chunks, lzma.LZMAFile(raw))
    if head.startswith(b"BZh"):
        return cast(_Chunks, bz2.BZ2File(raw))
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return _ZstdChunks(raw)
    return raw


def lines(path: Path, tick: Tick | None = None) -> Iterator[tuple[int, bytes] | BadRow]:
    """The lines of `path` with their numbers from 1, line ends kept; only a newline ends a line.

    A compressed file that is torn or corrupt yields a `BadRow` where it ends, after every whole line before that place.

    Raises:
        InputError: the file cannot be opened.
    """
    number = 0
    with open_bytes(path, tick) as stream:
        try:
            while line := stream.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE and not line.endswith(b"\n"):
                    while (rest := stream.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                        pass
                    yield BadRow(f"{path}:{number}", f"the line is longer than {MAX_LINE >> 20} MiB")
                    continue
                yield number, line.removeprefix(_BOM) if number == 1 else line
        except READ_ERRORS as error:
            reason = f"torn or corrupt from here on, nothing after can be read ({error})"
            yield BadRow(f"{path}:{number + 1}", reason, torn=True)


def text_lines(path: Path, tick: Tick | None = None) -> Iterator[tuple[int, str] | BadRow]:
    """`lines`, decoded from UTF-8 and without their line ends; a line that is not UTF-8 is a `BadRow`."""
    for line in lines(path, tick):
        yield line if isinstance(line, BadRow) else decoded(path, *line)


def decoded(path: Path, number: int, data: bytes) -> tuple[int, str] | BadRow:
    """A line of `lines` as text, without its line end."""
    try:
        return number, data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        return BadRow(f"{path}:{number}", f"not UTF-8 text (byte {error.start + 1} of the line)")


def is_parquet(path: Path) -> bool:
    """Whether a file is one, by its first bytes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror}", where=str(path)) from error


def parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a Parquet file, streaming, each with its place.

    Raises:
        InputError: it is torn or corrupt, with the place from which on.
    """
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except READ_ERRORS as error:
        raise InputError(f"torn or corrupt from here on ({error})", where=f"{path}:{number + 1}") from error
