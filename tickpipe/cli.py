"""The command `tickpipe`."""

from typing import Annotated

import typer

from runtime.process import collect_rarely
from tickpipe import archive, candles, database, doctor, gaps, install, keys, sql, status, topics
from tickpipe.backup import command as backup
from tickpipe.console import ErrorsAsSentences, show_what_cannot_be_written
from tickpipe.embedded import command as stack
from tickpipe.export import command as export
from tickpipe.export import ticks
from tickpipe.proof import command as proof
from tickpipe.rejected import command as rejected
from tickpipe.relay import command as relay
from tickpipe.replay import command as replay
from tickpipe.sending import command as sending

app = typer.Typer(
    cls=ErrorsAsSentences,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415  # costs --help 30 ms

        typer.echo(f"tickpipe {version('tickpipe')}")
        raise typer.Exit


@app.callback()
def tickpipe(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with every error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """MetaTrader 5 ticks in, exact one-minute candles out.

    Start with `tickpipe up --demo`: Kafka, PostgreSQL and every service on this machine, fed by a simulated EA.
    Then, in another terminal, `tickpipe candles --symbol EURUSD` and `tickpipe verify`.

    Exit codes: 0 done, 1 found a problem, 2 wrong use.
    """


app.command()(stack.up)
app.command()(stack.down)
app.command("install-service")(install.install_service)
app.command()(status.status)
app.command()(doctor.doctor)
app.command()(sending.send)
app.command("import")(sending.import_files)
app.command()(candles.candles)
app.command()(ticks.ticks)
app.command()(candles.query)
app.command()(sql.sql)
app.command()(candles.fidelity)
app.add_typer(gaps.app, name="gaps")
app.command()(status.senders)
app.command()(export.export)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(candles.verify)
app.command()(install.kit)
app.command()(replay.replay)
app.add_typer(rejected.app, name="rejected")
app.add_typer(topics.app, name="topics")
app.add_typer(archive.app, name="archive")
app.add_typer(proof.app, name="proof")
app.add_typer(keys.app, name="keys")
app.add_typer(database.app, name="db")
app.add_typer(relay.app, name="relay")


def main() -> None:
    """Run the command that is named."""
    collect_rarely()
    show_what_cannot_be_written()
    app()
