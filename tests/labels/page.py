"""A small judged run for the tests of the labelling page, with texts that would do harm if they became HTML."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx

from cai.records import Preference, comes_first
from cai.serving import Serving, application

OWN = "http://127.0.0.1:8642"
HEADERS = {"x-cai": "1", "origin": OWN}

MARKUP = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"> & <b>bold</b>"
RECIPE = """
name: page
prompts: [{path: prompts.jsonl}]
models: {policy: {backend: scripted}}
constitution: humanity
revise: {rounds: 1}
sample: {sources: [{count: 3}]}
judge: {}
"""


def judged_run(folder: Path, prompts: int = 4) -> Path:
    """A run of the scripted backend, every answer with markup in it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": f"How is matter {number} best settled? {MARKUP}"} for number in range(prompts)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, "utf-8")
    # A process of its own: where a browser is driven, an event loop is running here already.
    command = [sys.executable, "-m", "cai", "run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    path = folder / "run" / "preferences.jsonl"
    made = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for row in made:
        a_first = comes_first(row["prompt_id"], row["chosen"], row["rejected"])
        for name in ("chosen", "rejected"):
            row[name] = f"{row[name]} {MARKUP}"
        if comes_first(row["prompt_id"], row["chosen"], row["rejected"]) != a_first:
            row["p"] = 1 - row["p"] if row["p"] is not None else None
        Preference.from_row(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
    return folder / "run"


def serving(run: Path, **more: object) -> Serving:
    return Serving(run, ("ann", "bea"), **more)  # type: ignore[arg-type]


class Desk:
    """An application with a client for each person."""

    def __init__(self, asked: Serving) -> None:
        self.app, self.store = application(asked)
        self.log = asked.run / "labels.jsonl"
        self.tokens = self.store.invite(asked.annotators)

    def client(self, **more: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=OWN, headers=HEADERS, **more)

    async def login(self, name: str) -> httpx.AsyncClient:
        client = self.client()
        reply = await client.post("/api/login", json={"token": self.tokens[name]})
        assert reply.status_code == 200
        return client


def say(task: dict[str, Any], verdict: str = "left", **more: Any) -> dict[str, Any]:
    axes = {"": {"verdict": verdict, "strength": None}}
    said = {"axes": axes, "note": "", **more}
    return {"id": str(uuid.uuid4()), "task": task["id"], "ticket": task["ticket"], "seconds": 3.5, "said": said}
