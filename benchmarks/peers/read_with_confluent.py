"""Reads the only partition of a topic to its end by librdkafka, `consume(n)`, and does nothing with the records.

`python read_with_confluent.py BOOTSTRAP TOPIC` prints seconds, seconds of the processor and the largest resident set in
bytes. It runs in an environment of its own and imports nothing of the project.
"""

import resource
import sys
import time

from confluent_kafka import Consumer, TopicPartition

_AT_ONCE = 10_000


def main() -> None:
    """From the first record to the last."""
    bootstrap, topic = sys.argv[1:]
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap, "group.id": "reads-alone", "enable.auto.commit": False,
            # As much as librdkafka's own benchmarks hold ready.
            "queued.min.messages": 1_000_000, "fetch.message.max.bytes": 8 * 1024 * 1024,
        }
    )  # fmt: skip
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0))
    consumer.assign([TopicPartition(topic, 0, 0)])
    began, cpu_before, seen = time.monotonic(), time.process_time(), 0
    while seen < end:
        if records := consumer.consume(_AT_ONCE, 1.0):
            seen = records[-1].offset() + 1
    wall, cpu = time.monotonic() - began, time.process_time() - cpu_before
    consumer.close()
    print(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main()
