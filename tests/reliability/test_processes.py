"""What may happen to a run's processes, and what must come of it: the bytes of an undisturbed run.

Real processes and real signals. The backend is scripted and fails on purpose now and then, so that retries and
quarantine take part.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cai.errors import RunError
from cai.store import Lock
from tests.reliability.rehearsal import (
    FAST,
    Nursery,
    assert_same,
    forget_results,
    inside,
    lines,
    outcome,
    size,
    start,
    until,
)

KILLS = 50


# --- killed ----------------------------------------------------------------------------------------------------------


def test_killed_at_50_random_points_and_resumed_gives_the_same_bytes(
    recipe: Path, undisturbed: Path, tmp_path: Path, nursery: Nursery
) -> None:
    rng = random.Random(20261121)
    kills, stories = 0, 0
    while kills < KILLS:
        stories += 1
        assert stories <= 20, "the runs finish before they can be killed"
        folder = tmp_path / f"story{stories}"
        in_this_story = 0
        while True:
            logged = size(folder / "run.log")
            process = nursery.start("run", recipe, "--run-dir", folder)
            # From the moment at which the run says its first word, so that the kill meets work and not a start.
            until(lambda at=logged, log=folder / "run.log": size(log) > at, process)  # type: ignore[misc]
            # Enough kills: let this story come to its end sooner.
            time.sleep(rng.uniform(0, 0.25 if in_this_story < 25 else 3))
            process.kill()
            if (code := process.wait()) != -signal.SIGKILL:
                assert code == 0, process.stderr()
                break
            in_this_story += 1
        assert_same(folder, undisturbed)
        # No completion that was ever logged has been asked for again.
        assert max(Counter(row["key"] for row in lines(folder / "requests.jsonl")).values()) == 1
        kills += in_this_story
    assert kills >= KILLS


def test_killed_while_the_run_begins(recipe: Path, undisturbed: Path, tmp_path: Path, nursery: Nursery) -> None:
    """Between the first file and the manifest, and just after."""
    rng = random.Random(7)
    folder = tmp_path / "run"
    kills = 0
    for name in ("run.log", ".lock", "prompts.jsonl", "constitution.json", "recipe.yaml", "manifest.json"):
        process = nursery.start("run", recipe, "--run-dir", folder)
        until(lambda path=folder / name: path.exists(), process)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.01))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        assert inside("run", recipe, "--run-dir", folder, *FAST).exit_code == 0
        assert_same(folder, undisturbed)
        shutil.rmtree(folder)
    assert kills >= 5


KILLED_AT_RENAME = """
import pathlib, signal
rename, left = pathlib.Path.rename, [{number}]
def killed(self, target):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
pathlib.Path.rename = killed
"""


def test_killed_while_the_old_results_are_set_aside(
    recipe: Path, undisturbed: Path, tmp_path: Path, nursery: Nursery
) -> None:
    """At each file that `--update` moves; the old recipe can go on from there, and so can the new one."""
    changed = ("run", recipe, *FAST, "--set", "revise.rounds=1", "--update")
    updated = tmp_path / "updated"
    assert inside(*changed, "--run-dir", updated).exit_code == 0
    for number in itertools.count(1):
        folder = tmp_path / f"run{number}"
        shutil.copytree(undisturbed, folder)
        process = nursery.start(*changed, "--run-dir", folder, prepare=KILLED_AT_RENAME.format(number=number))
        if process.wait() != -signal.SIGKILL:
            break
        for name, arguments, same in (("old", ("run", recipe, *FAST), undisturbed), ("new", changed, updated)):
            killed = shutil.copytree(folder, tmp_path / f"{name}{number}")
            result = inside(*arguments, "--run-dir", killed)
            assert result.exit_code == 0, result.stderr
            if name == "old":  # what the new recipe had begun to write, and would write over
                for left in (".prompts.jsonl.new", ".unreadable.jsonl.new"):
                    (killed / left).unlink(missing_ok=True)
            assert_same(killed, same)
    assert process.wait() == 0
    assert_same(folder, updated)
    assert number > 8


def test_killed_while_the_results_are_written(recipe: Path, undisturbed: Path, copy: Path, nursery: Nursery) -> None:
    rng = random.Random(11)
    kills, stages = 0, set()

    def there() -> tuple[str, ...]:
        return tuple(sorted(p.name for p in copy.rglob("*") if p.name in WRITTEN or p.suffix == ".new"))

    for number in range(60):
        process = nursery.start("run", recipe, "--run-dir", copy)
        # Killed once so many files more are there, whatever the machine's speed; a moment later, to meet their middle.
        wanted = len(there()) + number % (2 * len(WRITTEN))
        until(lambda at=wanted: len(there()) >= at, process)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.005))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            kills += 1
            stages.add(there())
        for path in (*copy.glob("*.jsonl"), *copy.glob("sft/*")):  # whatever is there is whole
            if path.name in WRITTEN:
                assert path.read_bytes() == (undisturbed / path.relative_to(copy)).read_bytes()
        if rng.random() < 0.3:
            forget_results(copy)
        if kills >= 15 and len(stages) >= 4:
            break
    assert kills >= 15
    assert len(stages) >= 4, "always killed at the same place"
    assert inside("run", recipe, "--run-dir", copy).exit_code == 0
    assert_same(copy, undisturbed)


WRITTEN = (
    "responses.jsonl",
    "quarantine.jsonl",
    "train.jsonl",
    "train.parquet",
    "test.jsonl",
    "test.parquet",
    "README.md",
)


# --- two at once -----------------------------------------------------------------------------------------------------


def test_a_second_process_on_the_same_run_is_turned_away(recipe: Path, undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = start("run", recipe, "--run-dir", folder)
    assert until(lambda: size(folder / "journal.jsonl"), first)
    first.send_signal(signal.SIGSTOP)  # it holds the folder for as long as the others take to start
    code, stderr = outcome(start("run", recipe, "--run-dir", folder))  # another process
    results = [(code, stderr)]
    for command in ("run", "revise", "export"):  # and, by the same lock, another user of the folder in this process
        result = inside(command, recipe, "--run-dir", folder)
        results.append((result.exit_code, result.stderr))
    assert first.poll() is None, "they were to be turned away at once"
    for code, stderr in results:
        assert code == 2
        assert f"another process (pid {first.pid}) is working on this run" in stderr
        assert stderr.count("\n") == 1
    watched = inside("status", folder, "--json")  # looking on is allowed
    assert watched.exit_code == 0
    assert json.loads(watched.stdout)["stages"]["revise"]["left"] > 0
    first.send_signal(signal.SIGCONT)
    assert outcome(first)[0] == 0
    assert_same(folder, undisturbed)


def test_a_child_that_outlives_a_killed_run_does_not_hold_its_folder(tmp_path: Path) -> None:
    """A backend's worker, forked from the run; the kernel would let it go on holding the lock."""
    script = f"""
import os, pathlib, time
from cai.store import Lock
lock = Lock(pathlib.Path({str(tmp_path)!r}))
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        try:
            time.sleep(0.2)
            with pytest.raises(RunError, match=f"pid {parent.pid}"):
                Lock(tmp_path)
            parent.kill()
            parent.wait()
            os.kill(child, 0)  # alive
            Lock(tmp_path).release()
        finally:
            os.kill(child, signal.SIGKILL)


def test_looking_at_a_run_while_it_works_does_not_harm_it(recipe: Path, copy: Path) -> None:
    """Its last line may be half written at that moment; only its owner may set it aside."""
    for name in ("journal.jsonl", "requests.jsonl"):
        with (copy / name).open("ab") as file:
            file.write(b'{"id": "half')
    before = {name: (copy / name).read_bytes() for name in ("journal.jsonl", "requests.jsonl")}
    prompt = lines(copy / "prompts.jsonl")[0]["id"]
    assert inside("status", copy).exit_code == 0
    assert inside("why", copy, prompt).exit_code == 0
    assert inside("run", recipe, "--run-dir", copy, "--dry-run").exit_code == 0
    assert before == {name: (copy / name).read_bytes() for name in before}
    assert list(copy.glob("*.torn")) == []


# --- interrupted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_goes_on_later(
    recipe: Path, undisturbed: Path, tmp_path: Path, name: signal.Signals
) -> None:
    folder = tmp_path / "run"
    process = start("run", recipe, "--run-dir", folder)
    assert until(lambda: size(folder / "journal.jsonl") > 10_000, process)
    process.send_signal(name)
    code, stderr = outcome(process, 60)
    assert code == 130
    assert stderr.splitlines()[-1] == "interrupted; everything finished is kept, and the same command goes on"
    assert "Traceback" not in stderr
    (attempt,) = lines(folder / "attempts.jsonl")
    assert attempt["ended"] == "interrupted"
    assert attempt["usage"]["fresh_requests"] > 0
    told = json.loads(inside("status", folder, "--json").stdout)
    assert told["stages"]["revise"]["left"] > 0
    again = inside("run", recipe, "--run-dir", folder, *FAST)
    assert again.exit_code == 0
    assert "rows were finished before" in again.stderr
    assert_same(folder, undisturbed)
    assert [row["ended"] for row in lines(folder / "attempts.jsonl")] == ["interrupted", "finished"]


def test_terminated_while_the_results_are_written(recipe: Path, undisturbed: Path, copy: Path) -> None:
    codes = []
    for number in range(8):
        logged = size(copy / "run.log")
        process = start("run", recipe, "--run-dir", copy)
        until(lambda at=logged: size(copy / "run.log") > at, process)  # type: ignore[misc]
        time.sleep(0.02 * number)
        process.send_signal(signal.SIGTERM)
        code, stderr = outcome(process)
        assert code in (0, 130, -signal.SIGTERM), stderr  # the last: it had finished and was on its way out
        assert "Traceback" not in stderr
        codes.append(code)
        if codes.count(130) >= 3:
            break
    assert codes.count(130) >= 2
    assert list(copy.rglob("*.new")) == []  # unlike one that is killed, it tidies up
    assert inside("run", recipe, "--run-dir", copy).exit_code == 0
    assert_same(copy, undisturbed)


# --- a method with a bug ---------------------------------------------------------------------------------------------


def test_a_bug_ends_the_run_with_its_traceback_and_the_run_can_go_on(
    recipe: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cai.backends import scripted

    folder = tmp_path / "run"
    count = 0
    good = scripted.Backend.generate

    async def buggy(self: scripted.Backend, request: Any) -> Any:
        nonlocal count
        count += 1
        if count == 100:
            raise ZeroDivisionError
        return await good(self, request)

    with monkeypatch.context() as patch:
        patch.setattr(scripted.Backend, "generate", buggy)
        assert isinstance(inside("run", recipe, "--run-dir", folder, *FAST).exception, ZeroDivisionError)
    (attempt,) = lines(folder / "attempts.jsonl")
    assert attempt["ended"] == "failed"
    assert inside("run", recipe, "--run-dir", folder, *FAST).exit_code == 0
    assert_same(folder, undisturbed)


def test_a_run_outlives_the_terminal_it_tells_its_progress_to(recipe: Path, undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start("run", recipe, "--run-dir", folder, *FAST)
    assert process.stderr
    process.stderr.close()  # as a logger that has died
    assert process.wait(240) == 0
    assert_same(folder, undisturbed)
    assert "SFT rows" in (folder / "run.log").read_text()
