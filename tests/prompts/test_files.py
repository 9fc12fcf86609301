"""Compressed, torn and endless files."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest

from cai.errors import InputError
from cai.prompts import BadRow, files, read_prompts, read_rows
from cai.records import Prompt


def zst(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "bz2": bz2.compress,
    "zst": zst,
}


@pytest.fixture(params=COMPRESS)
def compress(request: pytest.FixtureRequest) -> Callable[[bytes], bytes]:
    return COMPRESS[request.param]


def many(count: int) -> bytes:
    """Lines that do not compress well, so that a torn file holds a good part of them."""
    random_ = random.Random(1)
    return b"".join(
        json.dumps({"prompt": f"{i} {random_.randbytes(200).hex()}"}).encode() + b"\n" for i in range(count)
    )


def test_compression_is_told_by_the_bytes_not_the_name(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "misnamed.jsonl"
    path.write_bytes(compress(many(50)))
    assert len(list(read_prompts(path))) == 50


def test_members_joined_by_cat_are_all_read(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "joined"
    path.write_bytes(compress(many(3)) + compress(many(2)))
    assert len(list(read_prompts(path))) == 5


def test_a_file_torn_in_the_middle_gives_its_whole_lines_and_one_report(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    path, data = tmp_path / "torn.jsonl", compress(many(8_000))
    path.write_bytes(data[: len(data) * 2 // 3])
    rows = list(read_rows(path))
    *good, last = rows
    assert isinstance(last, BadRow)
    assert last.where == f"{path}:{len(rows)}"
    assert "nothing after can be read" in last.reason
    assert all(isinstance(row, Prompt) for row in good)
    assert [row.messages[0].content.split()[0] for row in good if isinstance(row, Prompt)] == [
        str(i) for i in range(len(good))
    ]
    assert len(good) > 8_000 // 3  # bzip2 loses the most, a block of 900 kB


def test_a_torn_gzip_loses_no_whole_line(tmp_path: Path) -> None:
    """One byte short of the end mark, all lines are there."""
    path, data = tmp_path / "torn.jsonl", gzip.compress(many(8_000))
    path.write_bytes(data[:-9])
    assert sum(isinstance(row, Prompt) for row in read_rows(path)) >= 7_999


def test_flipped_bits_are_reported(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(many(5000)))
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "flipped.jsonl"
    path.write_bytes(data)
    rows = list(read_rows(path))
    assert any(isinstance(row, BadRow) and "corrupt" in row.reason for row in rows)


def test_a_line_beyond_the_limit_is_skipped_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE", 1000)
    path = tmp_path / "long.jsonl"
    path.write_text(f'{{"prompt": "a"}}\n{{"prompt": "{"x" * 5000}"}}\n{{"prompt": "b"}}\n')
    first, bad, last = read_rows(path)
    assert isinstance(bad, BadRow)
    assert bad.where.endswith(":2")
    assert "longer than" in bad.reason
    assert isinstance(first, Prompt)
    assert isinstance(last, Prompt)
    assert last.source.endswith(":3")


def test_a_last_line_without_a_newline_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b"}')
    assert len(list(read_prompts(path))) == 2


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the file"):
        list(read_rows(tmp_path, "jsonl"))
