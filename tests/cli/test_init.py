"""`cai init`: a project that works at once and never tramples on one's own files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cai.cli.main import app
from cai.config import load_recipe
from cai.constitution.load import load_constitution

SCRIPTED = ("--set", "models={policy: {backend: scripted}}")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cai(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


def test_the_project_lints_and_runs_at_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = cai("init", "mine").stdout
    assert "cai constitution lint" in told
    assert "models={policy: {backend: scripted}}" in told
    monkeypatch.chdir(here / "mine")
    assert cai("constitution", "lint").stdout == ""
    metrics = json.loads(cai("run", "recipe.yaml", *SCRIPTED, "--json").stdout)
    assert metrics["revise"]["prompts"] == 12
    assert metrics["sft"]["by_kind"]["revision"] > 0
    assert metrics["sft"]["by_kind"]["unrevised"] > 0
    assert "your-model: no model here" in cai("run", "recipe.yaml", code=2).stderr


def test_it_holds_what_the_default_constitution_uses(here: Path) -> None:
    cai("init", "mine")
    own = load_constitution(here / "mine/constitution/mine.yaml")
    assert own.name == "mine"
    assert [b.id for b in own.principles] == [b.id for b in load_constitution("default").principles]
    assert {path.stem for path in (here / "mine/principles").iterdir()} == {b.id for b in own.principles}
    for path in (here / "mine/principles").iterdir():
        schema = path.read_text().splitlines()[0].removeprefix("# yaml-language-server: $schema=")
        assert (path.parent / schema).is_file()
    rows = [json.loads(line) for line in (here / "mine/prompts.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert {"red-team", "helpful", "borderline", "multi-turn"} <= {tag for row in rows for tag in row["tags"]}


def test_the_recipe_teaches_every_key_and_names_the_projects_files(here: Path) -> None:
    cai("init", "mine")
    loaded = load_recipe(here / "mine/recipe.yaml")
    assert loaded.recipe.name == "mine"
    text = (here / "mine/recipe.yaml").read_text()
    for key in (*type(loaded.recipe).model_fields, *type(loaded.recipe.revise).model_fields):
        assert f"{key}:" in text, key
    assert "{{" not in text + (here / "mine/README.md").read_text()
    assert len((here / "mine/README.md").read_text().splitlines()) == 6


def test_nothing_is_overwritten_without_force(here: Path) -> None:
    (here / "prompts.jsonl").write_text("mine\n")
    (here / "other.txt").write_text("mine\n")
    line = cai("init", ".", code=2).stderr
    assert "prompts.jsonl: exists already (--force replaces them)" in line
    assert sorted(path.name for path in here.iterdir()) == ["other.txt", "prompts.jsonl"]
    cai("init", ".", "--force")
    assert (here / "prompts.jsonl").read_text() != "mine\n"
    assert (here / "other.txt").read_text() == "mine\n"
    assert "and " in cai("init", ".", code=2).stderr


@pytest.mark.parametrize(
    ("folder", "name"), [("a b", "a-b"), ("12", "12"), ("null", "null"), ("ä", "project"), (".x", "x")]
)
def test_any_folder_gives_a_name(here: Path, folder: str, name: str) -> None:
    assert json.loads(cai("init", folder, "--json").stdout)["name"] == name
    assert load_recipe(here / folder / "recipe.yaml").recipe.name == name
    assert load_constitution(here / folder / "constitution" / f"{name}.yaml").name == name


def test_another_constitution_and_another_name(here: Path) -> None:
    cai("init", "mine", "--constitution", "style", "--name", "lists")
    assert [path.name for path in (here / "mine/principles").iterdir()] == ["numbered-list.yaml"]
    assert load_constitution(here / "mine/constitution/lists.yaml").name == "lists"
    assert (
        "no constitution 'stile'; did you mean 'style'?" in cai("init", "x", "--constitution", "stile", code=2).stderr
    )
    assert "cannot be a name" in cai("init", "x", "--name", "a/b", code=2).stderr
    assert not (here / "x").exists()
