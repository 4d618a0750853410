"""Every error of aiokafka becomes one of this project's, and says what to do."""

import inspect

import pytest
from aiokafka import errors

from marketdata.errors import (
    KafkaRefused,
    KafkaUnavailable,
    LogTruncated,
    NotAuthorized,
    PartitionsLost,
    RecordTooLarge,
    TickpipeError,
    UnknownTopic,
)
from runtime import kafka_errors as module
from runtime.kafka_errors import kafka_errors
from runtime.settings import Settings, load_settings

KINDS = {
    "AWAY": KafkaUnavailable, "TOO_LARGE": RecordTooLarge, "NOT_AUTHORIZED": NotAuthorized,
    "LOGIN_REFUSED": NotAuthorized,
    "UNKNOWN_TOPIC": UnknownTopic, "TRUNCATED": LogTruncated, "LOST": PartitionsLost, "REFUSED": KafkaRefused,
}  # fmt: skip

#: Bases that aiokafka itself never raises.
ABSTRACT = {errors.KafkaError, errors.BrokerResponseError}


def error_classes() -> list[type[Exception]]:
    found = inspect.getmembers(errors, inspect.isclass)
    return sorted(
        {one for _, one in found if issubclass(one, Exception) and one.__module__ == errors.__name__} - ABSTRACT,
        key=lambda one: one.__name__,
    )


@pytest.fixture
def settings() -> Settings:
    return load_settings(kafka_bootstrap="broker.example:9092")


def raised(exc: BaseException, settings: Settings, **about: str) -> TickpipeError:
    with pytest.raises(TickpipeError) as caught, kafka_errors(settings, **about):
        raise exc
    assert caught.value.__cause__ is exc
    return caught.value


@pytest.mark.contract
def test_every_error_is_mapped_by_name_or_by_its_own_word(settings: Settings) -> None:
    assert len(error_classes()) > 50
    kinds = {error: [KINDS[kind] for kind in KINDS if error in getattr(module, kind)] for error in error_classes()}
    unmapped = [
        error for error, named in kinds.items() if len(named) > 1 or not (named or getattr(error, "retriable", False))
    ]
    assert unmapped == [], f"they are new to {module}"

    mapped = {error: type(raised(error(), settings, topic="ticks")) for error in kinds}
    assert mapped == {error: next(iter(named), KafkaUnavailable) for error, named in kinds.items()}


@pytest.mark.parametrize("exc", [errors.KafkaConnectionError("x"), TimeoutError(), ConnectionRefusedError(111, "no")])
def test_only_where_nothing_answers_it_is_asked_whether_kafka_runs(exc: Exception, settings: Settings) -> None:
    error = raised(exc, settings, topic="ticks")
    assert "broker.example:9092; is it running?" in str(error)
    assert error.retriable


def test_what_a_broker_answered_is_not_called_an_absent_broker(settings: Settings) -> None:
    answers = [error() for error in error_classes() if not issubclass(error, module.AWAY)]
    assert [exc for exc in answers if "running" in str(raised(exc, settings))] == []


@pytest.mark.parametrize(
    ("exc", "about", "words"),
    [
        (errors.MessageSizeTooLargeError(), {"topic": "candles.rejected"}, ["candles.rejected", "max.message.bytes"]),
        (errors.TopicAuthorizationFailedError("t"), {"topic": "ticks"}, ["DESCRIBE on the topic ticks", "kafka-acls"]),
        (errors.TopicAuthorizationFailedError({"b", "a"}), {"group": "g", "right": "READ"}, ["READ on the topic a, b"]),
        (errors.GroupAuthorizationFailedError("g"), {"group": "g", "right": "READ"}, ["READ on the group g"]),
        (errors.UnknownTopicOrPartitionError(), {"topic": "ticks"}, ["no topic ticks", "tickpipe topics create"]),
        (errors.NotEnoughReplicasError(), {"topic": "ticks"}, ["NotEnoughReplicas", "it is tried again"]),
        (errors.OffsetOutOfRangeError(), {"topic": "ticks"}, ["no longer in the log", "retention.ms"]),
        (errors.CommitFailedError(), {"group": "sink"}, ["of the group sink", "another member"]),
        (errors.PolicyViolationError("odd"), {}, ["PolicyViolationError: odd", "broker's log"]),
    ],
)
def test_the_sentence_names_what_it_is_about_and_the_cure(
    exc: Exception, about: dict[str, str], words: list[str], settings: Settings
) -> None:
    said = str(raised(exc, settings, **about))
    assert all(word in said for word in words), said
    assert "\n" not in said


def test_this_projects_errors_and_bugs_pass_through(settings: Settings) -> None:
    for exc in (KafkaRefused("x"), ValueError("x"), AssertionError("x")):
        with pytest.raises(type(exc)) as caught, kafka_errors(settings):
            raise exc
        assert caught.value is exc
