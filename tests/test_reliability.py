"""What may happen to a run, and what must come of it: the bytes of an undisturbed run.

Real processes, real signals, real limits of the kernel. The backend is scripted and fails on purpose now and then, so
that retries and quarantine take part.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cai.cli.main import app
from cai.errors import RunError
from cai.store import Lock

KILLS = 50
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


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    with (folder / "prompts.jsonl").open("w") as file:
        for number in range(160):
            turn = {
                "role": "user",
                "content": f"Question {number}: what is to be done about the matter of {number * 7}? ä",
            }
            row = {"messages": [turn], "tags": ["helpful"] if number % 5 == 0 else ["red-team"]}
            file.write(json.dumps(row) + "\n")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def undisturbed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert inside("run", recipe, "--run-dir", folder, *FAST).exit_code == 0
    told = json.loads((folder / "metrics.json").read_text())
    assert told["revise"]["quarantined"]["backend"] > 0, "no fault took part"
    assert told["revise"]["flags_of_retried"]["empty"] > 0
    assert len(list((folder / "sft").iterdir())) == 5
    return folder


@pytest.fixture
def copy(undisturbed: Path, tmp_path: Path) -> Path:
    """The finished run without its results, to be harmed."""
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    forget_results(folder)
    return folder


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

    def __init__(self, nursery: subprocess.Popen[str], stderr: Path, args: list[str]) -> None:
        assert nursery.stdin
        assert nursery.stdout
        self._stderr, self._told = stderr, nursery.stdout
        nursery.stdin.write(json.dumps({"args": args, "stderr": str(stderr)}) + "\n")
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

    def start(self, *args: Any) -> Child:
        return Child(self.process, self._folder / "stderr", [str(arg) for arg in args])


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    made = Nursery(tmp_path_factory.mktemp("nursery"))
    with made.process as process:
        yield made
        assert process.stdin
        process.stdin.close()


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


def test_killed_while_the_run_begins(recipe: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Between the first file and the manifest, and just after."""
    rng = random.Random(7)
    folder = tmp_path / "run"
    kills = 0
    for name in ("run.log", ".lock", "prompts.jsonl", "constitution.json", "recipe.yaml", "manifest.json"):
        process = start("run", recipe, "--run-dir", folder)
        until(lambda path=folder / name: path.exists(), process)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.01))
        process.kill()
        kills += outcome(process)[0] == -signal.SIGKILL
        if name != "manifest.json" and not (folder / "manifest.json").exists():
            shutil.rmtree(folder)
    assert kills >= 5
    assert inside("run", recipe, "--run-dir", folder, *FAST).exit_code == 0
    assert_same(folder, undisturbed)


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


# --- torn and corrupt files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", [("journal.jsonl",), ("requests.jsonl",), ("journal.jsonl", "requests.jsonl")])
@pytest.mark.parametrize(
    "tail",
    [b"", b"\0" * 700, b'{"id": "abc", "respo\xff\n', b'["not", "a", "row"]\n'],
    ids=["half a line", "zeros", "rubbish", "another shape"],
)
def test_a_torn_last_line_is_set_aside_and_made_again(
    recipe: Path, undisturbed: Path, copy: Path, files: tuple[str, ...], tail: bytes
) -> None:
    torn = {}
    for name in files:
        path = copy / name
        whole = path.read_bytes().splitlines(keepends=True)
        kept = whole[: len(whole) // 2]
        torn[name] = tail or whole[len(kept)][: len(whole[len(kept)]) // 2]
        path.write_bytes(b"".join(kept) + torn[name])
    if "journal.jsonl" not in files:
        (copy / "journal.jsonl").unlink()
    result = inside("run", recipe, "--run-dir", copy, *FAST)
    assert result.exit_code == 0, result.stderr
    assert_same(copy, undisturbed)
    for name in files:
        assert (copy / f"{name}.torn").read_bytes().rstrip(b"\n") == torn[name].rstrip(b"\n")
        assert lines(copy / name)


@pytest.mark.parametrize("name", ["journal.jsonl", "requests.jsonl", "attempts.jsonl"])
def test_a_corrupt_line_in_the_middle_is_an_error_that_destroys_nothing(recipe: Path, copy: Path, name: str) -> None:
    path = copy / name
    if name == "attempts.jsonl":
        path.write_bytes(path.read_bytes() * 3)
    whole = path.read_bytes().splitlines(keepends=True)
    whole[1] = b"\xfe\xff" + whole[1][2:]
    path.write_bytes(b"".join(whole))
    if name != "journal.jsonl":
        (copy / "journal.jsonl").write_bytes(b"")
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name not in ("run.log", ".lock")}
    result = inside("run", recipe, "--run-dir", copy, *FAST)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"cai: error: {path}: line 2 is not a row")
    assert result.stderr.count("\n") == 1
    assert "restore the file from a copy, or delete that line" in result.stderr
    unchanged = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name not in ("run.log", ".lock")}
    assert unchanged.keys() >= before.keys()
    assert [p.name for p in before if before[p] != unchanged[p] and p.name != "recipe.yaml"] == []


