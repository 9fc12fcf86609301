"""How a process of a launch ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# What is only found out while the interpreter is being taken apart, as torch's threads find out, is fatal.
SCRIPT = """
import atexit, os, sys
from cai.processes import no_teardown

class Late:
    def __del__(self):
        os.abort()

late = Late()
with no_teardown():
    atexit.register(print, "at exit")
    print("done")
    {end}
"""


def ends(end: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(end=end)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("pass", 0),
        ("sys.exit()", 0),
        ("sys.exit(3)", 3),
        ("sys.exit('full')", 1),
        ("raise ValueError('full')", 1),
    ],
)
def test_a_launched_process_is_not_taken_apart(end: str, status: int) -> None:
    done = ends(end, WORLD_SIZE="2")
    assert done.returncode == status
    assert done.stdout.split("\n") == ["done", "at exit", ""]
    assert ("full" in done.stderr) == ("full" in end)


def test_a_process_alone_ends_as_ever() -> None:
    assert ends("pass", WORLD_SIZE="1").returncode < 0  # so what the other test relies on does happen
