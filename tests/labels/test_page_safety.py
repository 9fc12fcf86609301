"""The labelling page against mix-ups and malice: whose verdict it is, who may give one, what cannot poison it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
import httpx

from cai.errors import InputError
from cai.labels.events import read_labels
from cai.labels.page import limits
from cai.labels.page.addresses import link, reached_by
from cai.labels.page.limits import Limits, network
from cai.labels.page.server import Page, app
from cai.labels.page.store import Offer, Store
from cai.serving import application, work
from tests.labels.page import Desk, say, serving


def store(tmp_path: Path, tasks: int, **more: Any) -> Store:
    found = Store(tmp_path / "labels.sqlite", **more)
    found.invite(["ann", "bea"])
    found.offer([Offer(f"t{n}") for n in range(tasks)])
    return found


def keep(found: Store, who: str, task: str | None, id: str = "") -> str | None:
    assert task is not None
    return found.save(id or uuid.uuid4().hex, task, who, {}, 1.0, labels=lambda given: [])


# --- whose verdict it is ----------------------------------------------------------------------------------------------


def test_a_verdict_is_never_read_as_somebody_elses(desk: Desk) -> None:
    """A tab of ann's, in a browser that bea has opened her link in meanwhile: the cookie is bea's by now."""

    async def go() -> None:
        browser = await desk.login("ann")
        anns = (await browser.get("/api/next")).json()["task"]
        await browser.post("/api/login", json={"token": desk.tokens["bea"]})
        beas = (await browser.get("/api/next")).json()
        reply = await browser.post("/api/verdict", json=say(anns))
        assert (reply.status_code, reply.json()["why"]) == (409, "person")
        mixed = {**say(beas["task"]), "task": anns["id"]}  # her ticket of another item
        assert (await browser.post("/api/verdict", json=mixed)).status_code == (
            409 if anns["id"] != beas["task"]["id"] else 200
        )
        without = {key: value for key, value in say(beas["task"]).items() if key != "ticket"}
        assert (await browser.post("/api/verdict", json=without)).status_code == 409
        assert desk.store.given() == []
        await browser.post("/api/login", json={"token": desk.tokens["ann"]})
        assert (await browser.post("/api/verdict", json=say(anns))).status_code == 200

    asyncio.run(go())
    assert [given.annotator for given in desk.store.given()] == ["ann"]


def test_two_runs_on_two_ports_do_not_log_each_other_out(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "other")
    one, other = Desk(serving(run)), Desk(serving(tmp_path / "other"))

    async def go() -> None:
        cookies = httpx.Cookies()
        for desk in (one, other):
            async with desk.client(cookies=cookies) as client:
                assert (await client.post("/api/login", json={"token": desk.tokens["ann"]})).status_code == 200
                cookies.update(client.cookies)
        for desk in (one, other):
            async with desk.client(cookies=cookies) as client:
                assert (await client.get("/api/next")).status_code == 200

    asyncio.run(go())
    one.store.close()
    other.store.close()


def test_a_verdict_of_items_served_no_more_is_kept(run: Path, tmp_path: Path) -> None:
    desk = Desk(serving(run))

    async def begin() -> dict[str, Any]:
        found: dict[str, Any] = (await (await desk.login("ann")).get("/api/next")).json()["task"]
        return found

    task = asyncio.run(begin())
    desk.store.close()
    rows = [json.loads(line) for line in (run / "preferences.jsonl").read_text("utf-8").splitlines()]
    others = [row["comparison_id"] for row in rows if row["comparison_id"] != task["id"]][:2]
    (tmp_path / "next.jsonl").write_text(
        "".join(json.dumps({"comparison_id": name}) + "\n" for name in others), "utf-8"
    )
    later = Desk(serving(run, items=tmp_path / "next.jsonl"))
    later.tokens = {"ann": later.store.renew("ann")}

    async def go() -> None:
        client = await later.login("ann")
        reply = await client.post("/api/verdict", json=say(task))
        assert reply.status_code == 200, reply.text
        assert reply.json()["task"]["id"] in others

    asyncio.run(go())
    assert later.store.hand_over(run / "labels.jsonl") == 1
    later.store.close()


# --- who may give one -------------------------------------------------------------------------------------------------


def test_quota_and_overlap_are_kept_when_saving(tmp_path: Path) -> None:
    found = store(tmp_path, 3, quota=1)
    first = found.next("ann")
    assert keep(found, "ann", first) is None, "the quota is reached"
    rest = [name for name in ("t0", "t1", "t2") if name != first]
    for who, name in (("ann", rest[0]), ("bea", first), ("bea", rest[1])):
        with pytest.raises(InputError, match="not handed to you"):
            keep(found, who, name)
    assert found.progress("ann") == {"done": 1, "of": 1}
    assert len(found.given()) == 1
    assert found.next("bea") in rest, "a refused verdict leaves the database as it was"
    found.close()


def test_a_verdict_that_took_longer_than_its_lease_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = store(tmp_path, 1)
    monkeypatch.setattr("cai.labels.page.store.LEASE", -1.0)
    assert found.next("ann") == found.next("bea") == "t0"
    keep(found, "bea", "t0")
    assert found.next("ann") is None, "others have labelled it meanwhile"
    keep(found, "ann", "t0")
    assert [given.annotator for given in found.given()] == ["bea", "ann"]
    found.close()


def test_progress_counts_what_a_person_may_still_get(tmp_path: Path) -> None:
    found = store(tmp_path, 3)
    keep(found, "bea", found.next("bea"))
    assert found.progress("ann") == {"done": 0, "of": 2}
    assert found.progress("bea") == {"done": 1, "of": 3}
    found.close()


def test_items_that_nobody_named_may_label_are_counted(tmp_path: Path) -> None:
    found = store(tmp_path, 1)
    spoke = frozenset({"ann", "bea"})
    found.offer(
        [
            *(Offer(f"aside{n}", more=1, not_for=spoke) for n in range(3)),
            Offer("hers", more=1, not_for=frozenset({"ann"})),
            Offer("settled", more=0, not_for=spoke),
            Offer("gold", gold=True, not_for=spoke),
        ]
    )
    assert found.unlabelled(["ann", "bea"]) == (4, 3)
    assert found.unlabelled(["ann"]) == (4, 4)
    assert found.unlabelled(["ann", "cem"]) == (4, 0)
    keep(found, "bea", found.next("bea"))
    assert found.unlabelled(["ann", "bea"]) == (3, 3)
    found.close()


def test_taking_back_twice_takes_back_one(tmp_path: Path) -> None:
    found = store(tmp_path, 3)
    for number in range(2):
        keep(found, "ann", found.next("ann"), f"verdict{number}")
    at = found.next("ann")
    last = found.last("ann")
    assert last == "verdict1"
    first, again = found.undo("ann", last), found.undo("ann", last)
    assert first == again
    assert first[1] == {}
    assert [given.undone for given in found.given()] == [False, True]
    assert keep(found, "ann", first[0]) == at, "the item that was interrupted comes next"
    assert found.undo("ann", "verdict1") == (at, None), "past it: nothing is taken back"
    assert [given.undone for given in found.given()] == [False, True, False]
    with pytest.raises(InputError, match="no such verdict"):
        found.undo("bea", "verdict0")
    found.close()


# --- nothing poisons it -----------------------------------------------------------------------------------------------


def test_halves_of_surrogates_and_deep_brackets(desk: Desk) -> None:
    async def go() -> None:
        client = await desk.login("ann")
        task = (await client.get("/api/next")).json()["task"]
        headers = {"content-type": "application/json"}
        deep = await client.post("/api/verdict", content="[" * 100_000, headers=headers)
        assert deep.status_code == 400
        body = json.dumps(say(task, note="cut \ud83d here", edits={"1": "half \udc00"}))
        reply = await client.post("/api/verdict", content=body, headers=headers)
        assert reply.status_code == 200, reply.text
        widest = say(reply.json()["task"], note="\x01" * 20_000, edits={"0": "\x01" * 100_000})
        assert (await client.post("/api/verdict", json=widest)).status_code == 200

    asyncio.run(go())
    desk.store.hand_over(desk.log)
    first, _ = read_labels(desk.log)
    assert (first.note, first.edit) == ("cut \ufffd here", "half \ufffd")


def test_an_answer_with_half_a_surrogate_is_shown(run: Path) -> None:
    asked = serving(run)
    _, found = application(asked)
    found.close()
    tasks = work(asked).tasks[:1]
    broken = dataclasses.replace(tasks[0].answers[0], text="cut \ud83d")
    task = dataclasses.replace(tasks[0], answers=(broken, tasks[0].answers[1]))
    held = Store(run / "labels.sqlite")
    server = app(Page([task], "pairs", ("",), ()), held)
    token = held.renew("ann")

    async def go() -> None:
        transport = httpx.ASGITransport(server)
        own = "http://127.0.0.1:8642"
        async with httpx.AsyncClient(
            transport=transport, base_url=own, headers={"x-cai": "1", "origin": own}
        ) as client:
            await client.post("/api/login", json={"token": token})
            reply = await client.get("/api/next")
            assert reply.status_code == 200
            assert b"cut \\ud83d" in reply.content

    asyncio.run(go())
    held.close()


def test_guesses_are_limited_by_address_whatever_the_cookie(desk: Desk) -> None:
    async def go() -> None:
        async with desk.client() as client:
            codes = []
            for number in range(60):
                cookie = f"cai_label_{desk.store.identity}=guess{number}{'y' * 20}"
                codes.append((await client.get("/api/start", headers={"cookie": cookie})).status_code)
            assert set(codes) == {401, 429}
            assert codes.count(401) <= 25
        own = await desk.login(
            "ann"
        )  # who has a link is not held up by the guesses of somebody behind the same address
        assert (await own.get("/api/start")).status_code == 200

    asyncio.run(go())


def test_a_flood_of_keys_frees_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_KEYS", 100)
    held = Limits(0.0, 1)
    assert held.allow("guesser")
    for number in range(500):
        held.allow(f"k{number}")
        assert not held.allow("guesser")
    assert len(held._left) <= 100
    assert network("2001:db8::1") == network("2001:db8::ffff") != network("2001:db8:0:1::1")
    assert network("::ffff:192.0.2.7") == "192.0.2.7"


# --- where it is to be had --------------------------------------------------------------------------------------------


def test_links_name_addresses_that_answer(run: Path) -> None:
    assert link("::1", 8642, "x") == "http://[::1]:8642/#token=x"
    assert reached_by("127.0.0.1") == ["127.0.0.1"]
    everywhere = reached_by("0.0.0.0")
    assert "0.0.0.0" not in everywhere
    assert everywhere[-1] == "127.0.0.1"
    desk = Desk(serving(run, host="0.0.0.0", allow_hosts=("Labels.Example",)))

    async def code(host: str, server: str) -> int:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(desk.app), base_url=f"http://{server}:8642"
        ) as client:
            return (await client.get("/", headers={"host": host})).status_code

    async def go() -> None:
        for host in (*everywhere, "labels.example", "localhost"):
            assert await code(f"{host}:8642", "127.0.0.1") == 200, host
        assert await code("[::1]:8642", "127.0.0.1") == 200
        assert await code("203.0.113.9:8642", "203.0.113.9") == 200, "the address that was asked"
        for host in ("203.0.113.9", "evil.example", "127.0.0.1.evil.example", "0.0.0.0"):
            assert await code(host, "127.0.0.1") == 421, host

    asyncio.run(go())
    desk.store.close()
