"""Lines that are read in blocks give the same ticks, and the same skipped lines, as those that are read one by one."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tickpipe.sending.blocks import BLOCK_LINES, BlockReader, FileTick
from tickpipe.sending.columnfile import BadLine
from tickpipe.sending.dialects import Said
from tickpipe.sending.history import TickFile

#: 2018-10-28T00:00:00Z: Athens goes from summer to winter time in the night.
START = datetime(2018, 10, 28, tzinfo=UTC)
STEP = timedelta(milliseconds=3_697)
LINES = 2_600

#: What a line may be instead of a good one.
ODD = (
    "", "# a remark", "1.1", '"x"', "x;y;z;u", ",,,", "\t\t\t\t\t\t", "1549238400000,nan,1.1",
    "1549238400000,1.1,inf", "1549238400000,1_0,1.1", "99,1.1,1.1", "1549238400000,1.1,1e16", "\ufeff1,2,3",
)  # fmt: skip


def of_script(number: int, random_: random.Random) -> str:
    at = int((START + number * STEP).timestamp() * 1_000)
    return f"{at},{1.1 + number / 1e5:.5f},{1.2 + number / 1e5:.5f}"


def with_deals(number: int, random_: random.Random) -> str:
    deal = f"{1.1 + number / 1e5:.5f},{random_.randrange(5)}" if random_.random() < 0.5 else ","
    symbol = random_.choice(["EURUSD", "GBPUSD"]) if 1_700 < number < 2_000 else "EURUSD"
    return f"{of_script(number, random_)},{deal},{random_.choice(['6', '24', '30'])},{symbol}"


def of_metatrader(number: int, random_: random.Random) -> str:
    at = (START + number * STEP).strftime("%Y.%m.%d\t%H:%M:%S.%f")[:-3]
    bid, ask, last, volume = (f"{1.1 + number / 1e5:.5f}" if random_.random() < 0.6 else "" for _ in range(4))
    return f"{at}\t{bid}\t{ask}\t{last}\t{volume}\t{random_.choice(['2', '6', '1028'])}"


FORMS: tuple[tuple[str, Callable[[int, random.Random], str], Said], ...] = (
    ("time_msc,bid,ask", of_script, Said(symbol="EURUSD")),
    ("time_msc,bid,ask,last,volume,flags,symbol", with_deals, Said()),
    ("time_msc,bid,ask,last,volume,flags,symbol", with_deals, Said(symbol="EURUSD")),
    ("<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>", of_metatrader, Said(symbol="EURUSD")),
    (
        "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>", of_metatrader,
        Said(symbol="EURUSD", zone=ZoneInfo("Europe/Athens")),
    ),
)  # fmt: skip


def read(path: Path, said: Said) -> tuple[list[FileTick], list[BadLine]]:
    bad: list[BadLine] = []
    with TickFile(path, said, on_bad=bad.append) as ticks:
        return list(ticks), bad


@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
@pytest.mark.parametrize(("odd_lines", "end"), [(0, "\n"), (0, "\r\n"), (3, "\n"), (100, "\r\n")])
def test_blocks_are_read_like_single_lines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: tuple[str, Callable[[int, random.Random], str], Said],
    odd_lines: int,
    end: str,
) -> None:
    header, line, said = form
    random_ = random.Random(f"{header}{odd_lines}")
    lines = [line(number, random_) for number in range(LINES)]
    for at in random_.sample(range(300, LINES), odd_lines):
        lines[at] = random_.choice(ODD)
    path = tmp_path / "ticks.csv"
    path.write_text(end.join([header, *lines, ""]), newline="")
    blocks = []
    in_block = BlockReader.ticks

    def counted(reader: BlockReader, block: list[str]) -> list[FileTick] | None:
        blocks.append(in_block(reader, block))
        return blocks[-1]

    with monkeypatch.context() as patch:
        patch.setattr(BlockReader, "ticks", counted)
        by_blocks = read(path, said)
    with monkeypatch.context() as patch:
        patch.setattr(BlockReader, "ticks", lambda reader, block: None)
        one_by_one = read(path, said)

    assert by_blocks == one_by_one
    if not odd_lines:
        # Prices are inspected in the lines of the first two; in one, the symbol changes or the clock goes back.
        assert sum(block is not None for block in blocks) >= LINES // BLOCK_LINES - 3
