"""`cai run` and what belongs to it, from a recipe to its data, on the scripted backend."""

from __future__ import annotations

import json
import shutil

import pytest

from cai.constitution.draw import draw
from cai.constitution.load import load_constitution
from cai.records import Prompt
from tests.cli.project import RECIPE, Project, cai, only_greets, usage

# --- the whole way


def test_run_leaves_everything_that_tells_about_it(project: Project) -> None:
    result = cai("run", "recipe.yaml", "--json")
    metrics = json.loads(result.stdout)
    assert json.loads((project.root / "runs/small/metrics.json").read_text()) == metrics
    assert metrics["revise"]["prompts"] == 10
    sft = project.rows("runs/small/sft/train.jsonl") + project.rows("runs/small/sft/test.jsonl")
    assert len(sft) == metrics["sft"]["rows"] == 2 + 8 * 2
    responses = project.rows("runs/small/responses.jsonl")
    assert len(responses) == 2 + 8 * 3
    assert list(dict.fromkeys(row["prompt_id"] for row in responses)) == [
        row["id"] for row in project.rows("runs/small/prompts.jsonl")
    ]
    own = load_constitution("constitution/own.yaml")
    for row in responses:
        if row["round"]:
            expected = draw(own, seed=3, prompt_id=row["prompt_id"], round=row["round"])
            assert row["principle_ids"] == [expected[0].id]
    manifest = json.loads((project.root / "runs/small/manifest.json").read_text())
    assert manifest["prompts"] == 10
    (attempt,) = project.rows("runs/small/attempts.jsonl")
    assert attempt["ended"] == "finished"
    assert attempt["versions"] == manifest["versions"]  # of this attempt: a run may go on with others
    assert "18 SFT rows" in (project.root / "runs/small/run.log").read_text()
    assert "18 SFT rows" in result.stderr


def test_run_tells_what_happened(project: Project) -> None:
    text = cai("run", "recipe.yaml").stdout
    assert "revision 2" in text
    assert "cai why runs/small ID" in text


def test_the_same_command_again_asks_nothing_and_changes_nothing(project: Project) -> None:
    cai("run", "recipe.yaml")
    kept = {path: (project.root / "runs/small" / path).read_bytes() for path in ("responses.jsonl", "sft/train.jsonl")}
    requests = (project.root / "runs/small/requests.jsonl").read_bytes()
    assert "10 of 10 rows were finished before" in cai("run", "recipe.yaml").stderr
    assert kept == {path: (project.root / "runs/small" / path).read_bytes() for path in kept}
    assert (project.root / "runs/small/requests.jsonl").read_bytes() == requests
    assert len(project.rows("runs/small/attempts.jsonl")) == 1


def test_revise_and_export_are_the_halves_of_run(project: Project) -> None:
    assert "no run here" in cai("export", "recipe.yaml", "--run-dir", "runs/halves", code=2).stderr
    cai("revise", "recipe.yaml", "--run-dir", "runs/halves")
    assert not (project.root / "runs/halves/sft").exists()
    status = json.loads(cai("status", "runs/halves", "--json").stdout)
    assert status["stages"]["export"] == {"state": "waiting", "rows": {}}
    cai("export", "recipe.yaml", "--run-dir", "runs/halves")
    cai("run", "recipe.yaml")
    for path in ("responses.jsonl", "sft/train.jsonl", "sft/test.jsonl", "quarantine.jsonl"):
        halves, whole = (project.root / "runs" / name / path for name in ("halves", "small"))
        assert halves.read_bytes() == whole.read_bytes()
    cai("export", "recipe.yaml", "--run-dir", "runs/halves", "--set", "sft.revisions=last")
    assert len(project.rows("runs/halves/sft/train.jsonl") + project.rows("runs/halves/sft/test.jsonl")) == 2 + 8


