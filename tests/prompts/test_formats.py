"""The contract of every format, present and future: a new file in `formats/` fails here until it has a sample."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from cai.errors import InputError
from cai.prompts import BadRow, formats, read_prompts, read_rows
from cai.prompts.detect import detect
from cai.prompts.rows import ReadOptions, Row

THREE = ["How do tides work?", 'Say: "yes", then wait; 3 times.', "Ünïcödé 🙂 and a colon: here"]


def jsonl(folder: Path) -> Path:
    path = folder / "three.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}, ensure_ascii=False) + "\n" for text in THREE))
    return path


def hh(folder: Path) -> Path:
    path = folder / "pairs.jsonl"
    rows = [{key: f"\n\nHuman: {text}\n\nAssistant: {key}" for key in ("chosen", "rejected")} for text in THREE]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def red_team(folder: Path) -> Path:
    path = folder / "attempts.jsonl"
    rows = [{"transcript": f"\n\nHuman: {text}\n\nAssistant: no", "rating": 2.0, "tags": None} for text in THREE]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def text(folder: Path) -> Path:
    path = folder / "three.txt"
    path.write_text("\n".join(THREE))
    return path


def comma_separated(folder: Path) -> Path:
    path = folder / "three.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "prompt"], *([str(i), text] for i, text in enumerate(THREE))])
    return path


def parquet(folder: Path) -> Path:
    path = folder / "three.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prompt": THREE, "n": [1, 2, 3]}), path)
    return path


def dataset(folder: Path) -> Path:
    """What `Dataset.save_to_disk` writes; checked against the real one in test_tables.py."""
    path = folder / "saved"
    path.mkdir()
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, rows in zip(names, (THREE[:2], THREE[2:]), strict=True):
        table = pyarrow.table({"prompt": rows})
        with pyarrow.OSFile(str(path / name), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    (path / "dataset_info.json").write_text("{}")
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return path


SAMPLES: dict[str, Callable[[Path], Path]] = {
    "csv": comma_separated,
    "dataset": dataset,
    "hh": hh,
    "jsonl": jsonl,
    "parquet": parquet,
    "red-team": red_team,
    "text": text,
}


@pytest.fixture(params=formats.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_row_arrives_whole_and_in_order(name: str, tmp_path: Path) -> None:
    prompts = list(read_prompts(SAMPLES[name](tmp_path), name))
    assert [prompt.messages[-1].content for prompt in prompts] == THREE
    assert len({prompt.source for prompt in prompts}) == 3


def test_auto_finds_the_format(name: str, tmp_path: Path) -> None:
    path = SAMPLES[name](tmp_path)
    assert detect(path) == name
    assert list(read_prompts(path)) == list(read_prompts(path, name))


def test_yields_rows_with_their_place(name: str, tmp_path: Path) -> None:
    rows = list(formats.get(name)(SAMPLES[name](tmp_path), ReadOptions(), None))
    assert all(isinstance(row, Row) and int(row.where.rsplit(":", 1)[1]) > 0 for row in rows)


def test_tells_how_far_it_is(name: str, tmp_path: Path) -> None:
    seen: list[int] = []
    list(read_rows(SAMPLES[name](tmp_path), name, tick=seen.append))
    assert seen == sorted(seen)
    assert seen[-1] > 0


def test_a_missing_file_is_one_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_prompts(tmp_path / "missing", name)


def test_garbage_is_reported_not_raised_and_not_lost(name: str, tmp_path: Path) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(b'"\xff\xfe\x00 \x80\n\xff"\n')
    try:
        rows = list(read_rows(path, name))
    except InputError:
        return
    assert rows
    assert all(isinstance(row, BadRow) and str(path) in row.where and row.reason for row in rows)


def test_an_unknown_format_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in a recipe: format\).*jsonl, parquet, red-team"):
        read_prompts(jsonl(tmp_path), "jsonlines")


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: a"}, "hh"),
        ({"transcript": "\n\nHuman: a"}, "red-team"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "jsonl"),
        ("a plain string", "jsonl"),
    ],
)
def test_auto_looks_at_the_rows_past_a_broken_first_one(tmp_path: Path, row: object, format: str) -> None:
    path = tmp_path / "no_suffix"
    path.write_text("{torn\n" + json.dumps(row) + "\n")
    assert detect(path) == format


@pytest.mark.parametrize(
    ("lines", "format"),
    [
        (['{"prompt": "a"}', "", '{"prompt": "b"}'], "jsonl"),
        (["{torn", '{"transcript": "\\n\\nHuman: a"}'], "red-team"),
        (['{"question": "a"}'], "jsonl"),
        (["What is wrong with this?", '{"prompt": "a"}'], "text"),
        (["{braces} are no JSON"], "text"),
        ([""], "text"),
    ],
)
def test_json_lines_by_the_name_of_a_text_are_no_prompts_of_raw_json(
    tmp_path: Path, lines: list[str], format: str
) -> None:
    path = tmp_path / "x.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    assert detect(path) == format


def test_auto_says_when_it_cannot_tell(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("just words\n")
    with pytest.raises(InputError, match=r"cannot tell the format.*in a recipe: format"):
        detect(tmp_path / "notes")
