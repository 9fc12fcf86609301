"""Whole runs against a server that misbehaves."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cai.cli.main import app
from tests.backends.troubled import CANARY, Action, Handler, Server, body, half, silence, status

pytestmark = pytest.mark.usefixtures("key")


@pytest.fixture
def recipe(tmp_path: Path, server: Server) -> Path:
    with (tmp_path / "prompts.jsonl").open("w") as file:
        for number in range(40):
            tags = ["helpful"] if number % 4 == 0 else []
            row = {"messages": [{"role": "user", "content": f"Question {number} about kettles?"}], "tags": tags}
            file.write(json.dumps(row) + "\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(f"""
name: served
prompts: [{{path: prompts.jsonl}}]
models:
  policy: {{backend: openai, url: {server.url}, model: small, seats: 4, timeout: 2}}
rows_in_flight: 8
revise: {{rounds: 1}}
retry: {{attempts: 3, first_seconds: 0.005, longest_seconds: 0.02, give_up_after: 6}}
""")
    return path


def cai(*args: Any) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def results(folder: Path) -> dict[str, bytes]:
    names = ["responses.jsonl", "quarantine.jsonl", "metrics.json"]
    files = [folder / name for name in names] + sorted((folder / "sft").iterdir())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def reasons(folder: Path) -> Counter[str]:
    return Counter(row["reason"] for row in rows(folder / "quarantine.jsonl"))


@pytest.fixture
def undisturbed(recipe: Path, server: Server, tmp_path: Path) -> Path:
    folder = tmp_path / "undisturbed"
    result = cai("run", recipe, "--run-dir", folder)
    assert result.exit_code == 0, result.output
    assert reasons(folder) == {}
    server.asked.clear()
    return folder


def test_passing_trouble_changes_no_byte(recipe: Path, server: Server, undisturbed: Path, tmp_path: Path) -> None:
    troubles = [status(429, Retry_After="0.01"), status(502), body(b"<html>"), half, Handler.hang_up]
    seen: Counter[str] = Counter()

    def act(request: Handler, number: int) -> Action | None:
        with server.lock:
            asked = json.dumps(request.body)
            seen[asked] += 1
            return troubles[number % len(troubles)] if seen[asked] == 1 and number % 3 == 0 else None

    server.act = act
    assert cai("run", recipe, "--run-dir", tmp_path / "run").exit_code == 0
    assert results(tmp_path / "run") == results(undisturbed)
    (attempt,) = rows(tmp_path / "run" / "attempts.jsonl")
    assert attempt["usage"]["retries"] > 10
    assert attempt["usage"]["errors"] == 0


def test_rows_that_fail_for_good_are_quarantined_and_can_be_asked_again(
    recipe: Path, server: Server, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"

    def act(request: Handler, number: int) -> Action | None:
        if "Question 7 " in request.prompt:
            return status(400, "not like this")
        if "Question 9 " in request.prompt:
            return status(500, f"for ever {CANARY}")
        if "Question 11 " in request.prompt:
            return status(400, "This model's maximum context length is 10 tokens")
        return None

    server.act = act
    assert cai("run", recipe, "--run-dir", folder).exit_code == 0
    assert reasons(folder) == {"backend": 2, "too_long": 1}
    told = {row["input"]["messages"][0]["content"]: row["detail"] for row in rows(folder / "quarantine.jsonl")}
    assert told["Question 7 about kettles?"].startswith(f"{server.url}: HTTP 400")
    assert "HTTP 500" in told["Question 9 about kettles?"]
    assert len(rows(folder / "responses.jsonl")) == len(rows(undisturbed / "responses.jsonl")) - 6
    assert_no_key(tmp_path)

    asked = len(server.asked)
    assert cai("run", recipe, "--run-dir", folder).exit_code == 0  # without the flag they stay where they are
    assert len(server.asked) == asked
    server.act = lambda request, number: None
    assert cai("run", recipe, "--run-dir", folder, "--retry-failed").exit_code == 0
    assert reasons(folder) == {}
    assert len(server.asked) == asked + 9
    assert results(folder) == results(undisturbed)


def test_a_server_that_dies_stops_the_run_which_goes_on_when_it_is_back(
    recipe: Path, server: Server, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"

    def die(request: Handler) -> None:
        request.server.socket.close()  # nobody can connect any more
        request.hang_up()

    server.act = lambda request, number: die if number > 30 else None
    result = cai("run", recipe, "--run-dir", folder)
    assert result.exit_code == 2
    error = result.stderr.splitlines()[-1]
    assert error.startswith(f"cai: error: {server.url}: the last 6 requests all failed, and even a plain prompt is ")
    assert "; the last said: the connection failed" in error
    assert error.endswith("(start the server again; then run the same command to go on)")
    (attempt,) = rows(folder / "attempts.jsonl")
    assert attempt["ended"] == "failed"
    assert attempt["usage"]["fresh_requests"] == 30
    # No row is to blame for a dead server: none of them was quarantined.
    assert [row["quarantined"] for row in rows(folder / "journal.jsonl") if row["quarantined"]] == []
    assert not (folder / "metrics.json").exists()

    result = cai("run", recipe, "--run-dir", folder)  # still dead
    assert result.exit_code == 2
    assert rows(folder / "attempts.jsonl")[1]["usage"]["fresh_requests"] == 0

    server.quit.set()
    again = Server(server.server_port)
    try:
        result = cai("run", recipe, "--run-dir", folder)
        assert result.exit_code == 0, result.output
        assert results(folder) == results(undisturbed)
        assert (
            len(again.asked) == len(rows(undisturbed / "requests.jsonl")) - 30
        )  # what was answered is not asked again
    finally:
        again.stop()
    assert_no_key(tmp_path)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (status(401, f"no: {CANARY}"), "set OPENAI_API_KEY to a key that this server accepts"),
        (status(404), "does the server have the model 'small'?"),
        (status(503), "start the server again"),
    ],
    ids=["401", "404", "503"],
)
@pytest.mark.parametrize("limit", [3, 40])
def test_a_server_that_never_answers_is_an_error_however_few_the_rows(
    recipe: Path, server: Server, tmp_path: Path, act: Action, said: str, limit: int
) -> None:
    folder = tmp_path / "run"
    server.act = lambda request, number: act
    few = ["--set", f"prompts=[{{path: {recipe.parent}/prompts.jsonl, limit: {limit}}}]"]
    result = cai("run", recipe, "--run-dir", folder, *few)
    assert result.exit_code == 2
    error = result.stderr.splitlines()[-1]
    assert error.startswith(f"cai: error: {server.url}: ")
    assert said in error
    assert rows(folder / "journal.jsonl") == []
    assert_no_key(tmp_path)
    server.act = lambda request, number: None
    assert cai("run", recipe, "--run-dir", folder, *few).exit_code == 0
    assert reasons(folder) == {}


def test_a_server_that_is_gone_blames_none_of_the_last_rows(
    recipe: Path, server: Server, undisturbed: Path, tmp_path: Path
) -> None:
    """Fewer are left than failures after which the run gives a server up."""
    folder, give_up = tmp_path / "run", ["--set", "retry.give_up_after=500"]

    def die(request: Handler) -> None:
        request.server.socket.close()  # nobody can connect any more
        request.hang_up()

    requests = len(rows(undisturbed / "requests.jsonl"))
    server.act = lambda request, number: die if number > requests - 3 else None
    for attempt, fresh in enumerate((requests - 3, 0)):  # it dies; it is still dead
        result = cai("run", recipe, "--run-dir", folder, *give_up)
        assert result.exit_code == 2
        error = result.stderr.splitlines()[-1]
        assert error.startswith(f"cai: error: {server.url}: the last ")
        assert "rows failed, and even a plain prompt is not answered; the last said: the connection failed" in error
        assert error.endswith("(start the server again; then run the same command to go on)")
        assert rows(folder / "attempts.jsonl")[attempt]["usage"]["fresh_requests"] == fresh
        assert [row for row in rows(folder / "journal.jsonl") if row["quarantined"]] == []
        assert not (folder / "metrics.json").exists()
    server.quit.set()
    again = Server(server.server_port)
    try:
        result = cai("run", recipe, "--run-dir", folder, *give_up)
        assert result.exit_code == 0, result.output
        assert results(folder) == results(undisturbed)
    finally:
        again.stop()


@pytest.mark.parametrize("act", [status(400, "not like this"), status(500), silence], ids=["400", "500", "silence"])
def test_rows_that_a_living_server_does_not_answer_are_to_blame_though_nothing_else_is_left(
    recipe: Path, server: Server, tmp_path: Path, act: Action
) -> None:
    folder = tmp_path / "run"
    server.act = lambda request, number: act if "Question 39 " in request.prompt else None
    for more in ([], ["--retry-failed"]):
        result = cai("run", recipe, "--run-dir", folder, *more)
        assert result.exit_code == 0, result.output
        assert reasons(folder) == {"backend": 1}
    assert rows(folder / "attempts.jsonl")[-1]["usage"]["fresh_requests"] == 0


@pytest.mark.parametrize("limit", [3, 40])
def test_a_living_server_that_refuses_every_prompt_is_not_gone(
    recipe: Path, server: Server, tmp_path: Path, limit: int
) -> None:
    """As many as end a run where nothing is answered, or too few for that: each is asked once, whatever comes after."""
    folder = tmp_path / "run"
    asked: Counter[str] = Counter()

    def act(request: Handler, number: int) -> Action | None:
        asked[request.prompt] += 1
        return status(400, "not like this") if request.prompt != "Hello" else None

    server.act = act
    few = ["--set", f"prompts=[{{path: {recipe.parent}/prompts.jsonl, limit: {limit}}}]"]
    for _ in range(2):
        result = cai("run", recipe, "--run-dir", folder, *few)
        assert result.exit_code == 0, result.output
        assert reasons(folder) == {"backend": limit}
    assert asked.pop("Hello") <= limit // 6 + 1
    assert [*asked.values()] == [1] * limit


def test_a_short_outage_is_bridged(recipe: Path, server: Server, undisturbed: Path, tmp_path: Path) -> None:
    """Everything fails for a while, which is shorter than the retries last."""
    begun: list[float] = []

    def act(request: Handler, number: int) -> Action | None:
        if number == 20:
            begun.append(time.monotonic())
        return status(503) if begun and time.monotonic() < begun[0] + 0.3 else None

    server.act = act
    patient = ["--set", "retry.attempts=12", "--set", "retry.longest_seconds=0.2"]
    result = cai("run", recipe, "--run-dir", tmp_path / "run", *patient)
    assert result.exit_code == 0, result.output
    assert results(tmp_path / "run") == results(undisturbed)


def test_the_key_is_written_nowhere(recipe: Path, undisturbed: Path, tmp_path: Path) -> None:
    assert cai("run", undisturbed / "recipe.yaml", "--run-dir", tmp_path / "again").exit_code == 0
    assert_no_key(tmp_path)


def assert_no_key(folder: Path) -> None:
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "run.log" for path in found)
    assert [path for path in found if CANARY.encode() in path.read_bytes()] == []
