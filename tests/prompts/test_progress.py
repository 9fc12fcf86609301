"""Progress: lines in a log, a bar on a terminal, on the stream it is given."""

from __future__ import annotations

import io

from cai.prompts.progress import byte_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_lines_with_what_is_left() -> None:
    stream = io.StringIO()
    with byte_progress(10_000_000, "importing", stream, every=0) as tick:
        tick(0)
        tick(5_000_000)
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("importing: 5.0 of 10.0 MB, about 0 s left")


def test_a_log_of_something_quick_stays_empty() -> None:
    stream = io.StringIO()
    with byte_progress(10, "importing", stream) as tick:
        tick(10)
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar() -> None:
    stream = Terminal()
    with byte_progress(10, "importing", stream) as tick:
        tick(10)
    assert "importing" in stream.getvalue()
