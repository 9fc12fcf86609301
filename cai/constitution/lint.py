"""Everything wrong with the files people edit, found in one pass: `cai constitution lint`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from cai import yamlfile
from cai.constitution.find import find_constitution, shipped_dir
from cai.constitution.load import Bound, bind, check, read_principle
from cai.constitution.model import DEFAULT_LEVELS, ConstitutionFile, FewShot, Level, Principle, Selector
from cai.constitution.similar import near_duplicates
from cai.errors import InputError
from cai.yamlfile import Document, InvalidFile, ModelT, Problem, StrictModel

KINDS: dict[str, type[StrictModel]] = {"constitution": ConstitutionFile, "principles": Principle}
RECIPE = {"prompts", "models"}
"""Keys that every recipe has, and neither kind of file here."""


def default_paths() -> list[Path]:
    """`./constitution` and `./principles`, those that exist; where neither does, the shipped ones."""
    own = [Path(kind) for kind in KINDS if Path(kind).is_dir()]
    return own or [shipped_dir(kind) for kind in KINDS]


def lint(paths: Sequence[Path | str] = ()) -> list[Problem]:
    """Every problem of the files that `paths` name, sorted by place.

    Args:
        paths: constitution files, principle files, names of constitutions, or folders (their YAML files; where
            `constitution/` or `principles/` is inside, theirs, and of its own only those that list principles: the
            others are a project's recipes and such); default `default_paths()`. A constitution brings the principles
            that it names.

    Raises:
        InputError: a path names nothing, or a folder without a YAML file.
    """
    problems: set[Problem] = set()
    files = [file for path in paths for file in _files(Path(path))]
    for file in files or [file for path in default_paths() for file in _yaml_in(path)]:
        problems.update(_lint_file(file))
    return sorted({_from_here(problem) for problem in problems})


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path if path.is_file() else find_constitution(path)]
    inside = [path / kind for kind in KINDS if (path / kind).is_dir()]
    own = [file for file in _yaml_in(path) if not inside or _lists_principles(file)]
    found = own + [file for folder in inside for file in _yaml_in(folder)]
    if not found:
        raise InputError("no .yaml files in this folder", where=str(path), mend="give a constitution or its folder")
    return found


def _yaml_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.suffix in (".yaml", ".yml"))


def _lists_principles(file: Path) -> bool:
    """Looks at the text only, so that a broken constitution is still found."""
    try:
        return bool(re.search(rb"^['\"]?principles['\"]?\s*:", file.read_bytes(), re.MULTILINE))
    except OSError:
        return True  # reading it again says what is wrong


def _lint_file(path: Path) -> list[Problem]:
    problems: list[Problem] = []
    if path.suffix == ".yml":
        problems.append(Problem(str(path), 1, 1, "rename the file to .yaml; it is not found under this name"))
    try:
        document = yamlfile.load(path)
    except InvalidFile as error:
        return [*problems, *error.problems]
    if isinstance(document.data, dict) and document.data.keys() >= RECIPE:
        message = f"is a recipe, neither a constitution nor a principle; cai run {path} --dry-run checks it"
        return [*problems, Problem(str(path), 1, 1, message)]
    if _is_constitution(document, path):
        return [*problems, *_lint_constitution(document, path)]
    try:
        read_principle(path)
    except InvalidFile as error:
        problems += error.problems
    return problems


def _is_constitution(document: Document, path: Path) -> bool:
    """By its folder; elsewhere by which kind of file has more of its keys."""
    folder = path.resolve().parent.name
    if folder in KINDS:
        return folder == "constitution"
    keys = set(document.data) if isinstance(document.data, dict) else set()
    here = {kind: len(keys & (set(model.model_fields) - {"source", "version"})) for kind, model in KINDS.items()}
    return here["constitution"] > here["principles"]


def _lint_constitution(document: Document, path: Path) -> list[Problem]:
    problems: list[Problem] = []
    try:
        file = yamlfile.validate(document, ConstitutionFile)
        bound = bind(document, file, path).principles
    except InvalidFile as error:
        problems += error.problems
        bound, more = _what_can_be_bound(document, path)
        problems += more
    for earlier, later, value in near_duplicates(bound):
        message = (
            f"the principles {earlier.id!r} and {later.id!r} are near-duplicates ({value:.0%} of their words agree); "
            "merge them, or give one of them weight 0"
        )
        problems.append(document.problem(_place(document, later), message))
    return problems


def _what_can_be_bound(document: Document, path: Path) -> tuple[tuple[Bound, ...], list[Problem]]:
    """The principles named by the sound parts of a faulty file, so that one fault does not hide the others."""
    data = document.data if isinstance(document.data, dict) else {}
    if not isinstance(data.get("principles"), list):
        return (), []
    selectors = _sound(Selector, data.get("principles"))
    try:
        levels = tuple(Level.model_validate(entry) for entry in _items(data.get("levels"))) or DEFAULT_LEVELS
    except ValidationError:
        # Without the levels no level can be called unknown.
        levels = tuple(Level(name=name) for name in sorted({selector.level for selector in selectors.values()}))
    name, folder = data.get("name"), data.get("principles_dir")
    return check(
        document,
        path,
        name=name if isinstance(name, str) else None,
        selectors=selectors,
        levels=levels,
        few_shot=_sound(FewShot, data.get("few_shot")),
        principles_dir=folder if isinstance(folder, str) else "",
    )


def _sound(model: type[ModelT], value: object) -> dict[int, ModelT]:
    """The sound items of a list by their index; the others were reported when the file as a whole was validated."""
    found = {}
    for index, item in enumerate(_items(value)):
        with suppress(ValidationError):
            found[index] = model.model_validate(item)
    return found


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _place(document: Document, bound: Bound) -> yamlfile.Loc:
    """Where a constitution names a principle: by its id, else by one of its tags."""
    entries = _items(document.data.get("principles"))
    for key, values in (("id", (bound.id,)), ("tag", bound.principle.tags)):
        for index, entry in enumerate(entries):
            if isinstance(entry, dict) and entry.get(key) in values:
                return ("principles", index, key)
    return ("principles",)


def _from_here(problem: Problem) -> Problem:
    """The same file under one name, however it was reached: relative to the current folder where it is inside."""
    file = Path(problem.file).resolve()
    here = Path.cwd()
    name = str(file.relative_to(here)) if file.is_relative_to(here) else str(file)
    return Problem(name, problem.line, problem.column, problem.message)
