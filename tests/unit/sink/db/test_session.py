import re

import pytest

from sink.db.schema import migration_files
from sink.db.session import SQL, parse_statements


def test_statements_stand_under_their_names() -> None:
    text = "-- about\n\n-- name: one\n-- why\nSELECT 1;\n\n-- name: two\nSELECT\n    2;\n"
    assert parse_statements(text) == {"one": b"-- why\nSELECT 1", "two": b"SELECT\n    2"}


def test_a_name_is_used_once() -> None:
    with pytest.raises(ValueError, match="one"):
        parse_statements("-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n")


def test_five_queries_and_numbered_migrations_are_packaged() -> None:
    assert {f"query_{number}" for number in range(1, 6)} <= set(SQL)
    assert next(iter(migration_files())).startswith("0001_")


def outlasts_its_transaction(statement: bytes) -> bool:
    text = re.sub(r"--.*", "", statement.decode())
    sets = re.search(r"(\A|;)\s*(SET(?! LOCAL)|LISTEN|NOTIFY|PREPARE|DISCARD)\b", text)
    return bool(sets or re.search(r"pg_(try_)?advisory_(un)?lock", text))


def test_a_statement_relies_on_nothing_that_outlasts_its_transaction() -> None:
    """As `sink/db/session.py` says; the exceptions are not executed behind a pooler."""
    assert {name for name in SQL if outlasts_its_transaction(SQL[name])} == {"try_lock_refolds", "unlock_refolds"}
    assert outlasts_its_transaction(b"SET LOCAL a = 1; SET b = 2")
