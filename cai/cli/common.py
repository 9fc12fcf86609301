"""What every command shares: one way to print errors, JSON and tables.

stdout carries the answer (one JSON document with `--json`), stderr everything else.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from cai.errors import CaiError

F = TypeVar("F", bound=Callable[..., Any])

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")]


def examples(*lines: tuple[str, str], title: str = "Examples:") -> str:
    """The end of a command's help: a command line and what it does, each on a line of its own."""
    return "\n\n".join([title, *(f"- `{line}`" + (f": {text}" if text else "") for line, text in lines)])


def reports_errors(command: F) -> F:
    """Decorator of every command: a `CaiError` prints a line a problem and exits with its code."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except CaiError as error:
            for problem in getattr(error, "problems", None) or [error]:
                print(f"cai: error: {problem}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from error

    return wrapper  # type: ignore[return-value]


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, ensure_ascii=False, indent=2))
