"""A gateway as it is written in an afternoon, for `benchmarks.gateways`: aiohttp, msgspec and aiokafka, nothing else.

It takes the bodies of the benchmark alone, which are always right, and does with them what has to be done: looks at
the key, decodes, sorts the ticks by symbol, writes a record for each symbol with `acks=all` and answers once all of
them are confirmed. It checks no tick and knows no other form of one.
"""

import asyncio
from typing import Any

import msgspec
from aiohttp import web
from aiokafka import AIOKafkaProducer

from benchmarks.gateways import BARE_TOPIC
from benchmarks.ingest import KEY
from runtime.settings import load_settings

decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode


async def app() -> web.Application:
    """Connected; one process serves it."""
    settings = load_settings()
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, acks="all", enable_idempotence=True, compression_type="zstd",
        # aiokafka compresses lz4 at level 9: several times as long as zstd takes for bodies of 200 ticks. With its
        # 16 kB the requests wait for room one by one, which takes ten times the processor time.
        max_batch_size=900_000,
    )  # fmt: skip
    await producer.start()

    async def ingest(request: web.Request) -> web.Response:
        if request.headers.get("X-API-Key") != KEY:
            return web.json_response({"error": "no key"}, status=401)
        body = decode(await request.read())
        by_symbol: dict[str, list[Any]] = {}
        for tick in body.get("ticks", [body]):
            by_symbol.setdefault(tick["symbol"], []).append(tick)
        sent = [
            await producer.send(BARE_TOPIC, encode(ticks), key=symbol.encode()) for symbol, ticks in by_symbol.items()
        ]
        await asyncio.gather(*sent)
        return web.json_response({"ok": True, "received": sum(map(len, by_symbol.values()))})

    async def ready(_: web.Request) -> web.Response:
        return web.Response()

    async def close(_: web.Application) -> None:
        await producer.stop()

    made = web.Application(client_max_size=2**26)
    made.on_cleanup.append(close)
    made.add_routes([web.post("/ingest/tick", ingest), web.get("/ready", ready)])
    return made


if __name__ == "__main__":
    web.run_app(app(), host="127.0.0.1", port=load_settings().producer_port, print=None, access_log=None)
