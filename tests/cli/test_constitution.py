"""`cai constitution`: exit codes, what goes to stdout and what to stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cai.cli.constitution import app

PRINCIPLE = "id: {name}\ntitle: {name}\ncritique: Is it {name}?\nrevision: Make it {name}.\njudge: Which is {name}?\n"

UNJUDGED = {"comparisons": 0, "comparisons_changed": 0, "redrawn": False, "other": False}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for kind in ("constitution", "principles"):
        (tmp_path / kind).mkdir()
    for name in ("kind", "brief"):
        (tmp_path / "principles" / f"{name}.yaml").write_text(PRINCIPLE.format(name=name))
    for name, weight in (("one", 1), ("two", 3)):
        text = f"name: {name}\nprinciples:\n  - id: kind\n  - id: brief\n    weight: {weight}\n"
        (tmp_path / "constitution" / f"{name}.yaml").write_text(text)
    return tmp_path


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


def test_lint_prints_places_and_exits_1(project: Path) -> None:
    assert run("lint").stdout == ""
    (project / "principles" / "kind.yaml").write_text(PRINCIPLE.format(name="kind") + "tagz: [x]\n")
    line = "principles/kind.yaml:6:1: unknown key 'tagz'; did you mean 'tags'?"
    assert run("lint", code=1).stdout.splitlines() == [line]
    assert run("lint", "principles", "constitution/one.yaml", code=1).stdout.splitlines() == [line]
    assert json.loads(run("lint", "--json", code=1).stdout) == {
        "problems": [
            {
                "file": "principles/kind.yaml",
                "line": 6,
                "column": 1,
                "message": "unknown key 'tagz'; did you mean 'tags'?",
            }
        ]
    }


def test_lint_of_a_sound_file_as_json_is_an_empty_list() -> None:
    assert json.loads(run("lint", "principles/kind.yaml", "--json").stdout) == {"problems": []}


def test_misuse_exits_2_with_one_line_on_stderr() -> None:
    result = run("lint", "nowhere", code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("cai: error: constitution: no constitution 'nowhere'")
    assert run("show", "oen", code=2).stderr.count("\n") == 1
    run("lint", "--jsno", code=2)


def test_show() -> None:
    data = json.loads(run("show", "two", "--json").stdout)
    assert data["name"] == "two"
    assert [(p["id"], p["weight"]) for p in data["principles"]] == [("kind", 1.0), ("brief", 3.0)]
    text = run("show", "constitution/two.yaml").stdout
    assert "75.0%" in text
    assert "principles: 2 from principles" in text
    assert "Is it brief?" in text


def test_show_of_a_broken_constitution_lists_every_problem(project: Path) -> None:
    path = project / "constitution" / "one.yaml"
    path.write_text("name: one\nprinciples:\n  - id: kidn\n  - id: breif\n")
    lines = run("show", "one", code=2).stderr.splitlines()
    places = "principles or the shipped ones"
    assert lines == [
        f"cai: error: constitution/one.yaml:3:9: no principle 'kidn' in {places}; did you mean 'kind'?",
        f"cai: error: constitution/one.yaml:4:9: no principle 'breif' in {places}; did you mean 'brief'?",
    ]


def test_diff(project: Path) -> None:
    assert "re-weighted brief: 1.0 -> 3.0" in run("diff", "one", "two").stdout
    run_dir = project / "run"
    run_dir.mkdir()
    response = {"schema": 1, "id": "r", "prompt_id": "p", "round": 1, "text": "", "model": "m", "sampling": {}}
    (run_dir / "recipe.yaml").write_text("seed: 1\n")
    (run_dir / "responses.jsonl").write_text(
        json.dumps({**response, "finish_reason": "stop", "principle_ids": ["other"]}) + "\n"
    )
    result = run("diff", "one", "two", "--run", "run", "--json")
    data = json.loads(result.stdout)
    assert data["reweighted"] == [{"id": "brief", "old": 1.0, "new": 3.0}]
    assert data["run"] == {"rows": 1, "rows_changed": 1, "rounds": 1, "rounds_changed": 1, "strange": 1} | UNJUDGED
    assert "1 rounds of run were not drawn from one" in result.stderr
    assert "1 of 1 rows change" in run("diff", "one", "two", "--run", "run").stdout
    assert "run" not in json.loads(run("diff", "one", "one", "--json").stdout)


def test_diff_of_a_real_run_counts_what_running_again_changes(project: Path) -> None:
    from cai.cli.main import app as cai

    prompts = [json.dumps({"messages": [{"role": "user", "content": f"Question {i}?"}]}) for i in range(40)]
    (project / "prompts.jsonl").write_text("\n".join(prompts) + "\n")
    recipe = (
        "seed: 3\nconstitution: constitution/one.yaml\nprompts:\n  - path: prompts.jsonl\n"
        "models:\n  policy: {backend: scripted}\nrevise: {rounds: 2}\n"
    )

    def texts(name: str) -> dict[tuple[str, int], str]:
        (project / f"{name}.yaml").write_text(f"name: {name}\n{recipe}")
        result = CliRunner().invoke(cai, ["run", f"{name}.yaml"])
        assert result.exit_code == 0, result.output
        lines = (project / "runs" / name / "responses.jsonl").read_text().splitlines()
        return {(row["prompt_id"], row["round"]): row["text"] for row in map(json.loads, lines)}

    before = texts("before")
    # Adds a principle and rewords another; the run's own folder says what it was made with.
    (project / "principles" / "kind.yaml").write_text(PRINCIPLE.format(name="kind").replace("Make it", "Turn it"))
    (project / "principles" / "true.yaml").write_text(PRINCIPLE.format(name="'true'"))
    with (project / "constitution" / "one.yaml").open("a") as file:
        file.write("  - id: 'true'\n    weight: 0.5\n")
    result = run("diff", "runs/before", "one", "--run", "runs/before", "--json")
    # The file has changed since: what it says now is not what the run was made with.
    stale = run("diff", "one", "one", "--run", "runs/before").stderr
    assert "runs/before was made with another constitution than one is now" in stale.replace("\n", " ")
    after = texts("after")
    changed = [key for key in before if before[key] != after.get(key)]
    assert result.stderr == ""
    assert (
        json.loads(result.stdout)["run"]
        == {
            "rows": len({prompt for prompt, _ in before}),
            "rows_changed": len({prompt for prompt, _ in changed}),
            "rounds": sum(number > 0 for _, number in before),
            "rounds_changed": len(changed),
            "strange": 0,
        }
        | UNJUDGED
    )
    assert 0 < len(changed) < len(before) / 2


def test_diff_of_a_judged_run_counts_the_questions_that_are_asked_anew(project: Path) -> None:
    from cai.cli.main import app as cai

    prompts = [json.dumps({"prompt": f"Question {i}?"}) for i in range(20)]
    (project / "prompts.jsonl").write_text("\n".join(prompts) + "\n")
    (project / "demo.yaml").write_text(
        "name: demo\nconstitution: constitution/one.yaml\nprompts:\n  - path: prompts.jsonl\n"
        "models:\n  policy: {backend: scripted}\nsample: {sources: [{count: 2}]}\njudge: {}\n"
    )
    command = ["run", "demo.yaml", "--json"]

    def asked() -> int:
        rows = map(json.loads, (project / "runs/demo/requests.jsonl").read_text().splitlines())
        return sum(bool(row.get("choices") or row.get("choice_logprobs")) for row in rows)

    result = CliRunner().invoke(cai, command)
    assert result.exit_code == 0, result.output
    before = asked()
    (project / "principles" / "kind.yaml").write_text(PRINCIPLE.format(name="kind").replace("Which is", "Which one is"))
    told = json.loads(run("diff", "runs/demo", "one", "--run", "runs/demo", "--json").stdout)["run"]
    text = run("diff", "runs/demo", "one", "--run", "runs/demo").stdout
    assert (told["rows_changed"], told["redrawn"]) == (0, False)
    said = f"{told['comparisons_changed']} of {told['comparisons']} comparisons are judged by a question that is worded"
    assert f"{said} otherwise\n" in text
    result = CliRunner().invoke(cai, [*command, "--update"])
    assert result.exit_code == 0, result.output
    assert 0 < told["comparisons_changed"] < told["comparisons"]
    assert asked() - before == 2 * told["comparisons_changed"]  # both orders
    # And where another principle takes part.
    (project / "constitution" / "one.yaml").write_text("name: one\nprinciples: [{id: kind}]\n")
    assert (
        "those whose answers change or that draw another principle are judged anew too, and not counted"
        in run("diff", "runs/demo", "one", "--run", "runs/demo").stdout
    )


def test_diff_of_a_run_whose_recipe_gives_the_system_prompt_sees_none_changed(project: Path) -> None:
    from cai.cli.main import app as cai

    (project / "prompts.jsonl").write_text('{"prompt": "Question?"}\n')
    (project / "demo.yaml").write_text(
        "name: demo\nconstitution: constitution/one.yaml\nsystem_prompt: Be brief.\nprompts:\n  - path: prompts.jsonl\n"
        "models:\n  policy: {backend: scripted}\n"
    )
    assert CliRunner().invoke(cai, ["run", "demo.yaml"]).exit_code == 0
    for old in ("runs/demo", "one"):
        result = run("diff", old, "one", "--run", "runs/demo", "--json")
        assert result.stderr == ""
        data = json.loads(result.stdout)
        assert (data["same"], data["system_prompt"], data["run"]["rows_changed"]) == (True, None, 0)
    assert json.loads(run("diff", "runs/demo", "one", "--json").stdout)["system_prompt"]["old"] == "Be brief."


def test_schema(project: Path) -> None:
    assert json.loads(run("schema", "principle").stdout)["title"] == "cai principle"
    assert set(json.loads(run("schema").stdout)) == {"principle", "constitution"}
    assert run("schema", "--write", "schema").stdout == ""
    assert json.loads((project / "schema" / "principle.schema.json").read_text())["title"] == "cai principle"
    run("schema", "principel", code=2)


def test_import_and_export(project: Path) -> None:
    source = {
        "harmful0": {
            "prompt": ["\n\nCritiqueRequest: Is it kind?\n\nCritique:"],
            "edit_request": "\n\nRevisionRequest: Be kind.\n\nRevision:",
        }
    }
    Path("in.json").write_text(json.dumps(source))
    result = run("import", "in.json", "--format", "anthropic", "--out", "new", "--name", "paper")
    assert result.stdout == ""
    run("import", "in.json", "--format", "anthropic", "--out", "new", "--name", "paper", code=2)
    run("import", "in.json", "--format", "anthropic", "--out", "new", "--name", "paper", "--force")
    assert run("lint", "new").stdout == ""
    run("export", "new/constitution/paper.yaml", "--format", "anthropic", "--out", "out.json")
    assert json.loads(Path("out.json").read_text()) == source
    result = run("export", "two", "--format", "anthropic", "--out", "out.json", code=2)
    assert "the file exists already" in result.stderr
    assert json.loads(Path("out.json").read_text()) == source
    result = run("export", "two", "--format", "anthropic", "--out", "out.json", "--force")
    assert result.stderr.splitlines() == [
        "cai: not in out.json: the judge questions of kind, brief",
        "cai: not in out.json: the weights",
    ]
    run("export", "two", "--format", "anthropic", "--part", "preference", "--out", "judge.json")
    assert json.loads(Path("judge.json").read_text()) == ["\nWhich is kind? Options:", "\nWhich is brief? Options:"]


def test_help_imports_nothing_heavy() -> None:
    # Typer itself is there; what a command needs comes when it runs.
    code = (
        "import sys, cai.cli.constitution; print([m for m in ('pydantic', 'yaml', 'rich.table') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
