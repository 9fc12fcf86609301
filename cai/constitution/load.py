"""From files to a `Constitution`: the principles it names, bound to their weights and levels.

Names are looked up where a user would look: a path first, then `constitution/<name>.yaml` below the current folder,
then the files shipped with the package. Principles are looked up beside the constitution (`../principles`, or its
`principles_dir`), then among the shipped ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cai import yamlfile
from cai.constitution.model import ConstitutionFile, FewShot, Level, Principle, Templates
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
                b.principle.critique,
                b.principle.revision,
                b.principle.judge,
                b.principle.axis,
            ]
            for b in self.principles
        ]
        parts = (
            [level.model_dump(mode="json") for level in self.levels],
            [f.model_dump(mode="json") for f in self.few_shot],
        )
        return content_hash(said, *parts, self.templates.model_dump(mode="json"), self.system_prompt)

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


def shipped_dir(kind: str) -> Path:
    """Folder of the files shipped with `cai`; `kind` is `principles`, `constitution` or `examples`.

    In an installed wheel they are inside the package, in a checkout at the top of the repository.
    """
    package = Path(__file__).resolve().parent.parent
    inside = package / "shipped" / kind
    return inside if inside.is_dir() else package.parent / kind


def find_constitution(name: str | Path) -> Path:
    """The file that `name` (a path, or the name of a constitution) means.

    Raises:
        InputError: there is none; lists the names that exist.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if path.is_file():
            return path
        raise InputError("no such file", where=str(path))
    for folder in (Path("constitution"), shipped_dir("constitution")):
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted(
        {p.stem for folder in (Path("constitution"), shipped_dir("constitution")) for p in folder.glob("*.yaml")}
    )
    raise InputError(
        f"no constitution {str(name)!r}{yamlfile.nearest(str(name), known)}",
        where="constitution",
        mend=f"give a path to a .yaml file or one of: {', '.join(known)}",
    )


def read_principle(path: Path) -> Principle:
    """One principle file.

    Raises:
        InvalidFile: with every problem and its position; an id that is not the file's name is one.
    """
    document = yamlfile.load(path)
    principle = yamlfile.validate(document, Principle)
    if principle.id != path.stem:
        raise InvalidFile(
            [document.problem(("id",), f"the id {principle.id!r} must be the file's name, {path.stem!r}")]
        )
    return principle


def principle_dirs(path: Path, file: ConstitutionFile) -> tuple[Path, ...]:
    """Where the principles of the constitution at `path` are looked up, nearest first."""
    own = path.parent / file.principles_dir if file.principles_dir else path.resolve().parent.parent / "principles"
    return tuple(folder for folder in (own, shipped_dir("principles")) if folder.is_dir())


def principle_files(folders: tuple[Path, ...]) -> dict[str, Path]:
    """Principle files by id (the file's stem); the nearest folder wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return found


def bind(document: Document, file: ConstitutionFile, path: Path) -> Constitution:
    """Look up the principles that `file` names.

    Raises:
        InvalidFile: dangling ids or tags, duplicates, unknown levels, weights that sum to 0; each with its position.
    """
    problems: list[Problem] = []
    files = principle_files(principle_dirs(path, file))
    ranks = {level.name: rank for rank, level in enumerate(file.levels)}
    loaded: dict[str, Principle | None] = {}

    def principle(name: str) -> Principle | None:
        if name not in loaded:
            try:
                loaded[name] = read_principle(files[name])
            except InvalidFile as error:
                problems.extend(error.problems)
                loaded[name] = None
        return loaded[name]

    bound: dict[str, Bound] = {}
    by_id = {selector.id for selector in file.principles if selector.id}
    for index, selector in enumerate(file.principles):
        if selector.level not in ranks:
            hint = yamlfile.nearest(selector.level, list(ranks))
            text = f"unknown level {selector.level!r}{hint}; levels: {', '.join(ranks)}"
            problems.append(document.problem(("principles", index, "level"), text))
            continue
        if selector.id:
            if selector.id not in files:
                hint = yamlfile.nearest(selector.id, list(files))
                problems.append(document.problem(("principles", index, "id"), f"no principle {selector.id!r}{hint}"))
                continue
            if selector.id in bound:
                problems.append(
                    document.problem(("principles", index, "id"), f"the principle {selector.id!r} is given twice")
                )
                continue
            chosen = [principle(selector.id)]
        else:
            # A principle named by id keeps that entry's weight and level, so a tag adds only the others.
            every = [principle(name) for name in files]
            chosen = [p for p in every if p and selector.tag in p.tags and p.id not in by_id and p.id not in bound]
            if not any(p and selector.tag in p.tags for p in every):
                tags = sorted({tag for p in every if p for tag in p.tags})
                hint = yamlfile.nearest(str(selector.tag), tags)
                problems.append(
                    document.problem(("principles", index, "tag"), f"no principle has the tag {selector.tag!r}{hint}")
                )
        for p in chosen:
            if p is not None:
                rank = ranks[selector.level]
                bound[p.id] = Bound(p, selector.weight, file.levels[rank], rank)
    if len(ranks) != len(file.levels):
        problems.append(document.problem(("levels",), "two levels have the same name"))
    if bound and not sum(b.weight for b in bound.values()) > 0:
        problems.append(document.problem(("principles",), "every weight is 0, so no principle can be drawn"))
    if file.name != path.stem:
        problems.append(document.problem(("name",), f"the name {file.name!r} must be the file's name, {path.stem!r}"))
    if problems:
        raise InvalidFile(sorted(set(problems)))
    return Constitution(
        name=file.name,
        principles=tuple(bound.values()),
        levels=file.levels,
        few_shot=file.few_shot,
        templates=file.templates,
        system_prompt=file.system_prompt,
        file=file,
        path=path,
    )


def load_constitution(name: str | Path) -> Constitution:
    """The constitution that `name` (a path, or a name) means, with its principles.

    Raises:
        InputError: no such constitution.
        InvalidFile: it, or a principle that it names, is wrong; every problem with file, line and column.
    """
    path = find_constitution(name)
    document = yamlfile.load(path)
    return bind(document, yamlfile.validate(document, ConstitutionFile), path)
