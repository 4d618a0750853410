"""A machine without IPv4: Kafka, PostgreSQL and every service listen on an address of IPv6 alone."""

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from runtime.settings import load_settings
from tests.conftest import NewDataDir
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import Service
from tests.waiting import wait_until
from tickpipe.embedded import kafka as embedded_kafka
from tickpipe.embedded import postgres as embedded_postgres

pytestmark = [pytest.mark.full, pytest.mark.long(20)]

MINUTE = 1_709_510_400_000


@pytest.fixture
def addresses(new_data_dir: NewDataDir) -> Iterator[dict[str, str]]:
    """Settings with the addresses of servers that listen on ::1 alone."""
    properties = embedded_kafka._SERVER_PROPERTIES.replace("{host}", "[::1]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded_kafka, "_SERVER_PROPERTIES", properties)
        patch.setattr(embedded_kafka, "HOST", "::1")
        patch.setattr(embedded_postgres, "HOST", "[::1]")
        with EmbeddedServers(
            new_data_dir("ipv6"), database_settings={"listen_addresses": "::1", "fsync": "off"}
        ) as servers:
            port = servers.kafka_bootstrap.rpartition(":")[2]
            yield {"kafka_bootstrap": f"[::1]:{port}", "database_url": servers.database_url}


def test_a_tick_becomes_a_row_without_ipv4(addresses: dict[str, str]) -> None:
    hosts = {f"{name}_host": "::1" for name in ("producer", "stream", "sink", "dashboard")}
    ports = {f"{name}_port": free_port() for name in ("producer", "stream", "sink", "dashboard")}
    settings = load_settings(api_keys={"*": "a-key-for-all"}, **addresses, **hosts, **ports)
    with ExitStack() as running:
        services = [Service(module, settings).start() for module in ("producer", "stream_app", "sink", "dashboard")]
        for service in services:
            running.callback(service.close)
            service.url = service.url.replace("127.0.0.1", "[::1]")
        for service in services:
            service.wait_ready()
        tick = {"symbol": "EURUSD", "ts_msc": MINUTE, "bid": 1.1, "ask": 1.2}
        assert services[0].post({"ticks": [tick]}, X_API_Key="a-key-for-all").status_code == 200

        def stored() -> bool:
            with psycopg.connect(addresses["database_url"]) as connection:
                return connection.execute("SELECT FROM market_data").fetchone() is not None

        wait_until(stored, what="the row of the tick")
