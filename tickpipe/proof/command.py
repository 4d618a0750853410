"""`tickpipe proof`: candles and their ticks as a folder that can be checked anywhere (docs/proof.md)."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickpipe.connection import DataDir, connected_settings, open_database
from tickpipe.console import DONE, PROBLEM, TIME_HELP, ToTime, err, out, run, time_option

if TYPE_CHECKING:
    from runtime.settings import Settings
    from tickpipe.proof.export import Exported

app = typer.Typer(no_args_is_help=True, help="Proofs of candles that leave the house.")

#: Minutes that were left out, and faults, that are shown.
_SHOWN = 50


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty directory.")],
    *,
    symbol: Annotated[str, typer.Option("--symbol", "-s", help="For example EURUSD.")],
    from_: Annotated[
        datetime, typer.Option("--from", parser=time_option, metavar="T", help=f"From T, included: {TIME_HELP}.")
    ],
    to: ToTime = None,
    source: Annotated[str | None, typer.Option(help="The source; needed where several send the symbol.")] = None,
    key: Annotated[
        Path | None,
        typer.Option("--sign", metavar="FILE", help="Private key (Ed25519, PEM); needs cryptography.", exists=True),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Write the stored M1 candles of a symbol with their ticks, hashes and a Merkle root, for anybody to check.

    Every candle is folded again from the log or the archive first. Minutes that cannot be proven are named in
    proof.json with the reason, and the exit code is 1. DIR is there only when it is whole.

    Examples:

    * `tickpipe proof export proof --symbol EURUSD --from 2019-02-04 --to 2019-02-05`
    * `openssl genpkey -algorithm ed25519 -out key.pem`, then
      `tickpipe proof export proof --symbol EURUSD --from -1d --sign key.pem`
    """
    to = to or datetime.now(UTC)
    # A part of a minute proves nothing.
    from_, to = (moment.replace(second=0, microsecond=0) for moment in (from_, to))
    if to <= from_:
        raise typer.BadParameter("it is not a minute after --from", param_hint="--to")
    settings = connected_settings(data_dir)
    target = directory.expanduser().absolute()
    done, fingerprint = run(_export(settings, target, (symbol, source), (from_, to), key))
    out.print(f"{done.candles:,} candles and {done.ticks:,} ticks in {directory}", markup=False, soft_wrap=True)
    out.print(f"fingerprint {fingerprint}", soft_wrap=True)
    if done.left_out:
        from tickpipe.proof.check import minute_name

        for ts, why in list(done.left_out.items())[:_SHOWN]:
            err.print(f"{minute_name(ts)} was left out: {why}.", markup=False, soft_wrap=True)
        err.print(f"{len(done.left_out):,} candles were left out; proof.json names them all.")
    raise typer.Exit(PROBLEM if done.left_out else DONE)


async def _export(
    settings: "Settings",
    target: Path,
    named: tuple[str, str | None],
    range_: tuple[datetime, datetime],
    key: Path | None,
) -> "tuple[Exported, str]":
    from tickpipe.console import Bar
    from tickpipe.export.files import whole_directory
    from tickpipe.export.ticks import only_source
    from tickpipe.proof.check import fingerprint_of
    from tickpipe.proof.export import Wanted, export, sign

    symbol, source = named
    async with await open_database(settings) as connection:
        wanted = Wanted(await only_source(connection, symbol, source), symbol, *range_)
        with whole_directory(target, replace=False) as partial, Bar("days", (range_[1] - range_[0]).days or 1) as bar:

            def advance(day: datetime, ticks: int) -> None:
                bar.update((day - range_[0]) / timedelta(days=1), f"{day:%Y-%m-%d}  {ticks:,} ticks")

            done = await export(settings, connection, wanted, partial, on_day=advance)
            if key is not None:
                sign(partial, key)
            fingerprint = fingerprint_of(partial)
    return done, fingerprint


@app.command()
def check(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What `tickpipe proof export` wrote.")],
    *,
    fingerprint: Annotated[
        str | None, typer.Option(help="The SHA-256 of proof.json that you were told; without it you trust DIR's.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Public key of the signer (PEM) that you trust.", exists=True)
    ] = None,
) -> None:
    """Check a proof without Kafka and database: every hash, and every candle against its ticks.

    Exit code 1 when something is wrong; each fault is named.

    Examples:

    * `tickpipe proof check proof`
    * `tickpipe proof check proof --fingerprint 5f0c…`
    * `tickpipe proof check proof --public-key signer.pub`
    """
    from tickpipe.proof.check import check as faults_of
    from tickpipe.proof.check import fingerprint_of, signature_faults
    from tickpipe.proof.document import SIGNATURE

    faults = list(faults_of(directory, fingerprint=fingerprint))
    is_signed = (directory / SIGNATURE).exists()
    if public_key is not None or is_signed:
        faults += signature_faults(directory, public_key)
    for fault in faults[:_SHOWN]:
        out.print(fault, markup=False, soft_wrap=True)
    if faults:
        out.print(f"{len(faults):,} faults")
        raise typer.Exit(PROBLEM)
    out.print("Every candle is the fold of its ticks.")
    out.print(f"fingerprint {fingerprint_of(directory)}", soft_wrap=True)
    if is_signed and public_key is None:
        err.print("It is signed by the key in proof.pub; whose key that is, only --public-key can tell.")
