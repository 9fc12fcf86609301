"""Formats of people's labels. Name = file; to add one, add a file.

`task` makes a row to be labelled; `read` what a labelled row says, raising `InputError`, and nothing else, for one that
is broken, whatever stands in it; `labelled` the rows that say it; `notes` what is to be known of a whole file (columns
that are lost, exports that hide something). `SUFFIX` is how a file is written: `json` (one array), `jsonl` or `csv`.
`CARRIES` names what of a label the format keeps, words of `export.LOSSES`; a format may also have `LEVELS`, the
strengths that it can write where it asks for one always, `AXES` by column where it knows some axes only, `guess`,
which adds what the judge says to a task, and `config`, the tool's own file for an interface with a question an axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from cai import plugins
from cai.labels.items import Item
from cai.labels.said import Said

Row = Mapping[str, Any]


class Format(Protocol):
    """What a format's module offers."""

    NAME: str
    DESCRIPTION: str
    SUFFIX: str
    CARRIES: frozenset[str]

    def task(self, item: Item, order: str) -> dict[str, Any]: ...

    def labelled(self, item: Item, order: str, said: Sequence[Said]) -> list[dict[str, Any]]: ...

    def read(self, row: Row) -> Sequence[Said]: ...

    def notes(self, row: Row) -> Sequence[str]: ...


def names() -> list[str]:
    """Every format there is."""
    return plugins.names(__name__)


def load(name: str) -> Format:
    """The format `name`.

    Raises:
        InputError: there is none; says which there are and which is nearest.
    """
    return cast(Format, plugins.load(__name__, name))
