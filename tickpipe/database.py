"""`tickpipe db`: the schema and the size of the database, and when its trading days begin."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import sys
from dataclasses import asdict
from datetime import datetime, time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tickpipe.connection import DataDir, connected_settings, open_database
from tickpipe.console import DONE, PROBLEM, Bar, ask, err, out, print_json, print_table, run

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from runtime.settings import Settings

#: Days of one step of rebuilding: less than a second with a dozen symbols.
_STEP_DAYS = 14

#: How long another session's step is waited for before the next try (seconds).
_TRY_AGAIN_SECONDS = 0.5

#: As `make env` and the deployment's check of its secrets.
_SHORTEST_PASSWORD = 12

app = typer.Typer(no_args_is_help=True, help="The schema and the size of the database.")


@app.command()
def migrate(*, data_dir: DataDir = None) -> None:
    """Bring the schema up to date and set the compression; what is applied already is left alone.

    The sink does the same when it starts, unless its role may not, and then it waits for this command. Works on
    TimescaleDB and on plain PostgreSQL 14 and later.

    Examples:

    * `tickpipe db migrate`
    * `TICKPIPE_DATABASE_URL=postgresql://me@db/market tickpipe db migrate`
    """
    applied = run(_migrate(connected_settings(data_dir)))
    for name in applied:
        out.print(f"Applied {name}", markup=False)
    if not applied:
        out.print("The schema is up to date.")


async def _migrate(settings: "Settings") -> list[str]:
    from sink.db.schema import migrate, set_compression
    from sink.db.session import database_conninfo

    applied = await migrate(database_conninfo(settings))
    async with await open_database(settings) as connection:
        await set_compression(connection, settings.compress_after_days)
    return applied


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
    from sink.db.schema import applied_migrations, edition, migration_files, storage

    async with await open_database(settings) as connection:

        async def value(statement: str) -> Any:
            row = await (await connection.execute(statement.encode())).fetchone()
            return row[0] if row else None

        applied = set(await applied_migrations(connection))
        # A table of that name that no migration of ours has made is somebody else's.
        stored = bool(applied)
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


@app.command()
def password(
    role: Annotated[str | None, typer.Argument(help="Default: the role of TICKPIPE_DATABASE_URL.")] = None,
    *,
    data_dir: DataDir = None,
) -> None:
    """Change the password of a role where it is set, in the database; asks for it, or reads it from a pipe.

    Logs in by the settings as they are, so it comes before the change of `.env`. The password is sent as its hash.

    Examples:

    * `tickpipe db password`
    * `openssl rand -hex 24 | tee reader.txt | tickpipe db password tickpipe_reader`
    """
    if sys.stdin.isatty():
        new = typer.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        new = sys.stdin.readline().rstrip("\r\n")
    if len(new) < _SHORTEST_PASSWORD:
        raise typer.BadParameter(f"it is shorter than {_SHORTEST_PASSWORD} characters", param_hint="password")
    changed = run(_set_password(connected_settings(data_dir), role, new))
    out.print(f"Changed the password of {changed}.", markup=False)
    err.print("Now put it where the services read it: .env, or the secret of the cluster; then restart them.")


async def _set_password(settings: "Settings", role: str | None, new: str) -> str:
    from psycopg import sql
    from psycopg.errors import UndefinedObject

    async with await open_database(settings) as connection:
        role = role or connection.info.user
        hashed = connection.pgconn.encrypt_password(new.encode(), role.encode(), b"scram-sha-256").decode()
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(hashed))
        try:
            await connection.execute(statement)
        except UndefinedObject as exc:
            raise typer.BadParameter(f"the database has no role {role}", param_hint="ROLE") from exc
    return role


def _time_of_day(text: str) -> time:
    try:
        return datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007  # a time of day, in the zone beside it
    except ValueError as exc:
        raise typer.BadParameter(f"{text!r} is no time of day such as 17:00") from exc


@app.command("day-zone")
def day_zone(
    zone: Annotated[str | None, typer.Argument(help="An IANA zone, for example America/New_York.")] = None,
    *,
    start: Annotated[
        time | None, typer.Option(parser=_time_of_day, metavar="HH:MM", help="When days begin there. Default: 00:00.")
    ] = None,
    week_start: Annotated[
        Literal["sunday", "monday"] | None, typer.Option(help="First day of a week; MetaTrader's begin on Sunday.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Show or set when trading days begin, which decides what D1, W1, MN1 and H4 candles are.

    A day that begins at noon or later begins on the evening before its date: brokers of foreign exchange cut days at
    17:00 in New York. What depends on it is rebuilt; candles are right at any moment, also meanwhile.

    Examples:

    * `tickpipe db day-zone`
    * `tickpipe db day-zone America/New_York --start 17:00`
    * `tickpipe db day-zone UTC --week-start monday`
    """
    if zone is None and (start is not None or week_start is not None):
        raise typer.BadParameter("name the zone as well", param_hint="ZONE")
    run(_day_zone(connected_settings(data_dir), zone, start or time(0), week_start))


