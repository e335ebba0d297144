"""Statements of the receiver's hot path: written as everywhere else, compiled once, run on the driver's own cursor.

Building and running a Core statement anew costs a multiple of what SQLite takes to execute it.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import BindParameter, ClauseElement, Dialect

from service.db.tables.base import Utc


class Cursor:
    """The driver's cursor inside a transaction, and the dialect its statements are written in."""

    def __init__(self, raw: Any, dialect: Dialect) -> None:
        self.raw = raw
        self.dialect = dialect

    def one(self, statement: "Statement", values: Mapping[str, Any]) -> Any:
        """The first row as a tuple of the driver's own values, or None."""
        self.run(statement, values)
        return self.raw.fetchone()

    def all(self, statement: "Statement", values: Mapping[str, Any]) -> list[Any]:
        self.run(statement, values)
        return list(self.raw.fetchall())

    def inserted(self, statement: "Statement", values: Mapping[str, Any]) -> int | None:
        """The id of the row that an INSERT made; None when there was one already."""
        self.run(statement, values)
        if self.dialect.name == "sqlite":  # RETURNING would build a table of its own each time
            return int(self.raw.lastrowid) if self.raw.rowcount else None
        row = self.raw.fetchone()
        return int(row[0]) if row else None

    def changed(self, statement: "Statement", values: Mapping[str, Any]) -> int:
        """How many rows it changed."""
        self.run(statement, values)
        return int(self.raw.rowcount)

    def run(self, statement: "Statement", values: Mapping[str, Any]) -> None:
        text, bind = statement.compiled(self.dialect)
        self.raw.execute(text, bind(values))


Values = Mapping[str, Any]
_moments: dict[str, Callable[[Any], Any]] = {}  # by dialect: one moment goes into many columns of many rows
Bind = Callable[[Values], Any]
Process = Callable[[Any], Any]

# The name of a value to come, and what makes the driver's own value of it; or no name and the value itself.
_Part = tuple[str | None, Process | None, Any]


class Statement:
    """A statement with named parameters. ``write`` makes it for a dialect, where dialects differ."""

    def __init__(self, write: ClauseElement | Callable[[Dialect], ClauseElement]) -> None:
        self._write = write
        self._compiled: dict[str, tuple[str, Bind]] = {}

    def compiled(self, dialect: Dialect) -> tuple[str, Bind]:
        """Its text, and what turns values by name into the driver's parameters."""
        found = self._compiled.get(dialect.name)
        if found is None:
            found = self._compiled[dialect.name] = self._compile(dialect)
        return found

    def _compile(self, dialect: Dialect) -> tuple[str, Bind]:
        clause = self._write if isinstance(self._write, ClauseElement) else self._write(dialect)
        compiled: Any = clause.compile(dialect=dialect)
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        parts = {name: _part(name, bind, constants.get(name), dialect) for bind, name in compiled.bind_names.items()}
        row = {name: constant for name, (wanted, _, constant) in parts.items() if wanted is None}
        plain = [(name, wanted) for name, (wanted, process, _) in parts.items() if wanted and process is None]
        made = [(name, wanted, process) for name, (wanted, process, _) in parts.items() if wanted and process]
        if compiled.positiontup is None:
            return str(compiled), partial(_bound, row, plain, made)
        # A driver that counts gets a list; what it counts is a parameter's place in the statement.
        places: dict[str, int] = {name: place for place, name in enumerate(compiled.positiontup)}
        ordered = [row.get(name) for name in compiled.positiontup]
        if len(places) < len(ordered):
            raise ValueError("a parameter stands twice in a statement")
        counted = [(places[name], wanted) for name, wanted in plain]
        counted_made = [(places[name], wanted, process) for name, wanted, process in made]
        return str(compiled), partial(_bound, ordered, counted, counted_made)


def _bound(constants: Any, plain: list[tuple[Any, str]], made: list[tuple[Any, str, Process]], values: Values) -> Any:
    """The driver's parameters: the constants, and the values at their places."""
    row = constants.copy()
    for place, name in plain:
        row[place] = values[name]
    for place, name, process in made:
        row[place] = process(values[name])
    return row


def _part(name: str, bind: BindParameter[Any], constant: Any, dialect: Dialect) -> _Part:
    process: Process | None = bind.type.dialect_impl(dialect).bind_processor(dialect)
    if process is not None and isinstance(bind.type, Utc):
        process = _moments.setdefault(dialect.name, lru_cache(maxsize=16)(process))
    if constant is None:
        return name, process, None
    return None, None, constant if process is None else process(constant)