def test_a_corrupt_line_can_be_deleted_as_the_error_says(recipe: Path, undisturbed: Path, copy: Path) -> None:
    for name in ("journal.jsonl", "requests.jsonl"):
        whole = (copy / name).read_bytes().splitlines(keepends=True)
        del whole[3]
        (copy / name).write_bytes(b"".join(whole))
    assert inside("run", recipe, "--run-dir", copy, *FAST).exit_code == 0
    assert_same(copy, undisturbed)


def test_a_journal_row_with_a_flipped_byte_is_an_error_not_a_wrong_result(recipe: Path, copy: Path) -> None:
    path = copy / "journal.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    whole[5] = whole[5][:60] + b'"' + whole[5][61:]
    path.write_bytes(b"".join(whole))
    result = inside("run", recipe, "--run-dir", copy, *FAST)
    assert result.exit_code == 2
    assert f"cai: error: {path}: the row at byte" in result.stderr
    assert not (copy / "metrics.json").exists()


# --- full disk -------------------------------------------------------------------------------------------------------


def file_limit(limit: int) -> Callable[[], None]:
    """No file may grow past `limit` bytes; the write that would fails with EFBIG (Python ignores SIGXFSZ)."""

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return prepare


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_a_full_disk_stops_the_run_and_the_same_command_finishes_it(
    recipe: Path, undisturbed: Path, tmp_path: Path, share: float
) -> None:
    folder = tmp_path / "run"
    limit = int(size(undisturbed / "requests.jsonl") * share)
    arguments = ("run", recipe, "--run-dir", folder, *FAST)
    code, stderr = outcome(start(*arguments, prepare=file_limit(limit)))
    assert code == 2, stderr
    error = stderr.splitlines()[-1]
    assert error.startswith(f"cai: error: {folder}/"), stderr
    assert "the disk is full (free some space and run the same command again; nothing finished is lost)" in error
    assert "Traceback" not in stderr
    for name in ("journal.jsonl", "requests.jsonl"):  # no half row stays behind
        assert not (folder / name).exists() or (folder / name).read_bytes()[-1:] in (b"", b"\n")
    assert list(folder.rglob("*.new")) == []
    kept = size(folder / "requests.jsonl")
    assert share < 0.1 or kept > 0.8 * limit
    code, stderr = outcome(start(*arguments))
    assert code == 0, stderr
    assert_same(folder, undisturbed)
    assert list(folder.glob("*.torn")) == []


def test_no_room_for_the_results(recipe: Path, undisturbed: Path, copy: Path) -> None:
    limit = size(undisturbed / "responses.jsonl") // 2
    code, stderr = outcome(start("export", recipe, "--run-dir", copy, prepare=file_limit(limit)))
    assert code == 2, stderr
    assert stderr.splitlines()[-1].startswith(f"cai: error: {copy}/responses.jsonl: the disk is full")
    assert not (copy / "responses.jsonl").exists()
    assert list(copy.rglob("*.new")) == []
    assert inside("run", recipe, "--run-dir", copy).exit_code == 0
    assert_same(copy, undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Take all the room but `leave` bytes."""
    found = os.statvfs(disk)
    path = disk / "filler"
    path.write_bytes(b"x" * (found.f_bavail * found.f_frsize - leave))
    return path


def test_a_really_full_disk(recipe: Path, undisturbed: Path, small_disk: Path) -> None:
    arguments = ("run", recipe, "--run-dir", small_disk / "run", *FAST)
    filler = fill(small_disk, 200_000)
    for _ in range(2):  # the second time it is full from the start
        code, stderr = outcome(start(*arguments))
        assert code == 2, stderr
        assert stderr.splitlines()[-1].startswith(f"cai: error: {small_disk}/run")
        assert "the disk is full" in stderr
        assert "Traceback" not in stderr
    filler.unlink()
    assert inside(*arguments).exit_code == 0
    assert_same(small_disk / "run", undisturbed)


@pytest.mark.parametrize("share", [0.2, 0.55, 0.75, 0.9, 0.97])
def test_a_disk_that_is_full_before_the_last_result(
    recipe: Path, undisturbed: Path, copy: Path, small_disk: Path, share: float
) -> None:
    folder = small_disk / "run"
    shutil.copytree(copy, folder)
    names = ("responses.jsonl", "quarantine.jsonl", "metrics.json", "sft/train.jsonl", "sft/train.parquet")
    filler = fill(small_disk, int(sum(size(undisturbed / name) for name in names) * share))
    result = inside("export", recipe, "--run-dir", folder)
    assert result.exit_code == 2
    error = result.stderr.splitlines()[-1]
    assert error.startswith(f"cai: error: {folder}/")
    assert "the disk is full (free some space" in error
    assert not (folder / "metrics.json").exists()
    assert list(folder.rglob("*.new")) == []
    filler.unlink()
    assert inside("export", recipe, "--run-dir", folder).exit_code == 0
    assert_same(folder, undisturbed)


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
