"""People in the loop from the command line, on a run of the scripted backend."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cai import serving
from cai.cli.main import app
from cai.config import load_recipe
from cai.labels.items import items_of, p_of_a
from cai.progress import Silent
from cai.records import HumanLabel, Preference
from cai.train import prepare
from cai.training.data import PairSource

RECIPE = """
name: people
seed: 5
prompts: [{path: prompts.jsonl}]
models: {policy: {backend: scripted}}
constitution: humanity
revise: {rounds: 1}
sft: {test_fraction: 0.3}
sample: {sources: [{count: 2}, {count: 1, temperature: 0.3, name: cool}]}
judge: {}
"""


def cai(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judged run in which three people labelled half of the pairs, mostly against the judge."""
    folder = tmp_path_factory.mktemp("people")
    rows = [{"prompt": f"How is matter {number} best settled?"} for number in range(24)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, "utf-8")
    cai("run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run"))
    place = folder / "run"
    tasks = folder / "tasks.jsonl"
    cai("label", "export", str(place), "--format", "jsonl", "--out", str(tasks))
    done = []
    for number, line in enumerate(tasks.read_text("utf-8").splitlines()):
        row = json.loads(line)
        for person in ("ann", "bea", "cem"):
            if number % 2 == 0:
                longer = "left" if len(row["left"]) > len(row["right"]) else "right"
                other = {"left": "right", "right": "left"}[longer]
                verdict = other if person == "cem" and number % 6 == 0 else longer
                done.append(json.dumps(row | {"annotator": person, "verdict": verdict, "seconds": 600}))
    (folder / "done.jsonl").write_text("\n".join(done) + "\n", "utf-8")
    told = json.loads(cai("label", "import", str(place), str(folder / "done.jsonl"), "--json").stdout)
    assert told["added"] == len(done)
    assert json.loads(cai("label", "import", str(place), str(folder / "done.jsonl"), "--json").stdout)["added"] == 0
    return place


