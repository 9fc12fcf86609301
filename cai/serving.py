"""`cai label serve`: the labelling page on a run."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai import people, runs
from cai.constitution.load import load_constitution
from cai.errors import InputError, MissingDependency
from cai.labels.items import p_of_a
from cai.labels.page import desk
from cai.labels.page.addresses import link, reached_by
from cai.labels.page.limits import plain
from cai.labels.page.store import Store
from cai.runs import RunFolder
from cai.store import given_rows


@dataclass(frozen=True)
class Serving:
    """What is served, and to whom.

    Attributes:
        axes: empty: the axes the judge was asked about. The modes `rating` and `ranking` ask about one.
        items: a file of `cai label route`, or `merge-quarantine.jsonl`, whose pairs get one more person each.
        gold: JSONL of `comparison_id`, `verdict` (a or b) and, where several axes are asked about, `axis`.
        allow_hosts: further names under which the page may be asked for, as behind a proxy.
    """

    run: Path
    annotators: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8642
    overlap: int = 1
    quota: int = 0
    mode: desk.Mode = "pairs"
    axes: tuple[str, ...] = ()
    items: Path | None = None
    gold: Path | None = None
    hint: bool = False
    allow_hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Work:
    """What is to be labelled.

    Attributes:
        others: tasks of the run that are not handed out now.
        more, not_for: of tasks whose pair was set aside, how many further people, and who has spoken already.
    """

    place: RunFolder
    tasks: list[desk.Task]
    others: list[desk.Task]
    axes: tuple[str, ...]
    more: dict[str, int]
    not_for: dict[str, frozenset[str]]


def work(asked: Serving) -> Work:
    """What is to be labelled, and which axes are asked about.

    Raises:
        InputError: nothing has been judged, a file names a pair that is not in the run, or an option does not go with
            the mode.
    """
    place = runs.open_run(asked.run)
    made = people.judged(place)
    there = tuple(sorted({row.axis for row in made})) or ("",)
    axes = asked.axes or there
    about = "+".join(sorted(axes)) if set(axes) != set(there) else ""
    if asked.mode != "pairs":
        _check_mode(asked, axes)
    found, every = people.items(place, asked.items), people.items(place)
    hints = {(row.comparison_id, row.axis): p for row in made if (p := p_of_a(row)) is not None}
    gold = _gold(asked.gold, {item.comparison_id for item in found}, axes) if asked.gold else {}
    tasks = desk.tasks_of(found, asked.mode, hints, gold, about)
    more, not_for = people.further(place, asked.items) if asked.items and asked.mode == "pairs" else ({}, {})
    others = desk.tasks_of(every, asked.mode, hints, about=about)
    by_pair = {name: task.id for task in tasks for name in task.comparisons.values()}
    return Work(
        place,
        tasks,
        others,
        axes,
        {by_pair[name]: count for name, count in more.items() if name in by_pair},
        {by_pair[name]: who for name, who in not_for.items() if name in by_pair},
    )


def _check_mode(asked: Serving, axes: tuple[str, ...]) -> None:
    """Options that a question about single answers cannot honour are refused, not ignored."""
    for given, name in ((asked.gold, "--gold"), (asked.hint, "--show-ai")):
        if given:
            raise InputError(f"{name} is about pairs, not for the mode {asked.mode}", mend="leave it out")
    if len(axes) != 1:
        raise InputError(
            f"the mode {asked.mode} asks one question, the judge was asked {len(axes)}: {', '.join(axes)}",
            mend=f"--axes {next(axis for axis in axes if axis)}, one page an axis",
        )


def _gold(path: Path, known: set[str], axes: tuple[str, ...]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for number, row in given_rows(path):
        name, verdict = str(row.get("comparison_id", "")), row.get("verdict")
        axis = row.get("axis", axes[0] if len(axes) == 1 else None)
        if name not in known or verdict not in ("a", "b"):
            raise InputError(
                "a gold row needs a comparison_id of what is served and a verdict, a or b", where=f"{path}:{number}"
            )
        if axis not in axes:
            raise InputError("a gold row needs the axis it is right about", where=f"{path}:{number}", mend=str(axes))
        found.setdefault(name, {})[str(axis)] = str(verdict)
    return found


def application(asked: Serving) -> tuple[Any, Store]:
    """The page's application and its store.

    Raises:
        InputError: there is nothing to label.
        MissingDependency: starlette is not installed.
    """
    try:
        from cai.labels.page.server import Page, app
    except ImportError as error:
        raise MissingDependency(f"the page needs starlette: {error}", extra="label") from error
    found = work(asked)
    if not found.tasks:
        raise InputError("there is nothing to label", where=str(asked.run))
    store = Store(found.place.label_page, overlap=asked.overlap, quota=asked.quota)
    constitution = load_constitution(found.place.path)
    guidelines = [(bound.principle.title, bound.principle.asks.strip()) for bound in constitution.principles]
    proxied = frozenset(plain(name.lower()) for name in asked.allow_hosts)
    hosts = Page.hosts | {plain(name.lower()) for name in reached_by(asked.host)} | proxied
    page = Page(
        found.tasks,
        asked.mode,
        found.axes,
        guidelines,
        asked.hint,
        hosts,
        proxied=proxied,
        others=found.others,
        more=found.more,
        not_for=found.not_for,
    )
    return app(page, store), store


def serve(asked: Serving, say: Callable[[str], None], *, renew: bool = False) -> int:
    """Serve until interrupted; how many label events the session added.

    Raises:
        InputError: nothing to label, or the port is taken.
        MissingDependency: starlette or uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingDependency("the page needs uvicorn", extra="label") from error
    page, store = application(asked)
    try:
        made = {name: store.renew(name) for name in asked.annotators} if renew else store.invite(asked.annotators)
        listener = socket.socket(socket.AF_INET6 if ":" in asked.host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((asked.host, asked.port))
            listener.listen(128)  # from here on nobody who has a link is refused
        except OSError as error:
            raise InputError(f"cannot listen on {asked.host}:{asked.port}: {error.strerror}", mend="--port") from error
        port = listener.getsockname()[1]
        best, *others = reached_by(asked.host)
        for name in asked.annotators:
            say(f"{name}: {link(best, port, made[name]) if name in made else 'has a link already (--renew)'}")
        if others:
            say(f"the same links work with {', '.join(link(each, port) for each in others)}")
            say("links and answers cross the network unencrypted: put a TLS proxy before the page, and --allow-host")
        wanted, stuck = store.unlabelled(asked.annotators)
        if stuck:
            say(
                f"{stuck} of the {wanted} items that still want people have been labelled by everybody named: "
                "name a further person (--annotators)"
            )
        say("Ctrl-C ends; every verdict is on disk before the next item is shown")
        config = uvicorn.Config(
            page,
            log_level="warning",
            access_log=False,
            server_header=False,
            # A proxy, on this machine, may say for whom it asks only where one is expected: else anybody here could
            # pose as others.
            proxy_headers=bool(asked.allow_hosts),
        )
        log = runs.open_run(asked.run).labels
        store.hand_over(log)  # of a session that was killed
        with _ended_by_signals(), contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
        return store.hand_over(log)
    finally:
        store.close()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the page as Ctrl-C does: uvicorn raises again, when it has closed, the signal that it caught."""

    def end(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
