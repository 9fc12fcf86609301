"""The labelling page's server: nothing without a token, nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
import httpx

from cai.labels.events import effective, read_labels
from cai.labels.items import items_of
from cai.labels.page.store import said_in
from cai.records import Preference
from cai.serving import Serving
from tests.labels.page import MARKUP, Desk, say, serving


def test_no_request_without_a_token_gets_data(desk: Desk) -> None:
    async def go() -> None:
        async with desk.client() as client:
            for path in ("/api/start", "/api/next"):
                reply = await client.get(path)
                assert reply.status_code == 401
                assert "matter" not in reply.text
            assert (await client.post("/api/verdict", json={})).status_code == 401
            assert (await client.post("/api/login", json={"token": "wrong"})).status_code == 401
            page = await client.get("/")
            assert page.status_code == 200
            assert "matter" not in page.text

    asyncio.run(go())


def test_headers_hosts_and_origins(desk: Desk) -> None:
    async def go() -> None:
        client = await desk.login("ann")
        reply = await client.get("/")
        policy = reply.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script(?! src=)|style=|onclick=", reply.text)
        assert (await client.get("/api/next", headers={"host": "evil.example"})).status_code == 421
        task = (await client.get("/api/next")).json()["task"]
        for headers in ({"origin": "http://evil.example"}, {"x-cai": ""}, {"content-type": "text/plain"}):
            reply = await client.post("/api/verdict", content=json.dumps(say(task)), headers=headers)
            assert reply.status_code == 403, headers
        large = await client.post("/api/verdict", json=say(task, note="x" * 1_200_000))
        assert large.status_code == 413

    asyncio.run(go())


def test_a_tls_proxy_elsewhere_is_ours_under_the_name_it_was_given(run: Path) -> None:
    """Its requests come by plain http, and what it adds to them is not believed: anybody here could add that."""
    desk = Desk(serving(run, allow_hosts=("Labels.Example",)))
    login = {"token": desk.tokens["ann"]}

    async def ask(origin: str, **more: str) -> httpx.Response:
        async with desk.client() as client:
            return await client.post("/api/login", json=login, headers={"origin": origin, **more})

    async def go() -> None:
        for origin, host in (
            ("https://labels.example", "labels.example"),
            ("https://labels.example", "127.0.0.1:8642"),  # a proxy that asks under its upstream's name
            ("https://labels.example:8443", "labels.example:8443"),
        ):
            reply = await ask(origin, host=host)
            assert reply.status_code == 200, (origin, host)
            assert "secure" in reply.headers["set-cookie"].lower()
        for origin, host in (
            ("https://evil.example", "labels.example"),
            ("https://evil.labels.example", "labels.example"),
            ("https://labels.example:8443", "labels.example"),  # another service of that machine
            ("http://labels.example", "127.0.0.1:8642"),
            ("https://127.0.0.1:8642", "127.0.0.1:8642"),  # no name that was given
            ("null", "labels.example"),
        ):
            reply = await ask(origin, host=host, **{"x-forwarded-proto": "https", "x-forwarded-host": "evil.example"})
            assert reply.status_code == 403, (origin, host)
            assert f"not {origin}" in reply.json()["error"]
            assert "--allow-host" in reply.json()["error"]

    asyncio.run(go())
    desk.store.close()


def test_cookie_and_database_keep_the_token_to_themselves(desk: Desk, run: Path) -> None:
    async def go() -> str:
        client = desk.client()
        reply = await client.post("/api/login", json={"token": desk.tokens["ann"]})
        return reply.headers["set-cookie"].lower()

    cookie = asyncio.run(go())
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    stored = b"".join(path.read_bytes() for path in run.glob("labels.sqlite*"))
    assert desk.tokens["ann"].encode() not in stored


def test_the_same_verdict_twice_is_one_and_undo_takes_it_back(desk: Desk, run: Path) -> None:
    async def go() -> None:
        client = await desk.login("ann")
        task = (await client.get("/api/next")).json()["task"]
        assert (await client.get("/api/next")).json()["task"] == task, "a reload shows the same item"
        assert MARKUP in task["answers"][0]
        verdict = say(task)
        first = await client.post("/api/verdict", json=verdict)
        again = await client.post("/api/verdict", json=verdict)
        assert first.json()["progress"]["done"] == again.json()["progress"]["done"] == 1
        assert first.json()["task"]["id"] != task["id"]
        back = (await client.post("/api/undo", json={"verdict": first.json()["last"]})).json()
        assert back["task"]["id"] == task["id"]
        assert back["said"]["axes"][""]["verdict"] == "left"
        assert (await client.post("/api/verdict", json=say(task, "right"))).status_code == 200

    asyncio.run(go())
    labels = said_in(run / "labels.sqlite", desk.log)
    assert desk.store.hand_over(desk.log) == 0, "who reads hands over first"
    (counts,) = effective(labels)
    assert counts.verdict == ("b" if counts.shown_order == "ab" else "a")
    assert counts.seconds == 3.5
    assert [label.status for label in labels].count("discarded") == 1


def test_malformed_verdicts_are_refused(desk: Desk) -> None:
    async def go() -> None:
        client = await desk.login("ann")
        task = (await client.get("/api/next")).json()["task"]
        wrong: list[Any] = [
            {"axes": {"": {"verdict": "maybe"}}},
            {"axes": {"": {"verdict": "left", "strength": 6}}},
            {"axes": {"kind": {"verdict": "left"}}},
            {"axes": {"": {"verdict": "left"}}, "edits": {"7": "x"}},
            {},
            [],
        ]
        for said in wrong:
            reply = await client.post("/api/verdict", json={**say(task), "said": said})
            assert reply.status_code == 400, said
        assert (await client.post("/api/verdict", json={**say(task), "id": "../../etc"})).status_code == 400
        assert (await client.post("/api/verdict", json={**say(task), "task": "nowhere"})).status_code == 409
        assert desk.store.given() == []

    asyncio.run(go())


def test_sides_differ_between_people_and_skip_is_no_vote(desk: Desk, run: Path) -> None:
    async def go() -> set[str]:
        orders = set()
        for name in ("ann", "bea"):
            client = await desk.login(name)
            reply = (await client.get("/api/next")).json()
            while reply["task"]:
                reply = (await client.post("/api/verdict", json={**say(reply["task"]), "said": {"skip": True}})).json()
        desk.store.hand_over(desk.log)
        for label in read_labels(run / "labels.jsonl"):
            orders.add(label.shown_order)
            assert (label.verdict, label.status) == ("abstain", "skipped")
        return orders

    assert asyncio.run(go()) == {"ab", "ba"}
    assert effective(read_labels(run / "labels.jsonl")) == []


def test_fifty_people_at_once_keep_the_overlap_and_the_quota(run: Path) -> None:
    names = tuple(f"p{n}" for n in range(50))
    desk = Desk(Serving(run, names, overlap=3, quota=2))
    total = desk.store.progress("p0")["of"]
    assert total == 2

    async def one(name: str) -> int:
        client = await desk.login(name)
        done = 0
        reply = (await client.get("/api/next")).json()
        while reply["task"]:
            reply = (await client.post("/api/verdict", json=say(reply["task"]))).json()
            assert "error" not in reply
            done += 1
        return done

    async def go() -> list[int]:
        return list(await asyncio.gather(*(one(name) for name in names)))

    done = asyncio.run(go())
    assert max(done) <= 2
    by_task: dict[str, int] = {}
    for given in desk.store.given():
        by_task[given.task_id] = by_task.get(given.task_id, 0) + 1
    assert set(by_task.values()) == {3}
    assert sum(done) == 3 * len(by_task) == 3 * 12
    desk.store.close()


def test_rankings_and_ratings_become_pairs(run: Path) -> None:
    desk = Desk(serving(run, mode="ranking"))

    async def go() -> None:
        client = await desk.login("ann")
        task = (await client.get("/api/next")).json()["task"]
        assert len(task["answers"]) == 3
        said = {"ranking": [1, 2, 2], "note": ""}
        reply = await client.post("/api/verdict", json={**say(task), "said": said})
        assert reply.status_code == 200, reply.text

    asyncio.run(go())
    desk.store.hand_over(desk.log)
    labels = effective(read_labels(run / "labels.jsonl"))
    assert sorted(label.verdict == "tie" for label in labels) == [False, False, True]
    rows = [
        Preference.from_row(json.loads(line)) for line in (run / "preferences.jsonl").read_text("utf-8").splitlines()
    ]
    items = {item.comparison_id: item for item in items_of(rows)}
    won = {
        (items[x.comparison_id].a if x.verdict == "a" else items[x.comparison_id].b).id for x in labels if x.y != 0.5
    }
    assert len(won) == 1, "one answer won both of its pairs"
    desk.store.close()


def start(run: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
    """A real server process, and ann's link."""
    command = [sys.executable, "-m", "cai", "label", "serve", str(run), "--port", "0", "--annotators", "ann", *more]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("ann: http"):
            return process, line.split(" ", 1)[1].strip()
    raise AssertionError("the server did not start")


