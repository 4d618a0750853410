"""Maps aiokafka's errors to this project's own, each with a sentence that says what to do. Every call of aiokafka runs
inside `kafka_errors`."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

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
from runtime.settings import Settings

#: What a call of aiokafka raises besides `AssertionError` for wrong arguments.
KAFKA_ERRORS: Final = (errors.KafkaError, errors.ConsumerStoppedError, errors.IllegalOperation, OSError)

#: Nothing answered. Some of these are not `retriable` by aiokafka's word, which speaks of the request, not of the call.
AWAY: Final = (
    errors.KafkaConnectionError, errors.KafkaTimeoutError, errors.KafkaUnavailableError, errors.NoBrokersAvailable,
    errors.NodeNotReadyError, errors.MetadataEmptyBrokerList, errors.BrokerNotAvailableError, OSError,
)  # fmt: skip

#: Somebody answered and ended the connection at once: it speaks another protocol, or wants to know who this is.
CUT: Final = (errors.KafkaConnectionError, ConnectionResetError, ssl.SSLError)

TOO_LARGE: Final = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError, errors.RecordTooLargeError)

NOT_AUTHORIZED: Final = (
    errors.TopicAuthorizationFailedError, errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError, errors.TransactionalIdAuthorizationFailed, errors.SecurityDisabled,
    errors.DelegationTokenAuthDisabled, errors.DelegationTokenNotFound, errors.DelegationTokenOwnerMismatch,
    errors.DelegationTokenRequestNotAllowed, errors.DelegationTokenAuthorizationFailed, errors.DelegationTokenExpired,
    errors.InvalidPrincipalType,
)  # fmt: skip

#: Asked before anything else: who this is.
LOGIN_REFUSED: Final = (
    errors.AuthenticationFailedError, errors.AuthenticationMethodNotSupported, errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError,
)  # fmt: skip

UNKNOWN_TOPIC: Final = (errors.UnknownTopicOrPartitionError,)

TRUNCATED: Final = (errors.OffsetOutOfRangeError, errors.NoOffsetForPartitionError)

#: `IllegalStateError`: a partition was asked about that was assigned to another member meanwhile.
LOST: Final = (
    errors.CommitFailedError, errors.IllegalGenerationError, errors.UnknownMemberIdError,
    errors.RebalanceInProgressError, errors.IllegalStateError,
)  # fmt: skip

#: Permanent, and none of the above. Named one by one, so that a test notices what a new aiokafka adds.
REFUSED: Final = (
    errors.ConsumerStoppedError, errors.IllegalOperation, errors.IllegalArgumentError,
    errors.UnrecognizedBrokerVersion, errors.IncompatibleBrokerVersion, errors.UnsupportedCodecError,
    errors.KafkaConfigurationError, errors.QuotaViolationError, errors.ProducerClosed, errors.ProducerFenced,
    errors.NoError, errors.UnknownError, errors.CorruptRecordException, errors.InvalidFetchRequestError,
    errors.ReplicaNotAvailableError, errors.StaleControllerEpochError, errors.OffsetMetadataTooLargeError,
    errors.StaleLeaderEpochCodeError, errors.InvalidTopicError, errors.InvalidRequiredAcksError,
    errors.InconsistentGroupProtocolError, errors.InvalidGroupIdError, errors.InvalidSessionTimeoutError,
    errors.InvalidCommitOffsetSizeError, errors.InvalidTimestampError, errors.UnsupportedVersionError,
    errors.TopicAlreadyExistsError, errors.InvalidPartitionsError, errors.InvalidReplicationFactorError,
    errors.InvalidReplicationAssignmentError, errors.InvalidConfigurationError, errors.InvalidRequestError,
    errors.UnsupportedForMessageFormatError, errors.PolicyViolationError, errors.OutOfOrderSequenceNumber,
    errors.DuplicateSequenceNumber, errors.InvalidProducerEpoch, errors.InvalidTxnState,
    errors.InvalidProducerIdMapping, errors.InvalidTransactionTimeout, errors.ConcurrentTransactions,
    errors.TransactionCoordinatorFenced, errors.OperationNotAttempted, errors.LogDirNotFound, errors.UnknownProducerId,
    errors.ReassignmentInProgress, errors.NonEmptyGroup, errors.GroupIdNotFound, errors.FetchSessionIdNotFound,
    errors.InvalidFetchSessionEpoch, errors.ListenerNotFound, errors.MemberIdRequired,
)  # fmt: skip


@contextmanager
def kafka_errors(settings: Settings, *, topic: str = "", group: str = "", right: str = "") -> Iterator[None]:
    """Raise this project's error for one of aiokafka's; `topic` and `group` are what the calls inside are about.

    `right` is the operation on them that the user needs, for example `READ`.

    A `TimeoutError` of the caller's own `asyncio.timeout` counts as a broker that does not answer.

    Raises:
        KafkaUnavailable: when nothing answers, or what is asked cannot be done at the moment.
        KafkaRefused: when a broker answers and says no; a subclass tells why.
        LogTruncated: when offsets are asked for that the log does not hold.
    """
    try:
        yield
    except KAFKA_ERRORS as exc:
        raise mapped(exc, settings, topic=topic, group=group, right=right) from exc


#: What an error becomes, and its sentence; the first line that fits counts.
_SENTENCES: Final[tuple[tuple[tuple[type[BaseException], ...], type[TickpipeError], str], ...]] = (
    (AWAY, KafkaUnavailable, "no Kafka broker answers on {kafka}; is it running? (TICKPIPE_KAFKA_BOOTSTRAP)"),
    (
        TOO_LARGE,
        RecordTooLarge,
        "a record{about} is larger than Kafka takes ({said}); raise max.message.bytes of the topic, or send less at "
        "once",
    ),
    (
        LOGIN_REFUSED,
        NotAuthorized,
        "Kafka on {kafka} does not accept the login{of_user} ({said}); check TICKPIPE_KAFKA_SASL_MECHANISM, and the "
        "user and password or the token command",
    ),
    (
        NOT_AUTHORIZED,
        NotAuthorized,
        "Kafka on {kafka} does not allow the user{user} {right}{on} ({said}); grant it (kafka-acls)",
    ),
    (UNKNOWN_TOPIC, UnknownTopic, "{topic}"),
    (
        TRUNCATED,
        LogTruncated,
        "offsets{about} are no longer in the log ({said}); set retention.ms=-1 on the topic of the ticks",
    ),
    (LOST, PartitionsLost, "partitions{about} were assigned to another member of the group ({said})"),
)


def is_retriable(exc: BaseException) -> bool:
    """Whether the same call may succeed later; our errors and aiokafka's say so by the same attribute."""
    return bool(getattr(exc, "retriable", False))


