"""A Hugging Face data set on disk (`Dataset.save_to_disk`): Arrow files, read without the package `datasets`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cai.errors import InputError
from cai.prompts import arrow, shapes
from cai.prompts.rows import BadRow, ReadOptions, Row, Tick


def read(path: Path, options: ReadOptions, tick: Tick | None = None) -> Iterator[Row | BadRow]:
    """The rows of every Arrow file, in the order of the data set; columns as in JSON Lines.

    Raises:
        InputError: no data set there, or several splits (which one is meant is not for us to guess: reading all would
            mix test rows into training), or no column that holds a prompt.
    """
    import pyarrow

    done = 0
    for file in arrow_files(path):
        try:
            raw = file.open("rb")
        except OSError as error:
            yield BadRow(str(file), f"cannot read the file: {error.strerror}")
            continue
        with raw:
            try:
                is_file = raw.read(6) == b"ARROW1"
                raw.seek(0)
                reader = pyarrow.ipc.open_file(raw) if is_file else pyarrow.ipc.open_stream(raw)
            except (OSError, ValueError) as error:
                yield arrow.unreadable(str(file), error)
                continue
            shapes.check_columns(reader.schema.names, file, options)
            yield from arrow.rows(_batches(reader, raw, done, tick, is_file=is_file), file, options)
        done += file.stat().st_size


def arrow_files(path: Path) -> list[Path]:
    """The Arrow files of the data set at `path`, in order; a single Arrow file is its own.

    Raises:
        InputError: see `read`.
    """
    if path.is_file():
        return [path]
    if (path / "dataset_dict.json").is_file():
        splits = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
        raise InputError(
            "a data set with several splits", where=str(path), mend=f"give one of its folders: {', '.join(splits)}"
        )
    listed = _listed(path / "state.json")
    files = [path / name for name in listed] if listed else sorted(path.glob("*.arrow"))
    if not files:
        raise InputError("no data set here: neither state.json nor an .arrow file", where=str(path))
    return files


def _listed(state: Path) -> list[str]:
    try:
        return [str(Path(entry["filename"]).name) for entry in json.loads(state.read_text())["_data_files"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("not the state.json of a data set", where=str(state)) from error


def _batches(reader: Any, raw: Any, done: int, tick: Tick | None, *, is_file: bool) -> Iterator[Any]:
    batches = (reader.get_batch(index) for index in range(reader.num_record_batches)) if is_file else reader
    for batch in batches:
        yield batch
        if tick:
            tick(done + raw.tell())
