"""`tickpipe export --ticks` has the newest ticks, of which no candle is stored yet."""

import json
import subprocess
import sys
from pathlib import Path

from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry
from pyarrow import parquet

from marketdata.refold import iso_milliseconds
from runtime.logreader import wait_for_log
from sink.db.connection import connect
from sink.db.schema import migrate
from sink.metrics import Metrics
from sink.writer import LogEnds, Writer
from tests.integration.dashboard.market import market_settings
from tests.integration.sink.flow import Flow, day_frames
from tests.servers import EmbeddedServers
from tests.services import environment
from tickpipe.replay.engine import set_offsets

STORED, SENT = 20, 30


async def test_an_export_has_what_the_sink_has_not_stored(servers: EmbeddedServers, tmp_path: Path) -> None:
    settings = market_settings(servers, "unstored", tmp_path)
    url = settings.database_url.get_secret_value()
    await migrate(url)
    log_name = await wait_for_log(settings)
    frames = day_frames()[:SENT]
    async with Flow(settings, log_name) as flow, await connect(url) as connection:
        logged = await flow.log_frames(frames)
        writer = Writer(LogEnds(settings, log_name), Metrics(CollectorRegistry()))
        await writer.write(connection, flow.candles(logged[:STORED]))
        await set_offsets(settings, settings.stream_group, {TopicPartition(settings.ticks_topic, 0): STORED})
    expected = [tick.time_msc for frame in frames for tick in frame.ticks]
    newer = [time_msc for time_msc in expected if time_msc > frames[STORED].ticks[0].time_msc + 60_000]
    assert newer

    def exported(name: str, *options: str) -> list[int]:
        command = [sys.executable, "-m", "tickpipe", "export", "--ticks", *options, str(tmp_path / name)]
        done = subprocess.run(command, env=environment(settings), capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / name / "_export.json").read_text())["symbols"] == ["EURUSD"]
        files = sorted((tmp_path / name).rglob("ticks.parquet"))
        return [one for file in files for one in parquet.ParquetFile(file).read()["time_msc"].to_pylist()]

    assert exported("all") == expected
    assert exported("newer", "--symbol", "EURUSD", "--from", iso_milliseconds(newer[0])) == newer
