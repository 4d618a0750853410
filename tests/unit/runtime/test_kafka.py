"""Topics are created so that nothing that is wanted is deleted."""

from runtime.settings import load_settings
from runtime.topics import topics


def test_ticks_are_kept_for_ever_and_candles_are_never_compacted() -> None:
    by_name = {topic.name: topic for topic in topics(load_settings())}

    assert by_name["ticks"].config["retention.ms"] == "-1"
    assert by_name["ticks"].config["cleanup.policy"] == "delete"
    assert by_name["candles.m1"].config["cleanup.policy"] == "delete"
    assert by_name["candles.broker"].config["cleanup.policy"] == "compact"


def test_a_lone_broker_writes_ticks_to_disk_every_second_and_replicas_need_not() -> None:
    alone, replicated = (topics(load_settings(kafka_replication=n))[0] for n in (1, 3))

    assert alone.config["flush.ms"] == "1000"
    assert "flush.ms" not in replicated.config
    assert replicated.replication == 3
