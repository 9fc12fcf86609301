"""CSV, plain text, Parquet and data sets on disk: what is particular to each."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from cai.errors import InputError
from cai.prompts import BadRow, ReadOptions, files, read_prompts, read_rows
from cai.prompts.formats import csv as csv_format
from cai.records import Message, Prompt


def texts(path: Path, format: str = "auto", **options: object) -> list[str]:
    return [row.messages[-1].content for row in read_prompts(path, format, options=ReadOptions(**options))]  # type: ignore[arg-type]


def test_csv_cells_span_lines_and_hold_tags(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbfprompt,tags\r\n"one, two\nthree",a; b\r\nfour,\r\n')
    first, second = read_prompts(path)
    assert (first.messages[0].content, first.tags, first.source) == ("one, two\nthree", ("a", "b"), f"{path}:2")
    assert (second.tags, second.source) == ((), f"{path}:4")


@pytest.mark.parametrize("delimiter", ["\t", ";"])
def test_csv_delimiters(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "x.tsv"
    path.write_text(f"id{delimiter}prompt\n1{delimiter}a, b\n")
    assert texts(path) == ["a, b"]


def test_csv_says_which_columns_there_are(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,question\n1,a\n")
    with pytest.raises(InputError, match="id, question; name the one"):
        list(read_rows(path))
    with pytest.raises(InputError, match="no column 'query'; columns: id, question"):
        list(read_rows(path, options=ReadOptions(fields=("query",))))
    assert texts(path, fields=("question",)) == ["a"]


def test_csv_rows_that_do_not_fit_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"id,prompt\n1,good\n2\n3,too,many\n4,\xff\n5,\n6,good\n")
    rows = list(read_rows(path))
    assert [row.where.rsplit(":", 1)[1] for row in rows if isinstance(row, BadRow)] == ["3", "4", "5", "6"]
    assert sum(isinstance(row, Prompt) for row in rows) == 2


def test_csv_a_quote_never_closed_does_not_swallow_the_rest_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('id,prompt\n1,good\n2,"never closed\n3,lost\n4,lost\n')
    good, bad = read_rows(path)
    assert isinstance(good, Prompt)
    assert isinstance(bad, BadRow)
    assert bad.where == f"{path}:3"
    assert "up to line 5" in bad.reason


def test_csv_a_quote_never_closed_is_given_up_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import csv

    before = csv.field_size_limit()
    monkeypatch.setattr(csv_format, "MAX_FIELD", 50)
    csv.field_size_limit(50)
    try:
        path = tmp_path / "x.csv"
        path.write_text('id,prompt\n1,"never closed\n' + "".join(f"{i},good\n" for i in range(2, 30)))
        rows = list(read_rows(path))
    finally:
        csv.field_size_limit(before)
    assert isinstance(rows[0], BadRow)
    assert isinstance(rows[-1], Prompt)
    assert rows[-1].source == f"{path}:30 id=29"


def test_csv_a_line_too_long_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE", 100)
    path = tmp_path / "x.csv"
    path.write_text(f"prompt\na\n{'x' * 500}\nb\n")
    rows = list(read_rows(path))
    assert [type(row) for row in rows] == [Prompt, Prompt, BadRow]


def test_csv_without_a_header_of_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    for header in ("prompt,prompt\n", "prompt,\n", ""):
        path.write_text(header)
        with pytest.raises(InputError, match=r"must name every column|there is: nothing"):
            list(read_rows(path))


def test_text_has_a_prompt_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("  one: two \r\n\n\nthree\n")
    assert texts(path) == ["one: two", "three"]
    assert [prompt.source for prompt in read_prompts(path)] == [f"{path}:1", f"{path}:4"]


def test_text_has_a_prompt_a_paragraph_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"\none\n  two\n \nbroken \xff\nstill broken\n\nthree\n")
    rows = list(read_rows(path, options=ReadOptions(paragraphs=True)))
    assert [row.messages[0].content if isinstance(row, Prompt) else row.where for row in rows] == [
        "one\n  two",
        f"{path}:5",
        "three",
    ]
    assert [row.source for row in rows if isinstance(row, Prompt)] == [f"{path}:2", f"{path}:8"]


def test_text_has_no_fields(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a\n")
    with pytest.raises(InputError, match=r"no fields.*in a recipe: fields"):
        read_prompts(tmp_path / "x.txt", options=ReadOptions(fields=("prompt",)))


def test_parquet_holds_messages_and_nulls(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    table = pyarrow.table({"messages": [turns, None], "tags": [["x"], []], "other": [1, 2]})
    pyarrow.parquet.write_table(table, path)
    prompt, bad = read_rows(path)
    assert isinstance(prompt, Prompt)
    assert prompt.messages == (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    assert prompt.tags == ("x",)
    assert isinstance(bad, BadRow)
    assert bad.where == f"{path}:2"


def test_parquet_of_nested_fields(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"task": [{"text": "a", "n": 1}], "prompt": ["b"]}), path)
    assert texts(path, fields=("task.text",)) == ["a"]


def test_parquet_without_a_prompt_column_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"question": ["a"]}), path)
    with pytest.raises(InputError, match="there is: question"):
        list(read_rows(path))


def test_a_torn_parquet_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["a"] * 100}), path)
    path.write_bytes(path.read_bytes()[:-20])
    (bad,) = read_rows(path)
    assert isinstance(bad, BadRow)


def test_a_data_set_that_datasets_saved(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": f"question {i}"} for i in range(2500)]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved", num_shards=3)
    assert texts(tmp_path / "saved") == [row["prompt"] for row in rows]


def test_splits_are_never_mixed(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    part = datasets.Dataset.from_list([{"prompt": "a"}])
    datasets.DatasetDict(train=part, test=part).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match="test, train"):
        list(read_rows(tmp_path / "saved"))
    assert texts(tmp_path / "saved" / "train") == ["a"]


def test_a_torn_arrow_file_gives_what_is_whole_and_a_report(tmp_path: Path) -> None:
    table = pyarrow.table({"prompt": [f"{i}" * 100 for i in range(1000)]})
    path = tmp_path / "x.arrow"
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *good, bad = read_rows(path)
    assert isinstance(bad, BadRow)
    assert bad.where == f"{path}:{len(good) + 1}"
    assert len(good) >= 100


def test_a_folder_without_a_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data set here"):
        list(read_rows(tmp_path))
