"""A Kafka that answers and sends its clients to an address that they cannot reach says which."""

from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from marketdata.errors import KafkaUnavailable
from runtime.settings import Settings
from runtime.topics import ensure_topics
from tests.conftest import NewDataDir
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import environment
from tickpipe.cli import app
from tickpipe.embedded import kafka as embedded_kafka

#: Nobody listens there (tcpmux).
NOWHERE = "127.0.0.1:1"


@pytest.fixture(scope="module")
def servers(new_data_dir: NewDataDir) -> Iterator[EmbeddedServers]:
    """Servers of their own, whose Kafka names a wrong address."""
    ours = "advertised.listeners=BROKER://{host}:{port}"
    assert embedded_kafka._SERVER_PROPERTIES.count(ours) == 1
    wrong = embedded_kafka._SERVER_PROPERTIES.replace(ours, f"advertised.listeners=BROKER://{NOWHERE}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded_kafka, "_SERVER_PROPERTIES", wrong)
        with EmbeddedServers(new_data_dir("listeners")) as servers:
            yield servers


async def test_an_address_that_cannot_be_reached_is_named(settings: Settings) -> None:
    with pytest.raises(KafkaUnavailable) as caught:
        await ensure_topics(settings)
    assert f"answers on {settings.kafka_bootstrap} and sends clients to {NOWHERE}" in str(caught.value)
    assert "advertised.listeners" in str(caught.value)
    assert "is it running" not in str(caught.value)


async def test_where_nothing_answers_it_is_asked_whether_it_runs(settings: Settings) -> None:
    nobody = settings.model_copy(update={"kafka_bootstrap": f"127.0.0.1:{free_port()}"})
    with pytest.raises(KafkaUnavailable, match="is it running"):
        await ensure_topics(nobody)


async def test_a_name_that_cannot_be_resolved_is_named(settings: Settings) -> None:
    unknown = settings.model_copy(update={"kafka_bootstrap": "kafka.invalid:9092"})
    with pytest.raises(KafkaUnavailable, match=r"^the name kafka\.invalid cannot be resolved \(.+\); correct"):
        await ensure_topics(unknown)


def test_a_database_that_refuses_is_not_asked_whether_it_runs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    right = settings.database_url.get_secret_value()

    def said(url: str) -> str:
        monkeypatch.setenv("TICKPIPE_DATABASE_URL", url)
        result = CliRunner().invoke(app, ["candles", "-s", "EURUSD"])
        assert result.exit_code == 1
        return result.stderr

    wrong_password = said(right.replace("//postgres:", "//postgres:wrong"))
    assert "tickpipe db password" in wrong_password
    assert "is it running" not in wrong_password
    assert "is it running" not in said(f"{right}_missing")
    assert "is it running" in said(f"postgresql://postgres@127.0.0.1:{free_port()}/market?connect_timeout=2")
