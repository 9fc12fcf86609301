"""Lint: every fault, at its place, in one pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from cai.constitution.lint import lint
from cai.errors import InputError
from cai.scaffold import scaffold

from .conftest import Project


def found(*paths: str | Path) -> list[str]:
    return [str(problem) for problem in lint(paths)]


def messages(*paths: str | Path) -> list[str]:
    return [problem.message for problem in lint(paths)]


def test_a_sound_project_has_no_problems(project: Project) -> None:
    project.principle("a")
    project.principle("b", judge="Which answer is b?")
    project.constitution("x", ["a", {"id": "b", "weight": 0.5, "level": "rule"}])
    assert found() == []


def test_what_is_shipped_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert found() == []
    assert found("default") == []


def test_all_problems_of_all_files_are_reported_at_once(project: Project) -> None:
    project.write("principles/broken.yaml", "id: broken\ntitle: [\n")
    project.write("principles/named-otherwise.yaml", "id: other\ntitel: t\ncritique: c\n")
    project.principle("good")
    project.write(
        "constitution/x.yaml",
        "name: y\n"
        "few_shots: []\n"
        "principles:\n"
        "  - {id: good, weight: -1}\n"
        "  - {id: goood}\n"
        "  - {id: good, level: gaol}\n"
        "  - {id: good}\n"
        "  - {tag: nothing}\n"
        "  - {id: good, tag: nothing}\n"
        "templates:\n"
        "  critique: '{request} {reqest}'\n"
        "  revision: 'Go.'\n",
    )
    slots = "the slots are {request}, {precedence}, {rules}"
    levels = "levels: rule, goal, default"
    assert found() == [
        "constitution/x.yaml:1:7: the name 'y' must be the file's name, 'x'",
        "constitution/x.yaml:2:1: unknown key 'few_shots'; did you mean 'few_shot'?",
        "constitution/x.yaml:4:24: principles.0.weight: the weight must be a finite number of at least 0, not -1.0",
        "constitution/x.yaml:5:10: no principle 'goood' in principles or the shipped ones; did you mean 'good'?",
        f"constitution/x.yaml:6:23: unknown level 'gaol'; did you mean 'goal'?; {levels}",
        "constitution/x.yaml:7:10: the principle 'good' is given twice",
        "constitution/x.yaml:8:11: no principle in principles or the shipped ones has the tag 'nothing'",
        "constitution/x.yaml:9:5: principles.5: give either 'id' or 'tag'",
        f"constitution/x.yaml:11:13: templates.critique: unknown slot {{reqest}}; did you mean 'request'?; {slots}",
        "constitution/x.yaml:12:13: templates.revision: "
        f"the slot {{request}} is missing, so the principle would never be asked; {slots}",
        "principles/broken.yaml:3:1: not valid YAML: expected the node content, but found '<stream end>'",
        "principles/named-otherwise.yaml:1:1: the key 'title' is missing",
        "principles/named-otherwise.yaml:1:5: the id 'other' must be the file's name, 'named-otherwise'",
        "principles/named-otherwise.yaml:2:1: unknown key 'titel'; did you mean 'title'?",
    ]


@pytest.mark.parametrize("weight", ["-1", "-0.5", ".nan", ".inf", "true", "lots"])
def test_impossible_weights(project: Project, weight: str) -> None:
    project.principle("a")
    path = project.write("constitution/x.yaml", f"name: x\nprinciples:\n  - id: a\n    weight: {weight}\n")
    (problem,) = lint([path])
    assert (problem.line, problem.column) == (4, 13)


def test_weights_that_are_all_zero(project: Project) -> None:
    for name in ("a", "b"):
        project.principle(name)
    path = project.constitution("x", [{"id": "a", "weight": 0}, {"id": "b", "weight": 0}])
    assert messages(path) == ["every weight is 0, so no principle can be drawn"]
    project.constitution("x", [{"id": "a", "weight": 0}, {"id": "b", "weight": -1}])
    assert [m for m in messages(path) if "every" in m] == []  # the broken weight was not meant to be 0


def test_an_example_whose_answers_are_the_same(project: Project) -> None:
    text = "id: p\ntitle: t\njudge: Which?\nexamples:\n  - {prompt: Hi, better: Yes, worse: No}\n"
    path = project.write("principles/p.yaml", text + "  - {prompt: Hi, better: Yes, worse: 'Yes '}\n")
    assert found(path) == ["principles/p.yaml:6:38: the two answers of the example are the same"]


@pytest.mark.parametrize("beside", ["", "tilte: t\n"])
def test_a_worked_example_that_no_chat_template_takes(project: Project, beside: str) -> None:
    project.principle("a")
    text = f"name: x\nprinciples: [{{id: a}}]\n{beside}few_shot:\n"
    for roles in ("user assistant", "user", "assistant system user", "system user assistant", "user user assistant"):
        turns = ", ".join(f"{{role: {role}, content: c}}" for role in roles.split())
        text += f"  - messages: [{turns}]\n"
    problems = lint([project.write("constitution/x.yaml", text + "  - {text: free}\n")])
    wrong = [p for p in problems if "user and assistant must take turns" in p.message]
    first = text.splitlines().index("few_shot:") + 2
    assert [(p.line, p.column) for p in wrong] == [(first + at, 15) for at in (1, 2, 3, 4)]
    assert len(problems) == 4 + bool(beside)


def test_a_dangling_tag_gets_the_nearest(project: Project) -> None:
    project.principle("a", tags=["safety"])
    path = project.constitution("x", [{"tag": "saftey"}])
    places = "principles or the shipped ones"
    assert messages(path) == [f"no principle in {places} has the tag 'saftey'; did you mean 'safety'?"]


def test_levels_given_twice(project: Project) -> None:
    project.principle("a")
    path = project.constitution("x", [{"id": "a", "level": "must"}], levels=[{"name": "must"}, {"name": "must"}])
    assert messages(path) == ["the level 'must' is given twice"]


def test_a_constitution_brings_the_faults_of_the_principles_it_names(project: Project) -> None:
    project.write("principles/a.yaml", "id: a\ntitle: t\n")
    path = project.constitution("x", ["a"])
    expected = ["principles/a.yaml:1:1: give 'critique' and 'revision', or 'judge', or all three"]
    assert found(path) == expected
    assert found() == expected  # once, though it is met twice
    assert found(path.resolve()) == expected


def test_near_duplicates_are_found_even_beside_other_faults(project: Project) -> None:
    text = "Point out every place where the last answer talks down to the user or explains what nobody asked about."
    reworded = text.replace("every place", "each passage").replace("nobody asked about", "was not asked")
    project.principle("a", critique=text, revision="Rewrite the answer so that it speaks as one adult to another.")
    project.principle("b", critique=reworded, revision="Rewrite the answer so that it talks as one adult to another.")
    project.principle("c")
    path = project.constitution("x", ["a", "c", {"tag": "none"}, "b"], tilte="t")
    near = [problem for problem in lint([path]) if "near-duplicates" in problem.message]
    assert [problem.line for problem in near] == [7]
    assert near[0].message.startswith("the principles 'a' and 'b' are near-duplicates (8")
    project.constitution("x", ["a", "c", {"id": "b", "weight": 0}])
    assert found(path) == []


def test_a_principle_file_anywhere_is_told_from_a_constitution(project: Project) -> None:
    loose = project.write("loose/p.yaml", "id: p\ntitle: t\njudge: Which?\nexmaples: []\n")
    assert messages(loose) == ["unknown key 'exmaples'; did you mean 'examples'?"]
    other = project.write("loose/c.yaml", "name: c\nprinciples: []\n")
    assert messages(other) == ["principles: give at least 1"]
    assert len(found("loose")) == 2


def test_a_fresh_project_has_no_problems(tmp_path: Path) -> None:
    scaffold(tmp_path / "proj")
    assert found(tmp_path / "proj") == []


def test_beside_the_two_folders_only_what_lists_principles_is_a_constitution(project: Project) -> None:
    project.principle("a")
    project.write("ci.yaml", "on: [push]\nsteps: !include [\n")
    assert found(".") == []
    project.write("x.yaml", "name: x\nprinciples_dir: principles\nprinciples: [{id: b}]\n")
    project.write("broken.yaml", "name: broken\nprinciples:\n  - [\n")
    assert [line.partition(":")[0] for line in found(".")] == ["broken.yaml", "x.yaml"]


def test_a_recipe_is_called_one_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scaffold(tmp_path / "proj")
    recipe = "proj/recipe.yaml"
    told = f"is a recipe, neither a constitution nor a principle; cai run {recipe} --dry-run checks it"
    assert found(recipe) == [f"{recipe}:1:1: {told}"]


def test_a_yml_file_would_not_be_found(project: Project) -> None:
    project.write("principles/p.yml", "id: p\ntitle: t\njudge: Which?\n")
    assert found() == ["principles/p.yml:1:1: rename the file to .yaml; it is not found under this name"]


def test_a_path_that_names_nothing_is_misuse(project: Project) -> None:
    with pytest.raises(InputError, match="no constitution 'nothing'"):
        lint(["nothing"])
    (project.root / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.yaml files"):
        lint(["empty"])
    with pytest.raises(InputError, match="no such file"):
        lint(["nothing.yaml"])
