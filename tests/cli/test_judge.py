"""`cai sample`, `cai judge`, `cai export --preferences` and the judging half of `cai run`, on the scripted backend."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from cai.records import Preference, Vote, comes_first
from tests.cli.judged import RECIPE, cai, rows
from tests.cli.project import only_greets


def test_run_ends_with_votes_and_preferences(recipe: Path) -> None:
    metrics = json.loads(cai("run", "recipe.yaml", "--json").stdout)
    run = recipe / "runs" / "judged"
    votes = {row["id"]: Vote.from_row(row) for row in rows(run / "votes.jsonl")}
    made = [Preference.from_row(row) for row in rows(run / "preferences.jsonl")]
    assert len(votes) == metrics["judge"]["overall"]["votes"] == len(rows(run / "votes.jsonl"))
    assert {vote.order for vote in votes.values()} == {"ab", "ba"}
    by_group: dict[str, list[Preference]] = defaultdict(list)
    for each in made:
        by_group[each.group_id].append(each)
        if each.p is None:  # the backend gives next to no mass now and then
            assert each.status == "abstain"
            assert any(votes[name].error == "low_mass" for name in each.votes)
            continue
        about_a = [votes[name].p for name in each.votes]
        mean = sum(p for p in about_a if p is not None) / len(about_a)
        is_a = comes_first(each.prompt_id, each.chosen, each.rejected)
        assert each.p == pytest.approx(mean if is_a else 1 - mean)
        assert each.p >= 0.5
        assert len(each.principle_ids) == 1, "one principle is drawn a comparison"
    for group in by_group.values():
        assert sum(each.weight for each in group) == pytest.approx(1)
    assert len({name for each in made for name in each.principle_ids}) > 5


def test_votes_that_did_not_fit_are_asked_for_again_once_the_context_has_grown(recipe: Path) -> None:
    def run(context: int, *more: str) -> str:
        judge = f"models.judge={{backend: scripted, context: {context}}}"
        return cai("run", "recipe.yaml", "--set", judge, "--set", "judge.options.model=judge", *more).stderr

    told = run(140)
    votes = rows(recipe / "runs" / "judged" / "votes.jsonl")
    long = {row["id"] for row in votes if row.get("error") == "too_long"}
    assert 0 < len(long) < len(votes)
    assert "did not fit into the context" in told
    again = run(4096)
    assert "judge: 24 of 24 rows were finished before" in again
    again = run(4096, "--retry-failed")
    assert "judge: 24 of 24" not in again
    after = {row["id"]: row for row in rows(recipe / "runs" / "judged" / "votes.jsonl")}
    assert not any(row.get("error") == "too_long" for row in after.values())
    assert all(after[row["id"]] == row for row in votes if row["id"] not in long), "what was said stays said"


def test_no_prompt_is_in_both_splits_of_the_two_data_sets(recipe: Path) -> None:
    cai("run", "recipe.yaml")
    run = recipe / "runs" / "judged"
    split: dict[str, set[str]] = defaultdict(set)
    for name in ("train", "test"):
        for row in [*rows(run / "sft" / f"{name}.jsonl"), *rows(run / "preferences" / "trl" / f"{name}.jsonl")]:
            split[row["prompt_id"]].add(name)
    assert {len(names) for names in split.values()} == {1}
    assert {name for names in split.values() for name in names} == {"train", "test"}


def test_the_stages_alone_make_the_same_bytes_as_run(recipe: Path) -> None:
    cai("run", "recipe.yaml", "--run-dir", "whole")
    for stage in ("revise", "sample", "judge"):
        cai(stage, "recipe.yaml", "--run-dir", "parts")
    cai("export", "recipe.yaml", "--run-dir", "parts", "--preferences")
    names = [p.relative_to(recipe / "whole") for p in (recipe / "whole").rglob("*") if p.is_file()]
    results = [n for n in names if n.parts[0] in ("sft", "preferences") or n.name in ("votes.jsonl", "groups.jsonl")]
    assert len(results) > 8
    for name in [*results, Path("samples.jsonl"), Path("preferences.jsonl"), Path("metrics.json")]:
        assert (recipe / "whole" / name).read_bytes() == (recipe / "parts" / name).read_bytes(), name


def test_again_asks_nothing_and_changes_nothing(recipe: Path) -> None:
    cai("run", "recipe.yaml")
    run = recipe / "runs" / "judged"
    before = {name: (run / name).read_bytes() for name in ("votes.jsonl", "preferences.jsonl", "requests.jsonl")}
    cai("run", "recipe.yaml")
    assert {name: (run / name).read_bytes() for name in before} == before


def test_a_stage_needs_those_before_it(recipe: Path) -> None:
    told = cai("judge", "recipe.yaml", ok=False).stderr
    assert "rows of the stage `sample` are not finished" in told
    cai("sample", "recipe.yaml", ok=False)  # it includes drafts, which `revise` makes
    cai("sample", "recipe.yaml", "--set", "sample.include=[]", "--run-dir", "alone")
    cai("judge", "recipe.yaml", "--set", "sample.include=[]", "--run-dir", "alone")


def test_preferences_alone_need_no_revising(recipe: Path) -> None:
    alone = ["--set", "sample.include=[]", "--run-dir", "alone"]
    cai("sample", "recipe.yaml", *alone)
    cai("judge", "recipe.yaml", *alone)
    shown = cai("export", "recipe.yaml", "--preferences", *alone).stdout
    assert "trl rows" in shown
    assert "SFT" not in shown
    run = recipe / "alone"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["preferences"]["by_status"]["ok"] > 0
    assert metrics["sample"]["quarantined"] is not None
    assert not {"revise", "sft"} & metrics.keys()
    assert not (run / "sft").exists()
    assert json.loads(cai("status", "alone", "--json").stdout)["stages"]["export"] == {"state": "done", "rows": {}}
    preference = rows(run / "preferences.jsonl")[0]["id"]
    assert preference in cai("why", "alone", preference, "--json").stdout
    assert "or preference of this run has" in cai("why", "alone", "f" * 24, ok=False).stderr
    # The SFT data do need it, and say so.
    told = cai("export", "recipe.yaml", *alone, ok=False).stderr
    assert "24 rows of the stage `revise` are not finished" in told
    assert "cai revise" in told
    made = (run / "preferences.jsonl").read_bytes()
    cai("revise", "recipe.yaml", *alone)
    whole = json.loads(cai("export", "recipe.yaml", "--preferences", "--json", *alone).stdout)
    assert whole["sft"]["rows"] > 0
    assert (run / "preferences.jsonl").read_bytes() == made


def test_a_judge_is_added_to_a_finished_run_but_not_exchanged_in_silence(recipe: Path) -> None:
    (recipe / "recipe.yaml").write_text(RECIPE.replace("judge: {}\n", ""))
    assert "preferences" not in json.loads(cai("run", "recipe.yaml", "--json").stdout)
    (recipe / "recipe.yaml").write_text(RECIPE)
    assert json.loads(cai("run", "recipe.yaml", "--json").stdout)["preferences"]["by_status"]["ok"] > 0
    told = cai("run", "recipe.yaml", "--set", "judge.principles=all", ok=False).stderr
    assert "judge.principles" in told
    cai("run", "recipe.yaml", "--set", "judge.principles=all", "--update")


def test_judging_under_all_principles_and_by_axis(recipe: Path) -> None:
    smaller = ["--set", "sample.include=[]", "--set", "sample.sources=[{count: 2}]", "--json"]
    all_ = json.loads(cai("run", "recipe.yaml", "--set", "judge.principles=all", *smaller).stdout)
    assert all_["judge"]["overall"]["votes"] == all_["preferences"]["by_status"]["ok"] * 2 * len(
        all_["judge"]["by_principle"]
    )
    axes = json.loads(
        cai("run", "recipe.yaml", "--set", "judge.axes=[harmless, honest]", "--run-dir", "axes", *smaller).stdout
    )
    assert set(axes["preferences"]["by_axis"]) == {"harmless", "honest"}
    told = cai("run", "recipe.yaml", "--set", "judge.axes=[harmles]", ok=False).stderr
    assert "harmless" in told
    mistyped = ("--set", "judge.axes=[harmless, honest]", "--set", "preferences.axes=[harmles]", "--run-dir", "new")
    assert "did you mean 'harmless'?" in cai("run", "recipe.yaml", *mistyped, ok=False).stderr
    assert "did you mean 'harmless'?" in cai("run", "recipe.yaml", "--dry-run", *mistyped, ok=False).stderr


@pytest.mark.parametrize("method", ["cot", "rating", "listwise", "tournament", "panel"])
def test_every_method_judges_a_run(recipe: Path, method: str) -> None:
    options = {
        "tournament": "{judge: {method: logprob}}",
        "panel": "{members: [{method: logprob}, {method: cot, name: slow}], rule: median}",
    }.get(method, "{}")
    settings = ["--set", f"judge.method={method}", "--set", f"judge.options={options}"]
    metrics = json.loads(cai("run", "recipe.yaml", *settings, "--json").stdout)
    assert metrics["preferences"]["by_status"]["ok"] > 0
    groups = rows(recipe / "runs" / "judged" / "groups.jsonl")
    for group in groups:
        assert sorted(group["rankings"][""]) == sorted(group["responses"])


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("judge.method=logprop", "logprob"),
        ("judge.options={min_mas: 0.1}", "min_mass"),
        ("judge.options={model: jugde}", "judge"),
        ("judge.options={prompt: nowhere}", "pair"),
        ("sample.sources=[{model: polciy}]", "policy"),
        ("sample={sources: [{count: 1}]}", "two answers"),
        ("sample={sources: [], include: [draft, draft]}", "two answers"),
        ("sample={sources: [], include: [last_revision, revisions]}", "two answers"),  # of one round
        ("preferences.formats=[tlr]", "trl"),
        ("preferences.axes=[harmless]", "judge.axes: none"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(recipe: Path, setting: str, expected: str) -> None:
    told = cai("run", "recipe.yaml", "--set", setting, ok=False).stderr
    assert expected in told
    assert not (recipe / "runs" / "judged" / "requests.jsonl").exists()


def test_one_answer_is_enough_where_nothing_is_compared(recipe: Path) -> None:
    (recipe / "recipe.yaml").write_text(RECIPE.replace("judge: {}\n", ""))
    one = ("recipe.yaml", "--set", "sample={sources: [{count: 1}]}")
    cai("run", *one, "--dry-run")
    cai("sample", *one)
    assert "two answers" in cai("run", *one, "--set", "judge={}", ok=False).stderr


def test_several_formats_and_a_least_margin(recipe: Path) -> None:
    cai("run", "recipe.yaml")
    run = recipe / "runs" / "judged"
    requests = (run / "requests.jsonl").read_bytes()
    cai("export", "recipe.yaml", "--format", "ultrafeedback", "--format", "rewardbench")
    assert (run / "preferences" / "ultrafeedback" / "train.jsonl").is_file()
    told = json.loads(
        cai("export", "recipe.yaml", "--preferences", "--set", "preferences.min_margin=0.3", "--json").stdout
    )
    assert told["preferences"]["left_out"]["low_margin"] > 0
    kept = rows(run / "preferences" / "trl" / "train.jsonl")
    assert min(row["margin"] for row in kept) >= 0.3
    assert set(told["preferences"]["formats"]) == {"trl", "ultrafeedback", "rewardbench"}
    same = {row["id"] for row in kept}
    assert {row["id"] for row in rows(run / "preferences" / "rewardbench" / "train.jsonl")} == same, (
        "none is left behind"
    )
    assert (run / "requests.jsonl").read_bytes() == requests, "no model was asked"


def test_sft_data_in_hugging_faces_columns(recipe: Path) -> None:
    cai("run", "recipe.yaml")
    run = recipe / "runs" / "judged"
    told = json.loads(cai("export", "recipe.yaml", "--format", "hf_cai", "--json").stdout)
    made = [row for path in (run / "sft_hf_cai").glob("*.jsonl") for row in rows(path)]
    assert len(made) == sum(told["sft_formats"]["hf_cai"]["by_split"].values()) == told["sft"]["rows"]
    texts = {row["id"]: row["text"] for row in rows(run / "responses.jsonl")}
    assert {row["revision_response"] for row in made} <= set(texts.values())
    assert all(all(row.values()) for row in made)
    cai("export", "recipe.yaml", "--set", "sft.revisions=last", "--set", "sft.test_fraction=0.9")
    for split in ("train", "test"):
        texts_of = [row["messages"][-1]["content"] for row in rows(run / "sft" / f"{split}.jsonl")]
        again = [row["revision_response"] for row in rows(run / "sft_hf_cai" / f"{split}.jsonl")]
        assert 0 < len(again) < len(made)
        assert again == texts_of, "none is left behind"
    cai("run", "recipe.yaml", "--set", "seed=77", "--update")
    assert not (run / "sft_hf_cai").exists(), "it was made from the old answers"
    assert (run / "history" / "001" / "sft_hf_cai").is_dir()


def test_why_tells_every_vote(recipe: Path) -> None:
    cai("run", "recipe.yaml")
    run = recipe / "runs" / "judged"
    first = rows(run / "preferences.jsonl")[0]
    told = json.loads(cai("why", str(run), first["id"][:10], "--json").stdout)
    assert [vote["id"] for vote in told["decisions"][0]["votes"]] == first["votes"]
    assert first["principle_ids"][0] in cai("why", str(run), first["id"]).stdout


def test_dry_run_counts_the_judges_requests(recipe: Path) -> None:
    with_judge = json.loads(cai("run", "recipe.yaml", "--dry-run", "--json").stdout)
    (recipe / "recipe.yaml").write_text(RECIPE.replace("judge: {}\n", ""))
    without = json.loads(cai("run", "recipe.yaml", "--dry-run", "--json").stdout)
    # 24 prompts with 3 samples; 5 answers give 10 pairs, each asked in both orders.
    assert with_judge["requests"] - without["requests"] == 24 * (3 + 20)


def test_dry_run_knows_the_answers_that_are_there_and_what_the_judge_was_asked(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cai("revise", "recipe.yaml")
    cai("sample", "recipe.yaml")
    with monkeypatch.context() as patch:
        only_greets(patch)
        cai("judge", "recipe.yaml")
    dry = ("run", "recipe.yaml", "--dry-run", "--json")
    assert json.loads(cai(*dry).stdout)["requests"] == 0
    again = json.loads(cai(*dry, "--retry-failed").stdout)
    assert again["requests"] > 0
    cai("run", "recipe.yaml", "--retry-failed")
    last = rows(recipe / "runs" / "judged" / "attempts.jsonl")[-1]
    assert (last["stage"], last["usage"]["fresh_requests"]) == ("judge", again["requests"])
    assert json.loads(cai(*dry).stdout)["requests"] == 0


def test_status_tells_all_stages(recipe: Path) -> None:
    cai("run", "recipe.yaml")
    stages = json.loads(cai("status", "runs/judged", "--json").stdout)["stages"]
    assert [stages[name]["left"] for name in ("revise", "sample", "judge")] == [0, 0, 0]


def test_samples_of_several_models_meet_in_one_group(recipe: Path) -> None:
    settings = ["--set", "models.other={backend: scripted, name: other}", "--set", "sample.include=[]"]
    settings += ["--set", "sample.sources=[{count: 1}, {model: other, count: 2, name: rival}]"]
    cai("run", "recipe.yaml", *settings)
    run = recipe / "runs" / "judged"
    samples = {row["id"]: row for row in rows(run / "samples.jsonl")}
    assert {row["sampling"]["source"] for row in samples.values()} == {"policy", "rival"}
    assert len({row["model"] for row in samples.values()}) == 2
    for group in rows(run / "groups.jsonl"):
        assert {samples[name]["sampling"]["source"] for name in group["responses"]} <= {"policy", "rival"}
    told = cai("run", "recipe.yaml", "--set", "models.unused={backend: scripted}", ok=False).stderr
    assert "unknown role 'unused'" in told


def test_drafts_and_revisions_are_compared_where_nothing_is_sampled(recipe: Path) -> None:
    alone = ("run", "recipe.yaml", "--set", "sample={sources: [], include: [draft, last_revision]}")
    ahead = json.loads(cai(*alone, "--dry-run", "--json").stdout)
    assert ahead["warnings"] == []
    done = cai(*alone, "--json")
    assert done.stderr.count("loading ") == 1, "the stage that asks nothing leaves the model to the judge"
    assert json.loads(done.stdout)["preferences"]["by_status"]["ok"] > 0
    groups = rows(recipe / "runs" / "judged" / "groups.jsonl")
    responses = {row["id"]: row["round"] for row in rows(recipe / "runs" / "judged" / "responses.jsonl")}
    assert groups
    assert all([responses[answer] for answer in group["responses"]] == [0, 1] for group in groups)


def test_answers_that_say_the_same_are_recorded_and_not_compared(recipe: Path) -> None:
    rules = "rules: [{match: '.', reply: 'It is settled best by asking those whom it concerns, and soon.'}]"
    settings = ["--set", f"models.other={{backend: scripted, {rules}}}", "--set", "sample.include=[]"]
    settings += ["--set", "sample.sources=[{model: other, count: 3}, {count: 1}]"]
    metrics = json.loads(cai("run", "recipe.yaml", *settings, "--json").stdout)
    assert metrics["sample"]["duplicates"] == 24 * 2
    for group in rows(recipe / "runs" / "judged" / "groups.jsonl"):
        assert len(group["duplicates"]) == 2
        if group["responses"]:  # the other model's answer is empty now and then
            assert set(group["duplicates"].values()) <= set(group["responses"])
    assert metrics["preferences"]["by_status"].get("ok", 0) <= 24

    settings[-1] = "sample.sources=[{model: other, count: 3}]"
    metrics = json.loads(cai("run", "recipe.yaml", *settings, "--run-dir", "alike", "--json").stdout)
    assert metrics["sample"]["quarantined"] == {"all_alike": 24}
    assert metrics["preferences"]["by_status"] == {}


def test_rows_whose_answers_came_late_are_judged_late(recipe: Path) -> None:
    """The backend fails on some samples for good; once it is mended, they are sampled and judged, the others not."""
    settings = ["--set", "sample.include=[]", "--set", "retry.give_up_after=1000"]
    broken = ["--set", "models.other={backend: scripted, fail: {broken: 0.3}}"]
    sources = ["--set", "sample.sources=[{model: other, count: 2}]"]
    cai("run", "recipe.yaml", *settings, *sources, *broken)
    run = recipe / "runs" / "judged"
    before = rows(run / "preferences.jsonl")
    failed = [row for row in rows(run / "quarantine.jsonl") if row["stage"] == "sample"]
    assert failed
    assert 0 < len(before) < 24
    # Each prompt once, by why its answers are missing, not by there being none to compare.
    card = (run / "preferences" / "trl" / "README.md").read_text()
    given_up = card.partition("prompt given up (quarantined)")[2].partition("\n\n")[0].splitlines()[2:]
    assert given_up == [f"| backend | {24 - len(before)} |"]
    sampled = (run / "sampled.jsonl").read_text().splitlines()
    mended = {json.loads(line)["id"]: json.loads(line) for line in sampled}
    whole = next(row for row in mended.values() if row["responses"])
    for id_, row in mended.items():  # as a later retry would leave them
        if not row["responses"]:
            with (run / "sampled.jsonl").open("a") as file:
                again = {**whole, "id": id_, "responses": [{**r, "prompt_id": id_} for r in whole["responses"]]}
                again.pop("crc", None)
                file.write(json.dumps(again) + "\n")
    cai("run", "recipe.yaml", *settings, *sources, *broken)
    after = rows(run / "preferences.jsonl")
    assert len(after) == 24
    assert [row for row in after if row in before] == before


def test_a_prompt_whose_sampling_failed_is_told_once_and_by_why(recipe: Path) -> None:
    cai(
        *("run", "recipe.yaml", "--set", "sample.include=[]", "--set", "retry.give_up_after=1000"),
        *("--set", "models.other={backend: scripted, fail: {broken: 0.3}}"),
        *("--set", "sample.sources=[{model: other, count: 2}]"),
    )
    quarantined = rows(recipe / "runs/judged/quarantine.jsonl")
    failed = [row for row in quarantined if row["reason"] == "backend"]
    assert failed
    assert len({row["id"] for row in quarantined}) == len(quarantined)
    told = json.loads(cai("why", "runs/judged", failed[0]["id"], "--json").stdout)
    assert [(row["stage"], row["reason"]) for row in told["quarantined"]] == [("sample", "backend")]


def test_why_tells_of_samples_that_were_not_compared(recipe: Path) -> None:
    more = ("--set", "sample={sources: [{count: 2}]}", "--set", "models.policy.rules=[{match: best, reply: Ask.}]")
    cai("run", "recipe.yaml", *more)
    sample = rows(recipe / "runs/judged/samples.jsonl")[1]
    told = json.loads(cai("why", "runs/judged", sample["id"], "--json").stdout)
    assert (told["kind"], [row["reason"] for row in told["quarantined"] if row["stage"] == "sample"]) == (
        "response",
        ["all_alike"],
    )
    assert "sample 1 of policy" in cai("why", "runs/judged", sample["id"]).stdout
