"""Files of other programs, as they write them, and our own exports: the first tick or bar has the right values."""

import zipfile
from pathlib import Path
from typing import Any

import pytest

from marketdata.refold import TickRow
from sink.queries import CANDLE_COLUMNS
from tests.unit.tickpipe.export.test_files import written
from tickpipe.export.files import CsvFile
from tickpipe.sending.columnfile import kind_of
from tickpipe.sending.dialects import Kind, Said
from tickpipe.sending.history import BarFile, TickFile
from tickpipe.sending.textfile import unpacked

#: 2019-02-04 22:00:00, by the clock of the file (epoch milliseconds).
EVENING = 1_549_317_600_000
#: 2019-02-24 22:00:00, a day that no month has the number of.
LATE = 1_551_045_600_000

MINUTE = 60_000
QUOTE = (1.14543, 1.14545, 0.0, 0.0, 6)
BAR = (1.14543, 1.1455, 1.1454, 1.14546)

#: By the name of the file: its text, in which `{n}` counts the lines, and its first tick.
TICKS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "ctrader.csv": ("Time,Bid,Ask\n", "24/02/2019 22:00:0{n}.234,1.14543,1.14545\n", (LATE + 234, *QUOTE)),
    "ninja.Last.txt": ("", "20190204 22000{n} 2340000;1.14544;1.14543;1.14545;1\n",
                       (EVENING + 234, 1.14543, 1.14545, 1.14544, 1.0, 0)),
    "kibot.txt": ("", "02/24/2019,22:00:0{n},125.43,125.42,125.44,200\n", (LATE, 125.42, 125.44, 125.43, 200.0, 30)),
    "tickdata.csv": ("", "02/24/2019,22:00:0{n}.234,1.14543,1.14545\n", (LATE + 234, *QUOTE)),
    "fxcm.csv": ("DateTime,Bid,Ask\n", "02/24/2019 22:00:0{n}.234,1.14543,1.14545\n", (LATE + 234, *QUOTE)),
    "binance-agg.csv": ("agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n",
                        "9182{n},3405.50,0.125,100,102,154931760{n}123,true\n",
                        (EVENING + 123, 0.0, 0.0, 3405.5, 0.125, 0)),
    "binance-trades.csv": ("id,price,qty,quote_qty,time,is_buyer_maker\n",
                           "{n},3405.50,0.125,425.6,154931760{n}123,true\n",
                           (EVENING + 123, 0.0, 0.0, 3405.5, 0.125, 0)),
    "binance-book.csv": ("update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,"
                         "event_time\n", "9182{n},1.14543,2,1.14545,3,154931760{n}123,154931760{n}125\n",
                         (EVENING + 123, *QUOTE)),
    "binance-spot-agg.csv": ("", "9182{n},3405.50,0.125,100,102,154931760{n}123,True,True\n",
                             (EVENING + 123, 0.0, 0.0, 3405.5, 0.125, 0)),
    "binance-spot-trades.csv": ("", "9182{n},3405.50,0.125,425.68,154931760{n}123456,True,True\n",
                                (EVENING + 123, 0.0, 0.0, 3405.5, 0.125, 0)),
    "tardis.csv": ("exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\n",
                   "deribit,S,154931760{n}234567,154931760{n}334567,3,1.14545,1.14543,2\n", (EVENING + 234, *QUOTE)),
    "tardis-trades.csv": ("exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n",
                          "deribit,S,154931760{n}234567,154931760{n}334567,{n},buy,3405.50,0.125\n",
                          (EVENING + 234, 0.0, 0.0, 3405.5, 0.125, 0)),
    "bybit.csv": ("timestamp,symbol,side,size,price,tickDirection,trdMatchID\n",
                  "154931760{n}.1234,S,Sell,0.125,3405.50,PlusTick,ab-cd\n",
                  (EVENING + 123, 0.0, 0.0, 3405.5, 0.125, 0)),
    "refinitiv.csv": ("#RIC,Domain,Date-Time,GMT Offset,Type,Bid Price,Bid Size,Ask Price,Ask Size\n",
                      "S,Market Price,2019-02-04T22:00:0{n}.234000000Z,+0,Quote,1.14543,,1.14545,\n",
                      (EVENING + 234, *QUOTE)),
    "tester.csv": ("<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\n",
                   "2019.02.04\t22:00:0{n}.234\t1.14543\t1.14545\t0.00000\t0\n", (EVENING + 234, *QUOTE)),
    "excel.csv": ("\ufeffZeit;Bid;Ask\r\n", "24.02.2019 22:00:0{n},234;1,14543;1,14545\r\n", (LATE + 234, *QUOTE)),
    "excel-sep.csv": ("sep=;\r\nTime;Bid;Ask\r\n",
                      "24.02.2019 22:00:0{n},234;1,14543;1,14545\r\n", (LATE + 234, *QUOTE)),
    "pandas.csv": (",time,bid,ask\n", "{n},2019-02-04 22:00:0{n}.234,1.14543,1.14545\n", (EVENING + 234, *QUOTE)),
    "pandas-index.csv": (",bid,ask,last,volume,flags\n", "2019-02-04 22:00:0{n}.234,1.14543,1.14545,0.0,0.0,6\n",
                         (EVENING + 234, *QUOTE)),
    "pandas-utc.csv": ("time,bid,ask\n",
                       "2019-02-04 23:00:0{n}.234000+01:00,1.14543,1.14545\n", (EVENING + 234, *QUOTE)),
    "polars.csv": ("time,bid,ask\n", "2019-02-04T22:00:0{n}.234000000,1.14543,1.14545\n", (EVENING + 234, *QUOTE)),
    "polars-zone.csv": ("time,bid,ask\n",
                        "2019-02-04T23:00:0{n}.234000+0100,1.14543,1.14545\n", (EVENING + 234, *QUOTE)),
    "duckdb.csv": ("time,bid,ask\n", "2019-02-04 23:00:0{n}.234+01,1.14543,1.14545\n", (EVENING + 234, *QUOTE)),
}  # fmt: skip

