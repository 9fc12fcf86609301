"""Every verdict safe on disk before the next item is shown: SQLite in WAL mode, one transaction a request.

A verdict has an id that the page made, so a second click, a second tab or a request sent again after a lost connection
is the same verdict. Items are leased to a person while they look at them, so that each gets `overlap` people and not
more; a verdict counts only of an item that was handed to that person. It then counts for good: one that took longer
than its lease, or that comes after other items are served, is kept, even where it is one more than was asked for. What
a verdict means is settled when it is given and stored with it as label events; `hand_over` appends those to the run's
log, whatever is served by then, and whether or not the server came to a good end.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cai.errors import InputError, StoreError
from cai.labels.events import append_labels, read_labels
from cai.labels.page.desk import Given, taken_back
from cai.records import HumanLabel

LEASE = 20 * 60.0
"""Seconds for which an item is kept for the person who looks at it."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS annotators (name TEXT PRIMARY KEY, token TEXT NOT NULL UNIQUE, made REAL NOT NULL);
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS offered (id TEXT PRIMARY KEY, place INTEGER NOT NULL, gold INTEGER NOT NULL,
    wanted INTEGER NOT NULL, said INTEGER NOT NULL); -- people wanted in all, and those who have labelled it
CREATE TABLE IF NOT EXISTS elsewhere (task TEXT NOT NULL, annotator TEXT NOT NULL, PRIMARY KEY (task, annotator));
CREATE TABLE IF NOT EXISTS leases (task TEXT NOT NULL, annotator TEXT NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (task, annotator));
CREATE TABLE IF NOT EXISTS verdicts (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL, annotator TEXT NOT NULL, payload TEXT NOT NULL, seconds REAL, ts TEXT NOT NULL,
    supersedes TEXT, undone INTEGER NOT NULL DEFAULT 0, events TEXT NOT NULL,
    logged INTEGER NOT NULL DEFAULT 0); -- 1: its events are in the run's log; 2: that it was taken back, too
