"""From files to a constitution: where things are looked up and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cai.constitution import load, load_constitution
from cai.constitution.model import Templates
from cai.errors import InputError
from cai.store import write_json
from cai.yamlfile import InvalidFile

from .conftest import Make, Project


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the shipped principles, so that these tests do not depend on their content."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(load, "shipped_dir", lambda kind: folder / kind)
    return folder


def test_principles_keep_the_files_order_weight_and_level(project: Project) -> None:
    for name in ("a", "b", "c"):
        project.principle(name, tags=["t"] if name != "b" else [])
    project.constitution(
        "x", [{"id": "c", "weight": 2}, {"tag": "t", "level": "rule"}, {"id": "b", "level": "default"}]
    )
    got = load_constitution("x")
    assert [(b.id, b.weight, b.level.name, b.rank) for b in got.principles] == [
        ("c", 2.0, "goal", 1),
        ("a", 1.0, "rule", 0),
        ("b", 1.0, "default", 2),
    ]


def test_an_id_is_found_in_the_nearest_folder_and_then_among_the_shipped(project: Project, shipped: Path) -> None:
    project.principle("mine", title="own")
    for name in ("mine", "theirs"):
        text = f"id: {name}\ntitle: shipped\njudge: Which?\n"
        project.write(f"shipped/principles/{name}.yaml", text)
    path = project.constitution("x", ["mine", "theirs"])
    assert [b.principle.title for b in load_constitution(path).principles] == ["own", "shipped"]


def test_a_tag_of_your_own_gains_nothing_from_the_shipped_principles(project: Project, shipped: Path) -> None:
    project.principle("mine", tags=["safety"])
    for name, tag in (("theirs", "safety"), ("kind", "tone")):
        project.write(f"shipped/principles/{name}.yaml", f"id: {name}\ntitle: t\njudge: Which?\ntags: [{tag}]\n")
    path = project.constitution("x", [{"tag": "safety"}, {"tag": "tone"}])
    assert [b.id for b in load_constitution(path).principles] == ["mine", "kind"]


def test_a_constitution_outside_a_folder_of_its_own_takes_the_principles_beside_it(
    project: Project, shipped: Path
) -> None:
    for place in ("loose/principles", "principles", "shipped/principles"):
        project.write(f"{place}/p.yaml", f"id: p\ntitle: {place}\njudge: Which?\n")
    path = project.write("loose/mine.yaml", "name: mine\nprinciples: [{id: p}]\n")
    found = load_constitution(path).get("p")
    assert (found.principle.title, found.folder) == ("loose/principles", project.root / "loose" / "principles")
    path.write_text("name: mine\nprinciples: [{id: q}, {tag: t}]\n")
    with pytest.raises(InvalidFile) as error:
        load_constitution(path)
    places = "loose/principles or principles or the shipped ones"
    assert [problem.message for problem in error.value.problems] == [
        f"no principle 'q' in {places}",
        f"no principle in {places} has the tag 't'",
    ]


def test_principles_dir_is_relative_to_the_constitution(project: Project) -> None:
    project.write("elsewhere/p.yaml", "id: p\ntitle: there\njudge: Which?\n")
    project.constitution("x", ["p"], principles_dir="../elsewhere")
    assert load_constitution("x").get("p").principle.title == "there"
    project.constitution("y", ["p"], principles_dir="../elsewere")
    with pytest.raises(InvalidFile) as error:
        load_constitution("y")
    assert "no such folder: ../elsewere" in {problem.message for problem in error.value.problems}


@pytest.mark.parametrize("field", ["asks", "critique", "revision", "judge"])
def test_the_hash_changes_with_what_can_reach_a_model(make: Make, field: str) -> None:
    assert make({"a": {}}).hash != make({"a": {field: "Other."}}).hash


def test_the_hash_changes_with_draws_but_not_with_what_is_for_people(make: Make) -> None:
    base = make(["a", "b"]).hash
    assert base == make({"a": {"title": "Other", "notes": "x", "version": 2}, "b": {}}).hash
    for other in ({"weight": 2}, {"level": "rule"}, {"tags": ["t"]}):
        assert base != make({"a": other, "b": {}}).hash


def test_unknown_names_get_the_nearest(project: Project) -> None:
    project.principle("honest")
    project.constitution("mine", ["honest"])
    with pytest.raises(InputError, match="no constitution 'mien'; did you mean 'mine'"):
        load_constitution("mien")
    with pytest.raises(InputError, match="no such file"):
        load_constitution("nowhere.yaml")
    with pytest.raises(InputError, match="no principle 'honset'; did you mean 'honest'"):
        load_constitution("mine").get("honset")


@pytest.mark.parametrize("older", [False, True])
def test_a_run_keeps_the_constitution_it_used(project: Project, older: bool) -> None:
    for name in ("a", "b", "c"):
        project.principle(name, tags=["t"], asks=f"Asks {name}.")
    project.constitution("x", [{"tag": "t", "weight": 2}, {"id": "b", "level": "rule"}])
    used = load_constitution("x")
    snapshot = used.row()
    if older:
        del snapshot["bound"]
    project.write("runs/one/constitution.json", json.dumps(snapshot))
    project.principle("a", tags=["t"], asks="Something else.")
    got = load_constitution("runs/one")
    assert got.principles == used.principles
    assert got.hash == used.hash != load_constitution("x").hash
    for broken in ({}, {**snapshot, "bound": 3}, {**snapshot, "bound": [3]}):
        project.write("runs/one/constitution.json", json.dumps(broken))
        with pytest.raises(InputError, match="not the constitution of a run"):
            load_constitution("runs/one/constitution.json")


def test_a_run_keeps_every_character_of_what_it_was_told(project: Project) -> None:
    odd = "".join(map(chr, [*range(0x7F, 0xA1), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0x1F600]))
    project.principle("a", asks=f"One{odd}two.\x85Three.")
    project.constitution("x", ["a"], system_prompt=f"Be{odd}kind.")
    used = load_constitution("x")
    assert odd in used.get("a").principle.asks
    (project.root / "runs" / "one").mkdir(parents=True)
    write_json(project.root / "runs" / "one" / "constitution.json", used.row())
    got = load_constitution("runs/one")
    assert got.principles == used.principles
    assert got.hash == used.hash
    project.write("runs/one/constitution.json", '{"na')
    with pytest.raises(InputError, match=r"constitution\.json: cannot be read"):
        load_constitution("runs/one")


def test_a_run_goes_on_to_take_a_tag_as_it_was_taken(project: Project, shipped: Path) -> None:
    project.principle("mine", tags=["honesty"])
    text = "id: theirs\ntitle: t\njudge: Which?\ntags: [honesty, harmlessness]\n"
    project.write("shipped/principles/theirs.yaml", text)
    used = load_constitution(project.constitution("x", [{"tag": "honesty", "weight": 5}, {"tag": "harmlessness"}]))
    assert [(b.id, b.weight) for b in used.principles] == [("mine", 5.0), ("theirs", 1.0)]
    project.write("runs/one/constitution.json", json.dumps(used.row()))
    assert load_constitution("runs/one").principles == used.principles
    assert load_constitution("runs/one").hash == used.hash


def test_the_hash_covers_titles_only_where_they_stand_in_for_a_rule(make: Make) -> None:
    rules = Templates(critique="{rules} {request}")
    titled = {"a": {"level": "rule", "title": "Be kind"}, "b": {"title": "Be brief"}}
    base = make(titled, templates=rules)
    assert base.rules == ("Be kind",)
    assert base.hash != make({**titled, "a": {"level": "rule", "title": "Be good"}}, templates=rules).hash
    assert base.hash == make({**titled, "b": {"title": "Be short"}}, templates=rules).hash
