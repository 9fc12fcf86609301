"""From files to a `Constitution`: the principles it names, bound to their weights and levels.

Principles are looked up beside the constitution (`principles`, then `../principles`; or only its `principles_dir`),
then among those shipped: an id in the nearest folder that has the file, a tag in the nearest folder where any principle
carries it, so that a newer `cai` never adds principles to a tag of your own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cai import yamlfile
from cai.constitution.find import SNAPSHOT, find_constitution, shipped_dir
from cai.constitution.model import OUT_OF_TURN, ConstitutionFile, FewShot, Level, Principle, Selector, Templates
from cai.errors import InputError
from cai.records import content_hash
from cai.yamlfile import Document, InvalidFile, Problem


@dataclass(frozen=True)
class Bound:
    """A principle as one constitution uses it."""

    principle: Principle
    weight: float
    level: Level
    rank: int
    """Position of the level, 0 the strongest."""
    folder: Path | None = field(default=None, compare=False)
    """Where its file was found; None for what was not looked up."""

    @property
    def id(self) -> str:
        return self.principle.id


@dataclass(frozen=True)
class Constitution:
    """A constitution with its principles in file order. Build it with `load_constitution`."""

    name: str
    principles: tuple[Bound, ...]
    levels: tuple[Level, ...]
    few_shot: tuple[FewShot, ...]
    templates: Templates
    system_prompt: str
    file: ConstitutionFile
    path: Path

    @cached_property
    def hash(self) -> str:
        """Content hash of all that can reach a model or a draw; notes, titles and examples do not change it."""
        said = [
            [
                b.id,
                b.weight,
                b.level.name,
                b.principle.asks,
                b.principle.critique,
                b.principle.revision,
                b.principle.judge,
                b.principle.axis,
                b.principle.tags,  # a prompt's overrides may name a tag, which changes its draws
            ]
            for b in self.principles
        ]
        parts = (
            [level.model_dump(mode="json") for level in self.levels],
            [f.model_dump(mode="json") for f in self.few_shot],
        )
        return content_hash(said, *parts, self.templates.model_dump(mode="json"), self.system_prompt, self.rules)

    def row(self) -> dict[str, Any]:
        """JSON object that a run keeps as its `constitution.json`; `load_constitution` reads it.

        `bound` says which principles take part and how: what a tag means depends on the folders that there were.
        """
        return {
            "name": self.name,
            "hash": self.hash,
            "file": self.file.model_dump(mode="json"),
            "principles": {b.id: b.principle.model_dump(mode="json") for b in self.principles},
            "bound": [{"id": b.id, "weight": b.weight, "level": b.level.name} for b in self.principles],
        }

    def with_system_prompt(self, text: str) -> Constitution:
        """The same with another system prompt; blank: none."""
        return replace(self, system_prompt=text, file=self.file.model_copy(update={"system_prompt": text}))

    @cached_property
    def rules(self) -> tuple[str, ...]:
        """What the slot {rules} says: what each principle of the strongest level asks; empty if no template has it."""
        if "{rules}" not in self.templates.critique + self.templates.revision:
            return ()
        strongest = min(b.rank for b in self.principles)
        return tuple(b.principle.asks or b.principle.title for b in self.principles if b.rank == strongest)

    @cached_property
    def revising(self) -> tuple[Bound, ...]:
        """The principles that a critique can draw: they have a critique request and a weight above 0."""
        return tuple(b for b in self.principles if b.principle.revises and b.weight > 0)

    @cached_property
    def lots(self) -> tuple[tuple[bytes, float, Bound], ...]:
        """`revising` as (id in bytes, weight, principle): what a draw reads, looked up once and not per row."""
        return tuple((b.id.encode(), b.weight, b) for b in self.revising)

    @cached_property
    def judging(self) -> tuple[Bound, ...]:
        """The principles that a judge can be asked about: they have a judge's question and a weight above 0."""
        return tuple(b for b in self.principles if b.principle.judge.strip() and b.weight > 0)

    def get(self, principle_id: str) -> Bound:
        """The principle with this id.

        Raises:
            InputError: the constitution has none; names the nearest.
        """
        for bound in self.principles:
            if bound.id == principle_id:
                return bound
        known = [bound.id for bound in self.principles]
        raise InputError(f"no principle {principle_id!r}{yamlfile.nearest(principle_id, known)}", where=self.name)


