"""The archiver against reading alone, a fold from the archive against one from Kafka, and bytes a tick of both.

`python -m benchmarks.archive` has one tick in a record; `--frame 200` frames of 200. One partition, 8 symbols.
"""

import asyncio
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from archive.writer import Writer
from benchmarks.fold import SYMBOLS, arguments, measured, reading, records_of, write
from benchmarks.refold import proofs_of, refold_all
from benchmarks.rounds import Measured, measured_child, run_rounds
from runtime.archive.files import LocalFiles
from runtime.archive.manifest import Catalogue
from runtime.kafka import admin_client, log_ends
from runtime.logreader import own_log
from runtime.process import collect_rarely
from runtime.settings import Settings, load_settings
from tests import plainhttp
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import Service, environment


def archiving(settings: Settings, folder: Path, ticks: int) -> Callable[[], Measured]:
    """An archiver process with an empty folder, from the first tick that it read until all are in files.

    What is left at the end of the log is written at once, as the rest was when enough was held; nothing is merged yet.
    """

    port = free_port()

    def counted(metric: str) -> float:
        try:
            text = plainhttp.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        except httpx.HTTPError:
            return 0.0
        return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{metric} ")), 0.0)

    def read() -> float:
        return counted("tickpipe_archive_ticks_total")

    def written() -> float:
        return read() - counted("tickpipe_archive_held_ticks")

    def run() -> Measured:
        with tempfile.TemporaryDirectory(dir=folder) as empty:
            changed = {"archive": empty, "archive_port": port, "archive_flush_seconds": 0.1, "log_level": "ERROR"}
            service = Service("archive", settings.model_copy(update=changed)).start()
            try:
                return measured(ticks, [psutil.Process(service.pid)], done=written, begun=read)
            finally:
                service.close()

    return run


def refolding(settings: Settings, ticks_per_symbol: int, frame_size: int) -> Callable[[], Measured]:
    """A process that folds every minute of the topic again, from wherever the records are."""

    def run() -> Measured:
        command = [sys.executable, "-m", "benchmarks.archive", "--refold", settings.kafka_bootstrap]
        command += ["--ticks", str(ticks_per_symbol), "--frame", str(frame_size)]
        return measured_child(command, ticks_per_symbol * len(SYMBOLS), env=environment(settings))[0]

    return run


async def emptied(settings: Settings) -> int:
    """Archive everything as one file a day, and delete it from Kafka; the bytes of the archive."""
    catalogue = Catalogue(LocalFiles(Path(settings.archive)), await own_log(settings))
    service = Service("archive", settings).start()
    try:
        [(_, end)] = (await log_ends(settings, settings.ticks_topic)).values()
        while catalogue.progress(0).next < end:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.2)
    finally:
        service.close()
    writer = Writer(catalogue)
    writer.resume(0)
    for date in sorted(catalogue.progress(0).days):
        writer.merge(0, date, at_least=2)
    async with admin_client(settings) as client:
        await client.delete_records({TopicPartition(settings.ticks_topic, 0): RecordsToDelete(end)})
    days = catalogue.progress(0).days
    return sum(file.bytes for date in days for file in catalogue.manifest(date, 0).files)


def main() -> None:
    """Measure, print, store."""
    options = arguments(__doc__, "--refold")
    if options.refold:
        collect_rarely()
        proofs = proofs_of(options.ticks, options.frame)
        print(*asyncio.run(refold_all(load_settings(), proofs, options.ticks * len(SYMBOLS))))
        return
    with tempfile.TemporaryDirectory() as directory, EmbeddedServers(Path(directory) / "servers") as servers:
        folder, ticks = Path(directory), options.ticks * len(SYMBOLS)
        settings = load_settings(kafka_bootstrap=servers.kafka_bootstrap, kafka_partitions=1)
        asyncio.run(write(settings, records_of(options.ticks, options.frame, SYMBOLS)))
        cold = settings.model_copy(
            update={
                "ticks_topic": "ticks.archived", "archive": str(folder / "cold"), "archive_port": free_port(),
                "archive_flush_seconds": 1,
            }
        )  # fmt: skip
        asyncio.run(write(cold, records_of(options.ticks, options.frame, SYMBOLS)))
        in_kafka = sum(file.stat().st_size for file in folder.rglob(f"{cold.ticks_topic}-0/*.log"))
        in_archive = asyncio.run(emptied(cold))
        contenders = {
            "reading alone": reading(settings, ticks),
            "archiving": archiving(settings, folder, ticks),
            "fold from Kafka": refolding(settings, options.ticks, options.frame),
            "fold from the archive": refolding(cold, options.ticks, options.frame),
        }
        notes = [f"{in_archive / ticks:.1f} bytes a tick in the archive, {in_kafka / ticks:.1f} in Kafka."]
        print(*notes)
        run_rounds(f"archive-frames-of-{options.frame}", contenders, rounds=options.rounds, unit="ticks", notes=notes)


if __name__ == "__main__":
    main()
