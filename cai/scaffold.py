"""`cai init`: a project of one's own to edit, made of the files shipped with the package."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

from cai import yamlfile
from cai.constitution.find import shipped_dir
from cai.constitution.load import load_constitution
from cai.constitution.model import ID_PATTERN
from cai.errors import InputError
from cai.store import write_text

TEMPLATES = Path(__file__).resolve().parent / "templates"

SAMPLE = (("red-team", 4), ("borderline", 2), ("helpful", 4), ("multi-turn", 2))
"""How many prompts of each tag are taken from the shipped examples, the first ones that are not taken already."""


def files(name: str, constitution: str = "default") -> dict[Path, str]:
    """The project's files: text by relative path, in the order in which a person would read them.

    Args:
        name: of the project; its constitution and its run are called so.
        constitution: the shipped one that it starts from.

    Raises:
        InputError: the name cannot be one, or there is no such constitution.
    """
    if not re.match(ID_PATTERN, name):
        allowed = "letters, digits, '.', '_' and '-', the first a letter or a digit"
        raise InputError(f"{name!r} cannot be a name: {allowed}", where="--name", mend="give another with --name")
    source = shipped_dir("constitution") / f"{constitution}.yaml"
    if not source.is_file():
        known = sorted(path.stem for path in shipped_dir("constitution").glob("*.yaml"))
        hint = yamlfile.nearest(constitution, known)
        raise InputError(f"no constitution {constitution!r}{hint}", where="--constitution", mend=", ".join(known))
    ids = [bound.id for bound in load_constitution(source).principles]

    def template(file: str) -> str:
        text = (TEMPLATES / file).read_text("utf-8")
        slots = {"name": name, "name as yaml": yaml_text(name), "principle": ids[0]}
        return re.sub(r"\{\{([a-z ]+)\}\}", lambda match: slots[match[1]], text)

    own = re.sub(
        r"^name: .*$", lambda _: f"name: {yaml_text(name)}", source.read_text("utf-8"), count=1, flags=re.MULTILINE
    )
    return {
        Path("README.md"): template("README.md"),
        Path("recipe.yaml"): template("recipe.yaml"),
        Path("prompts.jsonl"): "".join(_some_prompts()),
        Path("constitution") / f"{name}.yaml": own,
        **{
            Path("principles") / file: _read(shipped_dir("principles") / file)
            for file in sorted(f"{i}.yaml" for i in ids)
        },
        **{Path("schema") / path.name: _read(path) for path in sorted(shipped_dir("schema").glob("*.schema.json"))},
    }


def scaffold(
    folder: Path, *, name: str = "", constitution: str = "default", force: bool = False
) -> tuple[str, list[Path]]:
    """Write the files of a project into `folder`.

    Args:
        name: of the project; the folder's own by default.
        force: replace files that exist; other files are left alone in any case.

    Returns:
        The project's name and the files written.

    Raises:
        InputError: a file exists already, or the name is not possible.
        StoreError: the folder cannot be written.
    """
    name = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-._") or "project"
    made = {folder / path: text for path, text in files(name, constitution).items()}
    existing = [path for path in made if path.exists()]
    if existing and not force:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise InputError(f"exists already{more}", where=str(existing[0]), mend="--force replaces them")
    for path, text in made.items():
        write_text(path, text)
    return name, list(made)


def yaml_text(name: str) -> str:
    """`name` as YAML text; quoted where it would be read as something else (`12`, `null`)."""
    return name if yamlfile.parse(name).data == name else json.dumps(name)


def _some_prompts() -> Iterator[str]:
    lines = _read(shipped_dir("examples") / "prompts.jsonl").splitlines(keepends=True)
    taken: set[int] = set()
    for tag, count in SAMPLE:
        fitting = (i for i, line in enumerate(lines) if i not in taken and tag in json.loads(line)["tags"])
        taken.update(itertools.islice(fitting, count))
    return (lines[index] for index in sorted(taken))


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"cannot read a shipped file: {error.strerror}", where=str(path)) from error
