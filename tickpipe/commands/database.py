"""`tickpipe db`: the schema and the size of the database."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickpipe.commands.days import day_zone
from tickpipe.connection import DataDir, connected_settings, open_database
from tickpipe.console import DONE, PROBLEM, err, out, run
from tickpipe.output import print_json, print_table

if TYPE_CHECKING:
    from runtime.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The schema and the size of the database.")
app.command("day-zone")(day_zone)


@app.command()
def migrate(*, data_dir: DataDir = None) -> None:
    """Bring the schema up to date; what is applied already is left alone.

    The sink does the same when it starts. Works on TimescaleDB and on plain PostgreSQL 14 and later.

    Examples:

    * `tickpipe db migrate`
    * `TICKPIPE_DATABASE_URL=postgresql://me@db/market tickpipe db migrate`
    """
    from sink.migrations import migrate as apply_migrations

    applied = run(apply_migrations(connected_settings(data_dir).database_url.get_secret_value()))
    for name in applied:
        out.print(f"Applied {name}", markup=False)
    if not applied:
        out.print("The schema is up to date.")


@app.command()
def status(
    *, json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False, data_dir: DataDir = None
) -> None:
    """Show edition, rows, sizes, chunks, policies and schema; exit code 1 when migrations are missing.

    Examples:

    * `tickpipe db status`
    * `tickpipe db status --json`
    """
    found = run(_status(connected_settings(data_dir)))
    missing = found["missing_migrations"]
    if json:
        print_json(found)
    else:
        print_table(("what", "value"), [(key, _shown(value)) for key, value in found.items()])
    if missing:
        err.print("The schema is not up to date; run `tickpipe db migrate`", markup=False)
    raise typer.Exit(PROBLEM if missing else DONE)


async def _status(settings: "Settings") -> dict[str, Any]:
    from sink.edition import edition
    from sink.migrations import migration_files
    from sink.storage import storage

    async with await open_database(settings) as connection:

        async def value(statement: str) -> Any:
            row = await (await connection.execute(statement.encode())).fetchone()
            return row[0] if row else None

        applied: set[str] = set()
        if await value("SELECT to_regclass('schema_migrations')"):
            cursor = await connection.execute("SELECT name FROM schema_migrations")
            applied = {name for (name,) in await cursor.fetchall()}
        stored = await value("SELECT to_regclass('market_data')")
        missing = sorted(set(migration_files()) - applied)
        facts = {} if missing else (await storage(connection))._asdict()
        return {
            "edition": await edition(connection),
            "rows": await value("SELECT count(*) FROM market_data") if stored else 0,
            "database_bytes": await value("SELECT pg_database_size(current_database())"),
            **facts,
            "applied_migrations": sorted(applied),
            "missing_migrations": missing,
        }


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(" ".join(each) if isinstance(each, tuple) else each for each in value) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value if value is not None else "")
