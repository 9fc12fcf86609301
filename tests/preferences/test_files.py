from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cai.errors import InputError, StoreError
from cai.preferences import formats, read_preferences, write_preferences
from cai.preferences.writing import arrow_schema
from cai.records import Preference
from cai.stages.select import Choice
from tests.preferences.made import made, many

os.environ.setdefault("HF_HUB_OFFLINE", "1")

NAMES = formats.names()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_split(choices: list[Choice], split: str) -> list[Preference]:
    return [choice.preference for choice in choices if choice.split == split]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_format_is_told_and_read_back(tmp_path: Path, name: str) -> None:
    choices = many()
    counts = write_preferences(tmp_path, iter(choices), name)
    expected = in_split(choices, "train") + in_split(choices, "test")
    found = list(read_preferences(tmp_path))
    assert [(each.messages, each.chosen, each.rejected) for each in found] == [
        (each.messages, each.chosen, each.rejected) for each in expected
    ]
    if not formats.load(name).LOST:
        assert found == expected
    assert counts.format == name
    assert counts.lost == formats.load(name).LOST
    assert (counts.preferences, counts.rows) == (40, 40 * formats.load(name).ROWS)
    assert counts.by_split == {"test": 14, "train": 26} == dict(counts.prompts) == dict(counts.groups)
    assert json.loads(json.dumps(counts.row()))["by_axis"] == {"harmless": 40}


@pytest.mark.parametrize("name", NAMES)
def test_datasets_loads_the_jsonl_files_and_reads_the_same_rows(tmp_path: Path, name: str) -> None:
    import datasets

    choices = many(12)
    write_preferences(tmp_path, choices, name)
    for split in ("train", "test"):
        data = datasets.load_dataset(
            "json", data_files={split: str(tmp_path / f"{split}.jsonl")}, cache_dir=str(tmp_path / "cache")
        )[split]
        module = formats.load(name)
        rows = data.to_list()
        pairs = [rows[i : i + module.ROWS] for i in range(0, len(rows), module.ROWS)]
        found = [module.read_rows(pair, where="x") for pair in pairs]
        assert [each.chosen for each in found] == [each.chosen for each in in_split(choices, split)]
        assert module.fits(rows[0])


def test_jsonl_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    choices = many()
    write_preferences(tmp_path, choices, row_group=7)
    for split in ("train", "test"):
        expected = in_split(choices, split)
        rows = [json.loads(line) for line in (tmp_path / f"{split}.jsonl").read_text().splitlines()]
        table = pq.read_table(tmp_path / f"{split}.parquet")
        assert table.to_pylist() == rows
        assert table.schema.equals(arrow_schema(formats.load("trl").COLUMNS))
        assert pq.ParquetFile(tmp_path / f"{split}.parquet").num_row_groups == -(-len(rows) // 7)
        assert {row["split"] for row in rows} == {split}
        for kind in ("jsonl", "parquet"):
            assert list(read_preferences(tmp_path / f"{split}.{kind}")) == expected


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b", "b"):
        write_preferences(tmp_path / folder, many(), row_group=7)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert set(files(tmp_path / "a")) == {"train.jsonl", "train.parquet", "test.jsonl", "test.parquet"}


def test_old_files_that_are_not_written_anew_go(tmp_path: Path) -> None:
    write_preferences(tmp_path, many())
    (tmp_path / "notes.txt").write_text("mine")
    write_preferences(tmp_path, [Choice(made(), "train")], "hh")
    assert set(files(tmp_path)) == {"train.jsonl", "notes.txt"}
    assert write_preferences(tmp_path, [], "trl").rows == 0
    assert set(files(tmp_path)) == {"notes.txt"}


def test_an_error_among_the_rows_leaves_the_old_files(tmp_path: Path) -> None:
    def failing() -> Iterator[Choice]:
        yield from many()[:30]
        raise StoreError("torn")

    write_preferences(tmp_path, many(8))
    before = files(tmp_path)
    with pytest.raises(StoreError, match="torn"):
        write_preferences(tmp_path, failing(), row_group=4)
    assert files(tmp_path) == before


def test_a_choice_that_is_no_row_and_an_unknown_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a row: tie"):
        write_preferences(tmp_path, [Choice(made(), None, "tie")])
    with pytest.raises(InputError, match=r"no format 'tlr'; did you mean 'trl'\?"):
        write_preferences(tmp_path, [], "tlr")


def test_what_the_format_cannot_carry_is_counted(tmp_path: Path) -> None:
    choices = [Choice(made(), "train"), Choice(made("Why?", p=0.5), "train"), Choice(made("W", " a "), "train")]
    counts = write_preferences(tmp_path, choices, "hh")
    assert (counts.preferences, counts.left_out) == (1, {"not_a_transcript": 1, "tie": 1})
    assert write_preferences(tmp_path, choices).left_out == {}


def test_the_counts(tmp_path: Path) -> None:
    one, other = made("Q", "long answer", "brief"), made("Q", "brief", "xy")
    counts = write_preferences(
        tmp_path, [Choice(one, "train"), Choice(other, "train"), Choice(made("R", "a", "b"), "test")]
    )
    assert counts.prompts == {"test": 1, "train": 1}
    assert counts.longer == {"equal": 1, "longer": 2}
    assert counts.by_principle == {"kind": 3}
    assert counts.by_tag == {"red-team": 3}
    assert (counts.by_source, counts.by_status) == ({"ai": 3}, {"ok": 3})


def test_broken_characters_are_mended_and_counted_and_lines_stay_lines(tmp_path: Path) -> None:
    hostile = 'say "no"\\ \n\r\n\t\x00\u2028\u2029\x85 \U0001f600'
    counts = write_preferences(
        tmp_path, [Choice(made(chosen=hostile), "train"), Choice(made("Q\ud800", chosen="x\udfff"), "train")]
    )
    assert counts.mended == 1
    assert len((tmp_path / "train.jsonl").read_text("utf-8").splitlines()) == 2
    for kind in ("jsonl", "parquet"):
        first, second = read_preferences(tmp_path / f"train.{kind}")
        assert first.chosen == hostile
        assert (second.messages[0].content, second.chosen) == ("Q\ufffd", "x\ufffd")


def test_columns_can_be_renamed_and_read_back(tmp_path: Path) -> None:
    rename = {"chosen": "better", "rejected": "worse"}
    choices = many(6)
    write_preferences(tmp_path, choices, "openrlhf", rename=rename)
    row = json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])
    assert list(row) == ["better", "worse", "margin", "id"]
    found = list(read_preferences(tmp_path / "train.jsonl", rename=rename))
    assert [each.p for each in found] == [each.p for each in in_split(choices, "train")]
    with pytest.raises(InputError, match="cannot tell the format"):
        list(read_preferences(tmp_path / "train.jsonl"))
    write_preferences(tmp_path, choices, rename={"p": "soft"})
    assert list(read_preferences(tmp_path, rename={"p": "soft"})) == list(read_preferences_of(choices))
    with pytest.raises(InputError, match="no column 'better'"):
        write_preferences(tmp_path, choices, rename={"better": "chosen"})
    with pytest.raises(InputError, match="same name"):
        write_preferences(tmp_path, choices, rename={"chosen": "rejected"})


