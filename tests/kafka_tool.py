"""Kafka's own command-line tools, as operators run them."""

from tickpipe.embedded.jars import SHORT_LIVED_JVM, resolve_jars


def tool_command(main_class: str, *arguments: str) -> list[str]:
    """The argv of one of Kafka's own Java tools.

    For example `org.apache.kafka.tools.consumer.group.ConsumerGroupCommand`, which is kafka-consumer-groups, or
    `org.apache.kafka.tools.TopicCommand`, which is kafka-topics.
    """
    # Kafka's log4j default would print its client's log into the tool's output.
    options = [*SHORT_LIVED_JVM, "-Dlog4j2.level=ERROR"]
    return resolve_jars().command(options, main_class, *arguments)