BARS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "ctrader.csv": ("Time,Open,High,Low,Close,Volume\n",
                    "2019-02-04T22:0{n}:00.000Z,1.14543,1.1455,1.1454,1.14546,45\n", (EVENING, *BAR, 45, None)),
    # NinjaTrader, TradeStation and MultiCharts write the time at which a bar closes.
    "EURUSD.Last.txt": ("", "20190204 220{n}00;1.14543;1.1455;1.1454;1.14546;45\n", (EVENING - MINUTE, *BAR, 45, None)),
    "tradingview.csv": ("time,open,high,low,close,Volume,Volume MA\n",
                        "2019-02-04T23:0{n}:00+01:00,1.14543,1.1455,1.1454,1.14546,45,3\n", (EVENING, *BAR, 45, None)),
    "kibot.txt": ("", "02/24/2019,22:0{n},1.14543,1.1455,1.1454,1.14546,45\n", (LATE, *BAR, 45, None)),
    "firstrate.txt": ("", "2019-02-04 22:0{n}:00,1.14543,1.1455,1.1454,1.14546,45\n", (EVENING, *BAR, 45, None)),
    "excel.csv": ("\ufeffData;Hora;Abertura;Máxima;Mínima;Fechamento;Volume\r\n",
                  "24.02.2019;22:0{n};1,14543;1,1455;1,1454;1,14546;45\r\n", (LATE, *BAR, 45, None)),
    "postgres.csv": ("ts,symbol,open,high,low,close,volume\n",
                     "2019-02-04 22:0{n}:00+00,S,1.14543,1.1455,1.1454,1.14546,45\n", (EVENING, *BAR, 45, None)),
    "stooq.csv": ("<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n",
                  "S,1,20190204,220{n}00,1.14543,1.1455,1.1454,1.14546,0,0\n", (EVENING, *BAR, 0, None)),
    "amibroker.csv": ("Ticker,Date/Time,Open,High,Low,Close,Volume\n",
                      "S,2019-02-04 22:0{n}:00,1.14543,1.1455,1.1454,1.14546,45\n", (EVENING, *BAR, 45, None)),
    "sierra.txt": ("Date, Time, Open, High, Low, Last, Volume, NumberOfTrades, BidVolume, AskVolume\n",
                   "2019/2/4, 22:0{n}:00.0, 1.14543, 1.1455, 1.1454, 1.14546, 45, 7, 20, 25\n",
                   (EVENING, *BAR, 7, 45.0)),
    "multicharts.txt": ('"Date","Time","Open","High","Low","Close","TotalVolume"\n',
                        "02/24/2019,22:0{n}:00,1.14543,1.1455,1.1454,1.14546,45\n", (LATE, *BAR, 45, None)),
    "tradestation.txt": ('"Date","Time","Open","High","Low","Close","Up","Down"\n',
                         "02/24/2019,22:0{n},1.14543,1.1455,1.1454,1.14546,45,3\n", (LATE - MINUTE, *BAR, 0, None)),
    "stooq.txt": ("<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n",
                  "S,1,20190204,220{n}00,1.14543,1.1455,1.1454,1.14546,45,0\n", (EVENING, *BAR, 45, None)),
    "xts.csv": ('"Index","S.Open","S.High","S.Low","S.Close","S.Volume","S.Adjusted"\n',
                "2019-02-04 22:0{n}:00,1.14543,1.1455,1.1454,1.14546,45,0.9\n", (EVENING, *BAR, 45, None)),
    "cryptodatadownload.csv": ("https://www.CryptoDataDownload.com\n"
                               "Unix,Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USDT,tradecount\n",
                               "154931760{n}000,2019-02-04 22:0{n}:00,S,1.14543,1.1455,1.1454,1.14546,2.5,8512.3,7\n",
                               (EVENING, *BAR, 7, 2.5)),
    "kaggle.csv": ("Timestamp,Open,High,Low,Close,Volume_(BTC),Volume_(Currency),Weighted_Price\n",
                   "2019-02-04 22:0{n}:00,1.14543,1.1455,1.1454,1.14546,2.5,8512.3,1.14544\n",
                   (EVENING, *BAR, 0, 2.5)),
    "no volume of the traded thing.csv": ("Date,Symbol,Open,High,Low,Close,Volume USD\n",
                                          "2019-02-04 22:0{n}:00,S,1.14543,1.1455,1.1454,1.14546,8512.3\n",
                                          (EVENING, *BAR, 0, None)),
    "tws.csv": ("Date,Open,High,Low,Close,Volume\n",
                "20190204  22:0{n}:00,1.14543,1.1455,1.1454,1.14546,45\n", (EVENING, *BAR, 45, None)),
}  # fmt: skip


