"""The JSON Schemas: up to date in the repository, and agreeing with what is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cai.constitution.find import shipped_dir
from cai.constitution.schema import MODELS, schema, write_schemas
from cai.errors import InputError
from cai.yamlfile import InvalidFile, load, parse, validate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def jsonschema() -> Any:
    """A validator; other packages bring it, we do not depend on it."""
    return pytest.importorskip("jsonschema")


def test_the_files_in_the_repository_are_up_to_date(tmp_path: Path) -> None:
    for path in write_schemas(tmp_path):
        committed = ROOT / "schema" / path.name
        assert committed.read_text() == path.read_text(), "run `cai constitution schema --write schema`"


@pytest.mark.parametrize("kind", MODELS)
def test_every_key_is_described(kind: str) -> None:
    top = schema(kind)
    assert top["title"] == f"cai {kind}"
    assert top["description"]
    undescribed = [
        f"{model.get('title')}.{key}"
        for model in (top, *top["$defs"].values())
        for key, value in model.get("properties", {}).items()
        if not value.get("description")
    ]
    assert [name for name in undescribed if not name.startswith("Turn.")] == []


@pytest.mark.parametrize(("kind", "folder"), [("principle", "principles"), ("constitution", "constitution")])
def test_the_shipped_files_agree_with_it(kind: str, folder: str, jsonschema: Any) -> None:
    files = sorted(shipped_dir(folder).glob("*.yaml"))
    assert files
    for file in files:
        jsonschema.validate(load(file).data, schema(kind))


WRONG: list[tuple[str, str]] = [
    ("principle", "id: a\ntitle: t\n"),
    ("principle", "id: a\ntitle: t\ncritique: c\n"),
    ("principle", "id: a b\ntitle: t\njudge: j\n"),
    ("principle", "id: a\ntitle: ''\njudge: j\n"),
    ("principle", "id: a\ntitle: t\njugde: j\njudge: j\n"),
    ("constitution", "name: a\n"),
    ("constitution", "name: a\nprinciples: []\n"),
    ("constitution", "name: a\nprinciples:\n  - id: a\n    tag: b\n"),
    ("constitution", "name: a\nprinciples:\n  - weight: 1\n"),
    ("constitution", "name: a\nprinciples:\n  - id: a\n    weight: -1\n"),
]


@pytest.mark.parametrize(("kind", "text"), WRONG)
def test_it_refuses_what_loading_refuses(kind: str, text: str, jsonschema: Any) -> None:
    data: Any = parse(text).data
    with pytest.raises(InvalidFile):
        validate(parse(text), MODELS[kind])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema(kind))


def test_an_unknown_kind_gets_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'principle'"):
        schema("principles")


def test_schemas_are_json(tmp_path: Path) -> None:
    (path,) = write_schemas(tmp_path / "new", ("principle",))
    assert json.loads(path.read_text()) == schema("principle")
