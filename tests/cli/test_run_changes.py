"""`cai run` again with other inputs: what is refused, made anew, set aside and used again."""

from __future__ import annotations

import json

import pytest
import yaml

from cai.config import load_recipe
from cai.constitution.draw import draw
from cai.constitution.load import load_constitution
from tests.cli.project import Project, cai, usage


def test_changed_inputs_are_refused_and_named(project: Project) -> None:
    cai("run", "recipe.yaml")
    kept = (project.root / "runs/small/responses.jsonl").read_bytes()
    project.principle("kind-03", "Is it very kind?")
    project.prompts(11)
    changes = ("--set", "revise.rounds=3", "--set", "seed=9", "--set", "models.policy.words=9")
    line = cai("run", "recipe.yaml", *changes, code=2).stderr.splitlines()[-1]
    assert (
        "what differs: constitution, models.critic, models.policy, models.reviser, prompts, revise.rounds, seed" in line
    )
    assert "--update" in line
    assert (project.root / "runs/small/responses.jsonl").read_bytes() == kept


def test_what_does_not_touch_the_rows_may_change(project: Project) -> None:
    cai("run", "recipe.yaml")
    (project.root / "data/prompts.jsonl").rename(project.root / "moved.jsonl")
    cai("run", "recipe.yaml", "--set", "prompts=[{path: moved.jsonl}]", "--set", "sft.title=Mine")
    assert "Mine" in (project.root / "runs/small/sft/README.md").read_text()
    assert yaml.safe_load((project.root / "runs/small/recipe.yaml").read_text())["sft"]["title"] == "Mine"


def test_rows_name_their_source_as_the_recipe_last_names_it(project: Project) -> None:
    cai("run", "recipe.yaml")
    assert project.rows("runs/small/prompts.jsonl")[0]["source"] == "data/prompts.jsonl:1"
    named = "prompts=[{path: data/prompts.jsonl, source: my questions}]"
    assert "10 of 10 rows were finished" in cai("run", "recipe.yaml", "--set", named).stderr
    assert [row["source"] for row in project.rows("runs/small/prompts.jsonl")][:2] == [
        "my questions:1",
        "my questions:2",
    ]
    assert not (project.root / "runs/small/history").exists()


def test_the_recipe_of_a_run_goes_on_with_that_run(project: Project) -> None:
    cai("run", "recipe.yaml")
    kept = (project.root / "runs/small/responses.jsonl").read_bytes()
    cai("run", "recipe.yaml", "--set", "revise.rounds=1", "--run-dir", "runs/one")
    assert "10 of 10 rows were finished" in cai("run", "runs/one/recipe.yaml").stderr
    cai("export", "runs/one/recipe.yaml", "--set", "sft.title=Mine")
    assert "Mine" in (project.root / "runs/one/sft/README.md").read_text()
    assert (project.root / "runs/small/responses.jsonl").read_bytes() == kept
    (project.root / "manifest.json").write_text("{}")  # anybody's, beside a recipe that is no run's
    assert "10 of 10 rows were finished" in cai("run", "recipe.yaml").stderr


def test_export_needs_neither_prompts_nor_models(project: Project) -> None:
    (project.root / "base").mkdir()
    (project.root / "base/config.json").write_text("{}")
    (project.root / "base/tokenizer_config.json").write_text("{}")
    unused = "models={policy: {backend: scripted}, critic: {backend: vllm, model: ./base}}"
    given = ("recipe.yaml", "--set", unused, "--set", "revise.rounds=0")
    cai("run", *given)
    made = (project.root / "runs/small/sft/train.jsonl").read_bytes()
    (project.root / "base").rename(project.root / "elsewhere")
    (project.root / "data/prompts.jsonl").unlink()
    cai("export", *given)
    assert (project.root / "runs/small/sft/train.jsonl").read_bytes() == made
    cai("run", *given, code=2)  # which would ask


