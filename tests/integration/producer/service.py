"""The producer as a process that writes a log of its own, and a reader of the frames that it wrote."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from marketdata.tick import Frame
from marketdata.wire import decode_frame
from runtime.settings import Settings
from tests.kafka_log import read_records
from tests.services import Service


@contextmanager
def logging_producer(settings: Settings, log: Path) -> Iterator[Service]:
    """The producer with these settings, alive; it may not be ready yet."""
    service = Service("producer", settings, log=log).start()
    try:
        yield service.wait_alive()
    finally:
        service.close()


async def read_frames(settings: Settings) -> list[Frame]:
    """Every frame of the ticks topic."""
    return [decode_frame(record.value) for record in await read_records(settings, settings.ticks_topic)]
