"""YAML that people edit: loaded safely, with the line and column of every value, validated with errors that help.

Values follow YAML 1.2's core schema, so `no`, `on` and `12:30` stay text: an editor who titles a principle "No" gets
the word, not a boolean. Tags (`!!python/...` and any other) are refused, and so are duplicate keys.
"""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

from cai.errors import InputError

Loc = tuple[str | int, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)


class StrictModel(BaseModel):
    """Base of everything read from a file that people write: unknown keys are errors, numbers are finite, instances
    are frozen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool):  # pydantic would count `true` as 1
            wanted = cls.model_fields[str(info.field_name)].annotation
            union = typing.get_origin(wanted) in (typing.Union, types.UnionType)
            kinds = set(typing.get_args(wanted)) if union else {wanted}
            if bool not in kinds and kinds & {int, float}:
                raise PydanticKnownError("int_type" if int in kinds else "float_type")
        return value


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with a file; prints as `file:line:column: message`. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class InvalidFile(InputError):
    """A file that does not say what it has to; `problems` holds every fault found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first, more = problems[0], len(problems) - 1
        super().__init__(
            first.message + (f"; and {more} more" if more else ""),
            where=f"{first.file}:{first.line}:{first.column}",
        )
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Document:
    """A parsed file: plain `data`, and where each value stands in the text."""

    file: str
    data: Any
    marks: Mapping[Loc, tuple[int, int]]
    key_marks: Mapping[Loc, tuple[int, int]]

    def problem(self, loc: Loc, message: str, *, key: bool = False) -> Problem:
        """A `Problem` at `loc` (at the key itself with `key=True`), or at its nearest enclosing value."""
        marks = self.key_marks if key else self.marks
        while loc and loc not in marks and loc not in self.marks:
            loc = loc[:-1]
        line, column = marks.get(loc) or self.marks.get(loc) or (1, 1)
        return Problem(self.file, line, column, message)


class _Loader(yaml.SafeLoader):
    """SafeLoader whose plain values follow YAML 1.2's core schema."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        # PyYAML's own reads 010 as eight and refuses 08; in YAML 1.2 only 0o starts an octal number.
        text = str(self.construct_scalar(node)).lower()
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.yaml_implicit_resolvers = {}
CORE_VALUES = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
)
"""Kind, pattern and possible first characters of the plain scalars that are not text."""
for _tag, _pattern, _first in CORE_VALUES:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), [*_first, ""])

_MOST_ALIASED = 10_000
"""Values that aliases may repeat in one file: a few nested aliases can otherwise stand for billions."""

_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "null", "str", "seq", "map")}


def load(path: Path | str) -> Document:
    """Read one YAML document.

    Raises:
        InvalidFile: not UTF-8, not YAML, a tag, a duplicate key; with the position.
        InputError: the file cannot be read.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror}", where=str(path)) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = Problem(str(path), line, 1, "not UTF-8 text; save the file as UTF-8")
        raise InvalidFile([problem]) from error
    return parse(text, str(path))


