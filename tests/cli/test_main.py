"""`cai --help`: it answers at once, and every command teaches by example."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

import cai
from cai.cli.main import app

HEAVY = ("torch", "vllm", "trl", "transformers", "pydantic", "numpy", "pyarrow", "openai", "yaml", "datasketch")


def commands() -> Iterator[tuple[str, ...]]:
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from ((name, inner) for inner in command.commands)
        else:
            yield (name,)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["constitution", "try", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    # typer itself loads pydantic for a command's parameters, but not for the list of commands.
    heavy = HEAVY if arguments == ["--help"] else [name for name in HEAVY if name != "pydantic"]
    code = (
        "import sys\n"
        "from cai.cli.main import app\n"
        "try:\n"
        f"    app({arguments!r})\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"loaded = [name for name in {heavy!r} if name in sys.modules]\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_leads_the_way() -> None:
    text = CliRunner().invoke(app, ["--help"]).stdout
    for words in ("First steps", "cai init my-project", "Principles and prompts", "Runs", "Start"):
        assert words in text


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_every_command_teaches_by_example(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "Examples:" in text
    assert f"cai {' '.join(command)} " in text.split("Examples:")[1]


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"cai {cai.__version__}\n"
