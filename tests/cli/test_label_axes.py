"""People in the loop on a run whose judge was asked on two axes, which never meet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cai.labels.items import by_id, items_of, p_of_a
from cai.records import Preference
from tests.cli.test_label import RECIPE, cai, preferences

AXES = ("harmless", "helpful")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run judged on two axes."""
    folder = tmp_path_factory.mktemp("axes")
    rows = [{"prompt": f"How is matter {number} best settled?"} for number in range(24)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    recipe = RECIPE.replace("constitution: humanity", "constitution: default")
    recipe = recipe.replace("judge: {}", f"judge: {{axes: [{', '.join(AXES)}]}}")
    (folder / "recipe.yaml").write_text(recipe, "utf-8")
    cai("run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run"))
    return folder / "run"


@pytest.fixture
def run(judged: Path, tmp_path: Path) -> Path:
    """A copy of it, to be labelled."""
    import shutil

    return Path(shutil.copytree(judged, tmp_path / "run"))


def say(run: Path, folder: Path, rows: list[dict[str, Any]], *more: str, code: int = 0) -> dict[str, Any]:
    """Import rows of our own format; the report."""
    path = folder / "said.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    told: dict[str, Any] = json.loads(cai("label", "import", str(run), str(path), "--json", *more, code=code).stdout)
    return told


def as_the_judge(rows: list[Preference], *, turned: str = "") -> list[dict[str, Any]]:
    """Three people who say what the judge says, on the axis `turned` the opposite."""
    found = []
    for row in rows:
        p = p_of_a(row)
        assert p is not None
        if p != 0.5:
            side = "left" if (p > 0.5) != (row.axis == turned) else "right"
            told = {"pair_id": row.comparison_id, "order": "ab", "axis": row.axis, "verdict": side}
            found += [told | {"annotator": who} for who in ("ann", "bea", "cem")]
    return found


def test_routing_certificates_and_the_alternative_test_are_of_each_axis(run: Path, tmp_path: Path) -> None:
    made = preferences(run / "preferences.jsonl")
    assert {row.axis for row in made} == set(AXES)
    say(run, tmp_path, as_the_judge(made, turned="helpful"))
    told = json.loads(cai("label", "route", str(run), "--n", "4", "--all-labels", "--json").stdout)["axes"]
    for axis in AXES:
        # Where people say the opposite of the judge, calibration on their votes of that axis turns it round; votes of
        # both axes together would teach it nothing, and a mean of the axes is near chance on both.
        assert told[axis]["judge"]["n"] > 30
        assert told[axis]["judge"]["accuracy"] == 1
        assert told[axis]["alt_test"]["passes"] is True
    shown = cai("label", "route", str(run), "--n", "4", "--all-labels").stdout
    assert "helpful: " in shown
    assert "harmless: " in shown
    cai("label", "route", str(run), "--axis", "honest", code=2)


def test_a_pair_with_a_label_on_one_axis_is_open_on_the_other(run: Path, tmp_path: Path) -> None:
    made = preferences(run / "preferences.jsonl")
    say(run, tmp_path, [row for row in as_the_judge(made) if row["axis"] == "helpful"])
    told = json.loads(cai("label", "route", str(run), "--n", "500", "--all-labels", "--json").stdout)
    assert told["axes"]["helpful"]["labelled"] > 30
    assert told["axes"]["harmless"]["labelled"] == 0
    assert set(told["chosen"]) == set(by_id(items_of(made)))
    told = json.loads(cai("label", "route", str(run), "--n", "500", "--axis", "helpful", "--json").stdout)
    assert list(told["axes"]) == ["helpful"]
    assert len(told["chosen"]) == told["of"] - told["axes"]["helpful"]["labelled"]


