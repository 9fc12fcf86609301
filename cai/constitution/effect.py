"""How much of a run an edited constitution would change, before anything is generated anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cai import yamlfile
from cai.constitution.diff import Change, diff
from cai.constitution.draw import draw
from cai.constitution.find import SNAPSHOT
from cai.constitution.load import Bound, Constitution, read_snapshot
from cai.errors import InputError
from cai.records import Prompt, Response, Vote
from cai.store import read_rows


@dataclass(frozen=True)
class Effect:
    """Prompts (`rows`) and revision rounds of a run, and how many of each come out differently.

    Attributes:
        comparisons: that a judge was asked about, by the run's `votes.jsonl`.
        comparisons_changed: those for which a question about a principle is worded otherwise. Not those whose answers
            change: they are judged anew too.
        redrawn: principles take part in judging otherwise, so that some comparisons are asked about others than before;
            how many is not counted.
        strange: rounds whose recorded principles are not those that the old constitution would draw.
        other: whether the run keeps a constitution that says other things than the old one. Either way the run was made
            with another constitution than the one compared, and the counts are not what `--update` would do.
    """

    rows: int
    rows_changed: int
    rounds: int
    rounds_changed: int
    comparisons: int = 0
    comparisons_changed: int = 0
    redrawn: bool = False
    strange: int = 0
    other: bool = False

    def row(self) -> dict[str, Any]:
        """JSON object."""
        return asdict(self)


def as_used(constitution: Constitution, run: Path) -> Constitution:
    """With the `system_prompt` of the run's recipe, where that gives one instead of the constitution's own."""
    data, _, file = _recipe(run)
    text = data.get("system_prompt")
    if text is None:
        return constitution
    if not isinstance(text, str):
        raise InputError(f"the key 'system_prompt' must be text, not {text!r}", where=file)
    return constitution.with_system_prompt(text)


def effect(old: Constitution, new: Constitution, run: Path) -> Effect:
    """What going from `old` to `new`, each `as_used`, would change of the run in the folder `run`.

    Reads `responses.jsonl`, `votes.jsonl` where there is one, the hash in `constitution.json`, from `recipe.yaml` also
    what is shown: whether there are critiques (without, their wording reaches no model) and how many worked examples;
    where the edit can move draws also its `seed` and `revise.principles_per_critique`, and `prompts.jsonl` (the
    prompts' overrides). A round changes when its draw, the wording of a principle that it drew, or the frame around
    them changes, or when an earlier round of its prompt did, since it revises that one's answer. Memory: one small
    entry a prompt and a comparison.

    Raises:
        InputError: a file is missing or is not what it has to be.
    """
    responses = run / "responses.jsonl"
    if not responses.is_file():
        raise InputError("no responses.jsonl in this folder", where=str(run), mend="give the folder of a run")
    old, new = as_used(old, run), as_used(new, run)
    changes = diff(old, new)
    _, revise, file = _recipe(run)
    asked = {"revision"} if revise.get("critique") is False else {"critique", "revision"}
    shown = revise.get("few_shot")
    shown = None if shown is None else _whole(shown, "revise.few_shot", file)
    templates = changes.templates.keys() & asked
    everything = bool(_shots(old, asked, shown) != _shots(new, asked, shown) or templates or changes.system_prompt)
    everything = everything or old.rules != new.rules
    touched = {name for name, fields in changes.reworded.items() if fields.keys() & asked}
    conflicts = set(changes.relevelled) if changes.levels is None else {b.id for b in old.principles}
    redraw = None if everything or _lots(old) == _lots(new) else _draws(run)

    rounds_of: dict[str, int] = {}  # bit r: the prompt has a round r
    first: dict[str, int] = {}  # the first round that changes
    strange = 0
    for number, row in enumerate(read_rows(responses), start=1):
        response = Response.from_row(row, where=f"{responses}:{number}")
        key, ids = response.prompt_id, response.principle_ids
        rounds_of[key] = rounds_of.get(key, 0) | 1 << response.round
        if response.round == 0:
            changed = False  # no draft depends on a principle
        elif redraw is None:
            changed = not touched.isdisjoint(ids)
        else:
            before = redraw(old, key, response.round)
            strange += [b.id for b in before] != list(ids)
            after = redraw(new, key, response.round)
            changed = [b.id for b in after] != list(ids) or not touched.isdisjoint(ids)
        # The sentence on precedence names levels; with one principle there is none.
        changed = changed or (len(ids) > 1 and not conflicts.isdisjoint(ids))
        if changed:
            first[key] = min(response.round, first.get(key, response.round))
    if everything:
        # Only the system prompt also reaches the drafts; a prompt without revisions keeps its draft otherwise.
        first = {key: 0 for key, mask in rounds_of.items() if changes.system_prompt or mask >> 1}
    comparisons, reworded, redrawn = _judging(old, new, changes.reworded, run)
    return Effect(
        rows=len(rounds_of),
        rows_changed=len(first),
        rounds=sum((mask >> 1).bit_count() for mask in rounds_of.values()),
        rounds_changed=sum((rounds_of[key] >> max(start, 1)).bit_count() for key, start in first.items()),
        comparisons=comparisons,
        comparisons_changed=reworded,
        redrawn=redrawn,
        strange=strange,
        other=_hash(run) not in ("", old.hash),
    )


def _judging(
    old: Constitution, new: Constitution, reworded: Mapping[str, Mapping[str, Change]], run: Path
) -> tuple[int, int, bool]:
    """`comparisons`, `comparisons_changed` and `redrawn` of the effect."""
    judged: set[str] = set()
    changed: set[str] = set()
    by_principle = by_axis = False
    votes = run / "votes.jsonl"
    for number, row in enumerate(read_rows(votes) if votes.is_file() else (), start=1):
        vote = Vote.from_row(row, where=f"{votes}:{number}")
        # A vote without an order is of answers that were rated one by one, or follows from other votes.
        asked = "judge" if vote.order or vote.raw.get("inferred") else "asks"
        judged.add(vote.comparison_id)
        by_principle = by_principle or bool(vote.principle_ids)
        by_axis = by_axis or bool(vote.axis)
        if any(asked in reworded.get(name, ()) for name in vote.principle_ids):
            changed.add(vote.comparison_id)

    def lots(constitution: Constitution) -> list[Any]:
        return [_lot(b, by_axis and b.principle.axis) for b in constitution.judging]

    return len(judged), len(changed), by_principle and sorted(lots(old)) != sorted(lots(new))


def _hash(run: Path) -> str:
    """Of the constitution that the run was made with; blank for a folder that does not say."""
    path = run / SNAPSHOT
    return str(read_snapshot(path).get("hash", "")) if path.is_file() else ""


def _shots(constitution: Constitution, asked: set[str], count: int | None) -> list[dict[str, Any]]:
    """The worked examples as far as they are shown: the first `count`, None for all."""
    hidden = set() if "critique" in asked else {"critique", "critique_request"}
    return [shot.model_dump(mode="json", exclude=hidden) for shot in constitution.few_shot[:count]]


def _recipe(run: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The run's recipe, its part on revising, and its file; the first two empty where there is none."""
    path = run / "recipe.yaml"
    data = yamlfile.load(path).data if path.is_file() else {}
    data = data if isinstance(data, dict) else {}
    revise = data.get("revise")
    return data, revise if isinstance(revise, dict) else {}, str(path)


def _lots(constitution: Constitution) -> list[Any]:
    """All that a draw depends on."""
    return [_lot(b, b.rank) for b in constitution.revising]


def _lot(bound: Bound, *more: Any) -> tuple[Any, ...]:
    aside = bound.level.overridable
    return (bound.id, bound.weight, *more, aside, sorted(bound.principle.tags) if aside else [])


def _draws(run: Path) -> Callable[[Constitution, str, int], tuple[Bound, ...]]:
    """The draws of this run: (constitution, prompt id, round) -> principles; nothing where nothing can be drawn."""
    data, revise, file = _recipe(run)
    seed = _whole(data.get("seed"), "seed", file)
    count = _whole(revise.get("principles_per_critique", 1), "revise.principles_per_critique", file)
    overrides: dict[str, tuple[str, ...]] = {}
    prompts = run / "prompts.jsonl"
    if prompts.is_file():
        for number, row in enumerate(read_rows(prompts), start=1):
            prompt = Prompt.from_row(row, where=f"{prompts}:{number}")
            if prompt.overrides:
                overrides[prompt.id] = prompt.overrides

    def redraw(constitution: Constitution, prompt_id: str, round: int) -> tuple[Bound, ...]:
        aside = overrides.get(prompt_id, ())
        try:
            return draw(constitution, seed=seed, prompt_id=prompt_id, round=round, count=count, overrides=aside)
        except InputError:
            return ()

    return redraw


def _whole(value: object, key: str, file: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"the key {key!r} must be a whole number, not {value!r}", where=file)
    return value