async def _day_zone(settings: "Settings", zone: str | None, start: time, week_start: str | None) -> None:
    from psycopg.errors import InvalidParameterValue

    from sink.queries import candle_day, set_candle_day

    async with await open_database(settings) as connection:
        if zone is not None:
            try:
                await set_candle_day(connection, zone, start, week_start)
            except InvalidParameterValue as exc:
                hint = f". {exc.diag.message_hint}" if exc.diag.message_hint else ""
                raise typer.BadParameter(f"{exc.diag.message_primary}{hint}", param_hint="ZONE") from exc
            await _rebuild(connection)
        day = await candle_day(connection)
    out.print(f"Days begin at {day.start:%H:%M} in {day.zone}, weeks on {day.week_start.title()}.", markup=False)
    if day.materialised_from is not None:
        err.print("Hours and days of older candles are still being folded, by the sink.", markup=False)


async def _rebuild(connection: "AsyncConnection[Any]") -> None:
    import asyncio

    from sink.queries import materialise_candles

    with err.status("Rebuilding") as progress:
        while (materialised_from := await materialise_candles(connection, _STEP_DAYS)) != "-infinity":
            if materialised_from is None:
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
                continue
            progress.update(f"Rebuilt back to {materialised_from[:10]}")


if TYPE_CHECKING:
    from sink.db.adoption import Adopted

#: What the numbers of the report mean.
_MEANING = {
    "rows": "in the older table",
    "stored": "in market_data now",
    "duplicates": "of one symbol, timeframe and time: the row with the most ticks is stored",
    "zeros": "all prices are 0; stored as they are",
    "unfit": "no or impossible prices, or a minute that does not begin at :00; not stored",
    "other_timeframes": "not asked for; not stored",
}


@app.command()
def adopt(
    *,
    source: Annotated[
        str | None, typer.Option(help="Who sent these candles; the name that your EA or relay sends by.")
    ] = None,
    timeframe: Annotated[
        list[str] | None, typer.Option("--timeframe", "-t", help="Only these timeframes; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count; change nothing.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Give the older table its name back.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --undo: drop the candles that came since.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Take over a table market_data that another collector made, with all its candles.

    The table needs the columns ts, symbol, timeframe, open, high, low, close and volume or tick_volume. Its rows become
    bars of the broker `--source`; folded ticks replace them minute by minute where you send the ticks. The older table
    is renamed to market_data_adopted and stays as it is: drop it when you are content. Times without a zone count as
    UTC. Interrupted, run it again: it goes on. To leave the older table alone, set TICKPIPE_DATABASE_SCHEMA instead.

    Examples:

    * `tickpipe db adopt --source ICMarkets-Demo --dry-run`
    * `tickpipe db adopt --source ICMarkets-Demo`
    * `tickpipe db adopt --source ICMarkets-Demo --timeframe M1 --timeframe H1`
    * `tickpipe db adopt --undo`
    """
    if not (source or undo):
        raise typer.BadParameter("name who sent these candles", param_hint="--source")
    from sink.db import adoption
    from sink.db.session import database_conninfo

    conninfo = database_conninfo(connected_settings(data_dir))
    if undo:
        run(adoption.undo(conninfo, lambda candles: _confirm(candles, yes)))
        out.print("The older table is market_data again; Tickpipe's tables, views and functions are gone.")
        return
    if dry_run:
        adopted = run(adoption.preview(conninfo, timeframe or []))
    else:
        with Bar("adopting", total=1) as bar:
            adopted = run(adoption.adopt(conninfo, source or "", timeframe or [], bar.update))
    _show(adopted, dry_run, json)


async def _confirm(candles: int, yes: bool) -> None:
    if candles:
        ask(f"{candles:,} candles came after the adoption and would be dropped; the log still holds their ticks.", yes)


def _show(adopted: "Adopted", dry_run: bool, json: bool) -> None:
    if json:
        print_json(asdict(adopted))
        return
    print_table(("what", "rows", ""), [(name, count, _MEANING[name]) for name, count in asdict(adopted).items()])
    if dry_run:
        out.print("Nothing was changed.")
    else:
        out.print("The older table is market_data_adopted; go back with: tickpipe db adopt --undo")
