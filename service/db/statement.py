"""Statements of the receiver's hot path: written as everywhere else, compiled once, run on the driver's own cursor.

Building and running a Core statement anew costs a multiple of what SQLite takes to execute it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import BindParameter, ClauseElement, Dialect


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

    def run(self, statement: "Statement", values: Mapping[str, Any]) -> None:
        text, bind = statement.compiled(self.dialect)
        self.raw.execute(text, bind(values))


Bind = Callable[[Mapping[str, Any]], Any]


# The name of a value to come, and what makes the driver's own value of it; or no name and the value itself.
_Part = tuple[str | None, Callable[[Any], Any] | None, Any]


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

        def value(values: Mapping[str, Any], part: _Part) -> Any:
            name, process, constant = part
            if name is None:
                return constant
            return values[name] if process is None else process(values[name])

        if compiled.positiontup is None:
            return str(compiled), lambda values: {name: value(values, part) for name, part in parts.items()}
        ordered = [parts[name] for name in compiled.positiontup]
        return str(compiled), lambda values: [value(values, part) for part in ordered]


def _part(name: str, bind: BindParameter[Any], constant: Any, dialect: Dialect) -> _Part:
    process = bind.type.dialect_impl(dialect).bind_processor(dialect)
    if constant is None:
        return name, process, None
    return None, None, constant if process is None else process(constant)
