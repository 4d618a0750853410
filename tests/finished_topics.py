"""The topics of tests that are over are deleted.

A broker that starts again recovers each partition that it has. With those of a hundred tests it takes ten seconds of a
processor more, in every test that stops it.
"""

import asyncio

from marketdata.errors import TickpipeError
from runtime.kafka import admin_client
from runtime.kafka_errors import kafka_errors
from runtime.settings import Settings

#: So many topics are worth a connection of their own.
_MANY = 50

_finished: set[str] = set()


def finish_topics(settings: Settings) -> None:
    """Note that nobody needs the topics of these settings any more, and delete what was noted when it is much."""
    _finished.update(settings.topic_names)
    if len(_finished) >= _MANY:
        asyncio.run(_delete(settings))


async def _delete(settings: Settings) -> None:
    try:
        async with admin_client(settings) as client:
            with kafka_errors(settings):
                if there := _finished.intersection(await client.list_topics()):
                    await client.delete_topics(list(there))
    except TickpipeError:
        return  # the test has left a broker that does not answer; the next one tries again
    _finished.clear()