def post(link: str, path: str, body: Any, cookie: str = "") -> tuple[Any, str]:
    origin = link.split("/#")[0]
    headers = {"content-type": "application/json", "x-cai": "1", "origin": origin, "cookie": cookie}
    request = urllib.request.Request(origin + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.loads(reply.read()), (reply.headers.get("set-cookie") or "").split(";")[0]


def test_a_killed_server_has_lost_nothing(run: Path) -> None:
    process, link = start(run)
    try:
        _, cookie = post(link, "/api/login", {"token": link.split("token=")[1]})
        origin = link.split("/#")[0]
        request = urllib.request.Request(origin + "/api/next", headers={"cookie": cookie})
        with urllib.request.urlopen(request, timeout=30) as reply:
            task = json.loads(reply.read())["task"]
        said = []
        for _ in range(5):
            verdict = say(task)
            said.append(verdict["id"])
            task = post(link, "/api/verdict", verdict, cookie)[0]["task"]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
    with sqlite3.connect(run / "labels.sqlite") as db:
        kept = [row[0] for row in db.execute("SELECT id FROM verdicts ORDER BY number")]
    db.close()
    assert kept == said
    assert not (run / "labels.jsonl").exists()
    for _ in range(2):  # whoever reads the labels brings in what the page has, once
        done = subprocess.run(
            [sys.executable, "-m", "cai", "label", "agreement", str(run), "--json"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert len(effective(read_labels(run / "labels.jsonl"))) == 5
    assert len(list(read_labels(run / "labels.jsonl"))) == 5


def test_a_terminated_server_hands_over_at_once(run: Path) -> None:
    process, link = start(run)
    try:
        _, cookie = post(link, "/api/login", {"token": link.split("token=")[1]})
        request = urllib.request.Request(link.split("/#")[0] + "/api/next", headers={"cookie": cookie})
        with urllib.request.urlopen(request, timeout=30) as reply:
            task = json.loads(reply.read())["task"]
        post(link, "/api/verdict", say(task), cookie)
    finally:
        process.terminate()
        assert process.wait(30) == 0
        assert process.stderr is not None
        process.stderr.close()
    assert len(effective(read_labels(run / "labels.jsonl"))) == 1


def test_what_was_said_means_the_same_whatever_is_served_later(run: Path) -> None:
    """The answers of a group depend on which pairs are served; a verdict on them must not."""
    desk = Desk(serving(run, mode="ranking"))

    async def go() -> None:
        client = await desk.login("ann")
        task = (await client.get("/api/next")).json()["task"]
        said = {"ranking": [1, 2, 3], "note": ""}
        await client.post("/api/verdict", json={**say(task), "said": said})

    asyncio.run(go())
    desk.store.close()
    later = Desk(serving(run))  # pairs now; the database is the same
    assert later.store.hand_over(run / "labels.jsonl") == 3
    later.store.close()
    kept = list(read_labels(run / "labels.jsonl"))
    assert [label.extra["said"] for label in kept] == [{"ranking": [1, 2, 3]}] * 3


def test_taking_back_is_handed_over_after_the_verdict_was(desk: Desk, run: Path) -> None:
    async def go() -> None:
        client = await desk.login("ann")
        task = (await client.get("/api/next")).json()["task"]
        await client.post("/api/verdict", json=say(task))
        assert desk.store.hand_over(desk.log) == 1
        await client.post("/api/undo", json={"verdict": desk.store.last("ann")})
        assert desk.store.hand_over(desk.log) == 1
        assert desk.store.hand_over(desk.log) == 0

    asyncio.run(go())
    assert [label.status for label in read_labels(desk.log)] == ["submitted", "discarded"]
    assert effective(read_labels(desk.log)) == []
