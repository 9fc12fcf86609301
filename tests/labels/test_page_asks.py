"""What the labelling page asks: axes, gold, ratings, one more person."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
from cai.errors import InputError
from cai.labels.events import effective, read_labels
from cai.people import agreement_of_run, write_demonstrations
from cai.routing import route_run
from cai.serving import Serving, application, serve, work
from tests.labels.page import Desk, say, serving


def two_axes(run: Path) -> Path:
    """The same run as if its judge had been asked about two axes, and been sure of opposite things."""
    rows = [json.loads(line) for line in (run / "preferences.jsonl").read_text("utf-8").splitlines()]
    made = [
        {**row, "id": f"{row['id']}{axis}", "axis": axis, "p": p}
        for row in rows
        for axis, p in (("helpful", 0.9), ("kind", 0.6))
    ]
    (run / "preferences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
    return run


def both(task: dict[str, Any], **more: Any) -> dict[str, Any]:
    given = {"verdict": "left", "strength": None}
    return {**say(task), "said": {"axes": {"helpful": given, "kind": given}, "note": "", **more}}


def test_each_axis_has_its_own_hint_and_a_verdict_one_demonstration(run: Path, tmp_path: Path) -> None:
    desk = Desk(serving(two_axes(run), hint=True))

    async def go() -> str:
        client = await desk.login("ann")
        task = (await client.get("/api/next")).json()["task"]
        assert {axis: max(p, 1 - p) for axis, p in task["hints"].items()} == pytest.approx(
            {"helpful": 0.9, "kind": 0.6}
        )
        reply = await client.post("/api/verdict", json=both(task, edits={"1": task["answers"][1]}))
        task = reply.json()["task"]
        two = both(task, edits={"0": "x", "1": "y"})
        assert (await client.post("/api/verdict", json=two)).status_code == 400
        assert (await client.post("/api/verdict", json=both(task, edits={"1": "As it should be."}))).status_code == 200
        return str(task["id"])

    name = asyncio.run(go())
    desk.store.close()
    assert write_demonstrations(run, tmp_path / "sft.jsonl") == 1
    told = [label for label in read_labels(desk.log) if label.edit]
    assert [label.comparison_id for label in told] == [name]
    task = {task.id: task for task in work(serving(run)).tasks}[name]
    second = task.answers[1 if told[0].shown_order == "ab" else 0]
    assert told[0].extra["edited"] == second.id


def test_skipping_replaces_a_verdict_on_every_axis(run: Path) -> None:
    desk = Desk(serving(two_axes(run)))

    async def go() -> None:
        client = await desk.login("ann")
        task = (await client.get("/api/next")).json()["task"]
        await client.post("/api/verdict", json=both(task))
        await client.post("/api/verdict", json={**say(task), "said": {"skip": True}})

    asyncio.run(go())
    desk.store.hand_over(desk.log)
    labels = list(read_labels(desk.log))
    assert {label.axis for label in labels} == {"helpful", "kind"}
    assert effective(labels) == []
    desk.store.close()


def test_gold_keeps_the_right_verdict_of_its_axis(run: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (two_axes(run) / "preferences.jsonl").read_text("utf-8").splitlines()]
    gold = tmp_path / "gold.jsonl"
    row = {"comparison_id": rows[0]["comparison_id"], "verdict": "b"}
    gold.write_text(json.dumps(row) + "\n", "utf-8")
    with pytest.raises(InputError, match="the axis"):
        application(serving(run, gold=gold))
    gold.write_text(json.dumps(row | {"axis": "kind"}) + "\n", "utf-8")
    (tmp_path / "one.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    desk = Desk(serving(run, gold=gold, items=tmp_path / "one.jsonl"))

    async def go() -> None:
        for name in ("ann", "bea"):  # gold items go to everybody
            client = await desk.login(name)
            reply = await client.get("/api/next")
            assert "gold" not in reply.text
            await client.post("/api/verdict", json=both(reply.json()["task"]))

    asyncio.run(go())
    desk.store.hand_over(desk.log)
    desk.store.close()
    found = {(label.annotator, label.axis): (label.gold, label.extra.get("gold")) for label in read_labels(desk.log)}
    told = agreement_of_run(run)
    assert {name: row["n"] for name, row in told["gold"].items()} == {"ann": 1, "bea": 1}
    assert set(told["axes"]) == {"helpful"}, "what checks people is no vote"
    assert found == {
        (name, axis): (axis == "kind", "b" if axis == "kind" else None)
        for name in ("ann", "bea")
        for axis in ("helpful", "kind")
    }


def test_ratings_ask_about_one_axis_and_refuse_what_they_cannot_honour(run: Path, tmp_path: Path) -> None:
    two_axes(run)
    with pytest.raises(InputError, match="asks one question"):
        application(serving(run, mode="rating"))
    for more in ({"hint": True}, {"gold": tmp_path / "gold.jsonl"}):
        with pytest.raises(InputError, match="is about pairs"):
            application(serving(run, mode="ranking", axes=("kind",), **more))


@pytest.mark.parametrize("mode", ["pairs", "rating"])
def test_pages_of_one_axis_each_ask_the_same_person_about_the_same_pairs(run: Path, mode: str) -> None:
    two_axes(run)

    async def go(desk: Desk, axis: str) -> None:
        client = await desk.login("ann")
        while task := (await client.get("/api/next")).json()["task"]:
            verdict = {"axes": {axis: {"verdict": "left", "strength": None}}, "note": ""}
            ratings = {"ratings": list(range(1, 1 + len(task["answers"]))), "note": ""}
            body = {**say(task), "said": verdict if mode == "pairs" else ratings}
            reply = await client.post("/api/verdict", json=body)
            assert reply.status_code == 200, reply.text

    links: dict[str, str] = {}
    for axis in ("kind", "helpful"):
        desk = Desk(serving(run, mode=mode, axes=(axis,)))
        desk.tokens = links = links or desk.tokens
        asyncio.run(go(desk, axis))
        desk.store.hand_over(desk.log)
        desk.store.close()
    labels = effective(read_labels(desk.log))
    pairs = [{label.comparison_id for label in labels if label.axis == axis} for axis in ("kind", "helpful")]
    assert pairs[0] == pairs[1]
    assert len(labels) == 2 * len(pairs[0]) > 0


def test_what_a_merge_set_aside_gets_one_more_person(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [json.loads(line) for line in (run / "preferences.jsonl").read_text("utf-8").splitlines()]
    name = rows[0]["comparison_id"]
    (run / "one.jsonl").write_text(json.dumps({"comparison_id": name}) + "\n", "utf-8")
    people = ("ann", "bea", "cem", "dea")
    desk = Desk(Serving(run, people, overlap=2, items=run / "one.jsonl"))

    async def one(desk: Desk, who: str) -> dict[str, Any] | None:
        client = await desk.login(who)
        task: dict[str, Any] | None = (await client.get("/api/next")).json()["task"]
        if task is not None:
            assert (await client.post("/api/verdict", json=say(task))).status_code == 200
        return task

    async def go() -> None:
        assert await one(desk, "ann")
        assert await one(desk, "bea")
        assert await one(desk, "cem") is None

    asyncio.run(go())
    desk.store.hand_over(desk.log)
    desk.store.close()
    labels = [label.id for label in effective(read_labels(desk.log))]
    aside = {
        "id": "x",
        "stage": "merge",
        "reason": "split",
        "detail": "",
        "input": {"comparison_id": name, "axis": "", "labels": labels},
    }
    (run / "merge-quarantine.jsonl").write_text(2 * (json.dumps(aside) + "\n"), "utf-8")
    asked = Serving(run, people, overlap=1, items=run / "merge-quarantine.jsonl")

    monkeypatch.setattr("uvicorn.Server.run", lambda _, sockets: sockets[0].close())
    for named, warned in ((people[:2], True), (people, False)):
        said: list[str] = []
        serve(replace(asked, annotators=named, port=0), said.append)
        assert any(line.startswith("1 of the 1 items that still want people") for line in said) == warned

    told = route_run(run, 4, out=run / "next.jsonl")
    assert (told["chosen"][0], told["set_aside"], len(told["chosen"])) == (name, 1, 4)
    routed = [json.loads(line) for line in (run / "next.jsonl").read_text("utf-8").splitlines()]
    assert [row["comparison_id"] for row in routed[:2]] == [name, name]
    assert name not in told["chosen"][1:]
    both_kinds = work(Serving(run, people, items=run / "next.jsonl"))
    assert (len(both_kinds.tasks), both_kinds.more) == (4, {name: 1})

    async def further() -> list[bool]:
        got = []
        for who in ("ann", "cem", "dea"):
            again = Desk(asked)  # served anew in between: still one more person in all
            again.tokens = {who: again.store.renew(who)}
            got.append(await one(again, who) is not None)
            again.store.close()
        return got

    assert asyncio.run(further()) == [False, True, False]
    assert route_run(run, 4)["set_aside"] == 0, "one more person has spoken"