def test_export_of_a_run_that_was_made_otherwise_says_what_to_give(project: Project) -> None:
    cai("run", "recipe.yaml", "--set", "revise.rounds=1")
    told = cai("export", "recipe.yaml", code=2).stderr
    assert "what differs: revise.rounds" in told
    assert "runs/small/recipe.yaml" in told
    assert "--update" not in told
    cai("export", "runs/small/recipe.yaml")
    cai("export", "recipe.yaml", "--run-dir", "runs/none", code=2)
    assert not (project.root / "runs/none").exists()


def test_the_recipe_of_a_run_reads_back_whatever_its_texts_look_like(project: Project) -> None:
    """YAML 1.1 writes `08` and `1e5` without quotes; in YAML 1.2, by which recipes are read, they are numbers."""
    looks = ("--set", "name='08'", "--set", "sft.title='1e5'", "--run-dir", "runs/08")
    cai("run", "recipe.yaml", *looks)
    assert "10 of 10 rows were finished before" in cai("run", "runs/08/recipe.yaml", "--run-dir", "runs/08").stderr
    again = load_recipe(project.root / "runs/08/recipe.yaml").recipe
    assert (again.name, again.sft.title) == ("08", "1e5")


def test_a_constitution_named_in_a_recipe_is_the_one_beside_it_wherever_the_run_is_started(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = project.root / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("constitution/own.yaml", "default"))
    own = (project.root / "constitution/own.yaml").read_text().replace("name: own", "name: default")
    (project.root / "constitution/default.yaml").write_text(own)
    elsewhere = project.root / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    cai("run", str(recipe))
    drawn = {name for row in project.rows("elsewhere/runs/small/responses.jsonl") for name in row["principle_ids"]}
    assert drawn
    assert all(name.startswith("kind-") for name in drawn)
    monkeypatch.chdir(project.root.parent)
    told = cai("run", str(elsewhere / "runs/small/recipe.yaml"), "--run-dir", str(elsewhere / "runs/small")).stderr
    assert "10 of 10 rows were finished before" in told


def test_a_recipe_may_have_a_system_prompt_of_its_own(project: Project) -> None:
    cai("run", "recipe.yaml")
    plain = {row["text"] for row in project.rows("runs/small/responses.jsonl")}
    brief = ("run", "recipe.yaml", "--set", "system_prompt=Be brief.")
    assert "what differs: constitution" in cai(*brief, code=2).stderr
    cai(*brief, "--run-dir", "runs/brief")
    told = json.loads((project.root / "runs/brief/constitution.json").read_text())
    assert told["file"]["system_prompt"] == "Be brief."
    assert load_constitution(project.root / "runs/brief").hash == told["hash"]
    assert not plain & {row["text"] for row in project.rows("runs/brief/responses.jsonl")}, "every request is another"
    rows = [row for split in ("train", "test") for row in project.rows(f"runs/brief/sft/{split}.jsonl")]
    assert {row["messages"][0]["role"] for row in rows} == {"user"}, "what is trained is to be so without being told"
    assert "| system prompt | Be brief. |" in (project.root / "runs/brief/sft/README.md").read_text()


@pytest.mark.parametrize("value", ["", "''"])
def test_a_system_prompt_that_is_there_and_blank_is_none(project: Project, value: str) -> None:
    with (project.root / "constitution/own.yaml").open("a") as file:
        file.write("system_prompt: Be brief.\n")
    with (project.root / "recipe.yaml").open("a") as file:
        file.write(f"system_prompt: {value}\n")
    cai("run", "recipe.yaml")
    assert not json.loads((project.root / "runs/small/constitution.json").read_text())["file"]["system_prompt"]
    assert "10 of 10 rows were finished" in cai("run", "runs/small/recipe.yaml").stderr


def test_what_lies_beside_a_data_set_and_is_not_read_changes_no_run(project: Project) -> None:
    import pyarrow

    table = pyarrow.table({"prompt": ["What is it?", "Why?"]})
    folder = project.root / "data/set"
    folder.mkdir()

    def write(name: str) -> None:
        with pyarrow.OSFile(str(folder / name), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)

    write("data-00000-of-00001.arrow")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    given = ("run", "recipe.yaml", "--set", "prompts=[{path: data/set}]")
    cai(*given)
    write("cache-0123456789abcdef.arrow")
    assert "2 of 2 rows were finished" in cai(*given).stderr
    table = pyarrow.table({"prompt": ["What is it?", "Who?"]})
    write("data-00000-of-00001.arrow")
    assert "what differs: prompts" in cai(*given, code=2).stderr