def mapped(
    exc: BaseException, settings: Settings, *, topic: str = "", group: str = "", right: str = ""
) -> TickpipeError:
    """This project's error for one of `KAFKA_ERRORS`."""
    if isinstance(exc, errors.TopicAuthorizationFailedError):
        topic, group = topic or _named_by(exc), ""
    words = {
        "kafka": settings.kafka_bootstrap,
        "user": f" {settings.kafka_sasl_username}" if settings.kafka_sasl_username else "",
        "of_user": f" of {settings.kafka_sasl_username}" if settings.kafka_sasl_username else "",
        "right": right or "READ, WRITE or DESCRIBE",
        "topic": topic,
        "about": f" of the topic {topic}" if topic else f" of the group {group}" if group else "",
        "on": f" on the topic {topic}" if topic else f" on the group {group}" if group else "",
        "said": said_by(exc),
    }
    for kinds, error, sentence in _SENTENCES:
        if isinstance(exc, kinds):
            return error(sentence.format_map(words))
    if is_retriable(exc):
        sentence = "Kafka on {kafka} cannot serve a request{about} now ({said}); it is tried again"
        return KafkaUnavailable(sentence.format_map(words))
    return KafkaRefused("Kafka refused a request{about}: {said}; the broker's log may say more".format_map(words))


def unavailable(settings: Settings) -> KafkaUnavailable:
    """The error that names the address where nothing answered."""
    error = mapped(TimeoutError(), settings)
    assert isinstance(error, KafkaUnavailable)  # noqa: S101 - `AWAY` comes first
    return error


def _named_by(exc: errors.TopicAuthorizationFailedError) -> str:
    """The topics that aiokafka named when it raised the error: one, or a set."""
    named = exc.args[0] if exc.args else ()
    return ", ".join(sorted([named] if isinstance(named, str) else map(str, named)))


def said_by(exc: BaseException) -> str:
    """The error's message in one line."""
    return " ".join(str(exc).split()) or type(exc).__name__
