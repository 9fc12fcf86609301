"""How a run is started, harmed and compared: real processes, a scripted backend that fails now and then."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from cai.cli.main import app

CAI = [sys.executable, "-c", "from cai.cli.main import app; app()"]
RECIPE = """
name: rehearsal
seed: 3
prompts: [{path: prompts.jsonl}]
models:
  policy: {backend: scripted, delay: 0.02, seats: 8, fail: {empty: 0.04, long: 0.03, error: 0.05, broken: 0.02}}
rows_in_flight: 16
sft: {test_fraction: 0.2}
retry: {attempts: 3, first_seconds: 0.005, longest_seconds: 0.01}
"""
FAST = ["--set", "models.policy.delay=0"]  # neither the delay nor the seats change an answer


def forget_results(folder: Path) -> None:
    for name in ("responses.jsonl", "quarantine.jsonl", "metrics.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "sft", ignore_errors=True)


def inside(*args: Any) -> Result:
    """The command in this process, where nothing is to happen to the process itself."""
    return CliRunner().invoke(app, [str(arg) for arg in args])


def start(*args: Any, prepare: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*CAI, *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=prepare
    )


def outcome(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str]:
    try:
        stderr = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, stderr


NURSERY = """
import json, os, sys, traceback
import cai.pipeline, cai.backends.scripted, cai.cli.tables, pyarrow.parquet, datasketch
from cai.cli.main import app
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        for path, number in (("/dev/null", 0), ("/dev/null", 1), (order["stderr"], 2)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), number)
        try:
            exec(order["prepare"])
            app(order["args"])
        except SystemExit as end:
            os._exit(end.code or 0)
        except BaseException:
            traceback.print_exc()
        os._exit(70)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Child:
    """A process of the nursery's, one at a time; what `Popen` offers of one."""

    def __init__(self, nursery: subprocess.Popen[str], stderr: Path, args: list[str], prepare: str) -> None:
        assert nursery.stdin
        assert nursery.stdout
        self._stderr, self._told = stderr, nursery.stdout
        nursery.stdin.write(json.dumps({"args": args, "stderr": str(stderr), "prepare": prepare}) + "\n")
        nursery.stdin.flush()
        self._pid = int(self._told.readline())

    def poll(self) -> int | None:
        if select.select([self._told], [], [], 0)[0]:
            return self.wait()
        return None

    def wait(self) -> int:
        if not hasattr(self, "_code"):
            self._code = int(self._told.readline())
        return self._code

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def stderr(self) -> str:
        return self._stderr.read_text()


class Nursery:
    """Starts `cai` processes by forking one that has imported everything: a second less for each that is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, *args: Any, prepare: str = "") -> Child:
        """`prepare`: Python code that the process runs first."""
        return Child(self.process, self._folder / "stderr", [str(arg) for arg in args], prepare)


def until(true: Callable[[], object], process: subprocess.Popen[str] | Child, seconds: float = 240) -> bool:
    """Wait; False when the process ended before."""
    limit = time.monotonic() + seconds
    while not true():
        if process.poll() is not None:
            return False
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.002)
    return True


def results(folder: Path) -> dict[str, bytes]:
    """All that a run hands on, and that nothing half-written lies about."""
    names = ["responses.jsonl", "quarantine.jsonl", "metrics.json", "prompts.jsonl", "constitution.json"]
    assert [str(p) for p in folder.rglob("*.new")] == []
    files = [folder / name for name in names] + sorted((folder / "sft").iterdir())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_same(folder: Path, other: Path) -> None:
    mine, theirs = results(folder), results(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name]] == []


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
