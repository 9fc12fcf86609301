"""Where constitutions are: a path first, then `constitution/<name>.yaml` beside the recipe, if there is one, then here,
then those shipped with the package.
"""

from __future__ import annotations

from pathlib import Path

from cai import yamlfile
from cai.errors import InputError

SNAPSHOT = "constitution.json"
"""In a run's folder: the constitution and the principles as they were when the run began."""


def shipped_dir(kind: str) -> Path:
    """Folder of the files shipped with `cai`; `kind` is `principles`, `constitution`, `schema` or `examples`.

    In an installed wheel they are inside the package, in a checkout at the top of the repository.
    """
    package = Path(__file__).resolve().parent.parent
    inside = package / "shipped" / kind
    return inside if inside.is_dir() else package.parent / kind


def find_constitution(name: str | Path, folder: Path = Path()) -> Path:
    """The file that `name` means: a path, a run's folder (the constitution it used), or a constitution's name.

    Args:
        folder: a recipe's, to which a path is relative, and whose `constitution/` comes before the current folder's.

    Raises:
        InputError: there is none; lists the names that exist.
    """
    given = Path(name).expanduser()
    is_file = given.suffix in (".yaml", ".yml", ".json")
    for path in (folder / given,) if is_file else (folder / given, given):
        if (path / SNAPSHOT).is_file():
            return path / SNAPSHOT
        if path.is_file():
            return path
    if is_file:
        raise InputError("no such file", where=str(folder / given))
    places = (folder / "constitution", Path("constitution"), shipped_dir("constitution"))
    for place in places:
        if (place / f"{name}.yaml").is_file():
            return place / f"{name}.yaml"
    known = sorted({p.stem for place in places for p in place.glob("*.yaml")})
    raise InputError(
        f"no constitution {str(name)!r}{yamlfile.nearest(str(name), known)}",
        where="constitution",
        mend=f"give a path to a .yaml file or one of: {', '.join(known)}",
    )
