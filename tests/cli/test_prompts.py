"""`cai prompts` from the outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cai.cli.prompts import app
from cai.prompts import formats

LONG = "Please explain to me in simple words how a sailing ship can move against the wind, and why"


def run(*args: Any) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    texts = [LONG + "?", "b", "b", LONG + "??", ""]
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return path


def test_import_prints_one_json_document_and_logs_to_stderr(source: Path, tmp_path: Path) -> None:
    result = run("import", source, "--out", tmp_path / "out.jsonl", "--tag", "helpful", "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert summary["written"] == 3
    assert summary["dropped"] == {"exact": 1, "near": 0}
    assert summary["problems"] == [{"where": f"{source}:5", "reason": "empty prompt"}]
    assert summary["tags"] == {"helpful": 3}
    assert f"{source}:5: empty prompt" in result.stderr


def test_import_says_in_words_what_it_dropped(source: Path, tmp_path: Path) -> None:
    result = run("import", source, "--out", tmp_path / "out.jsonl", "--near", "0.85")
    assert "2 prompts in" in result.stdout
    assert "1 exact duplicates dropped" in result.stdout
    assert "1 near-duplicates dropped" in result.stdout
    assert "1 rows skipped" in result.stdout


def test_import_strict_is_one_line_and_exit_code_2(source: Path, tmp_path: Path) -> None:
    result = run("import", source, "--out", tmp_path / "out.jsonl", "--strict")
    assert result.exit_code == 2
    assert result.stderr == f"cai: error: {source}:5: empty prompt\n"
    assert result.stdout == ""


def test_a_torn_file_says_that_its_rest_is_lost(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a"}\n{"prompt": "b')
    refused = run("import", source, "--out", tmp_path / "out.jsonl")
    assert refused.exit_code == 2
    assert "--allow-torn" in refused.stderr
    for command in ("import", "dedup"):
        told = run(command, source, "--out", tmp_path / f"{command}.jsonl", "--allow-torn")
        assert told.exit_code == 0
        assert "1 files torn or corrupt; what comes after that place is lost" in told.stdout


def test_broken_rows_are_named_up_to_a_number(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a"}\n' + "{\n" * 50)
    result = run("import", source, "--out", tmp_path / "out.jsonl")
    assert len(result.stderr.splitlines()) == 21
    assert "30 more (--dropped FILE lists them)" in result.stderr


def test_import_takes_fields_and_limits(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"instruction": "a", "instances": [{"input": "b"}]}) + "\n" + '{"instruction": "c"}\n')
    out = tmp_path / "out.jsonl"
    fields = ["--field", "instruction", "--field", "instances.0.input"]
    assert run("import", source, "--out", out, *fields, "--limit", 1).exit_code == 0
    assert json.loads(out.read_text())["messages"] == [{"role": "user", "content": "a\n\nb"}]


def test_dedup_drops_near_duplicates_unless_told(source: Path, tmp_path: Path) -> None:
    dropped = tmp_path / "dropped.jsonl"
    near = run("dedup", source, "--out", tmp_path / "near.jsonl", "--dropped", dropped, "--json")
    exact = run("dedup", source, "--out", tmp_path / "exact.jsonl", "--exact", "--json")
    assert json.loads(near.stdout)["written"] == 2
    assert json.loads(exact.stdout)["written"] == 3
    assert [json.loads(line)["reason"] for line in dropped.read_text().splitlines()] == ["exact", "near", "unreadable"]


def test_stats(source: Path) -> None:
    found = json.loads(run("stats", source, "--json").stdout)
    assert (found["rows"], found["skipped"], found["near_duplicates"]["rows"]) == (4, 1, 1)
    text = run("stats", source).stdout
    assert "rows: 4, 1 skipped" in text
    assert "sailing" not in text


def test_stats_of_a_missing_file(tmp_path: Path) -> None:
    result = run("stats", tmp_path / "missing")
    assert result.exit_code == 2
    assert "no such file" in result.stderr


def test_help_names_every_format() -> None:
    shown = " ".join(run("import", "--help").stdout.replace("│", " ").split())
    assert all(name in shown for name in formats.names())


def test_the_group_loads_nothing_heavy() -> None:
    heavy = ("cai.prompts", "pyarrow", "numpy", "datasketch", "pydantic", "yaml")
    code = f"import sys, cai.cli.prompts; print([name for name in sys.modules if name.startswith({heavy})])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
