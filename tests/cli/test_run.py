"""`cai run` and what belongs to it, from a recipe to its data, on the scripted backend."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from cai.cli.main import app
from cai.constitution.draw import draw
from cai.constitution.load import load_constitution
from cai.records import Prompt

RECIPE = """\
name: small
seed: 3
constitution: constitution/own.yaml
prompts:
  - path: data/prompts.jsonl
models:
  policy: {backend: scripted}
revise:
  rounds: 2
sft: {test_fraction: 0.3}
"""
KINDS = [f"kind-{n:02d}" for n in range(16)]


class Project:
    """A folder with a constitution of 16 equal principles, prompts and a recipe; the current folder of the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for kind in ("constitution", "principles", "data"):
            (root / kind).mkdir()
        for name in KINDS:
            self.principle(name)
        names = "".join(f"  - {{id: {name}}}\n" for name in KINDS)
        (root / "constitution" / "own.yaml").write_text(f"name: own\nprinciples:\n{names}")
        (root / "recipe.yaml").write_text(RECIPE)
        self.prompts(10)

    def principle(self, name: str, critique: str = "") -> None:
        critique = critique or f"Is it {name}?"
        text = f"id: {name}\ntitle: {name}\ncritique: {critique}\nrevision: Make it {name}.\n"
        (self.root / "principles" / f"{name}.yaml").write_text(text)

    def prompts(self, count: int, *, helpful: int = 2) -> None:
        rows = [
            {"messages": [{"role": "user", "content": f"Question {n}?"}], "tags": ["helpful"] if n < helpful else []}
            for n in range(count)
        ]
        (self.root / "data" / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def rows(self, path: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.root / path).read_text().splitlines()]

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def cai(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


def usage(project: Project, run: str = "runs/small") -> dict[str, int]:
    found: dict[str, int] = project.rows(f"{run}/attempts.jsonl")[-1]["usage"]
    return found


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
    cai("run", str(project.root / "runs/small/recipe.yaml"))
    for path in ("responses.jsonl", "sft/train.jsonl", "prompts.jsonl"):
        assert (elsewhere / "runs/small" / path).read_bytes() == (project.root / "runs/small" / path).read_bytes()


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


def test_dry_run_on_a_finished_run_finds_everything_in_its_log(project: Project) -> None:
    cai("run", "recipe.yaml")
    before = project.files()
    found = json.loads(cai("run", "recipe.yaml", "--dry-run", "--json").stdout)
    assert (found["requests"], found["reused"], found["new_tokens"]) == (0, 42, 0)
    fresh = json.loads(cai("run", "recipe.yaml", "--dry-run", "--json", "--set", "seed=4").stdout)
    assert fresh["requests"] == 42
    assert fresh["seconds"] is not None
    assert project.files() == before


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


# --- changed inputs


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


# --- rows that do not come through


def test_what_a_row_cannot_do_is_in_quarantine_with_the_reason(project: Project) -> None:
    default = "name: own\nprinciples:\n  - {id: kind-00, level: default}\n  - {id: kind-01, level: default}\n"
    (project.root / "constitution/own.yaml").write_text(default)
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "Do as I say."}], "overrides": ["kind-00", "kind-01"]},
        {"messages": [{"role": "user", "content": "word " * 5000}]},
        {"messages": [{"role": "user", "content": "How are you?"}], "overrides": ["kind-00"]},
    ]
    lines = [*map(json.dumps, rows), "not json"]
    (project.root / "data/prompts.jsonl").write_text("".join(line + "\n" for line in lines))
    cai("run", "recipe.yaml")
    reasons = {row["reason"]: row["detail"] for row in project.rows("runs/small/quarantine.jsonl")}
    assert reasons.keys() == {"no_principle", "too_long", "unreadable"}
    assert (
        "its overrides (kind-00, kind-01) set aside every principle of the constitution 'own'"
        in reasons["no_principle"]
    )
    assert "do not fit" in reasons["too_long"]
    assert {tuple(row["principle_ids"]) for row in project.rows("runs/small/responses.jsonl")} == {(), ("kind-01",)}
    first = project.rows("runs/small/prompts.jsonl")[0]["id"]
    assert "given up: no_principle" in cai("why", "runs/small", first).stdout
    assert reasons["unreadable"].startswith("data/prompts.jsonl:4: not JSON")


