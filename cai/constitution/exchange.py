"""Import and export of constitutions in other formats; `cai.constitution.formats` holds one module a format."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from cai.constitution import formats
from cai.constitution.formats.base import Exported, Imported, Source
from cai.constitution.load import Bound, Constitution, assemble
from cai.constitution.model import ID_PATTERN, ConstitutionFile, Principle
from cai.constitution.schema import MODELS, write_schemas
from cai.constitution.writing import constitution_yaml, principle_yaml
from cai.errors import InputError
from cai.store import write_text
from cai.yamlfile import nearest, parse, validate


class Format(Protocol):
    """What a format's module offers."""

    PARTS: tuple[str, ...]

    def read(self, sources: Sequence[Source], name: str) -> Imported: ...
    def write(self, constitution: Constitution, part: str) -> Exported: ...


def format_names() -> list[str]:
    """The formats there are: the modules in `cai.constitution.formats`."""
    return sorted(module.name for module in pkgutil.iter_modules(formats.__path__) if module.name != "base")


def load_format(name: str) -> Format:
    """The format called `name`.

    Raises:
        InputError: there is none.
    """
    known = format_names()
    if name not in known:
        hint = nearest(name, known)
        raise InputError(f"no format {name!r}{hint}", where="--format", mend=f"one of: {', '.join(known)}")
    return cast("Format", importlib.import_module(f"cai.constitution.formats.{name}"))


def import_constitution(paths: Sequence[Path], format: str, *, name: str = "") -> Imported:
    """Read files of another format as one constitution called `name` (default: the format's name).

    What would not come back when exported again, from the files as `save` writes them, is in the notes of the result.

    Raises:
        InputError: a file that cannot be read or is malformed; names the file and the key.
    """
    module = load_format(format)
    name = name or format
    if not re.match(ID_PATTERN, name):
        raise InputError(f"{name!r} cannot be a file's name", where="--name", mend="use letters, digits, '_', '.', '-'")
    imported = module.read([Source(str(path), _json(path)) for path in paths], name)
    constitution = assembled(_reread(imported))
    changed = tuple(
        f"exporting '{part}' will not give back exactly what was imported"
        for part, data in imported.expected.items()
        if module.write(constitution, part).data != data
    )
    return Imported(imported.file, imported.principles, imported.expected, imported.notes + changed)


def _reread(imported: Imported) -> Imported:
    """What reading the written files gives; it is the same, if the YAML carries every text."""
    file = validate(parse(constitution_yaml(imported.file)), ConstitutionFile)
    principles = tuple(validate(parse(principle_yaml(p)), Principle) for p in imported.principles)
    return Imported(file, principles, imported.expected, imported.notes)


def export_constitution(constitution: Constitution, format: str, *, part: str = "") -> Exported:
    """The JSON of one file of another format; `part` is one of the format's `PARTS`, default the first.

    Raises:
        InputError: no such format or part, or nothing to write there.
    """
    module = load_format(format)
    part = part or module.PARTS[0]
    if part not in module.PARTS:
        hint = nearest(part, module.PARTS)
        mend = f"one of: {', '.join(module.PARTS)}"
        raise InputError(f"the format {format!r} has no part {part!r}{hint}", where="--part", mend=mend)
    return module.write(constitution, part)


def assembled(imported: Imported) -> Constitution:
    """The constitution as it will be when loaded from disk."""
    file = imported.file
    ranks = {level.name: rank for rank, level in enumerate(file.levels)}
    by_id = {principle.id: principle for principle in imported.principles}
    bounds = tuple(
        Bound(by_id[s.id], s.weight, file.levels[ranks[s.level]], ranks[s.level]) for s in file.principles if s.id
    )
    return assemble(file, bounds, Path(f"constitution/{file.name}.yaml"))


def save(imported: Imported, out: Path, *, force: bool = False) -> list[Path]:
    """Write `constitution/<name>.yaml` and `principles/<id>.yaml` below `out`, and the schemas their headers name.

    Raises:
        InputError: a file exists already and `force` is off; then nothing at all is written.
    """
    files = {out / "principles" / f"{p.id}.yaml": principle_yaml(p) for p in imported.principles}
    files[out / "constitution" / f"{imported.file.name}.yaml"] = constitution_yaml(imported.file)
    refuse_existing(list(files), force=force)
    for path, text in files.items():
        write_text(path, text)
    missing = tuple(kind for kind in MODELS if not (out / "schema" / f"{kind}.schema.json").exists())
    return [*files, *write_schemas(out / "schema", missing)]


def refuse_existing(paths: Sequence[Path], *, force: bool) -> None:
    """
    Raises:
        InputError: one of `paths` exists and `force` is off.
    """
    there = [path for path in paths if path.exists()]
    if there and not force:
        more = f" (and {len(there) - 1} more of these files)" if len(there) > 1 else ""
        mend = "give another folder or name, or --force to overwrite"
        raise InputError(f"the file exists already{more}", where=str(there[0]), mend=mend)


def _json(path: Path) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise InputError(f"the key {key!r} is given twice", where=str(path))
            result[key] = value
        return result

    def number(text: str) -> Any:
        raise InputError(f"{text} is not JSON", where=str(path))

    try:
        text = path.read_bytes().decode("utf-8-sig")
        data = json.loads(text, object_pairs_hook=unique, parse_constant=number)
        json.dumps(data, ensure_ascii=False).encode()
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror}", where=str(path)) from error
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON: {error.msg}", where=f"{path}:{error.lineno}:{error.colno}") from error
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text", where=str(path), mend="save the file as UTF-8") from error
    except UnicodeEncodeError as error:
        raise InputError("a text has half a character (a lone surrogate escape)", where=str(path)) from error
    except RecursionError as error:
        raise InputError("nested too deeply", where=str(path)) from error
    return data
