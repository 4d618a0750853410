"""A service whose task or thread failed does not go on looking alive: it ends, and its supervisor starts another."""

import subprocess
import sys

import pytest

from runtime.process import EXIT_FAILED
from runtime.settings import Settings
from tests.kafka_log import KafkaLog
from tests.services import environment
from tests.waiting import PATIENCE_SECONDS


@pytest.mark.parametrize(
    ("service", "place"),
    [
        ("producer", "producer.publisher:Publisher.run"),
        ("dashboard", "dashboard.live:LiveReader.run"),
        ("dashboard", "dashboard.pipeline:Pipeline.run"),
        ("sink", "runtime.health:ThreadedServer.serve_forever"),
        ("stream_app", "stream_app.app:own_log"),
        pytest.param("stream_app", "stream_app.transport:BatchConsumer.group_error", marks=pytest.mark.full),
        pytest.param("stream_app", "stream_app.worker:Worker.publish", marks=pytest.mark.full),
    ],
)
def test_a_failed_part_ends_the_service(settings: Settings, kafka: KafkaLog, service: str, place: str) -> None:
    command = [sys.executable, "-m", "tests.integration.broken", service, place]
    done = subprocess.run(
        command, env=environment(settings), capture_output=True, timeout=PATIENCE_SECONDS, check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == EXIT_FAILED, said
    assert "part_failed" in said
    assert "RuntimeError: a bug" in said
