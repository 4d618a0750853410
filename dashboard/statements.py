"""The SQL of the dashboard by name, from `dashboard/sql/queries.sql`."""

from importlib.resources import files
from typing import Final

from sink.db.statements import parse_statements

#: Every statement of `dashboard/sql/queries.sql`.
SQL: Final = parse_statements(files("dashboard").joinpath("sql", "queries.sql").read_text(encoding="utf-8"))