def file_of(folder: Path, name: str, header: str, line: str) -> Path:
    path = folder / name
    path.write_text(header + "".join(line.format(n=n) for n in range(4)), newline="")
    return path


@pytest.mark.parametrize("name", TICKS)
def test_ticks_of_another_program(tmp_path: Path, name: str) -> None:
    header, line, first = TICKS[name]
    path = file_of(tmp_path, name, header, line)
    assert kind_of(path, Said()) is Kind.TICKS
    with TickFile(path, Said(symbol="S")) as ticks:
        found = [(t.time_msc, t.bid, t.ask, t.last, t.volume, t.flags) for t in ticks]
    assert (ticks.reasons, len(found), found[0]) == ([], 4, first)


@pytest.mark.parametrize("name", BARS)
def test_bars_of_another_program(tmp_path: Path, name: str) -> None:
    header, line, first = BARS[name]
    path = file_of(tmp_path, name, header, line)
    assert kind_of(path, Said()) is Kind.BARS
    with BarFile(path, Said(symbol="S")) as bars:
        found = [(b.time_msc, b.open, b.high, b.low, b.close, b.tick_volume, b.real_volume) for b in bars]
    assert (bars.reasons, bars.timeframe, len(found), found[0]) == ([], "M1", 4, first)


def test_the_newest_bar_may_stand_first(tmp_path: Path) -> None:
    path = tmp_path / "alphavantage.csv"
    lines = [f"2019-02-04 22:0{n}:00,1.14543,1.1455,1.1454,1.14546,45\n" for n in (3, 2, 1, 0)]
    path.write_text("timestamp,open,high,low,close,volume\n" + "".join(lines))
    with BarFile(path, Said(symbol="S")) as bars:
        assert (bars.timeframe, [bar.time_msc for bar in bars]) == ("M1", [EVENING + n * 60_000 for n in (3, 2, 1, 0)])


