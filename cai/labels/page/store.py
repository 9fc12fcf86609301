"""Every verdict safe on disk before the next item is shown: SQLite in WAL mode, one transaction a request.

A verdict has an id that the page made, so a second click, a second tab or a request sent again after a lost connection
is the same verdict. Items are leased to a person while they look at them, so that each gets `overlap` people and not
more. What a verdict means is settled when it is given and stored with it as label events; `hand_over` appends those to
the run's log, whatever is served by then, and whether or not the server came to a good end.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cai.errors import InputError, StoreError
from cai.labels.events import append_labels
from cai.labels.page.desk import Given, taken_back
from cai.records import HumanLabel, content_hash

LEASE = 20 * 60.0
"""Seconds for which an item is kept for the person who looks at it."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS annotators (name TEXT PRIMARY KEY, token TEXT NOT NULL UNIQUE, made REAL NOT NULL);
CREATE TABLE IF NOT EXISTS tasks (id TEXT PRIMARY KEY, place INTEGER NOT NULL, gold INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS leases (task TEXT NOT NULL, annotator TEXT NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (task, annotator));
CREATE TABLE IF NOT EXISTS verdicts (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL, annotator TEXT NOT NULL, payload TEXT NOT NULL, seconds REAL, ts TEXT NOT NULL,
    supersedes TEXT, undone INTEGER NOT NULL DEFAULT 0, events TEXT NOT NULL,
    logged INTEGER NOT NULL DEFAULT 0); -- 1: its events are in the run's log; 2: that it was taken back, too
CREATE INDEX IF NOT EXISTS verdicts_of ON verdicts (annotator, undone, task);
CREATE INDEX IF NOT EXISTS verdicts_on ON verdicts (task, undone);
"""


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
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot be used: {error}", where=str(path), mend="check the disk and the file") from error

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

    def offer(self, tasks: Sequence[tuple[str, bool]]) -> None:
        """The items to be labelled, by id and whether they are gold; those of earlier sessions stay, not offered."""
        with self._transaction() as db:
            db.execute("DELETE FROM tasks")
            rows = [(name, place, int(gold)) for place, (name, gold) in enumerate(tasks)]
            db.executemany("INSERT OR REPLACE INTO tasks VALUES (?, ?, ?)", rows)

    # --- labelling ------------------------------------------------------------------------------------------------

    def next(self, annotator: str) -> str | None:
        """The item this person labels next, leased to them; the one they look at, if there is one; None: all done."""
        with self._transaction() as db:
            return self._next(db, annotator)

    def _next(self, db: sqlite3.Connection, annotator: str) -> str | None:
        now = time.time()
        if self.quota and self._done(db, annotator) >= self.quota:
            return None
        held = db.execute(
            "SELECT l.task FROM leases l JOIN tasks t ON t.id = l.task WHERE l.annotator = ? AND NOT EXISTS "
            "(SELECT 1 FROM verdicts v WHERE v.task = l.task AND v.annotator = l.annotator AND v.undone = 0) LIMIT 1",
            (annotator,),
        ).fetchone()
        if held is not None:
            self._lease(db, held[0], annotator, now)
            return str(held[0])
        rows = db.execute(
            "SELECT t.id, t.gold, "
            "(SELECT COUNT(*) FROM verdicts v WHERE v.task = t.id AND v.undone = 0) AS said, "
            "(SELECT COUNT(*) FROM leases l WHERE l.task = t.id AND l.until > ? AND l.annotator != ?) AS seen "
            "FROM tasks t WHERE NOT EXISTS "
            "(SELECT 1 FROM verdicts v WHERE v.task = t.id AND v.annotator = ? AND v.undone = 0)",
            (now, annotator, annotator),
        ).fetchall()
        free = [(name, said) for name, gold, said, seen in rows if gold or said + seen < self.overlap]
        if not free:
            return None
        # Items that others have begun are finished first; else each person goes their own way through the rest.
        name, _ = min(free, key=lambda row: (-min(row[1], self.overlap), content_hash("way", annotator, row[0])))
        self._lease(db, name, annotator, now)
        return str(name)

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
            InputError: no such item, or the id is somebody else's.
            StoreError: the disk is full; nothing was saved.
        """
        with self._transaction() as db:
            known = db.execute("SELECT task, annotator FROM verdicts WHERE id = ?", (id,)).fetchone()
            if known is not None:
                if known != (task, annotator):
                    raise InputError("this id is of another verdict")
                return self._next(db, annotator)
            if db.execute("SELECT 1 FROM tasks WHERE id = ?", (task,)).fetchone() is None:
                raise InputError("there is no such item")
            earlier = db.execute(
                "SELECT id FROM verdicts WHERE task = ? AND annotator = ? ORDER BY number DESC LIMIT 1",
                (task, annotator),
            ).fetchone()
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
            return self._next(db, annotator)

    def undo(self, annotator: str) -> tuple[str, dict[str, Any]] | None:
        """Take back this person's last verdict: its item, shown again, and what they had said; None: there is none."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT v.number, v.task, v.payload FROM verdicts v JOIN tasks t ON t.id = v.task "
                "WHERE v.annotator = ? AND v.undone = 0 ORDER BY v.number DESC LIMIT 1",
                (annotator,),
            ).fetchone()
            if row is None:
                return None
            db.execute("UPDATE verdicts SET undone = 1 WHERE number = ?", (row[0],))
            db.execute("DELETE FROM leases WHERE annotator = ?", (annotator,))
            self._lease(db, row[1], annotator, time.time())
            found: dict[str, Any] = json.loads(row[2])
            return str(row[1]), found

    def progress(self, annotator: str) -> dict[str, int]:
        """How many this person has done, and of how many."""
        with self._hold:
            done = self._done(self._db, annotator)
            total = int(self._db.execute("SELECT COUNT(*) FROM tasks").fetchone()[0])
        return {"done": done, "of": min(total, self.quota) if self.quota else total}

    def _done(self, db: sqlite3.Connection, annotator: str) -> int:
        row = db.execute(
            "SELECT COUNT(*) FROM verdicts v JOIN tasks t ON t.id = v.task WHERE v.annotator = ? AND v.undone = 0",
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


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