def test_agreement_of_a_principle_is_of_the_axis_it_was_asked_on(run: Path, tmp_path: Path) -> None:
    made = preferences(run / "preferences.jsonl")
    say(run, tmp_path, as_the_judge(made, turned="helpful"))
    told = json.loads(cai("label", "agreement", str(run), "--json").stdout)
    asked = {
        name: {row.axis for row in made if name in row.principle_ids} for row in made for name in row.principle_ids
    }
    found = {row["over"]: row for row in told["beside_the_judge"]}
    seen = 0
    for name, axes in asked.items():
        if len(axes) == 1 and f"principle {name}" in found:
            (axis,) = axes
            assert found[f"principle {name}"]["judge"]["mean"] == (1 if axis == "harmless" else 0)
            seen += 1
    assert seen > 2


def test_labels_of_texts_that_have_changed_play_no_part(run: Path, tmp_path: Path) -> None:
    made = preferences(run / "preferences.jsonl")
    rows = [row | {"left": "Another text", "right": "Still another"} for row in as_the_judge(made)]
    told = say(run, tmp_path, rows)
    assert told["traps"]["text_changed"]["count"] == len(rows)
    assert "changed" in cai("label", "agreement", str(run), code=2).stderr
    rows = as_the_judge(made)
    say(run, tmp_path, [row for row in rows if row["annotator"] != "cem"])
    told = json.loads(cai("label", "agreement", str(run), "--json").stdout)
    assert told["left_out"] == len(rows) / 3
    assert set(told["axes"]["helpful"]["annotators"]) == {"ann", "bea"}
    told = json.loads(cai("label", "route", str(run), "--json").stdout)
    assert {axis["labelled"] for axis in told["axes"].values()} == {len(rows) / 6}


def test_a_win_rate_without_its_axis_says_which_there_are(run: Path) -> None:
    done = cai("label", "winrate", str(run), "cool", code=2)
    assert "--axis harmless or helpful" in done.stderr
    assert "0 prompts" in cai("label", "winrate", str(run), "cool", "--axis", "helpful", code=2).stderr


def test_labels_leave_a_run_and_come_back(run: Path, tmp_path: Path) -> None:
    say(run, tmp_path, as_the_judge(preferences(run / "preferences.jsonl")))
    events = (run / "labels.jsonl").read_bytes()
    out = tmp_path / "labels.json"
    assert "labels in" in cai("label", "export", str(run), "--labels", "--format", "argilla", "--out", str(out)).stdout
    told = json.loads(cai("label", "import", str(run), str(out), "--format", "argilla", "--json").stdout)
    assert (told["added"], told["verdicts"]) == (0, len(events.splitlines()))
    assert (run / "labels.jsonl").read_bytes() == events
    votes = tmp_path / "votes.csv"
    export = ("label", "export", str(run), "--labels", "--format", "crowdkit", "--out", str(votes))
    assert "--axis" in cai(*export, code=2).stderr
    done = cai(*export, "--axis", "helpful", "--json")
    assert json.loads(done.stdout)["lost"]["axis"]["count"] > 30
    of_file = json.loads(cai("label", "aggregate", str(votes), "--json").stdout)["tasks"]
    of_run = json.loads(cai("label", "aggregate", str(run), "--axis", "helpful", "--json").stdout)["tasks"]
    assert {row["task"]: row["label"] for row in of_run} == {row["task"]: row["label"] for row in of_file}
    assert "--axis harmless or helpful" in cai("label", "aggregate", str(run), code=2).stderr


def test_an_unknown_axis_and_another_spelling_are_told_across_files(run: Path, tmp_path: Path) -> None:
    made = preferences(run / "preferences.jsonl")
    row = {"pair_id": made[0].comparison_id, "order": "ab", "annotator": "ann", "verdict": "left", "axis": "helpful"}
    say(run, tmp_path, [row])
    told = say(run, tmp_path, [row | {"annotator": "Ann ", "verdict": "right"}])
    assert told["traps"]["duplicate_person"]["count"] == 1
    assert list(told["annotators"]) == ["ann"]
    told = say(run, tmp_path, [row | {"axis": "helpfull"}], code=1)
    assert told["traps"]["unknown_axis"]["count"] == 1
    path = tmp_path / "said.jsonl"
    assert "helpfull" in cai("label", "import", str(run), str(path), "--strict", code=2).stderr
    told = say(run, tmp_path, [row | {"axis": "style"}], "--strict", "--also-axis", "style")
    assert told["added"] == 1