def test_people_are_named_in_the_option_or_in_a_file(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[tuple[str, ...]] = []

    def serve(asked: serving.Serving, *_: Any, **__: Any) -> int:
        served.append(asked.annotators)
        return 0

    monkeypatch.setattr(serving, "serve", serve)
    many = [f"person-{number}@example.org" for number in range(40)]  # longer than the name of a file can be
    cai("label", "serve", str(run), "--annotators", ",".join(many))
    (tmp_path / "names.txt").write_text("\n".join(many), "utf-8")
    cai("label", "serve", str(run), "--annotators", str(tmp_path / "names.txt"))
    assert served == [tuple(many)] * 2
    (tmp_path / "names.txt").write_bytes("Zoë".encode("latin-1"))
    told = cai("label", "serve", str(run), "--annotators", str(tmp_path / "names.txt"), code=2).stderr
    assert "names.txt: not UTF-8 text" in told


def preferences(path: Path) -> list[Preference]:
    return [Preference.from_row(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def test_agreement_names_people_and_stands_beside_the_judge(run: Path) -> None:
    told = json.loads(cai("label", "agreement", str(run), "--json").stdout)
    assert told["axes"][""]["workers"] == 3
    assert 0.5 < told["axes"][""]["observed"]["value"] < 1
    assert told["axes"][""]["annotators"]["cem"]["reliability"] < told["axes"][""]["annotators"]["ann"]["reliability"]
    assert told["beside_the_judge"][0]["over"] == "all"
    assert "length" in told["suspects"] or told["suspects"] == {}
    assert "alpha" in cai("label", "agreement", str(run)).stdout


def test_merging_puts_people_first_and_explains_itself(run: Path) -> None:
    told = json.loads(cai("merge", str(run), "--json").stdout)
    made = preferences(run / "merged.jsonl")
    judged = {row.comparison_id: row for row in preferences(run / "preferences.jsonl")}
    assert len(made) == len(judged) == told["preferences"]
    labels = [HumanLabel.from_row(json.loads(line)) for line in (run / "labels.jsonl").read_text("utf-8").splitlines()]
    said: dict[str, list[str]] = {}
    for label in labels:
        said.setdefault(label.comparison_id, []).append(label.verdict)
    items = {item.comparison_id: item for item in items_of(judged.values())}
    for row in made:
        votes = said.get(row.comparison_id)
        if votes is None:
            assert row.source == "ai"
            assert row.p == judged[row.comparison_id].p
        elif row.status == "ok":
            better = items[row.comparison_id].a if votes.count("a") > votes.count("b") else items[row.comparison_id].b
            assert row.chosen == better.text
            assert row.source == "human+ai"
    before = (run / "merged.jsonl").read_bytes()
    cai("merge", str(run))
    assert (run / "merged.jsonl").read_bytes() == before
    assert (run / "preferences-merged" / "trl" / "train.jsonl").is_file()
    row = next(row for row in made if row.source == "human+ai" and row.status == "ok")
    why = cai("why", str(run), row.comparison_id)
    assert "ann" in why.output
    told = json.loads(cai("why", str(run), row.id, "--json").stdout)
    assert [part["annotator"] for part in told["merged"][0]["people"]] == ["ann", "bea", "cem"]


def test_a_change_of_policy_is_shown_before_it_is_made(run: Path) -> None:
    cai("merge", str(run))
    before = (run / "merged.jsonl").read_bytes()
    told = json.loads(cai("merge", str(run), "--diff", "strict", "--json").stdout)
    assert told["flips"]
    assert {row["to"]["status"] for row in told["flips"]} == {"abstain"}
    assert (run / "merged.jsonl").read_bytes() == before
    done = cai("merge", str(run), "--policy", "strickt", code=2)
    assert "strict" in done.stderr
    told = json.loads(cai("merge", str(run), "--policy", "dawid_skene", "--json").stdout)
    assert any("Dawid-Skene" in warning for warning in told["warnings"])
    cai("merge", str(run))


def test_what_people_said_is_trained_on_or_it_is_said_why_not(run: Path) -> None:
    """An export for another trainer, or by other options, takes nothing of it away in silence."""
    recipe, merged, trl = str(run.parent / "recipe.yaml"), run / "preferences-merged", run / "preferences" / "trl"

    def refused(name: str = "dpo") -> str:
        where = ("--run-dir", str(run), "--set", f"train.{name}.parent=nowhere")
        return str(cai("train", name, recipe, *where, code=2).stderr)

    cai("export", recipe, "--run-dir", str(run), "--format", "ultrafeedback")
    assert "ultrafeedback" not in (run / "recipe.yaml").read_text("utf-8")
    cai("merge", str(run))
    (merged / "ultrafeedback").mkdir()
    cai("merge", str(run))
    assert (merged / "ultrafeedback" / "train.jsonl").is_file(), "made anew like trl"
    ours = PairSource("preferences-merged", merged / "trl", own=True)
    loaded = load_recipe(run / "recipe.yaml", ["train.rm.parent=nowhere"])
    assert prepare("rm", loaded, run, Silent()).job.pairs == (ours,)
    cai("merge", str(run), "--policy", "strict")
    cai("export", recipe, "--run-dir", str(run), "--set", "preferences.min_margin=0.3")
    assert f"run `cai merge {run} --policy strict` again" in refused("rm")
    told = json.loads(cai("merge", str(run), "--json").stdout)
    assert told["left_out"]["low_margin"] > 0
    assert "nowhere" in refused()
    cai("export", recipe, "--run-dir", str(run), "--set", "preferences.formats=[openrlhf]")
    told = json.loads(cai("merge", str(run), "--json").stdout)
    assert {"trl", "openrlhf"} <= told["formats"].keys()
    shutil.rmtree(merged / "trl")
    assert "the merged preferences are gone" in refused()
    (run / "merged.jsonl").unlink()
    shutil.rmtree(trl)
    assert "put trl among preferences.formats" in refused()
    cai("export", recipe, "--run-dir", str(run), "--set", "preferences.min_margin=1")
    shutil.rmtree(merged)
    cai("merge", str(run))
    assert re.search(r"merging by human_first left no preference to train on \(.*low_margin", refused())
    cai("export", recipe, "--run-dir", str(run))
    cai("merge", str(run))
    assert "came after" not in refused()
    answers = [json.loads(line) for line in (run.parent / "done.jsonl").read_text("utf-8").splitlines()]
    more = {**answers[0], "annotator": "dora"}
    (run.parent / "more.jsonl").write_text(json.dumps(more) + "\n", "utf-8")
    said = (run / "labels.jsonl").read_bytes()
    cai("label", "import", str(run), str(run.parent / "more.jsonl"))
    assert "1 labels came after `cai merge` and play no part" in refused()
    (run / "labels.jsonl").write_bytes(said)


def test_why_tells_of_one_comparison(run: Path) -> None:
    cai("merge", str(run))
    for short in ("", "0", "3f0a9"):
        assert "too short" in cai("why", str(run), short, code=2).stderr
    path = run / "merge-explained.jsonl"
    before = path.read_bytes()
    rows = [json.loads(line) for line in before.decode().splitlines()]
    for row in rows[:2]:
        row["comparison_id"] = "abcdef" + row["comparison_id"][6:]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert "2 comparisons" in cai("why", str(run), "abcdef", code=2).stderr
    path.write_bytes(before)


def test_routing_and_what_labels_allow_to_say(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "next.jsonl"
    assert "wins" in cai("label", "winrate", str(run), "cool").stdout
    done = cai("label", "route", str(run), "--n", "10", "--out", str(out), "--json")
    told = json.loads(done.stdout)
    assert "only if that was at random" in done.stderr
    assert len(told["chosen"]) == 10
    assert told["audit"] + told["audit_labelled"] == 1
    labelled = {json.loads(line)["comparison_id"] for line in (run / "labels.jsonl").read_text("utf-8").splitlines()}
    assert not labelled & set(told["chosen"])
    (axis,) = told["axes"].values()
    assert axis["curve"][-1]["accuracy"] >= axis["curve"][0]["accuracy"]
    assert axis["certified"]["threshold"] is None
    again = json.loads(cai("label", "route", str(run), "--n", "10", "--out", str(out), "--json").stdout)
    assert again["chosen"] == told["chosen"], "nothing was labelled in between"
    drawn = [json.loads(line) for line in (run / "routed.jsonl").read_text("utf-8").splitlines()]
    assert [row["why"] for row in drawn].count("audit") == 1
    cai("label", "export", str(run), "--items", str(out), "--format", "csv", "--out", str(tmp_path / "next.csv"))
    assert "--all-labels" in cai("label", "winrate", str(run), "cool", code=2).stderr, "chosen for doubt, since"
    assert "wins" in cai("label", "winrate", str(run), "cool", "--all-labels").stdout
    assert "cool" in cai("label", "winrate", str(run), "hot", code=2).stderr
    names = {p_of_a(row) is None for row in preferences(run / "preferences.jsonl")}
    assert names == {False}


def test_votes_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    votes = [(task, worker, "a" if (task + worker) % 4 else "b") for task in range(20) for worker in range(3)]
    path.write_text("task,worker,label\n" + "".join(f"{t},w{w},{said}\n" for t, w, said in votes), "utf-8")
    told = json.loads(cai("label", "aggregate", str(path), "--policy", "dawid_skene", "--json").stdout)
    assert len(told["tasks"]) == 20
    assert {row["worker"] for row in told["workers"]} == {"w0", "w1", "w2"}
    assert json.loads(cai("label", "agreement", str(path), "--json").stdout)["tasks"] == 20
    assert "majority" in cai("label", "aggregate", str(path), "--policy", "median", code=2).stderr
    assert "needs a judge" in cai("label", "aggregate", str(path), "--policy", "human_first", code=2).stderr
    for name, twin in (("reliability", "weighted"), ("strict", "majority")):
        one, other = (cai("label", "aggregate", str(path), "--policy", each, "--json").stdout for each in (name, twin))
        assert json.loads(one)["tasks"] == json.loads(other)["tasks"]
    path.write_text(path.read_text("utf-8").replace(",b", ",perhaps").replace("0,w0,a", "0,w0,no"), "utf-8")
    told = json.loads(cai("label", "agreement", str(path), "--json").stdout)["alpha_ordinal"]
    assert told["value"] is None
    assert "--order" in told["why"]