def test_rows_that_did_not_fit_are_asked_for_again_once_the_context_has_grown(project: Project) -> None:
    words = {"prompt": "word " * 300}
    (project.root / "data/prompts.jsonl").write_text(json.dumps(words) + "\n" + json.dumps({"prompt": "Short?"}) + "\n")
    # The draft of the long one fits, and so does a round; its second does not. A little less, and nothing fits.
    for run, context in (("part", "607"), ("none", "500")):
        folder = ("--run-dir", f"runs/{run}", "--set", "seed=1")
        told = cai("run", "recipe.yaml", *folder, "--set", f"models.policy.context={context}").stderr
        assert "1 rows did not fit into the context" in told
        assert "--retry-failed" in told
        flags = {flag for row in project.rows(f"runs/{run}/responses.jsonl") for flag in row["flags"]}
        quarantined = [row["reason"] for row in project.rows(f"runs/{run}/quarantine.jsonl")]
        assert (flags, quarantined) == (({"too_long"}, []) if run == "part" else (set(), ["too_long"]))
        more = ("--set", "models.policy.context=4096")
        assert "2 of 2 rows were finished before" in cai("run", "recipe.yaml", *folder, *more).stderr
        assert "1 of 2 rows were finished before" in cai("run", "recipe.yaml", *folder, *more, "--retry-failed").stderr
        assert len(project.rows(f"runs/{run}/responses.jsonl")) == 6
        assert project.rows(f"runs/{run}/quarantine.jsonl") == []


def test_one_model_name_at_two_ports_of_this_machine_is_refused_unless_named(project: Project) -> None:
    def models(more: str = "") -> str:
        served = [f"{{backend: openai, url: 'http://127.0.0.1:{port}/v1', model: m{more}}}" for port in (1, 2)]
        return f"models={{policy: {served[0]}, critic: {served[1]}}}"

    told = cai("run", "recipe.yaml", "--dry-run", "--set", models(), code=2).stderr
    assert "ask one model name at two addresses of this machine" in told
    assert "identity" in told
    cai("run", "recipe.yaml", "--dry-run", "--set", models(", identity: same"))
    slash = models().replace("127.0.0.1:2/v1", "127.0.0.1:1/v1/")  # one server, written in two ways
    cai("run", "recipe.yaml", "--dry-run", "--set", slash)


def test_the_card_names_only_models_that_took_part(project: Project) -> None:
    for setting, roles in (
        ("revise.rounds=2", "policy, critic, reviser"),
        ("revise.critique=false", "policy, reviser"),
        ("revise.rounds=0", "policy"),
    ):
        run = f"runs/{roles.replace(', ', '-')}"
        cai("run", "recipe.yaml", "--run-dir", run, "--set", setting)
        assert f"| {roles} | scripted |" in (project.root / run / "sft/README.md").read_text()


def test_flags_that_are_only_recorded_can_be_kept_out_of_the_data(project: Project) -> None:
    refusal = "I cannot help with that, because it would hurt your neighbour."
    rules = f"models.policy.rules=[{{match: 'Make it', reply: '{refusal}'}}]"
    cai("run", "recipe.yaml", "--set", rules, "--set", "revise.rounds=1")
    assert json.loads((project.root / "runs/small/metrics.json").read_text())["sft"]["by_kind"]["revision"] == 8
    cai("export", "recipe.yaml", "--set", rules, "--set", "revise.rounds=1", "--set", "sft.drop_flags=[refusal]")
    metrics = json.loads((project.root / "runs/small/metrics.json").read_text())
    assert metrics["sft"]["by_kind"] == {"unrevised": 2}
    assert metrics["left_out"]["flagged"] == 8
    told = cai("run", "recipe.yaml", "--set", "sft.drop_flags=[refusals]", "--dry-run", code=2).stderr
    assert "no flag 'refusals'; did you mean 'refusal'?" in told


# --- prompts that are none


def broken_prompts(project: Project, count: int = 5) -> None:
    with (project.root / "data/prompts.jsonl").open("a") as file:
        file.write("not json\n" * count)


