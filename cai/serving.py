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
from cai.labels.items import Item, p_of_a
from cai.labels.page import desk
from cai.labels.page.store import Store
from cai.runs import RunFolder
from cai.store import read_rows


@dataclass(frozen=True)
class Serving:
    """What is served, and to whom.

    Attributes:
        axes: empty: the axes the judge was asked about.
        gold: JSONL of `comparison_id` and `verdict` (a or b).
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


def tasks(asked: Serving) -> tuple[RunFolder, list[desk.Task], tuple[str, ...]]:
    """The run, what is to be labelled, and the axes asked about.

    Raises:
        InputError: nothing has been judged, or a file names a pair that is not in the run.
    """
    place = runs.open_run(asked.run)
    found = people.items(place, asked.items)
    right = _gold(asked.gold, {item.comparison_id for item in found}) if asked.gold else {}
    made = people.judged(place)
    hints = {row.comparison_id: p for row in made if (p := p_of_a(row)) is not None}
    axes = asked.axes or tuple(sorted({row.axis for row in made})) or ("",)
    items = [_with_gold(item, right) for item in found]
    return place, desk.tasks_of(items, asked.mode, hints), axes


def _with_gold(item: Item, right: dict[str, str]) -> Item:
    import dataclasses

    return dataclasses.replace(item, gold=right.get(item.comparison_id, ""))


def _gold(path: Path, known: set[str]) -> dict[str, str]:
    found = {}
    for number, row in enumerate(read_rows(path), start=1):
        name, verdict = str(row.get("comparison_id", "")), row.get("verdict")
        if name not in known or verdict not in ("a", "b"):
            raise InputError(
                "a gold row needs a comparison_id of this run and a verdict, a or b", where=f"{path}:{number}"
            )
        found[name] = str(verdict)
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
        raise MissingDependency(f"the page needs starlette: {error}", mend="pip install 'cai[label]'") from error
    place, found, axes = tasks(asked)
    if not found:
        raise InputError("there is nothing to label", where=str(asked.run))
    store = Store(place.label_page, overlap=asked.overlap, quota=asked.quota)
    constitution = load_constitution(place.path)
    guidelines = [(bound.principle.title, bound.principle.asks.strip()) for bound in constitution.principles]
    hosts = Page.hosts | (
        {asked.host.lower()} if asked.host not in ("0.0.0.0", "::") else {socket.gethostname().lower()}
    )
    page = Page(tuple(found), asked.mode, axes, guidelines, asked.hint, frozenset(hosts))
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
        raise MissingDependency("the page needs uvicorn", mend="pip install 'cai[label]'") from error
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
        for name in asked.annotators:
            link = f"http://{asked.host}:{port}/#token={made[name]}" if name in made else "has a link already (--renew)"
            say(f"{name}: {link}")
        say("Ctrl-C ends; every verdict is on disk before the next item is shown")
        config = uvicorn.Config(page, log_level="warning", access_log=False, server_header=False)
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
