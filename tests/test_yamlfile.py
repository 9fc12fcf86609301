"""YAML that people edit: values, positions and messages."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from cai.errors import InputError
from cai.yamlfile import InvalidFile, StrictModel, load, parse, validate


class Inner(StrictModel):
    colour: str = ""
    names: tuple[str, ...] = ()


class Outer(StrictModel):
    title: str
    inner: tuple[Inner, ...] = ()


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidFile) as error:
        validate(parse(text, "f.yaml"), Outer)
    return [str(problem) for problem in error.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2001-01-01", "2001-01-01"),
        ("1_000", "1_000"),
        ("true", True),
        ("~", None),
        ("010", 10),
        ("08", 8),
        ("0o10", 8),
        ("0x1F", 31),
        ("-3", -3),
        ("1e3", 1000.0),
        ("-.inf", float("-inf")),
    ],
)
def test_plain_values_follow_yaml_1_2(text: str, value: object) -> None:
    data = parse(f"k: {text}").data
    assert data == {"k": value}
    assert type(data["k"]) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2", "f.yaml:2:2: not valid YAML: expected ',' or ']', but got ':'"),
        ("a: 1\nb: 2\na: 3", "f.yaml:3:1: the key 'a' is given twice"),
        (
            "a: !!python/name:os.system x",
            "f.yaml:1:4: the tag 'tag:yaml.org,2002:python/name:os.system' is not allowed",
        ),
        ("ab: c\n  d\x07", "f.yaml:2:4: the character U+0007 is not allowed"),
        ("a: &x [*x]", "f.yaml:1:4: an alias refers to the value that contains it"),
        ("[" * 5000, "f.yaml:1:1: nested too deeply"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1: not valid YAML: but found another document"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_position(text: str, message: str) -> None:
    with pytest.raises(InvalidFile) as error:
        parse(text, "f.yaml")
    assert str(error.value.problems[0]).startswith(message)


def test_a_few_aliases_are_fine_but_not_billions_of_values() -> None:
    assert parse("a: &x {b: 1}\nc: *x").data == {"a": {"b": 1}, "c": {"b": 1}}
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(InvalidFile, match="aliases repeat more than 10000 values"):
        parse("\n".join(lines))


def test_every_fault_is_reported_at_its_place() -> None:
    text = "titel: x\ninner:\n  - color: red\n    names: [1, [2]]\n  - colour:\n"
    assert problems(text) == [
        "f.yaml:1:1: the key 'title' is missing",
        "f.yaml:1:1: unknown key 'titel'; did you mean 'title'?",
        "f.yaml:3:5: unknown key 'color'; did you mean 'colour'?",
        "f.yaml:4:13: inner.0.names.0: must be text; put quotes around 1",
        "f.yaml:4:16: inner.0.names.1: must be text; not a list",
        "f.yaml:5:12: inner.1.colour: must be text; not nothing",
    ]


def test_an_unknown_key_with_no_near_one_lists_the_known() -> None:
    assert problems("title: x\nzzz: 1") == ["f.yaml:2:1: unknown key 'zzz'; known keys: inner, title"]


@pytest.mark.parametrize(("text", "kind"), [("", "empty"), ("- a", "a list"), ("word", "a str")])
def test_a_file_must_be_a_mapping(text: str, kind: str) -> None:
    assert problems(text) == [f"f.yaml:1:1: must be a mapping of keys to values, but is {kind}"]


def test_files_are_utf_8_and_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes("\ufeffa: é".encode())
    assert load(file).data == {"a": "é"}
    file.write_bytes("a: b\nc: é".encode("latin-1"))
    with pytest.raises(InvalidFile, match=r"f\.yaml:2:1: not UTF-8"):
        load(file)
    with pytest.raises(InputError, match="cannot read the file: No such file"):
        load(tmp_path / "none.yaml")


class _Inner(StrictModel):
    size: int = 0


class _Outer(StrictModel):
    inner: _Inner = _Inner()
    many: tuple[_Inner, ...] = ()
    names: tuple[str, ...] = ()
    table: dict[str, int] = Field(default_factory=dict)
    share: float = Field(0.5, le=1)
    on: bool = False
    how: Literal["fast", "slow"] = "fast"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("inner: big", "f:1:8: inner: must be a mapping of keys to values, not the text 'big'; keys: size"),
        ("many: [rule]", "f:1:8: many.0: must be a mapping of keys to values, not the text 'rule'; keys: size"),
        ("names: one", "f:1:8: names: must be a list, not the text 'one'"),
        ("table: [1]", "f:1:8: table: must be a mapping of keys to values, not a list"),
        ("inner: {size: big}", "f:1:15: inner.size: must be a whole number, not the text 'big'"),
        ("inner: {size: true}", "f:1:15: inner.size: must be a whole number, not true"),
        ("share: false", "f:1:8: share: must be a number, not false"),
        ("share: -.inf", "f:1:8: share: must be a finite number"),
        ("share: .nan", "f:1:8: share: must be a finite number"),
        ("table: true", "f:1:8: table: must be a mapping of keys to values, not true"),
        ("inner: {size: 1.5}", "f:1:15: inner.size: must be a whole number, not 1.5"),
        ("share: [1]", "f:1:8: share: must be a number, not a list"),
        ("share: 2", "f:1:8: share: must be less than or equal to 1"),
        ("on: maybe", "f:1:5: on: must be true or false, not the text 'maybe'"),
        ("on: ", "f:1:4: on: must be true or false, not nothing"),
        ("how: well", "f:1:6: how: must be 'fast' or 'slow'"),
    ],
)
def test_what_a_value_has_to_be_is_said_in_plain_words(text: str, told: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        validate(parse(text, "f"), _Outer)
    assert [str(problem) for problem in caught.value.problems] == [told]