def read_principle(path: Path) -> Principle:
    """One principle file.

    Raises:
        InvalidFile: with every problem and its position; an id that is not the file's name is one, and so is an example
            that no judge could tell apart.
    """
    document = yamlfile.load(path)
    problems: list[Problem] = []
    given = document.data.get("id") if isinstance(document.data, dict) else None
    if isinstance(given, str) and given != path.stem:
        problems.append(document.problem(("id",), f"the id {given!r} must be the file's name, {path.stem!r}"))
    try:
        principle = yamlfile.validate(document, Principle)
    except InvalidFile as error:
        raise InvalidFile(sorted({*problems, *error.problems})) from error
    problems += [
        document.problem(("examples", index, "worse"), "the two answers of the example are the same")
        for index, example in enumerate(principle.examples)
        if example.better.strip() == example.worse.strip()
    ]
    if problems:
        raise InvalidFile(problems)
    return principle


def principle_dirs(path: Path, principles_dir: str = "") -> tuple[Path, ...]:
    """Where the principles of the constitution at `path` are looked up, nearest first."""
    here = path.resolve().parent
    own = (path.parent / principles_dir,) if principles_dir else (here / "principles", here.parent / "principles")
    return tuple(folder for folder in (*own, shipped_dir("principles")) if folder.is_dir())


def called(folder: Path) -> str:
    """What a folder of principles is called in messages: relative to the current folder where it is inside."""
    if folder == shipped_dir("principles"):
        return "the shipped ones"
    here, found = Path.cwd(), folder.resolve()
    return str(found.relative_to(here)) if found.is_relative_to(here) else str(found)


