"""Rows written by the dozen, in one statement that reads the same however many there are.

SQLAlchemy writes each row's values out, so that every number of rows is another text, which psycopg takes apart, and
PostgreSQL parses and plans, each time anew: that cost more than making the rows and storing them. As one JSON document
they are a single parameter of a statement that both of them prepare once.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import JSON, Column, Insert, Integer, Row, Table, Text, bindparam, cast, column, func, insert, select
from sqlalchemy.orm import Session

_PLACE = "place"


def insert_all(
    session: Session, table: Table, rows: Sequence[Mapping[str, Any]], *returning: Column[Any]
) -> Sequence[Row[Any]]:
    """Insert ``rows``, which all name the same columns, so that their ids rise in the order given.

    ``returning`` are columns of the new rows, which come in no particular order.
    """
    if not rows:
        return []
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        document = [{**row, _PLACE: place} for place, row in enumerate(rows)]
        statement = _from_document(table, tuple(rows[0]), returning)
        result = connection.execute(statement, {"rows": json.dumps(document, default=_written)})
    else:
        plain = insert(table)
        result = connection.execute(plain.returning(*returning) if returning else plain, list(rows))
    return result.all() if returning else []


@lru_cache
def _from_document(table: Table, names: tuple[str, ...], returning: tuple[Column[Any], ...]) -> Insert:
    columns = [column(name, table.c[name].type) for name in names]
    document = func.json_to_recordset(cast(bindparam("rows", type_=Text()), JSON))
    given = document.table_valued(*columns, column(_PLACE, Integer), name="given").render_derived(with_types=True)
    ordered = select(*(given.c[name] for name in names)).order_by(given.c[_PLACE])
    statement = insert(table).from_select(names, ordered)
    return statement.returning(*returning) if returning else statement


def _written(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a row")
