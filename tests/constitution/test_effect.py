"""How much of a run an edit changes, on runs whose draws are made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cai.constitution.draw import draw
from cai.constitution.effect import as_used, effect
from cai.constitution.load import Constitution
from cai.constitution.model import FewShot, Templates
from cai.errors import InputError
from cai.records import Prompt, Response, Vote

from .conftest import Make

ROUNDS = 3
NAMES = [f"p{i}" for i in range(8)]
UNJUDGED = {"comparisons": 0, "comparisons_changed": 0, "redrawn": False, "strange": 0, "other": False}
"""Of a run without a judge, and of the constitution that it was made with."""


def write_run(
    folder: Path, constitution: Constitution, *, rows: int = 300, count: int = 1, seed: int = 5, override: str = ""
) -> dict[str, list[tuple[str, ...]]]:
    """A run as `cai revise` leaves it; returns the principles drawn, by prompt and round."""
    prompts = [Prompt.make(f"Question {i}?", overrides=(override,) if override and i % 2 else ()) for i in range(rows)]
    drawn: dict[str, list[tuple[str, ...]]] = {}
    lines = []
    for prompt in prompts:
        rounds = [
            draw(constitution, seed=seed, prompt_id=prompt.id, round=r, count=count, overrides=prompt.overrides)
            for r in range(1, ROUNDS + 1)
        ]
        drawn[prompt.id] = [tuple(b.id for b in bounds) for bounds in rounds]
        for number, ids in enumerate([(), *drawn[prompt.id]]):
            lines.append(
                Response(
                    id=f"{prompt.id}-{number}",
                    prompt_id=prompt.id,
                    round=number,
                    text="",
                    model="m",
                    sampling={},
                    finish_reason="stop",
                    principle_ids=ids,
                ).row()
            )
    folder.mkdir(exist_ok=True)
    (folder / "responses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "prompts.jsonl").write_text("".join(json.dumps(prompt.row()) + "\n" for prompt in prompts))
    (folder / "recipe.yaml").write_text(f"seed: {seed}\nrevise:\n  principles_per_critique: {count}\n")
    return drawn


def expected(changed: dict[str, list[bool]]) -> dict[str, int]:
    """Counts from whether each round, taken alone, changed: what follows a changed round changes with it."""
    rounds = [[any(each[: i + 1]) for i in range(len(each))] for each in changed.values()]
    return {
        "rows": len(rounds),
        "rows_changed": sum(any(each) for each in rounds),
        "rounds": sum(len(each) for each in rounds),
        "rounds_changed": sum(sum(each) for each in rounds),
    }


def test_no_change_changes_nothing(make: Make, tmp_path: Path) -> None:
    write_run(tmp_path, make(NAMES))
    other = make({name: {"title": "Other", "judge": "Which?", "notes": "n"} for name in NAMES})
    assert effect(make(NAMES), other, tmp_path).row() == UNJUDGED | {
        "rows": 300,
        "rows_changed": 0,
        "rounds": 900,
        "rounds_changed": 0,
    }


def test_rewording_one_principle_changes_what_drew_it_and_what_came_after(make: Make, tmp_path: Path) -> None:
    drawn = write_run(tmp_path, make(NAMES))
    (tmp_path / "recipe.yaml").unlink()  # no draw can have moved, so none is made
    new = make({name: {"revision": "Otherwise."} if name == "p3" else {} for name in NAMES})
    got = effect(make(NAMES), new, tmp_path).row()
    assert got == UNJUDGED | expected({key: ["p3" in ids for ids in rounds] for key, rounds in drawn.items()})
    # DESIGN.md: with n principles, the mean over r of 1 - (1 - 1/n)^r of the rounds.
    share = sum(1 - (1 - 1 / 8) ** r for r in range(1, ROUNDS + 1)) / ROUNDS
    assert got["rounds_changed"] / got["rounds"] == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("edit", ["add", "remove", "reweight", "relevel"])
def test_moved_draws_are_found_by_drawing_again(make: Make, tmp_path: Path, edit: str, count: int) -> None:
    old = make(NAMES)
    new = {
        "add": make([*NAMES, "new"]),
        "remove": make(NAMES[1:]),
        "reweight": make({name: {"weight": 3.0 if name == "p0" else 1.0} for name in NAMES}),
        "relevel": make({name: {"level": "rule" if name == "p5" else "goal"} for name in NAMES}),
    }[edit]
    before = write_run(tmp_path, old, count=count)
    after = write_run(tmp_path / "again", new, count=count)
    # With two principles in one request, which level each has is part of what is said.
    told = "p5" if edit == "relevel" and count == 2 else None
    changed = {
        key: [ids != after[key][r] or told in ids for r, ids in enumerate(rounds)] for key, rounds in before.items()
    }
    got = effect(old, new, tmp_path)
    assert got.row() == UNJUDGED | expected(changed)
    assert got.strange == 0
    assert (got.rounds_changed > 0) == (edit != "relevel" or count == 2)


def test_overrides_of_the_prompts_count(make: Make, tmp_path: Path) -> None:
    levels = {name: {"level": "default", "tags": ["tone"] if name == "p1" else []} for name in NAMES}
    old, new = make(levels), make({**levels, "new": {"level": "default", "tags": ["tone"]}})
    before = write_run(tmp_path, old, override="tone")
    after = write_run(tmp_path / "again", new, override="tone")
    got = effect(old, new, tmp_path)
    changed = {key: [a != b for a, b in zip(rounds, after[key], strict=True)] for key, rounds in before.items()}
    assert got.row() == UNJUDGED | expected(changed)
    assert got.strange == 0


@pytest.mark.parametrize(
    "parts",
    [
        {"few_shot": (FewShot(text="One."),)},
        {"system_prompt": "Be kind."},
        {"templates": Templates(critique="Now: {request}")},
    ],
)
def test_a_changed_frame_changes_everything(make: Make, tmp_path: Path, parts: dict[str, object]) -> None:
    write_run(tmp_path, make(NAMES), rows=20)
    assert effect(make(NAMES), make(NAMES, **parts), tmp_path).row() == UNJUDGED | {
        "rows": 20,
        "rows_changed": 20,
        "rounds": 60,
        "rounds_changed": 60,
    }


def test_only_the_system_prompt_changes_a_prompt_without_revisions(make: Make, tmp_path: Path) -> None:
    write_run(tmp_path, make(NAMES), rows=4)
    lines = (tmp_path / "responses.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "responses.jsonl").write_text(lines[0] + "".join(lines[4:]))
    got = effect(make(NAMES), make(NAMES, few_shot=(FewShot(text="One."),)), tmp_path)
    assert (got.rows, got.rows_changed, got.rounds, got.rounds_changed) == (4, 3, 9, 9)
    got = effect(make(NAMES), make(NAMES, system_prompt="Be kind."), tmp_path)
    assert (got.rows_changed, got.rounds_changed) == (4, 9)


def test_a_system_prompt_of_the_recipe_stands_for_that_of_both(make: Make, tmp_path: Path) -> None:
    write_run(tmp_path, make(NAMES), rows=4)
    shots = (FewShot(text="One."),)
    old, new = make(NAMES, few_shot=shots, system_prompt="Be kind."), make(NAMES, few_shot=shots)
    assert effect(old, new, tmp_path).rows_changed == 4
    recipe = (tmp_path / "recipe.yaml").read_text()
    for text in ("null", "'Be brief.'", "''"):
        (tmp_path / "recipe.yaml").write_text(f"system_prompt: {text}\n{recipe}")
        used = as_used(old, tmp_path)
        assert used.few_shot == shots  # and all else
        assert used.system_prompt == {"null": "Be kind."}.get(text, text[1:-1])
        (tmp_path / "constitution.json").write_text(json.dumps({"hash": used.hash}))
        got = effect(old, new, tmp_path)
        assert (got.rows_changed, got.other) == (4 if text == "null" else 0, False)
    (tmp_path / "recipe.yaml").write_text(f"system_prompt: 3\n{recipe}")
    with pytest.raises(InputError, match=r"recipe\.yaml: the key 'system_prompt' must be text, not 3"):
        effect(old, new, tmp_path)


def test_a_worked_example_that_the_recipe_does_not_show_changes_nothing(make: Make, tmp_path: Path) -> None:
    write_run(tmp_path, make(NAMES), rows=4)

    def changed(*texts: str) -> int:
        old = make(NAMES, few_shot=tuple(FewShot(text=text) for text in ("One.", "Two.", "Three.")))
        return effect(old, make(NAMES, few_shot=tuple(FewShot(text=text) for text in texts)), tmp_path).rows_changed

    assert changed("One.", "Two.", "3.") == 4
    with (tmp_path / "recipe.yaml").open("a") as recipe:
        recipe.write("  few_shot: 2\n")
    assert changed("One.", "Two.", "3.") == changed("One.", "Two.") == 0
    assert changed("One.", "2.", "Three.") == changed("One.") == 4
    (tmp_path / "recipe.yaml").write_text("revise: {few_shot: two}\n")
    with pytest.raises(InputError, match=r"the key 'revise\.few_shot' must be a whole number, not 'two'"):
        changed("One.")


def test_rules_that_every_request_repeats_change_everything(make: Make, tmp_path: Path) -> None:
    rules = Templates(critique="{rules}\n{request}")
    old = make({"a": {"level": "rule", "asks": "Be kind."}, "b": {"asks": "Be brief."}}, templates=rules)
    write_run(tmp_path, old, rows=20)
    new = make({"a": {"level": "rule", "asks": "Be very kind."}, "b": {"asks": "Be brief."}}, templates=rules)
    assert effect(old, new, tmp_path).rounds_changed == 60
    new = make({"a": {"level": "rule", "asks": "Be kind."}, "b": {"asks": "Be very brief."}}, templates=rules)
    assert effect(old, new, tmp_path).rounds_changed == 0


def test_a_run_of_another_constitution_is_noticed(make: Make, tmp_path: Path) -> None:
    write_run(tmp_path, make(NAMES[:4]))
    assert effect(make(NAMES), make([*NAMES, "new"]), tmp_path).strange > 300


def test_a_run_of_the_constitution_with_other_words_is_noticed(make: Make, tmp_path: Path) -> None:
    write_run(tmp_path, make(NAMES), rows=3)
    assert not effect(make(NAMES), make([*NAMES[1:]]), tmp_path).other  # it does not say
    (tmp_path / "constitution.json").write_text(json.dumps({"hash": make(NAMES).hash}))
    reworded = make({name: {"critique": "Is it kind at all?"} for name in NAMES})
    assert not effect(make(NAMES), reworded, tmp_path).other
    assert effect(reworded, make(NAMES), tmp_path).other
    (tmp_path / "constitution.json").write_text('{"ha')
    with pytest.raises(InputError, match=r"constitution\.json: cannot be read"):
        effect(make(NAMES), reworded, tmp_path)


def test_without_critiques_their_wording_changes_nothing(make: Make, tmp_path: Path) -> None:
    write_run(tmp_path, make(NAMES), rows=20)
    shot = {"prompt": "P", "response": "R", "critique_request": "Q", "critique": "C", "revision_request": "V"}
    old = make(NAMES, few_shot=(FewShot(**shot, revision="N"),))
    edits = {
        "critique": make({name: {"critique": "Is it kind at all?"} for name in NAMES}, few_shot=old.few_shot),
        "template": make(NAMES, few_shot=old.few_shot, templates=Templates(critique="Now: {request}")),
        "shot": make(NAMES, few_shot=(FewShot(**(shot | {"critique": "D"}), revision="N"),)),
    }
    assert [effect(old, new, tmp_path).rounds_changed for new in edits.values()] == [60, 60, 60]
    with (tmp_path / "recipe.yaml").open("a") as recipe:
        recipe.write("  critique: false\n")
    assert [effect(old, new, tmp_path).rounds_changed for new in edits.values()] == [0, 0, 0]
    revision = make({name: {"revision": "Make it kind."} for name in NAMES}, few_shot=old.few_shot)
    assert effect(old, revision, tmp_path).rounds_changed == 60


def judged(folder: Path, *votes: tuple[str, str, str, dict[str, bool]], axis: str = "") -> None:
    """The votes of a run: comparison, principle, order, what was read."""
    lines = [
        Vote(
            id=str(number),
            comparison_id=comparison,
            group_id="g",
            judge="j",
            judge_id="1",
            principle_ids=(principle,) if principle else (),
            axis=axis,
            order=order,
            p_a=0.5,
            raw=raw,
        ).row()
        for number, (comparison, principle, order, raw) in enumerate(votes)
    ]
    (folder / "votes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_reworded_questions_change_the_comparisons_they_were_asked_about(make: Make, tmp_path: Path) -> None:
    asked = {name: {"judge": f"Is it {name}?", "asks": f"Be {name}."} for name in NAMES[:3]}
    old = make(asked)
    write_run(tmp_path, old, rows=3)
    both: list[tuple[str, str, str, dict[str, bool]]] = [("c1", "p0", order, {}) for order in ("ab", "ba")]
    judged(tmp_path, *both, ("c2", "p1", "ab", {}), ("c3", "p0", "", {}), ("c4", "p0", "", {"inferred": True}))

    def changed(field: str) -> tuple[int, int, bool]:
        got = effect(old, make({**asked, "p0": {**asked["p0"], field: "Otherwise."}}), tmp_path)
        return got.comparisons_changed, got.comparisons, got.redrawn

    assert changed("judge") == (2, 4, False)  # c1, and c4 that follows from such votes
    assert changed("asks") == (1, 4, False)  # c3, where answers were rated one by one
    assert changed("critique") == changed("title") == (0, 4, False)
    (tmp_path / "votes.jsonl").write_text('{"schema": 1, "id": "x"}\n')
    with pytest.raises(InputError, match=r"votes\.jsonl:1"):
        changed("judge")


def test_that_judging_draws_otherwise_is_said(make: Make, tmp_path: Path) -> None:
    asked = {name: {"judge": f"Is it {name}?"} for name in NAMES[:3]}
    old = make(asked)
    write_run(tmp_path, old, rows=3)
    edits = {
        "weight": make({**asked, "p0": {**asked["p0"], "weight": 2}}),
        "added": make({**asked, "new": {"judge": "Is it new?"}}),
        "overridable": make({**asked, "p0": {**asked["p0"], "level": "default"}}),
        "for critiques only": make({**asked, "new": {}}),
        "axis": make({**asked, "p0": {**asked["p0"], "axis": "honest"}}),
    }

    def redrawn() -> list[str]:
        return [name for name, new in edits.items() if effect(old, new, tmp_path).redrawn]

    assert redrawn() == []  # nothing was judged
    judged(tmp_path, ("c1", "", "ab", {}))
    assert redrawn() == []  # by the general question
    judged(tmp_path, ("c1", "p0", "ab", {}))
    assert redrawn() == ["weight", "added", "overridable"]
    judged(tmp_path, ("c1", "p0", "ab", {}), axis="harmless")
    assert redrawn() == ["weight", "added", "overridable", "axis"]


def test_a_line_being_written_and_a_row_written_twice_are_no_trouble(make: Make, tmp_path: Path) -> None:
    write_run(tmp_path, make(NAMES), rows=5)
    with (tmp_path / "responses.jsonl").open("a") as file:
        file.write((tmp_path / "responses.jsonl").read_text().splitlines(keepends=True)[1])
        file.write('{"schema": 1, "id": "to')
    assert effect(make(NAMES), make(NAMES), tmp_path).rounds == 15


def test_what_is_missing_is_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no responses\.jsonl"):
        effect(make(NAMES), make(NAMES), tmp_path)
    write_run(tmp_path, make(NAMES), rows=2)
    (tmp_path / "recipe.yaml").write_text("seed: soon\n")
    with pytest.raises(InputError, match=r"recipe\.yaml: the key 'seed' must be a whole number, not 'soon'"):
        effect(make(NAMES), make(NAMES[1:]), tmp_path)
    (tmp_path / "recipe.yaml").write_text("seed: 1\n")
    (tmp_path / "responses.jsonl").write_text('{"schema": 1, "id": "x"}\n')
    with pytest.raises(InputError, match=r"responses\.jsonl:1"):
        effect(make(NAMES), make(NAMES[1:]), tmp_path)
