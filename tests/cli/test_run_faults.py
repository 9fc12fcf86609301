"""`cai run` on rows that do not come through and on prompts that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.project import KINDS, Project, cai, only_greets

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


def test_a_row_that_lacks_a_part_keeps_the_rest_though_the_backend_fails_on_that(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / "data/prompts.jsonl").write_text(json.dumps({"prompt": "word " * 300}) + "\n")
    cai("run", "recipe.yaml", "--set", "seed=1", "--set", "models.policy.context=607")
    before = project.rows("runs/small/responses.jsonl")
    assert ["too_long"] in [row["flags"] for row in before]
    again = ("run", "recipe.yaml", "--set", "seed=1", "--set", "models.policy.context=4096", "--retry-failed")
    with monkeypatch.context() as patch:
        only_greets(patch)
        told = cai(*again).stderr
    assert "the backend failed on 1 rows" in told
    assert project.rows("runs/small/responses.jsonl") == before
    assert project.rows("runs/small/quarantine.jsonl") == []
    assert "1 of 1 rows were finished before" not in cai(*again).stderr
    assert [row["flags"] for row in project.rows("runs/small/responses.jsonl")] == [[]] * 3


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


def test_a_model_without_a_chat_template_is_refused_where_it_is_asked_in_chat(project: Project) -> None:
    (project.root / "base").mkdir()
    (project.root / "base/config.json").write_text("{}")
    (project.root / "base/tokenizer_config.json").write_text("{}")
    base, scripted = "{backend: vllm, model: ./base}", "{backend: scripted}"

    def ahead(models: str, *more: str, code: int = 0) -> str:
        settings = [part for each in (f"models={models}", *more) for part in ("--set", each)]
        return cai("run", "recipe.yaml", "--dry-run", *settings, code=code).stderr

    told = ahead(f"{{policy: {base}}}", code=2)
    assert "models.policy: the model has no chat template, and it is asked in chat" in told
    assert "revise.style: base" in told
    assert "models.critic: " in ahead(f"{{policy: {scripted}, critic: {base}}}", code=2)
    ahead(f"{{policy: {scripted}, critic: {base}}}", "revise.rounds=0")
    ahead(f"{{policy: {base}}}", "revise.style=base")
    # A judge asks in chat whatever the style is.
    assert "models.judge: " in ahead(f"{{policy: {base}}}", "revise.style=base", "judge={principles: none}", code=2)
    ahead(f"{{policy: {base}, judge: {scripted}}}", "revise.style=base", "judge={principles: none}")


def test_several_answers_at_temperature_0_are_refused(project: Project) -> None:
    for setting in (
        "revise={unrevised_samples: 2, draft: {temperature: 0}}",
        "sample={sources: [{count: 4, temperature: 0}]}",
    ):
        told = cai("run", "recipe.yaml", "--dry-run", "--set", setting, "--set", "judge={}", code=2).stderr
        assert "at temperature 0 its" in told
        assert "to 1, or raise the temperature" in " ".join(told.split())


def test_models_that_take_no_part_are_not_loaded(project: Project) -> None:
    models = "models={policy: {backend: scripted}, critic: {backend: scripted, name: other}}"
    told = cai("run", "recipe.yaml", "--set", models, "--set", "revise={critique: false}").stderr
    assert "loading scripted@" in told
    assert "loading other@" not in told


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
    card = (project.root / "runs/small/sft/README.md").read_text()
    assert "| flags that keep an answer out | truncated, empty, " in card
    assert "too_long, refusal |" in card
    told = cai("run", "recipe.yaml", "--set", "sft.drop_flags=[refusals]", "--dry-run", code=2).stderr
    assert "no flag 'refusals'; did you mean 'refusal'?" in told


@pytest.mark.parametrize("more", ["[]", "[refusal]"])
def test_a_faulty_revision_stays_out_of_the_data_whatever_else_is_kept_out(project: Project, more: str) -> None:
    """`sft.drop_flags` adds; a revision that says it is one (`scaffold`) is never trained on."""
    once = "seed: 3\nrevise: {rounds: 1, retries: 0}\n"
    recipe = (project.root / "recipe.yaml").read_text().replace("seed: 3\n", "").replace("revise:\n  rounds: 2\n", once)
    (project.root / "recipe.yaml").write_text(recipe)
    rules = "models.policy.rules=[{match: 'Make it', reply: 'Revision: Water it once a week and turn it.'}]"
    cai("run", "recipe.yaml", "--set", rules, "--set", f"sft.drop_flags={more}")
    flags = {flag for row in project.rows("runs/small/responses.jsonl") if row["round"] for flag in row["flags"]}
    assert flags == {"scaffold"}
    metrics = json.loads((project.root / "runs/small/metrics.json").read_text())
    assert metrics["sft"]["by_kind"] == {"unrevised": 2}
    assert metrics["left_out"]["flagged"] == 8


# --- prompts that are none


def broken_prompts(project: Project, count: int = 5) -> None:
    with (project.root / "data/prompts.jsonl").open("a") as file:
        file.write("not json\n" * count)


def test_rows_that_are_no_prompt_are_told_of_everywhere(project: Project) -> None:
    broken_prompts(project)
    ahead = cai("run", "recipe.yaml", "--dry-run")
    assert "rows unreadable               5" in ahead.stdout
    assert "warning: a row of the prompts' files could not be read: data/prompts.jsonl:11: not JSON" in ahead.stderr
    assert "data/prompts.jsonl:14" not in ahead.stderr
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


def test_prompts_of_which_none_can_be_read_are_refused_by_a_dry_run_too(project: Project) -> None:
    (project.root / "data/prompts.jsonl").write_text('{"question": "How so?"}\n' * 3)
    for arguments in (["--dry-run", "--json"], []):
        result = cai("run", "recipe.yaml", *arguments, code=2)
        assert (
            "prompts: there is not one prompt to work on; the first row that could not be read: data/" in result.stderr
        )
        assert "question" in result.stderr
        assert not result.stdout


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


def test_tags_and_overrides_without_effect_are_named_with_the_nearest_that_has_one(project: Project) -> None:
    principles = [f"  - {{id: {name}{', level: default' if name == 'kind-03' else ''}}}\n" for name in KINDS]
    (project.root / "constitution/own.yaml").write_text(f"name: own\nprinciples:\n{''.join(principles)}")
    rows = [
        {"prompt": "Hm?", "overrides": ["kind-0", "kind-03", "kind-01"]},
        {"prompt": "So?", "overrides": ["kind-01"]},
    ]
    with (project.root / "data/prompts.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    mistyped = ("--set", "revise.unrevised_tags=[helpfull]")
    expected = [
        "warning: revise.unrevised_tags: no prompt has the tag 'helpfull'; did you mean 'helpful'?",
        "warning: data/prompts.jsonl:11: overrides: 'kind-0' is no principle or tag of the constitution 'own'; "
        "did you mean 'kind-03'?",
        "warning: data/prompts.jsonl:11: overrides: 'kind-01' names only principles of level 'goal', which no prompt "
        "can set aside (and 1 more prompts)",
    ]
    for result in (cai("run", "recipe.yaml", "--dry-run", *mistyped), cai("run", "recipe.yaml", *mistyped)):
        assert all(text in result.stderr for text in expected)
        assert result.stderr.count("warning") == 3
    # What nobody wrote is not complained about: by default prompts tagged `helpful` are only answered.
    project.prompts(3, helpful=0)
    assert "warning" not in cai("run", "recipe.yaml", "--run-dir", "runs/other").stderr


def test_a_mistyped_path_leaves_nothing_behind(project: Project) -> None:
    before = project.files()
    told = cai("run", "recipe.yaml", "--set", "prompts=[{path: data/prompt.jsonl}]", code=2).stderr
    assert "data/prompt.jsonl: no such file" in told
    assert project.files() == before


@pytest.mark.parametrize("call", ["open", "exists"])
def test_prompts_that_may_not_be_read_are_named(project: Project, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    allowed = getattr(Path, call)

    def refused(self: Path, *args: Any, **options: Any) -> Any:  # root may read whatever the permissions say
        if self.name == "prompts.jsonl" and "runs" not in self.parts:
            raise PermissionError(13, "Permission denied", str(self))
        return allowed(self, *args, **options)

    monkeypatch.setattr(Path, call, refused)
    told = cai("run", "recipe.yaml", code=2).stderr
    assert "data/prompts.jsonl: cannot read it: Permission denied (check its permissions)" in told


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
