"""What a name means where a constitution or a single principle can be given."""

from __future__ import annotations

from pathlib import Path

from cai import yamlfile
from cai.constitution.find import find_constitution, shipped_dir
from cai.constitution.load import principle_files, read_principle
from cai.constitution.model import Principle
from cai.errors import InputError


def principle_named(name: str) -> Principle | None:
    """The principle that `name` means: its file, or its id in ./principles, then among those shipped.

    Returns:
        None where it means a constitution.

    Raises:
        InputError: nothing is called so; names the nearest principle.
        InvalidFile: the principle is wrong; every problem with its position.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        data = yamlfile.load(path).data
        return None if isinstance(data, dict) and "principles" in data else read_principle(path)
    try:
        find_constitution(name)
    except InputError as error:
        files = principle_files((Path("principles"), shipped_dir("principles")))
        if name in files:
            return read_principle(files[name])
        hint = yamlfile.nearest(name, list(files))
        raise InputError(f"{error.what}, and no principle{hint}", where=error.where, mend=error.mend) from error
    return None
