"""The producer as a process of its own, and a reader of what it wrote."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from aiokafka import ConsumerRecord, TopicPartition

from marketdata.tick import Frame
from marketdata.wire import decode_frame
from runtime.kafka import log_ends, new_consumer
from runtime.settings import Settings
from tests import plainhttp
from tests.ports import free_port

_START_SECONDS = 20.0
_STOP_SECONDS = 30.0


@dataclass
class Service:
    """A running `python -m producer`."""

    url: str
    key: str
    process: subprocess.Popen[bytes]
    log: Path

    def post(self, path: str, body: object, *, timeout_seconds: float = 30.0, **headers: str) -> httpx.Response:
        """Post a body as JSON, or as it is when it is bytes."""
        sent = {"X-API-Key": self.key} | {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return plainhttp.post(self.url + path, content=content, headers=sent, timeout=timeout_seconds)

    def get(self, path: str) -> httpx.Response:
        """Get a page."""
        return plainhttp.get(self.url + path)

    def wait_ready(self, timeout_seconds: float = _START_SECONDS) -> float:
        """Seconds until /ready says that Kafka is there."""
        started = time.monotonic()
        while self.get("/ready").status_code != 200:
            assert time.monotonic() - started < timeout_seconds, self.log.read_text()
            time.sleep(0.05)
        return time.monotonic() - started

    def stop(self) -> float:
        """Send SIGTERM and return the seconds that it took; the exit must be clean."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(_STOP_SECONDS)
        assert code == 0, self.log.read_text()
        return time.monotonic() - started


@contextmanager
def running(settings: Settings, log: Path) -> Iterator[Service]:
    """Start the producer with these settings on a free port; it may not be ready yet."""
    port = free_port()
    keys = {source: key.get_secret_value() for source, key in settings.api_keys.items()}
    chosen = settings.model_dump(exclude={"api_keys", "database_url", "producer_port"}, exclude_unset=True)
    environment = os.environ | {
        f"TICKPIPE_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in {**chosen, "api_keys": keys, "producer_port": port}.items()
    }
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "producer"], env=environment, stderr=output)
    service = Service(f"http://127.0.0.1:{port}", next(iter(keys.values())), process, log)
    try:
        _wait_alive(service)
        yield service
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


async def read_all(settings: Settings, topic: str) -> list[ConsumerRecord]:
    """Every record of a topic, by partition and offset."""
    ends = await log_ends(settings, topic)
    consumer = new_consumer(settings)
    await consumer.start()
    try:
        records: list[ConsumerRecord] = []
        for partition, (first, end) in ends.items():
            tp = TopicPartition(topic, partition)
            consumer.assign([tp])
            consumer.seek(tp, first)
            while await consumer.position(tp) < end:
                for found in (await consumer.getmany(tp, timeout_ms=1000)).values():
                    records += found
        return records
    finally:
        await consumer.stop()


async def read_frames(settings: Settings) -> list[Frame]:
    """Every frame of the ticks topic."""
    return [decode_frame(record.value) for record in await read_all(settings, settings.ticks_topic)]


def _wait_alive(service: Service) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            if service.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert service.process.poll() is None, service.log.read_text()
        assert time.monotonic() < deadline, service.log.read_text()
        time.sleep(0.05)