def test_update_after_editing_one_of_16_principles_makes_a_tenth_anew(project: Project) -> None:
    project.prompts(480, helpful=0)
    cai("run", "recipe.yaml")
    first = usage(project)
    before = {row["id"] for row in project.rows("runs/small/responses.jsonl")}
    old = (project.root / "runs/small/responses.jsonl").read_bytes()
    project.principle("kind-07", "Is it as kind as it could be?")
    result = cai("run", "recipe.yaml", "--update")
    assert "inputs changed (constitution)" in result.stderr
    again = usage(project)
    assert 0 < again["fresh_completion_tokens"] <= 0.1 * first["fresh_completion_tokens"]
    assert again["fresh_requests"] + again["reused_requests"] == pytest.approx(first["fresh_requests"], rel=0.02)
    assert (project.root / "runs/small/history/001/responses.jsonl").read_bytes() == old
    assert (project.root / "runs/small/history/001/sft/train.jsonl").is_file()
    own = load_constitution("constitution/own.yaml")
    for row in project.rows("runs/small/responses.jsonl"):
        drawn = [
            draw(own, seed=3, prompt_id=row["prompt_id"], round=number)[0].id for number in range(1, row["round"] + 1)
        ]
        assert (row["id"] in before) == ("kind-07" not in drawn)


def test_update_with_nothing_changed_keeps_everything(project: Project) -> None:
    cai("run", "recipe.yaml")
    cai("run", "recipe.yaml", "--update")
    assert not (project.root / "runs/small/history").exists()


def test_update_sets_nothing_aside_until_the_new_prompts_could_be_read(project: Project) -> None:
    cai("run", "recipe.yaml")
    kept = (project.root / "runs/small/responses.jsonl").read_bytes()
    (project.root / "data/none.jsonl").write_text("")
    result = cai("run", "recipe.yaml", "--update", "--set", "prompts=[{path: data/none.jsonl}]", code=2)
    assert "there is not one prompt" in result.stderr
    assert not (project.root / "runs/small/history").exists()
    assert (project.root / "runs/small/responses.jsonl").read_bytes() == kept
    cai("run", "recipe.yaml")  # still the run it was


def test_updates_pile_up_in_the_history_and_going_back_is_free(project: Project) -> None:
    cai("run", "recipe.yaml")
    kept = (project.root / "runs/small/responses.jsonl").read_bytes()
    cai("run", "recipe.yaml", "--update", "--set", "seed=4")
    cai("run", "recipe.yaml", "--update")
    assert sorted(path.name for path in (project.root / "runs/small/history").iterdir()) == ["001", "002"]
    assert (project.root / "runs/small/responses.jsonl").read_bytes() == kept
    assert usage(project)["fresh_requests"] == 0


def test_reuse_takes_equal_requests_from_another_run(project: Project) -> None:
    cai("run", "recipe.yaml")
    requests = (project.root / "runs/small/requests.jsonl").read_bytes()
    dry = json.loads(
        cai("run", "recipe.yaml", "--set", "name=b", "--set", "reuse=[runs/small]", "--dry-run", "--json").stdout
    )
    assert (dry["requests"], dry["reused"]) == (0, 42)
    cai("run", "recipe.yaml", "--set", "name=b", "--set", "reuse=[runs/small]")
    found = usage(project, "runs/b")
    assert (found["fresh_requests"], found["reused_requests"]) == (0, 42)
    cai("run", "recipe.yaml", "--set", "name=c", "--set", "reuse=[runs/b]", "--set", "revise.rounds=3")
    third = usage(project, "runs/c")
    assert (third["fresh_requests"], third["reused_requests"]) == (16, 42)
    assert (project.root / "runs/small/requests.jsonl").read_bytes() == requests
    for path in ("responses.jsonl", "sft/train.jsonl"):
        assert (project.root / "runs/b" / path).read_bytes() == (project.root / "runs/small" / path).read_bytes()
