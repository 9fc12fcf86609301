from __future__ import annotations

import io

import pytest

from cai import progress
from cai.progress import Progress


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    return io.StringIO()


def test_rows_tokens_and_what_is_left_in_a_plain_log(stream: io.StringIO) -> None:
    with Progress(stream=stream) as shown:
        shown.start(10, 4, what="judge")
        shown.update(4, tokens=0, quarantined=0)
        shown.update(7, tokens=0, quarantined=2)
    first, second = stream.getvalue().splitlines()
    assert first == "judge 4/10 rows, 0 tok/s", "rows of an earlier attempt foretell nothing"
    assert second == "judge 7/10 rows, 0 tok/s, 0:00 left, 2 quarantined"


def test_steps_of_a_training(stream: io.StringIO) -> None:
    with Progress(stream=stream) as shown:
        shown.start(8, 0, what="dpo", unit="steps")
        shown.show(2, "loss 0.6931")
    assert stream.getvalue() == "dpo 2/8 steps, loss 0.6931, 0:00 left\n"


def test_a_terminal_gets_a_bar_and_lines_above_it(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with Progress(stream=stream) as shown:
        shown.start(8, 0, what="dpo", unit="steps")
        shown.show(2, "loss 0.6931")
        shown.say("a line [not markup]")
        shown.show(8, "loss 0.5")
    told = stream.getvalue()
    assert "2/8" in told or "8/8" in told
    assert "loss 0.5" in told
    assert "a line [not markup]" in told
