"""The errors of this project, as one tree; each sentence says what the reader can do.

::

    TickpipeError
    ├── InvalidFrame        a record of `ticks` that is no frame
    ├── InvalidCandle       a record of `candles.m1` or `candles.broker` that is no candle
    ├── InvalidReference    a record of `reference` that is no reference data
    ├── InvalidReport       a record of `fills` that is no report, or of `wanted` that holds no ranges
    ├── UnknownTimeframe    a name that is no timeframe, or one that does not fit here
    ├── InvalidItem         one tick or bar of an HTTP body that cannot be used
    ├── SettingsError       a setting is missing or cannot be understood
    ├── KafkaUnavailable    no broker answered, or it cannot serve the request now (retriable)
    ├── KafkaRefused        a broker answered and refused the request
    │   ├── RecordTooLarge  a record is larger than its topic takes
    │   ├── NotAuthorized   the user may not use the topic or group
    │   ├── TopicUnsafe     an existing topic would delete what was acknowledged
    │   ├── LogLost         the topic of the ticks was there and is gone
    │   ├── UnknownTopic    the topic, or this partition of it, does not exist (retriable)
    │   └── PartitionsLost  the group assigned the partitions to another member
    ├── LogTruncated        offsets that a candle was folded from are no longer in the log
    ├── LogShortened        the log ends before what was read of it
    ├── MissedRecords       records that are in the log were not handed to their reader
    ├── ProgressLost        the database ends before what was read of the log begins
    ├── ArchiveUnavailable  the archive's folder or bucket does not answer or refuses (retriable)
    ├── ArchiveDamaged      a file of the archive is not what its manifest says, or is missing
    ├── ArchiveBehind       the archive ends before what it had, and Kafka no longer has it (retriable)
    ├── ArchiveFenced       another archiver has written to the archive
    ├── SchemaTaken         the database's schema holds something else by a name that is needed
    ├── DatabaseForbids     the role lacks rights in the database
    ├── ColumnInTheWay      a column that somebody added to a table refuses every row (retriable)
    ├── NotMigrated         the database lacks migrations that this role may not apply (retriable)
    └── StackError          the embedded stack is not there, is there already, or did not start
"""


def install_extra(extra: str) -> str:
    """How an extra is installed, or several by comma; the project itself is in no package index."""
    return f"in a clone of Tickpipe: pip install '.[{extra}]'"


def missing_extra(name: str, extra: str) -> str:
    """A library of an extra is not installed, and how to install it."""
    return f"{name} is not installed; {install_extra(extra)}"


class TickpipeError(Exception):
    """Base of every error that this project raises on purpose."""

    #: True when the same call may succeed later without anybody's help.
    retriable = False


class InvalidFrame(TickpipeError):
    """A record of the ticks topic is not a frame of version 1 or 2; it belongs in `ticks.rejected`."""


class InvalidCandle(TickpipeError):
    """A record of a candles topic is not a candle; it belongs in `candles.rejected`."""


class InvalidReference(TickpipeError):
    """A record of the reference topic is no reference data; it belongs in `candles.rejected`."""


class InvalidReport(TickpipeError):
    """A record of the fills topic is no report (it belongs in `candles.rejected`), or one of `wanted` has no ranges."""


class UnknownTimeframe(TickpipeError):
    """A name is no timeframe, or its bars cannot be what is asked; the message lists the timeframes."""


class InvalidItem(TickpipeError):
    """One tick or bar cannot be used; `field` names the culprit, the message says what is accepted."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class SettingsError(TickpipeError):
    """A setting is missing or cannot be understood; the message names the environment variable to set."""


class KafkaUnavailable(TickpipeError):
    """No Kafka broker answered in time or can serve the request; it is tried again, check TICKPIPE_KAFKA_BOOTSTRAP."""

    retriable = True


class KafkaRefused(TickpipeError):
    """A Kafka broker refused a request for good; the message and the broker's log say why."""


class RecordTooLarge(KafkaRefused):
    """A record is larger than its topic takes; raise `max.message.bytes` of the topic or send less at once."""


class NotAuthorized(KafkaRefused):
    """Kafka does not allow this user the topic or group that the message names; grant it with kafka-acls."""


class TopicUnsafe(KafkaRefused):
    """An existing topic would delete what was acknowledged; `tickpipe topics fix --yes` changes its configuration."""


class LogLost(KafkaRefused):
    """The ticks topic was there and is gone: restore it, or `tickpipe topics create --recreate` begins an empty one."""


class UnknownTopic(KafkaRefused):
    """A topic, or one partition of it, does not exist; create it with `tickpipe topics create`."""

    #: The producer and `tickpipe topics create` create topics.
    retriable = True

    def __init__(self, topic: str, partition: int | None = None) -> None:
        self.topic = topic
        self.partition = partition
        if partition is None:
            super().__init__(f"Kafka has no topic {topic}; create it with `tickpipe topics create`")
        else:
            super().__init__(f"the topic {topic} has no partition {partition}")


class PartitionsLost(KafkaRefused):
    """The group assigned the partitions to another member, which reads again from the last commit."""


class LogTruncated(TickpipeError):
    """The log no longer holds offsets that a candle was folded from; set `retention.ms=-1` on `ticks`."""


class LogShortened(TickpipeError):
    """The log ends before what was read of it; its reader must begin again from its last commit, or from the start."""


class MissedRecords(TickpipeError):
    """Records that are in the log were not handed to their reader; it must begin again from its last commit."""


class ProgressLost(TickpipeError):
    """The database ends before what was read of the log begins; its reader must begin again where the database ends."""


class ArchiveUnavailable(TickpipeError):
    """The archive could not be read or written; check TICKPIPE_ARCHIVE, the rights there and the free space."""

    retriable = True


class ArchiveDamaged(TickpipeError):
    """A file of the archive is missing or is not what its manifest says; `tickpipe archive check` names all of them."""


class ArchiveBehind(TickpipeError):
    """The archive lacks what was archived before and Kafka no longer holds; it was moved, or an older copy put back."""

    retriable = True


class ArchiveFenced(TickpipeError):
    """Another archiver has written to the archive; one log and archive need exactly one."""


class SchemaTaken(TickpipeError):
    """The schema holds something else by a name that is needed; the message says the two ways on."""


class DatabaseForbids(TickpipeError):
    """The database does not allow this role what the message names; grant it (docs/deploy/database.md)."""


class ColumnInTheWay(TickpipeError):
    """A column that somebody added to a table of ours must not be null; give it a default, or drop it."""

    retriable = True


class NotMigrated(TickpipeError):
    """The database lacks migrations that this role may not apply; its owner runs `tickpipe db migrate`."""

    #: The owner may do it at any moment.
    retriable = True


class StackError(TickpipeError):
    """The embedded stack is missing, already running or failed to start; the message says which and what to do."""