CREATE INDEX IF NOT EXISTS verdicts_of ON verdicts (annotator, undone, task);
CREATE INDEX IF NOT EXISTS verdicts_on ON verdicts (task, undone);
"""


OPEN = (
    "NOT EXISTS (SELECT 1 FROM verdicts v WHERE v.task = t.id AND v.annotator = ? AND v.undone = 0) "
    "AND NOT EXISTS (SELECT 1 FROM elsewhere e WHERE e.task = t.id AND e.annotator = ?)"
)
"""Of an item t: a person has not labelled it, here or elsewhere."""


@dataclass(frozen=True)
class Offer:
    """An item to be labelled.

    Attributes:
        gold: it goes to everybody.
        more: people wanted beyond those who have labelled it on the page; None: `overlap` in all.
        not_for: people who need not see it: they labelled it elsewhere.
    """

    id: str
    gold: bool = False
    more: int | None = None
    not_for: frozenset[str] = frozenset()


def token_hash(token: str) -> str:
    """What is stored of a token: whoever reads the file cannot log in with it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class Store:
    """The verdicts of one run.

    Args:
        overlap: people an item gets; gold items go to everybody.
        quota: most items a person labels; 0: no limit.

    Raises:
        StoreError: the file cannot be opened or is not such a store.
    """

    def __init__(self, path: Path, *, overlap: int = 1, quota: int = 0) -> None:
        self.path, self.overlap, self.quota = path, overlap, quota
        self._hold = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(SCHEMA)
            made = ("identity", secrets.token_hex(8))
            self._db.execute("INSERT OR IGNORE INTO about VALUES (?, ?)", made)
            row = self._db.execute("SELECT value FROM about WHERE key = 'identity'").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot be used: {error}", where=str(path), mend="check the disk and the file") from error
        self.identity = str(row[0])
        """Tells this database's people from those of other runs that are served under the same address."""

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._hold:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise StoreError(f"nothing was saved: {error}", where=str(self.path), mend="free some disk") from error
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    # --- people and items -----------------------------------------------------------------------------------------

    def invite(self, names: Sequence[str]) -> dict[str, str]:
        """Tokens of new people, by name. Those who have one keep it, and it cannot be shown again."""
        made = {}
        with self._transaction() as db:
            for name in names:
                if db.execute("SELECT 1 FROM annotators WHERE name = ?", (name,)).fetchone() is None:
                    token = secrets.token_urlsafe(24)
                    db.execute("INSERT INTO annotators VALUES (?, ?, ?)", (name, token_hash(token), time.time()))
                    made[name] = token
        return made

    def renew(self, name: str) -> str:
        """A new token for somebody; the old one is void."""
        token = secrets.token_urlsafe(24)
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO annotators VALUES (?, ?, ?)", (name, token_hash(token), time.time()))
        return token

    def who(self, token: str) -> str | None:
        """Whose token it is."""
        with self._hold:
            row = self._db.execute("SELECT name FROM annotators WHERE token = ?", (token_hash(token),)).fetchone()
        return None if row is None else str(row[0])

    def offer(self, offers: Sequence[Offer]) -> None:
        """The items to be labelled; those of earlier sessions are no longer handed out."""
        with self._transaction() as db:
            said: dict[str, int] = dict(
                db.execute("SELECT task, COUNT(*) FROM verdicts WHERE undone = 0 GROUP BY task").fetchall()
            )
            db.execute("DELETE FROM offered")
            db.execute("DELETE FROM elsewhere")
            rows = []
            for place, each in enumerate(offers):
                there = said.get(each.id, 0)
                wanted = self.overlap if each.more is None else there + each.more
                rows.append((each.id, place, int(each.gold), wanted, there))
            db.executemany("INSERT OR REPLACE INTO offered VALUES (?, ?, ?, ?, ?)", rows)
            elsewhere = [(each.id, name) for each in offers for name in each.not_for]
            db.executemany("INSERT OR REPLACE INTO elsewhere VALUES (?, ?)", elsewhere)

    def unlabelled(self, names: Iterable[str]) -> tuple[int, int]:
        """How many items still want people, and how many of these all of `names` have labelled, here or elsewhere."""
        with self._hold:
            rows = self._db.execute("SELECT id FROM offered WHERE NOT gold AND said < wanted").fetchall()
            stuck = wanted = {row[0] for row in rows}
            for name in names:
                stuck = stuck - {row.id for row in self._open(self._db, name, time.time())}
        return len(wanted), len(stuck)

    # --- labelling ------------------------------------------------------------------------------------------------

    def next(self, annotator: str) -> str | None:
        """The item this person labels next, leased to them; the one they look at, if there is one; None: all done."""
        with self._transaction() as db:
            return self._next(db, annotator)

    def _next(self, db: sqlite3.Connection, annotator: str) -> str | None:
        now = time.time()
        if self.quota and self._done(db, annotator) >= self.quota:
            return None
        free = [row for row in self._open(db, annotator, now) if row.gold or row.said + row.seen < row.wanted]
        held = dict(
            db.execute("SELECT task, until FROM leases WHERE annotator = ?", (annotator,)).fetchall()
        )  # one that ran out is still theirs, unless others took its places meanwhile
        looked_at = [row for row in free if row.id in held]
        if looked_at:
            name = max(looked_at, key=lambda row: (held[row.id], row.id)).id
        elif free:
            # Items that others have begun are finished first; else each person goes their own way through the rest.
            name = min(free, key=lambda row: (-row.said, _way(annotator, row.id))).id
        else:
            return None
        self._lease(db, name, annotator, now)
        return name

    def _open(self, db: sqlite3.Connection, annotator: str, now: float) -> list[_Open]:
        """The offered items that this person has not labelled, here or elsewhere, with how many others have or hold."""
        rows = db.execute(
            f"SELECT t.id, t.gold, t.wanted, t.said FROM offered t WHERE {OPEN}", (annotator, annotator)
        ).fetchall()
        looking = "SELECT task, COUNT(*) FROM leases WHERE until > ? AND annotator != ? GROUP BY task"
        seen: dict[str, int] = dict(db.execute(looking, (now, annotator)).fetchall())
        return [_Open(name, gold, wanted, said, seen.get(name, 0)) for name, gold, wanted, said in rows]

    def _count(self, db: sqlite3.Connection, task: str) -> None:
        db.execute(
            "UPDATE offered SET said = (SELECT COUNT(*) FROM verdicts WHERE task = ? AND undone = 0) WHERE id = ?",
            (task, task),
        )

    def _lease(self, db: sqlite3.Connection, task: str, annotator: str, now: float) -> None:
        db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (task, annotator, now + LEASE))

    def save(
        self,
        id: str,
        task: str,
        annotator: str,
        payload: Mapping[str, Any],
        seconds: float | None,
        *,
        labels: Callable[[Given], Iterable[HumanLabel]],
    ) -> str | None:
        """Keep a verdict; the next item. Both are on disk when this returns.

        The same id again changes nothing. Another verdict of the same person on the same item supersedes the earlier.

        Args:
            labels: what the verdict means, as events; kept with it.

        Raises:
            InputError: the item was not handed to this person, or the id is of another verdict.
            StoreError: the disk is full; nothing was saved.
        """
        with self._transaction() as db:
            known = db.execute("SELECT task, annotator FROM verdicts WHERE id = ?", (id,)).fetchone()
            if known is not None:
                if known != (task, annotator):
                    raise InputError("this id is of another verdict")
                return self._next(db, annotator)
            earlier = db.execute(
                "SELECT id FROM verdicts WHERE task = ? AND annotator = ? ORDER BY number DESC LIMIT 1",
                (task, annotator),
            ).fetchone()
            whose = (task, annotator)
            lease = db.execute("SELECT 1 FROM leases WHERE task = ? AND annotator = ?", whose).fetchone()
            if lease is None and earlier is None:
                raise InputError("this item was not handed to you")
            db.execute(
                "UPDATE verdicts SET undone = 1 WHERE task = ? AND annotator = ? AND undone = 0", (task, annotator)
            )
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            given = Given(id, task, annotator, payload, seconds, now, earlier[0] if earlier else None, False)
            db.execute(
                "INSERT INTO verdicts (id, task, annotator, payload, seconds, ts, supersedes, events) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(id, task, annotator, _json(payload), seconds, now, given.supersedes),
                    _json([label.row() for label in labels(given)]),
                ),
            )
            db.execute("DELETE FROM leases WHERE task = ? AND annotator = ?", (task, annotator))
            self._count(db, task)
            return self._next(db, annotator)

    def undo(self, annotator: str, id: str) -> tuple[str | None, dict[str, Any] | None]:
        """Take back a verdict of this person: its item, shown again, and what they had said.

        The same again changes nothing more: a reply may have been lost, and a second press must not take back a second
        verdict. Where the person is past that item by then, what comes back is the item they are at, and None.

        Raises:
            InputError: they gave no such verdict, or its item is no longer offered.
        """
        with self._transaction() as db:
            row = db.execute(
                "SELECT v.number, v.task, v.payload, v.undone FROM verdicts v JOIN offered t ON t.id = v.task "
                "WHERE v.annotator = ? AND v.id = ?",
                (annotator, id),
            ).fetchone()
            if row is None:
                raise InputError("there is no such verdict to take back")
            number, task, payload, undone = row
            said: dict[str, Any] = json.loads(payload)
            if not undone:
                db.execute("UPDATE verdicts SET undone = 1 WHERE number = ?", (number,))
                self._count(db, task)
                self._lease(db, task, annotator, time.time())
                return str(task), said
            at = self._next(db, annotator)
            return at, said if at == task else None

    def last(self, annotator: str) -> str | None:
        """The id of this person's last verdict that can be taken back."""
        with self._hold:
            row = self._db.execute(
                "SELECT v.id FROM verdicts v JOIN offered t ON t.id = v.task "
                "WHERE v.annotator = ? AND v.undone = 0 ORDER BY v.number DESC LIMIT 1",
                (annotator,),
            ).fetchone()
        return None if row is None else str(row[0])

    def progress(self, annotator: str) -> dict[str, int]:
        """How many this person has done, and of how many that they may still get."""
        with self._hold:
            done = self._done(self._db, annotator)
            query = f"SELECT COUNT(*) FROM offered t WHERE (t.gold OR t.said < t.wanted) AND {OPEN}"
            total = done + int(self._db.execute(query, (annotator, annotator)).fetchone()[0])
        return {"done": done, "of": max(done, min(total, self.quota)) if self.quota else total}

    def _done(self, db: sqlite3.Connection, annotator: str) -> int:
        row = db.execute(
            "SELECT COUNT(*) FROM verdicts v JOIN offered t ON t.id = v.task WHERE v.annotator = ? AND v.undone = 0",
            (annotator,),
        ).fetchone()
        return int(row[0])

    def given(self) -> list[Given]:
        """Every verdict ever, in the order in which they came."""
        with self._hold:
            rows = self._db.execute(
                "SELECT id, task, annotator, payload, seconds, ts, supersedes, undone FROM verdicts ORDER BY number"
            ).fetchall()
        return [
            Given(name, task, who, json.loads(payload), seconds, ts, supersedes, bool(undone))
            for name, task, who, payload, seconds, ts, supersedes, undone in rows
        ]

    # --- to the run's log -----------------------------------------------------------------------------------------

    def hand_over(self, log: Path) -> int:
        """Append to the run's log of labels what it has not yet; how many events that were.

        Killed in between, it appends nothing twice: an event's id is a function of the verdict's.

        Raises:
            StoreError: the log or the database cannot be written.
        """
        with self._hold:
            rows = self._db.execute(
                "SELECT number, undone, events FROM verdicts WHERE logged < 1 + undone ORDER BY number"
            ).fetchall()
        if not rows:
            return 0
        events: list[HumanLabel] = []
        for _, undone, told in rows:
            for row in json.loads(told):
                label = HumanLabel.from_row(row)
                events += [label, taken_back(label)] if undone else [label]
        added = append_labels(log, events)
        with self._transaction() as db:
            db.executemany("UPDATE verdicts SET logged = ? WHERE number = ?", [(1 + u, n) for n, u, _ in rows])
        return added


def said_in(page: Path, log: Path) -> list[HumanLabel]:
    """All that people said of a run, in the order of its log, to which what its page holds is appended first.

    Args:
        page: the page's database, which need not be there.

    Raises:
        StoreError: the log or the database cannot be used.
    """
    if page.is_file():
        with closing(Store(page)) as store:
            store.hand_over(log)
    return list(read_labels(log))


class _Open(NamedTuple):
    id: str
    gold: int
    wanted: int
    said: int
    seen: int


def _way(annotator: str, task: str) -> bytes:
    """Puts tasks in an order of this person's own."""
    return hashlib.blake2b(f"{annotator}\n{task}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