@pytest.mark.parametrize(("unit", "name"), [(1, "2019-02"), (1_000, "2025-02")])
def test_the_name_of_binances_zip_tells_symbol_timeframe_and_zone(tmp_path: Path, unit: int, name: str) -> None:
    path = tmp_path / f"BTCUSDT-1m-{name}.zip"
    lines = [f"{(EVENING + n * 60_000) * unit},1.1,1.2,1.0,1.1,12.345,9,42.1,321,6.1,2.2,0\n" for n in range(3)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"BTCUSDT-1m-{name}.csv", "".join(lines))
    (file,) = unpacked(path)
    with BarFile(file) as bars:
        assert (bars.symbol, bars.timeframe, bars.are_instants) == ("BTCUSDT", "M1", True)
        assert [(bar.time_msc, bar.real_volume) for bar in bars] == [(EVENING + n * 60_000, 12.345) for n in range(3)]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_exported_ticks_come_back_as_they_were(tmp_path: Path, form: str) -> None:
    rows: list[TickRow] = [
        (EVENING, 1.1, 1.2, 0.0, 0.0, 6), (EVENING, 1.1, 1.2, 0.0, 0.0, 6),
        (EVENING + 7, 0.1 + 0.2, 1.2, 1.15, 2.5, 24),
        (EVENING + 8, 0.0, 0.0, 1e-7, 1.0, 88),
    ]  # fmt: skip
    path = tmp_path / f"ticks.{form}"
    path.write_bytes(written(form, rows))
    with TickFile(path, Said(symbol="S")) as ticks:
        assert ticks.are_instants
        found = [(t.time_msc, t.bid, t.ask, t.last, t.volume, t.flags) for t in ticks]
        assert found == rows
        assert ticks.dialect.writer == "Tickpipe"


def test_exported_candles_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "symbol=EUR%2FUSD" / "year=2019" / "part.csv"
    path.parent.mkdir(parents=True)
    with CsvFile(path, CANDLE_COLUMNS) as file:
        for n in range(3):
            file.write(("Demo", "M1", f"2019-02-04T22:0{n}:00Z", *BAR, 45, 2.5, 3, True))
    with BarFile(path) as bars:
        assert (bars.symbol, bars.timeframe, bars.are_instants) == ("EUR/USD", "M1", True)
        first = next(bars)
    assert (first.time_msc, *first[1:5], first.tick_volume, first.real_volume) == (EVENING, *BAR, 45, 2.5)


def test_columns_without_names_may_be_said(tmp_path: Path) -> None:
    # Binance's aggregated trades: which number is the price only its page tells.
    path = tmp_path / "BTCUSDT-aggTrades-2019-02.csv"
    path.write_text("".join(f"9182{n},3405.50,0.125,100,102,154931760{n}123,True,True\n" for n in range(3)))
    columns = ("-", "last", "volume", "-", "-", "time", "-", "-")
    with TickFile(path, Said(columns=columns)) as ticks:
        assert (ticks.symbol, ticks.are_instants) == ("BTCUSDT", True)
        assert next((t.time_msc, t.last, t.volume) for t in ticks) == (EVENING + 123, 3405.5, 0.125)
