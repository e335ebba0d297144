"""Finding patients by how the parts of their names begin: "do jan" finds DOE^Jane.

PostgreSQL answers from an index of the names' words (`NAME_WORDS`), SQLite by looking at every name.
"""

import re
from typing import Any

from sqlalchemy import Boolean, ColumnElement, and_, false, func, literal, literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.functions import FunctionElement

from service.db.tables import NAME_WORDS

SEPARATORS = r"^=.,-/_\'"  # of the parts of a Person Name (PS3.5 section 6.2.1) and of the words in them


class _ByDialect(FunctionElement[bool]):
    """The first expression on PostgreSQL, the second one elsewhere."""

    type = Boolean()
    inherit_cache = True


@compiles(_ByDialect, "postgresql")
def _on_postgresql(element: _ByDialect, compiler: Any, **options: Any) -> str:
    return str(compiler.process(next(iter(element.clauses)), **options))


@compiles(_ByDialect)
def _elsewhere(element: _ByDialect, compiler: Any, **options: Any) -> str:
    return str(compiler.process(list(element.clauses)[1], **options))


def parts_begin(column: InstrumentedAttribute[str], text: str) -> ColumnElement[bool]:
    """Whether each word of ``text`` begins a part of the patient's name, in any order and case."""
    words = [word for word in re.split(rf"[\s{re.escape(SEPARATORS)}]+", text) if any(map(str.isalnum, word))]
    if not words:
        return false()
    query = func.to_tsquery(literal_column("'simple'"), " & ".join(f"'{word}':*" for word in words))
    indexed = literal_column(NAME_WORDS).op("@@", return_type=Boolean())(query)
    spaced: ColumnElement[str] = literal(" ").concat(column)
    for separator in SEPARATORS:
        spaced = func.replace(spaced, separator, " ")
    name = func.lower(spaced)
    looked_at = and_(*(name.contains(f" {word.lower()}", autoescape=True) for word in words))
    return _ByDialect(indexed, looked_at.self_group())