def test_the_resolved_recipe_makes_the_same_run_from_elsewhere(
    project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cai("run", "recipe.yaml", "--set", "revise.rounds=1")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    cai("run", str(project.root / "runs/small/recipe.yaml"), "--run-dir", "runs/small")
    for path in ("responses.jsonl", "sft/train.jsonl", "prompts.jsonl"):
        assert (elsewhere / "runs/small" / path).read_bytes() == (project.root / "runs/small" / path).read_bytes()


def test_no_path_of_this_machine_is_in_the_data(project: Project) -> None:
    (project.root / "more").mkdir()
    (project.root / "more" / "b.txt").write_text("Text prompt?\n")
    (project.root / "c.jsonl").write_text(json.dumps(Prompt.make("C?", source="web").row()) + "\n")
    sources = f"prompts=[{{path: data/prompts.jsonl}}, {{path: {project.root}/more/b.txt}}, {{path: ./c.jsonl}}]"
    cai("run", "recipe.yaml", "--set", sources)
    prompts = project.rows("runs/small/prompts.jsonl")
    assert [row["source"] for row in prompts][-3:] == ["data/prompts.jsonl:10", "b.txt:1", "web"]
    told = [path for path in (project.root / "runs/small").rglob("*") if path.is_file() and path.name != "recipe.yaml"]
    assert [path.name for path in told if str(project.root).encode() in path.read_bytes()] == []
    assert {row["source"] for row in project.rows("runs/small/sft/train.jsonl")} <= {row["source"] for row in prompts}


# --- status and why


def test_status_counts_rows_by_stage_and_state(project: Project) -> None:
    assert "no runs" in cai("status").stderr
    cai("run", "recipe.yaml")
    cai("run", "recipe.yaml", "--run-dir", "runs/b", "--set", "models.policy.fail={broken: 0.2}")
    one = json.loads(cai("status", "runs/small", "--json").stdout)
    assert one["stages"]["revise"] == {"total": 10, "done": 10, "quarantined": 0, "left": 0, "reasons": {}}
    assert one["stages"]["export"]["state"] == "done"
    both = json.loads(cai("status", "--json").stdout)
    assert [run["run"] for run in both] == ["runs/b", "runs/small"]
    failed = both[0]["stages"]["revise"]
    assert failed["quarantined"] == failed["reasons"]["backend"] > 0
    assert failed["done"] + failed["quarantined"] == 10
    assert "runs/b" in cai("status").stdout
    assert "runs here: b, small" in cai("status", "runs/x", code=2).stderr


def test_status_of_damaged_runs_is_no_traceback_and_hides_no_other(project: Project) -> None:
    cai("run", "recipe.yaml")
    for name in ("metrics", "manifest"):
        shutil.copytree(project.root / "runs/small", project.root / f"runs/{name}")
        (project.root / f"runs/{name}/{name}.json").write_text('{"name": "sma')
    one = json.loads(cai("status", "runs/metrics", "--json").stdout)
    assert one["stages"]["export"] == {"state": "unreadable", "rows": {}}
    assert one["stages"]["revise"]["done"] == 10
    assert "manifest cannot be read" in cai("status", "runs/manifest", code=2).stderr
    every = {
        run["name"] if "error" not in run else run["run"]: run for run in json.loads(cai("status", "--json").stdout)
    }
    assert "the manifest cannot be read" in every["runs/manifest"]["error"]
    assert len(every["small"]["attempts"]) == 1
    shown = cai("status").stdout
    assert all(f"runs/{name}" in shown for name in ("metrics", "manifest", "small"))
    cai("export", "recipe.yaml", "--run-dir", "runs/metrics")
    assert json.loads(cai("status", "runs/metrics", "--json").stdout)["stages"]["export"]["state"] == "done"


def test_why_tells_a_rows_story(project: Project) -> None:
    cai("run", "recipe.yaml")
    row = project.rows("runs/small/sft/train.jsonl")[-1]
    told = json.loads(cai("why", "runs/small", row["id"][:8], "--json").stdout)
    assert told["id"] == row["id"]
    assert told["verdict"] == "in the SFT data: revision, train split"
    assert [step["round"] for step in told["steps"]] == [0, 1, 2]
    assert row["id"] in cai("why", "runs/small", row["prompt_id"]).stdout
    assert "no prompt, response" in cai("why", "runs/small", "ffffffff", code=2).stderr
    # The run's own copies are read: what has become of the files since does not matter.
    for name in ("constitution/own.yaml", "data/prompts.jsonl"):
        (project.root / name).unlink()
    assert json.loads(cai("why", "runs/small", row["id"], "--json").stdout) == told


# --- before a run


def test_dry_run_loads_nothing_and_writes_nothing(project: Project) -> None:
    before = project.files()
    found = json.loads(cai("run", "recipe.yaml", "--dry-run", "--json").stdout)
    assert (found["prompts"], found["requests"], found["reused"]) == (10, 2 + 8 * 5, 0)
    result = cai("run", "recipe.yaml", "--dry-run")
    assert "requests to make" in result.stdout
    assert "nothing was written" in result.stderr
    assert project.files() == before


def test_dry_run_on_a_finished_run_finds_nothing_left_to_ask(project: Project) -> None:
    cai("run", "recipe.yaml")
    before = project.files()
    found = json.loads(cai("run", "recipe.yaml", "--dry-run", "--json").stdout)
    assert (found["requests"], found["reused"], found["new_tokens"]) == (0, 0, 0)
    fresh = json.loads(cai("run", "recipe.yaml", "--dry-run", "--json", "--set", "seed=4").stdout)
    assert fresh["requests"] == 42
    assert fresh["seconds"] is not None
    assert project.files() == before


def test_dry_run_asks_for_what_was_given_up_only_where_the_run_would(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        only_greets(patch)
        cai("run", "recipe.yaml")
    assert len(project.rows("runs/small/quarantine.jsonl")) == 10
    for more, requests in (((), 0), (("--retry-failed",), 2 + 8 * 5)):
        found = json.loads(cai("run", "recipe.yaml", "--dry-run", "--json", *more).stdout)
        assert (found["requests"], found["reused"]) == (requests, 0)
    cai("run", "recipe.yaml", "--retry-failed")
    assert usage(project)["fresh_requests"] == 2 + 8 * 5


def test_dry_run_tells_what_the_run_itself_would_be_refused_for(project: Project) -> None:
    cai("run", "recipe.yaml")
    changed = ("run", "recipe.yaml", "--dry-run", "--set", "seed=4", "--set", "revise.rounds=1")
    told = cai(*changed).stderr
    assert "warning: runs/small was made from other inputs: refused without --update" in told
    assert "what differs: revise.rounds, seed\n" in told
    assert "other inputs" not in cai(*changed, "--update").stderr
    assert "other inputs" not in cai("run", "recipe.yaml", "--dry-run").stderr


@pytest.mark.parametrize("file", ["manifest.json", "attempts.jsonl"])
def test_dry_run_passes_over_damaged_runs_beside_it(project: Project, file: str) -> None:
    for name in ("whole", "torn"):
        cai("run", "recipe.yaml", "--run-dir", f"runs/{name}")
    (project.root / "runs/torn" / file).write_text("{torn\n")
    found = json.loads(cai("run", "recipe.yaml", "--dry-run", "--json").stdout)
    assert found["speed_from"].startswith("1 earlier attempt")


def test_a_broken_recipe_is_told_place_by_place(project: Project) -> None:
    (project.root / "recipe.yaml").write_text(RECIPE.replace("seed: 3", "sead: 3").replace("rounds: 2", "rounds: many"))
    before = project.files()
    result = cai("run", "recipe.yaml", code=2)
    assert result.stderr.splitlines() == [
        "cai: error: recipe.yaml:2:1: unknown key 'sead'; did you mean 'seed'?",
        "cai: error: recipe.yaml:9:11: revise.rounds: must be a whole number, not the text 'many'",
    ]
    assert project.files() == before


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("constitution=constitution/none.yaml", "none.yaml: no such file"),
        ("constitution=defalt", "no constitution 'defalt'; did you mean 'default'?"),
        ("prompts=[{path: none.jsonl}]", "none.jsonl: no such file or folder"),
        ("models={policy: {backend: vllm, model: ./none}}", "none: no model here"),
        ("reuse=[runs/none]", "runs/none: no run here"),
        ("revise.rouns=1", "--set revise.rouns:1:1: unknown key 'rouns'; did you mean 'rounds'?"),
    ],
)
def test_what_a_recipe_names_has_to_be_there(project: Project, setting: str, expected: str) -> None:
    (line,) = cai("run", "recipe.yaml", "--set", setting, code=2).stderr.splitlines()[-1:]
    assert line.startswith("cai: error: ")
    assert expected in line
    assert not (project.root / "runs/small/responses.jsonl").exists()


def test_a_constitution_that_only_judges_cannot_revise(project: Project) -> None:
    (project.root / "principles/kind-00.yaml").write_text("id: kind-00\ntitle: Kind\njudge: Which is kind?\n")
    (project.root / "constitution/own.yaml").write_text("name: own\nprinciples:\n  - {id: kind-00}\n")
    assert "critique request" in cai("run", "recipe.yaml", code=2).stderr
    cai("run", "recipe.yaml", "--set", "revise.rounds=0")