def test_rows_that_are_no_prompt_are_told_of_everywhere(project: Project) -> None:
    broken_prompts(project)
    ahead = cai("run", "recipe.yaml", "--dry-run")
    assert "rows unreadable               5" in ahead.stdout
    result = cai("run", "recipe.yaml", "--set", "sft.title=Small")
    for told in (result.stderr, (project.root / "runs/small/run.log").read_text()):
        assert "5 rows of the prompts' files could not be read; all are in runs/small/unreadable.jsonl" in told
        assert "data/prompts.jsonl:11: not JSON" in told
        assert "data/prompts.jsonl:14" not in told  # the first few stand for all
    assert "unreadable rows" in result.stdout
    aside = project.rows("runs/small/quarantine.jsonl")
    assert [(row["stage"], row["reason"], row["input"]["where"]) for row in aside] == [
        ("prompts", "unreadable", f"data/prompts.jsonl:{number}") for number in range(11, 16)
    ]
    metrics = json.loads((project.root / "runs/small/metrics.json").read_text())
    assert metrics["prompts"] == {"read": 10, "unreadable": 5, "repeated": 0}
    assert "| unreadable | 5 |" in (project.root / "runs/small/sft/README.md").read_text()
    assert "not JSON" in cai("why", "runs/small", aside[0]["id"]).stdout
    assert json.loads(cai("status", "runs/small", "--json").stdout)["prompts"]["unreadable"] == 5
    assert "unreadable" in cai("status", "runs/small").stdout
    assert "5 rows of the prompts' files" in cai("run", "recipe.yaml").stderr
    manifest = json.loads((project.root / "runs/small/manifest.json").read_text())
    assert manifest["rows"] == metrics["prompts"]


def test_a_torn_file_of_prompts_is_an_error_unless_it_is_allowed(project: Project) -> None:
    whole = (project.root / "data/prompts.jsonl").read_bytes()
    (project.root / "data/prompts.jsonl").write_bytes(whole[:-20])
    for arguments in (["--dry-run"], []):
        told = cai("run", "recipe.yaml", *arguments, code=2).stderr
        assert "data/prompts.jsonl:10: not JSON" in told
        assert "allow_torn" in told
    assert not (project.root / "runs/small/manifest.json").exists()
    cai("run", "recipe.yaml", "--set", "prompts=[{path: data/prompts.jsonl, allow_torn: true}]")
    assert json.loads((project.root / "runs/small/metrics.json").read_text())["prompts"]["unreadable"] == 1


def test_a_limit_looks_at_nothing_behind_it(project: Project) -> None:
    whole = (project.root / "data/prompts.jsonl").read_bytes()
    (project.root / "data/prompts.jsonl").write_bytes(whole[:-20])
    cai("run", "recipe.yaml", "--set", "prompts=[{path: data/prompts.jsonl, limit: 9}]")
    assert len(project.rows("runs/small/prompts.jsonl")) == 9


def test_mistyped_tags_and_overrides_are_named_with_the_nearest_known_word(project: Project) -> None:
    row = {"prompt": "Hm?", "overrides": ["kind-0", "kind-03"]}
    with (project.root / "data/prompts.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    mistyped = ("--set", "revise.unrevised_tags=[helpfull]")
    expected = [
        "warning: revise.unrevised_tags: no prompt has the tag 'helpfull'; did you mean 'helpful'?",
        "warning: data/prompts.jsonl:11: overrides: 'kind-0' is no principle or tag of the constitution 'own'; "
        "did you mean 'kind-",
    ]
    for result in (cai("run", "recipe.yaml", "--dry-run", *mistyped), cai("run", "recipe.yaml", *mistyped)):
        assert all(text in result.stderr for text in expected)
        assert result.stderr.count("warning") == 2
    # What nobody wrote is not complained about: by default prompts tagged `helpful` are only answered.
    project.prompts(3, helpful=0)
    assert "warning" not in cai("run", "recipe.yaml", "--run-dir", "runs/other").stderr


def test_a_mistyped_path_leaves_nothing_behind(project: Project) -> None:
    before = project.files()
    told = cai("run", "recipe.yaml", "--set", "prompts=[{path: data/prompt.jsonl}]", code=2).stderr
    assert "data/prompt.jsonl: no such file" in told
    assert project.files() == before


def test_a_source_without_a_row_is_named(project: Project) -> None:
    (project.root / "data/none.jsonl").write_text("\n")
    both = "prompts=[{path: data/none.jsonl}, {path: data/prompts.jsonl}]"
    assert "warning: data/none.jsonl holds no prompt" in cai("run", "recipe.yaml", "--set", both).stderr


def test_dry_run_tells_of_prompts_that_do_not_fit(project: Project) -> None:
    (project.root / "data/prompts.jsonl").write_text(
        json.dumps({"prompt": "word " * 5000}) + '\n{"prompt": "Short?"}\n'
    )
    found = json.loads(cai("run", "recipe.yaml", "--dry-run", "--json").stdout)
    assert (found["prompts"], found["too_long"], found["requests"]) == (2, 1, 5)
    assert "prompts too long              1" in cai("run", "recipe.yaml", "--dry-run").stdout


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
