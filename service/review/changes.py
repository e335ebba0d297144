"""What changed between two looks at the database, as many open worklists are told of it."""

import json
from collections.abc import Callable, Collection, Hashable
from dataclasses import replace
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from service.db import audit, double_reads, reviews, worklist
from service.db.session import database
from service.db.tables import now
from service.review.deps import Account
from service.review.pages import environment
from service.review.worklist import filter_of, queue_query

MOST_AT_ONCE = 100  # rows; a reader who missed more is told to load the page again

Value = TypeVar("Value")


class Change:
    """Studies that changed.

    Fifty worklists ask for nearly the same rows, counts and words, so each answer is made for the first who needs it
    and kept for the others. Only how many studies are a reader's own is asked for each who has some.
    """

    def __init__(self, ids: Collection[int]) -> None:
        self.ids = frozenset(ids)
        self.at = now()
        self._answers: dict[Hashable, Any] = {}
        self._lock = Lock()

    def message(self, account: Account, query: dict[str, str]) -> str:
        """For one reader: rows that replace themselves, the counts, and which studies are new to the list."""
        wanted = self._unblinded(filter_of(query, account))
        common = wanted if wanted.tab == "mine" else replace(wanted, holder=None, scanned_by="")
        rows, fitting, counts = self._once(common, lambda: self._read(common))
        mine = self._mine(wanted)
        viewed = self._once(("viewed", common), lambda: _viewers(rows))
        context = {
            "rows": rows,
            "counts": counts | {"mine": mine},
            "seen": {uid for actor, uid in viewed if actor == account.user.name},
            "queue": queue_query(dict(parse_qsl(query.get("queue", ""))) or query),
            "ranks": worklist.TABS[wanted.tab],
            "at": "",
        }
        told = (common, mine, frozenset(context["seen"]), context["queue"], account.decides)
        return self._once(told, lambda: self._written(fitting, context | {"account": account}))

    def _written(self, fitting: list[int], context: dict[str, Any]) -> str:
        html = environment().get_template("worklist_changes.html").render(context)
        fits = json.dumps({"fitting": sorted(fitting), "many": len(self.ids) > MOST_AT_ONCE})
        return event(html, id=self.at.isoformat()) + event(fits, event="changed")

    def _mine(self, wanted: worklist.Filter) -> int:
        """How many studies are the reader's own; most hold none while they look at the list."""
        if not wanted.scanned_by and wanted.holder not in self._once("holders", _holders):
            return 0
        with database().read() as session:
            return worklist.tab_counts(session, wanted, ("mine",))["mine"]

    def _read(self, wanted: worklist.Filter) -> tuple[list[worklist.Row], list[int], dict[str, int]]:
        """The rows, which of them the filter finds, and the counts of every tab but one's own."""
        tabs = [tab for tab in worklist.TABS if tab != "mine"]
        with database().read() as session:
            return (
                worklist.rows_of(session, sorted(self.ids)[:MOST_AT_ONCE], wanted.site, wanted.second_reader),
                worklist.fitting(session, wanted, self.ids),
                worklist.tab_counts(session, wanted, tabs),
            )

    def _unblinded(self, wanted: worklist.Filter) -> worklist.Filter:
        """The filter without its second reader where no study awaits their blinded answer: then it is anybody's."""
        if self._once("first readers", _first_readers) <= {wanted.second_reader}:
            return replace(wanted, second_reader=None)
        return wanted

    def _once(self, key: Hashable, make: Callable[[], Value]) -> Value:
        with self._lock:
            if key not in self._answers:
                self._answers[key] = make()
            answer: Value = self._answers[key]
        return answer


def event(data: str, **fields: str) -> str:
    """One server-sent event."""
    head = "".join(f"{name}: {value}\n" for name, value in fields.items())
    return head + "".join(f"data: {line}\n" for line in data.splitlines()) + "\n"


MANY = event(json.dumps({"fitting": [], "many": True}), event="changed")  # more than can be told: load the page again


def _viewers(rows: list[worklist.Row]) -> set[tuple[str, str]]:
    with database().read() as session:
        return audit.viewers(session, [row.study.study_instance_uid for row in rows])


def _holders() -> set[int]:
    with database().read() as session:
        return reviews.holders(session)


def _first_readers() -> set[int]:
    with database().read() as session:
        return double_reads.first_readers(session)