def principle_files(folders: tuple[Path, ...]) -> dict[str, Path]:
    """Principle files by id (the file's stem); the nearest folder wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return found


def select(
    document: Document, selectors: Mapping[int, Selector], levels: Sequence[Level], folders: tuple[Path, ...]
) -> tuple[dict[str, Bound], list[Problem]]:
    """Look up what `selectors` (by their index in the file) name in `folders`.

    Returns:
        The principles found, by id, in file order; and a problem for each dangling id or tag, duplicate, unknown level
        and broken principle file.
    """
    problems: list[Problem] = []
    files = principle_files(folders)
    ranks = {level.name: rank for rank, level in enumerate(levels)}
    places = " or ".join(called(folder) for folder in folders)
    loaded: dict[str, Principle | None] = {}

    def principle(name: str) -> Principle | None:
        if name not in loaded:
            try:
                loaded[name] = read_principle(files[name])
            except InvalidFile as error:
                problems.extend(error.problems)
                loaded[name] = None
        return loaded[name]

    def tagged(tag: str) -> list[Principle]:
        for folder in folders:
            here = [principle(name) for name, file in files.items() if file.parent == folder]
            found = [p for p in here if p is not None and tag in p.tags]
            if found:
                return found
        return []

    def wrong(index: int, key: str, message: str) -> None:
        problems.append(document.problem(("principles", index, key), message))

    bound: dict[str, Bound] = {}
    by_id = {selector.id for selector in selectors.values() if selector.id}
    for index, selector in selectors.items():
        rank = ranks.get(selector.level, len(ranks))
        if selector.level not in ranks:
            hint = yamlfile.nearest(selector.level, list(ranks))
            wrong(index, "level", f"unknown level {selector.level!r}{hint}; levels: {', '.join(ranks)}")
        level = levels[rank] if rank < len(levels) else Level(name=selector.level)
        chosen: list[Principle | None] = []
        if selector.id and selector.id not in files:
            hint = yamlfile.nearest(selector.id, list(files))
            wrong(index, "id", f"no principle {selector.id!r} in {places}{hint}")
        elif selector.id and selector.id in bound:
            wrong(index, "id", f"the principle {selector.id!r} is given twice")
        elif selector.id:
            chosen = [principle(selector.id)]
        elif selector.tag:
            found = tagged(selector.tag)
            if not found:
                tags = sorted({tag for p in loaded.values() if p for tag in p.tags})
                hint = yamlfile.nearest(selector.tag, tags)
                wrong(index, "tag", f"no principle in {places} has the tag {selector.tag!r}{hint}")
            # A principle named by id keeps that entry's weight and level, so a tag adds only the others.
            chosen = [p for p in found if p.id not in by_id and p.id not in bound]
        for p in chosen:
            if p is not None:
                bound[p.id] = Bound(p, selector.weight, level, rank, files[p.id].parent)
    return bound, problems


def check(
    document: Document,
    path: Path,
    *,
    name: str | None,
    selectors: Mapping[int, Selector],
    levels: Sequence[Level],
    few_shot: Mapping[int, FewShot],
    principles_dir: str,
) -> tuple[tuple[Bound, ...], list[Problem]]:
    """The principles that a constitution's parts name, and all that is wrong with the parts beyond their own shape.

    Takes parts, not a `ConstitutionFile`, so that lint can check the sound ones of a faulty file.
    """
    bound, problems = select(document, selectors, levels, principle_dirs(path, principles_dir))
    names = [level.name for level in levels]
    problems += [
        document.problem(("levels", index, "name"), f"the level {level!r} is given twice")
        for index, level in enumerate(names)
        if level in names[:index]
    ]
    problems += [
        document.problem(
            ("few_shot", index, "messages"),
            f"few_shot.{index}.messages: {OUT_OF_TURN}; a system message's place is 'system_prompt'",
        )
        for index, shot in few_shot.items()
        if not shot.in_turn
    ]
    if len(selectors) == len(document.data["principles"]) and bound and not any(b.weight > 0 for b in bound.values()):
        problems.append(document.problem(("principles",), "every weight is 0, so no principle can be drawn"))
    if name is not None and name != path.stem:
        problems.append(document.problem(("name",), f"the name {name!r} must be the file's name, {path.stem!r}"))
    if principles_dir and not (path.parent / principles_dir).is_dir():
        problems.append(document.problem(("principles_dir",), f"no such folder: {principles_dir}"))
    return tuple(bound.values()), problems


def bind(document: Document, file: ConstitutionFile, path: Path) -> Constitution:
    """Look up the principles that `file` names.

    Raises:
        InvalidFile: dangling ids or tags, duplicates, unknown levels, weights that sum to 0, worked examples that no
            chat template takes; each with its position.
    """
    bound, problems = check(
        document,
        path,
        name=file.name,
        selectors=dict(enumerate(file.principles)),
        levels=file.levels,
        few_shot=dict(enumerate(file.few_shot)),
        principles_dir=file.principles_dir,
    )
    if problems:
        raise InvalidFile(sorted(set(problems)))
    return assemble(file, bound, path)


def load_constitution(name: str | Path) -> Constitution:
    """The constitution that `name` means, with its principles: a path, a name, or a run's folder for the one it used.

    Raises:
        InputError: no such constitution.
        InvalidFile: it, or a principle that it names, is wrong; every problem with file, line and column.
    """
    path = find_constitution(name)
    if path.name == SNAPSHOT:
        return _from_run(path)
    document = yamlfile.load(path)
    return bind(document, yamlfile.validate(document, ConstitutionFile), path)


def read_snapshot(path: Path) -> dict[str, Any]:
    """A run's `constitution.json`, see `Constitution.row`. Not as YAML, which takes some characters of JSON's texts
    for line breaks and others for errors.

    Raises:
        InputError: it cannot be read.
    """
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("cannot be read", where=str(path)) from error
    return data if isinstance(data, dict) else {}


def _from_run(path: Path) -> Constitution:
    """From a run's `constitution.json`; one of an older run has no `bound`."""
    data = read_snapshot(path)
    given = data.get("principles")
    try:
        file = ConstitutionFile.model_validate(data.get("file"))
        principles = [Principle.model_validate(each) for each in given.values()] if isinstance(given, dict) else []
        selectors = [Selector.model_validate(each) for each in data.get("bound", ())] or file.principles
    except (TypeError, ValidationError) as error:
        raise InputError("not the constitution of a run", where=str(path)) from error
    by_id = {selector.id for selector in selectors}
    ranks = {level.name: rank for rank, level in enumerate(file.levels)}
    bound: dict[str, Bound] = {}
    for s in selectors:
        for p in principles:
            if p.id not in bound and (p.id == s.id or (s.tag in p.tags and p.id not in by_id)):
                bound[p.id] = Bound(p, s.weight, file.levels[ranks[s.level]], ranks[s.level])
    return assemble(file, tuple(bound.values()), path)


def assemble(file: ConstitutionFile, principles: tuple[Bound, ...], path: Path) -> Constitution:
    """The constitution of a file whose selectors have been looked up."""
    return Constitution(
        name=file.name,
        principles=principles,
        levels=file.levels,
        few_shot=file.few_shot,
        templates=file.templates,
        system_prompt=file.system_prompt,
        file=file,
        path=path,
    )
