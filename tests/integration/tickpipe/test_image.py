"""Every command with the packages that the image holds, on a real pipeline; what is missing there must be named."""

import asyncio
import json
import re
from pathlib import Path

import psycopg
import pytest
from typer.main import get_command

from runtime.settings import Settings
from tests.conftest import API_KEY
from tests.extras import ROOT, Installed
from tests.kafka_log import group_lag
from tests.services import environment, running
from tests.waiting import wait_until
from tickpipe.cli import app

#: The extras of the image.
EXTRAS = sorted(set(re.findall(r"--extra (\w+)", (ROOT / "Dockerfile").read_text())))

#: A run of every command, in this order, and its exit code.
RUNS: dict[str, tuple[str, int]] = {
    "topics create": ("", 0),
    "topics list": ("", 0),
    "topics fix": ("--yes", 0),
    "db migrate": ("", 0),
    "db status": ("", 0),
    "db day-zone": ("UTC", 0),
    "db adopt": ("--source EA --dry-run", 2),
    # Nothing is given on standard input.
    "db password": ("", 2),
    "status": ("", 0),
    "doctor": ("", 0),
    "send": ("{folder}/ticks.csv -s EURUSD --source EA {producer}", 0),
    "import": ("{folder}/EURUSD_M1.csv -s EURUSD --timeframe M1 --source EA {producer}", 0),
    "candles": ("-s EURUSD", 0),
    "ticks": ("-s EURUSD --from 2019-02-04", 0),
    "query": ("latest", 0),
    "fidelity": ("", 0),
    # Nothing came in the last seven days.
    "gaps": ("", 1),
    "gaps close": ("-s EURUSD --from 2019-12-25 --to 2019-12-26", 0),
    "gaps reopen": ("-s EURUSD --from 2019-12-25 --to 2019-12-26", 0),
    "senders": ("", 0),
    "export": ("{folder}/export --format csv", 0),
    "sql": ("--file {folder}/query.sql", 0),
    "backup": ("{folder}/backup.tpb --topics", 0),
    "restore": ("{folder}/backup.tpb --check", 0),
    "verify": ("", 0),
    "archive status": ("", 0),
    "archive check": ("", 0),
    "archive compact": ("", 0),
    "archive forget": ("--yes", 0),
    # No archiver has run.
    "archive restore": ("--to ticks --partition 0 --first 0", 1),
    "proof export": ("{folder}/proof -s EURUSD --from 2019-02-04", 0),
    "proof check": ("{folder}/proof", 0),
    "rejected list": ("", 0),
    "rejected show": ("ticks 0 0", 1),
    "rejected resend": ("--all --yes {producer}", 0),
    "rejected delete": ("--all --yes", 0),
    "relay check": ("--to {url}", 0),
    "relay forward": ("--to {url} --db {folder}/ticks.csv/ea.db", 2),
    "relay export": ("--api {url} --db {folder}/ticks.csv/ea.db", 2),
    # MetaTrader's package exists for Windows alone.
    "relay collect": ("--db {folder}/collected.db", 2),
    "relay serve": ("--db {folder}/ticks.csv/ea.db", 1),
    "keys create": ("pc7 --source EA", 0),
    "keys list": ("", 0),
    "keys rotate": ("pc7", 0),
    "keys revoke": ("pc7", 0),
    "kit": ("{folder}/kit", 0),
    "install-service": ("--print", 0),
    # A stack inside of a container is none of the image's business: both name the extra that it lacks.
    "up": ("", 2),
    "down": ("", 2),
    # After the stream worker was stopped; nobody folds what is to be folded again.
    "replay": ("--from 2019-02-04 --yes --patience 1", 1),
}

_RUN_EACH = """
import json, sys
from typer.testing import CliRunner
from tickpipe.cli import app

results = []
for words in json.load(sys.stdin):
    result = CliRunner().invoke(app, words)
    results.append((result.exit_code, result.output, repr(result.exception)))
json.dump(results, sys.stdout)
"""


def commands() -> set[str]:
    """The names of all commands."""

    def walk(command: object, words: list[str]) -> set[str]:
        children: dict[str, object] = getattr(command, "commands", {})
        if not children:
            return {" ".join(words)}
        own = {" ".join(words)} if words and getattr(command, "invoke_without_command", False) else set()
        return own | {name for word, child in children.items() for name in walk(child, [*words, word])}

    return walk(get_command(app), [])


def folded_rows(settings: Settings) -> int:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        [count] = connection.execute("SELECT count(*) FROM market_data WHERE origin = 'ticks'").fetchone() or [0]
    return int(count)


@pytest.mark.full
@pytest.mark.long(25)
def test_every_command_works_in_the_image(settings: Settings, tmp_path: Path) -> None:
    assert set(RUNS) == commands()
    (tmp_path / "site").mkdir()
    image = Installed(tmp_path / "site", *EXTRAS)
    lines = "".join(f"{1_549_238_400_001 + n * 1_000},1.1,1.2\n" for n in range(200))
    (tmp_path / "ticks.csv").write_text(f"time_msc,bid,ask\n{lines}")
    (tmp_path / "query.sql").write_text("SELECT count(*) FROM ticks")
    (tmp_path / "EURUSD_M1.csv").write_text(
        "time,open,high,low,close,tick_volume\n2019-02-04 00:00,1.1,1.1,1.1,1.1,1\n"
    )

    def run(names: list[str], url: str) -> list[str]:
        places = {"folder": tmp_path, "url": url, "producer": f"--url {url} --key {API_KEY}"}
        words = [[*name.split(), *RUNS[name][0].format(**places).split()] for name in names]
        own = environment(settings) | {
            "TICKPIPE_RELAY_FORWARD_KEY": API_KEY, "TICKPIPE_KEYS_FILE": str(tmp_path / "keys.json"),
            "TICKPIPE_ARCHIVE": str(tmp_path / "archive"),
        }  # fmt: skip
        done = image.run(_RUN_EACH, given=json.dumps(words), **own)
        assert done.returncode == 0, done.stderr
        return [
            f"{name} ended with {code}: {said} {error}"
            for name, (code, said, error) in zip(names, json.loads(done.stdout), strict=True)
            if code != RUNS[name][1] or "SystemExit" not in error + "SystemExit" * (error == "None")
        ]

    names = list(RUNS)
    behind = names.index("import") + 1
    with running(settings, "producer", "stream_app", "sink") as (producer, stream, _):
        wrong = run(names[:behind], producer.url)
        wait_until(lambda: folded_rows(settings) == 4, what="rows of four minutes")
        wrong += run(names[behind:-1], producer.url)
        # While nothing is committed a replay has nothing to reset.
        wait_until(
            lambda: asyncio.run(group_lag(settings, settings.stream_group, settings.ticks_topic)) == 0, what="no lag"
        )
        stream.stop()
        wrong += run(names[-1:], producer.url)
    assert not wrong, "\n".join(wrong)