def read_preferences_of(choices: list[Choice]) -> list[Preference]:
    return in_split(choices, "train") + in_split(choices, "test")


# --- reading


def line(preference: Preference, name: str = "trl") -> str:
    return "\n".join(json.dumps(row) for row in formats.load(name).write_rows(preference, "train"))


def test_a_broken_line_is_an_error_with_its_place_or_is_told_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(
        "\n".join([line(made("a")), "", "{torn", line(made("b")), "[1]", line(made("c")).replace("0.8", "2")])
    )
    with pytest.raises(InputError, match="not JSON") as caught:
        list(read_preferences(path))
    assert caught.value.where == f"{path}:3"
    told: list[InputError] = []
    found = list(read_preferences(path, broken=told.append))
    assert [each.messages[0].content for each in found] == ["a", "b"]
    assert [error.where for error in told] == [f"{path}:{n}" for n in (3, 5, 6)]


def test_unpaired_rows_find_their_partner_again_after_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    lines = "\n".join(line(made(text), "trl_unpaired") for text in "abc").splitlines()
    del lines[2]
    path.write_text("\n".join([*lines, lines[0]]))
    told: list[InputError] = []
    found = list(read_preferences(path, broken=told.append))
    assert [each.messages[0].content for each in found] == ["a", "c"]
    assert [(error.where, error.what.split(":")[0]) for error in told] == [
        (f"{path}:3", "has no partner"),
        (f"{path}:6", "has no partner"),
    ]


def test_compressed_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl.gz"
    talk = "\n\nHuman: Hi\n\nAssistant: "
    path.write_bytes(gzip.compress(json.dumps({"chosen": f"{talk}a", "rejected": f"{talk}b"}).encode()))
    (found,) = read_preferences(path)
    assert (found.chosen, found.source) == ("a", "human")
    assert list(read_preferences(tmp_path)) == [found]


def test_a_named_format_is_not_told_by_columns(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(line(made()))
    with pytest.raises(InputError, match="must be a text"):
        list(read_preferences(path, "hh"))


def test_nothing_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no Parquet or JSONL"):
        list(read_preferences(tmp_path))
    with pytest.raises(InputError, match="cannot read the file"):
        list(read_preferences(tmp_path / "missing.jsonl"))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="torn or corrupt"):
        list(read_preferences(tmp_path / "torn.parquet"))