def parse(text: str, file: str = "<text>") -> Document:
    """Parse YAML `text`; see `load`."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        message = error.problem or str(error)
        raise InvalidFile([Problem(file, line, column, f"not valid YAML: {message}")]) from error
    except yaml.reader.ReaderError as error:
        before = text[: int(error.position)]
        place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise InvalidFile([Problem(file, *place, f"the character U+{error.character:04X} is not allowed")]) from error
    except RecursionError as error:
        raise InvalidFile([Problem(file, 1, 1, "nested too deeply")]) from error
    except yaml.YAMLError as error:
        raise InvalidFile([Problem(file, 1, 1, f"not valid YAML: {error}")]) from error
    marks: dict[Loc, tuple[int, int]] = {}
    key_marks: dict[Loc, tuple[int, int]] = {}
    problems: list[Problem] = []
    constructor = _Loader("")
    seen: set[int] = set()
    aliased = 0

    def build(node: Any, loc: Loc, inside: tuple[int, ...]) -> Any:
        nonlocal aliased
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        marks[loc] = (line, column)
        if id(node) in seen:
            aliased += 1
            if aliased == _MOST_ALIASED:
                problems.append(Problem(file, line, column, f"aliases repeat more than {_MOST_ALIASED} values"))
            if aliased >= _MOST_ALIASED:
                return None
        seen.add(id(node))
        if id(node) in inside:
            problems.append(Problem(file, line, column, "an alias refers to the value that contains it"))
            return None
        inside = (*inside, id(node))
        if node.tag not in _PLAIN_TAGS:
            problems.append(Problem(file, line, column, f"the tag {node.tag!r} is not allowed; plain YAML only"))
            return None
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                place = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
                if not isinstance(key_node, yaml.ScalarNode):
                    problems.append(Problem(file, *place, "a key must be plain text"))
                    continue
                key = str(key_node.value)
                if key in result:
                    problems.append(Problem(file, *place, f"the key {key!r} is given twice"))
                    continue
                key_marks[(*loc, key)] = place
                result[key] = build(value_node, (*loc, key), inside)
            return result
        if isinstance(node, yaml.SequenceNode):
            return [build(item, (*loc, index), inside) for index, item in enumerate(node.value)]
        try:
            return constructor.construct_object(node)  # a scalar with one of the plain tags
        except (yaml.YAMLError, ValueError) as error:
            problems.append(Problem(file, line, column, f"cannot read this value: {error}"))
            return None

    data = build(node, (), ()) if node is not None else None
    if problems:
        raise InvalidFile(sorted(problems))
    return Document(file, data, marks, key_marks)


def nearest(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` for the known word nearest to `word`, or the empty string."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def validate(document: Document, model: type[ModelT]) -> ModelT:
    """The document as `model`.

    Raises:
        InvalidFile: with one problem per fault, each at its line and column; unknown keys name the nearest known one.
    """
    if not isinstance(document.data, dict):
        kind = "empty" if document.data is None else f"a {type(document.data).__name__}"
        raise InvalidFile([document.problem((), f"must be a mapping of keys to values, but is {kind}")])
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        # pydantic leaves faulty items out before it counts them, and so calls a list too short that is not.
        inside = {fault["loc"][:length] for fault in faults for length in range(len(fault["loc"]))}
        faults = [fault for fault in faults if fault["type"] != "too_short" or fault["loc"] not in inside]
        problems = [_problem(document, model, fault) for fault in faults]
        raise InvalidFile(sorted(set(problems))) from error


_WANTED = {
    ("model_type", "model_attributes_type", "dict_type", "mapping_type"): "a mapping of keys to values",
    ("tuple_type", "list_type", "set_type", "frozen_set_type"): "a list",
    ("int_",): "a whole number",
    ("float_", "decimal_"): "a number",
    ("bool_",): "true or false",
}
"""What a value has to be, by the beginnings of pydantic's names for the faults."""


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    kinds = {dict: "a mapping", list: "a list", bool: str(value).lower(), str: f"the text {str(value)[:40]!r}"}
    return kinds.get(type(value), str(value))


def _problem(document: Document, model: type[BaseModel], fault: Any) -> Problem:
    loc = tuple(part for part in fault["loc"] if isinstance(part, int | str))
    name = ".".join(str(part) for part in loc)
    if fault["type"] == "extra_forbidden":
        known = _known_keys(model, loc[:-1])
        message = f"unknown key {str(loc[-1])!r}{nearest(str(loc[-1]), known)}"
        if not nearest(str(loc[-1]), known):
            message += f"; known keys: {', '.join(known)}"
        return document.problem(loc, message, key=True)
    if fault["type"] == "missing":
        return document.problem(loc[:-1], f"the key {str(loc[-1])!r} is missing")
    if fault["type"] == "string_type":
        given = fault["input"]
        kind = {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(given))
        hint = f"not {kind}" if kind else f"put quotes around {given}"
        return document.problem(loc, f"{name}: must be text; {hint}")
    if fault["type"] == "string_pattern_mismatch":
        allowed = "letters, digits, '.', '_' and '-', the first a letter or a digit"
        return document.problem(loc, f"{name}: {fault['input']!r} must be a name: {allowed}")
    if fault["type"] == "too_short":
        return document.problem(loc, f"{name}: give at least {fault['ctx']['min_length']}")
    wanted = next((words for kinds, words in _WANTED.items() if fault["type"].startswith(kinds)), "")
    if wanted:
        hint = f"; keys: {', '.join(_known_keys(model, loc))}" if fault["type"].startswith("model_") else ""
        return document.problem(loc, f"{name}: must be {wanted}, not {_kind(fault['input'])}{hint}")
    message = str(fault["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    return document.problem(loc, f"{name}: {message}" if name else message)


def _known_keys(model: type[BaseModel], loc: Loc) -> list[str]:
    models: list[type[BaseModel]] = [model]
    for part in loc:
        if isinstance(part, int):
            continue
        inner = [
            m for each in models if part in each.model_fields for m in models_in(each.model_fields[part].annotation)
        ]
        models = inner or models
    return sorted({key for each in models for key in each.model_fields})


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field of this type can hold."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in typing.get_args(annotation) for found in models_in(part)]