def test_preferences_take_an_axis_that_only_people_label_once_they_have(run: Path, tmp_path: Path) -> None:
    export = ("export", str(run / "recipe.yaml"), "--run-dir", str(run), "--preferences")
    style = ("--set", "preferences.axes=[helpful, style]")
    assert "not asked about the axis 'style'" in cai(*export, *style, code=2).stderr
    (made, *_) = preferences(run / "preferences.jsonl")
    row = {"pair_id": made.comparison_id, "order": "ab", "axis": "style", "annotator": "ann", "verdict": "left"}
    say(run, tmp_path, [row], "--also-axis", "style")
    cai(*export, *style)
    cai("merge", str(run))
    taken = [row["axis"] for path in run.glob("preferences-merged/trl/t*.jsonl") for row in rows_of(path)]
    assert set(taken) == {"helpful", "style"}


def test_pairs_go_out_with_the_judges_verdict_only_where_it_is_asked_for(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "tasks.json"
    cai("label", "export", str(run), "--format", "label_studio", "--out", str(out))
    assert "predictions" not in out.read_text("utf-8")
    cai("label", "export", str(run), "--format", "label_studio", "--predictions", "--out", str(out))
    names = [part["from_name"] for part in json.loads(out.read_text("utf-8"))[0]["predictions"][0]["result"]]
    assert names == ["winner_harmless", "winner_helpful"]
    cai("label", "export", str(run), "--format", "csv", "--predictions", "--out", str(out), code=2)
    shown = tmp_path / "interface.xml"
    cai("label", "export", str(run), "--format", "label_studio", "--interface", str(shown), "--out", str(out))
    assert 'name="winner_helpful"' in shown.read_text("utf-8")
    assert 'name="winner"' not in shown.read_text("utf-8"), "nobody asks for an overall verdict here"
    cai("label", "export", str(run), "--format", "csv", "--interface", str(shown), "--out", str(out), code=2)


def test_what_is_said_of_all_pairs_comes_from_those_drawn_at_random(run: Path, tmp_path: Path) -> None:
    made = [row for row in preferences(run / "preferences.jsonl") if row.axis == "helpful"]
    out = tmp_path / "next.jsonl"
    route = ("label", "route", str(run), "--axis", "helpful", "--n", "40", "--out", str(out), "--json")
    cai(*route, "--audit", "1")
    drawn = {row["comparison_id"] for row in rows_of(out)}
    rows = {row["pair_id"]: row for row in as_the_judge(made)}
    say(run, tmp_path, [row for name, row in rows.items() if name in drawn])
    rate = ("label", "winrate", str(run), "cool", "--axis", "helpful", "--json")
    before = json.loads(cai(*rate).stdout)
    assert (before["sample"]["how"], before["sample"]["drawn"]) == ("drawn", 40)
    # Pairs that were not drawn get labels against the judge: they say nothing of all pairs.
    turned = {"left": "right", "right": "left"}
    more = [row | {"verdict": turned[row["verdict"]]} for name, row in rows.items() if name not in drawn]
    say(run, tmp_path, more[: len(more) - 1])
    after = json.loads(cai(*rate).stdout)
    assert after == before
    assert json.loads(cai(*rate, "--all-labels").stdout)["mean"] != before["mean"]
    told = json.loads(cai("label", "route", str(run), "--axis", "helpful", "--json").stdout)["axes"]["helpful"]
    assert told["judge"]["n"] <= 40 < told["labelled"]
    assert "drawn at random" in told["judge"]["said"]
