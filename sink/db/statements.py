"""The SQL of the sink by name, read from `sink/sql/*.sql`, where each statement stands under `-- name: …`."""

from importlib.resources import files
from typing import Final

_HEADING: Final = "-- name: "


def parse_statements(text: str) -> dict[str, bytes]:
    """Statements by name; what stands before the first heading of a file is a comment.

    They are bytes because that is how psycopg takes SQL that is no literal of the program.

    Raises:
        ValueError: when two statements share a name.
    """
    statements: dict[str, bytes] = {}
    for block in ("\n" + text).split("\n" + _HEADING)[1:]:
        name, _, body = block.partition("\n")
        if name.strip() in statements:
            raise ValueError(f"two statements are named {name.strip()}")
        statements[name.strip()] = body.strip().removesuffix(";").encode()
    return statements


def _read() -> dict[str, bytes]:
    found = (entry for entry in files("sink").joinpath("sql").iterdir() if entry.name.endswith(".sql"))
    statements: dict[str, bytes] = {}
    for entry in sorted(found, key=lambda entry: entry.name):
        parsed = parse_statements(entry.read_text(encoding="utf-8"))
        if twice := statements.keys() & parsed.keys():
            raise ValueError(f"two statements are named {', '.join(twice)}")
        statements |= parsed
    return statements


#: Every statement of `sink/sql/*.sql`.
SQL: Final = _read()
