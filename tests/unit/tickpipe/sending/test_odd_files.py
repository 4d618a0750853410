"""Files as other languages, sites and spreadsheets write them: read where certain, refused at once where not."""

import functools
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import feather, ipc, parquet

from tickpipe.sending import arrowfile
from tickpipe.sending.blocks import FileTick
from tickpipe.sending.columnfile import kind_of
from tickpipe.sending.dialects import Kind, Said, UnknownForm
from tickpipe.sending.history import Bar as FileBar
from tickpipe.sending.history import BarFile, TickFile
from tickpipe.sending.textfile import DataFileError

#: 2024-03-25 13:07:00 and 00:00 (epoch milliseconds).
TIME = 1_711_372_020_000
DAY = 1_711_324_800_000

#: Of each file.
LINES = 3

RUSSIAN = "Дата;Время;Открытие;Максимум;Минимум;Закрытие;Объем\n"
JAPANESE = "日付,時刻,始値,高値,安値,終値,出来高\n"
CHINESE = "日期,时间,开盘,最高,最低,收盘,成交量\n"
TAIWANESE = "日期,時間,開盤,最高,最低,收盤,成交量\n"
KOREAN = "날짜,시간,시가,고가,저가,종가,거래량\n"
WITH_COMMAS = "25.03.2024;13:0{m};38712,5;38720,0;38700,5;38715,0;1200\n"
WITH_POINTS = "2024/03/25,13:0{m},38712.5,38720.0,38700.5,38715.0,1200\n"
DAYS = "2024-03-2{d},"

#: By who writes them: the header, a line in which `{m}` counts minutes from 7 and `{d}` days from 25, the encoding, and
#: the opening time, prices and volumes of the first bar.
BARS = {
    "Russian of Windows": (RUSSIAN, WITH_COMMAS, "cp1251", (TIME, 38712.5, 38720.0, 38700.5, 38715.0, 1200, None)),
    "Russian of DOS": (RUSSIAN, WITH_COMMAS, "cp866", (TIME, 38712.5, 38720.0, 38700.5, 38715.0, 1200, None)),
    "Russian of Unix": (RUSSIAN, WITH_COMMAS, "koi8_r", (TIME, 38712.5, 38720.0, 38700.5, 38715.0, 1200, None)),
    "Japanese of Windows": (JAPANESE, WITH_POINTS, "cp932", (TIME, 38712.5, 38720.0, 38700.5, 38715.0, 1200, None)),
    "Japanese of Unix": (JAPANESE, WITH_POINTS, "euc_jp", (TIME, 38712.5, 38720.0, 38700.5, 38715.0, 1200, None)),
    "Chinese": (CHINESE, WITH_POINTS, "gbk", (TIME, 38712.5, 38720.0, 38700.5, 38715.0, 1200, None)),
    "Taiwanese": (TAIWANESE, WITH_POINTS, "big5", (TIME, 38712.5, 38720.0, 38700.5, 38715.0, 1200, None)),
    "Korean": (KOREAN, WITH_POINTS, "cp949", (TIME, 38712.5, 38720.0, 38700.5, 38715.0, 1200, None)),
    "Polish": ("Data;Otwarcie;Najwyższy;Najniższy;Zamknięcie;Wolumen\n",
               DAYS.replace(",", ";") + "1,5;1,7;1,4;1,6;12\n",
               "cp1250", (DAY, 1.5, 1.7, 1.4, 1.6, 12, None)),
    "one letter each": ("t,o,h,l,c,v,n,vw\n", "2024-03-25T13:0{m}:00Z,1.5,1.7,1.4,1.6,250,12,1.55\n", "utf-8",
                        (TIME, 1.5, 1.7, 1.4, 1.6, 12, 250.0)),
    "thousands of contracts": ("Date,Open,High,Low,Close,Vol.\n", DAYS + "1.5,1.7,1.4,1.6,1.2K\n", "utf-8",
                               (DAY, 1.5, 1.7, 1.4, 1.6, 1200, None)),
    "millions, with commas": ('"Datum","Zuletzt","Eröffn.","Hoch","Tief","Vol.","+/- %"\n',
                              '"2{d}.03.2024","18.477,09","18.412,22","18.511,12","18.390,00","61,32M","0,37%"\n',
                              "utf-8", (DAY, 18412.22, 18511.12, 18390.0, 18477.09, 61_320_000, None)),
    "Nasdaq": ("Date,Close/Last,Volume,Open,High,Low\n", "03/2{d}/2024,$170.85,54288330,$170.565,$171.94,$169.45\n",
               "utf-8", (DAY, 170.565, 171.94, 169.45, 170.85, 54_288_330, None)),
    "euros behind": ("Date;Open;High;Low;Close\n", DAYS.replace(",", ";") + "170,85 €;171,85 €;170,00 €;170,10 €\n",
                     "utf-8", (DAY, 170.85, 171.85, 170.0, 170.1, 0, None)),
    "reais in thousands": ("Data;Abertura;Máxima;Mínima;Fechamento;Volume\n",
                           "2{d}/03/2024;R$ 1.270,50;R$ 1.277,00;R$ 1.265,00;R$ 1.269,50;12\n", "cp1252",
                           (DAY, 1270.5, 1277.0, 1265.0, 1269.5, 12, None)),
    "thousands by spaces": ("Date;Open;High;Low;Close\n", DAYS.replace(",", ";") + "1 170,8;1 171,8;1 170,0;1 170,1\n",
                            "utf-8", (DAY, 1170.8, 1171.8, 1170.0, 1170.1, 0, None)),
    "thousands by hard spaces": ("Date;Open;High;Low;Close\n",
                                 DAYS.replace(",", ";") + "1\xa0170,8;1\xa0171,8;1\xa0170,0;1\xa0170,1\n", "cp1252",
                                 (DAY, 1170.8, 1171.8, 1170.0, 1170.1, 0, None)),
    "points shown by a volume": ("Ativo;Data;Hora;Abertura;Máximo;Mínimo;Fechamento;Volume;Quantidade\n",
                                 "S;25/03/2024;13:0{m}:00;127.690;127.700;127.650;127.695;123.456.789,50;1.234\n",
                                 "cp1252", (TIME, 127690.0, 127700.0, 127650.0, 127695.0, 1234, None)),
    "Binance without names": ("", "171137{k},68000.1,68100.0,67900.0,68050.5,12,1711372079999,839000.1,321,6,4100,0\n",
                              "utf-8", (TIME, 68000.1, 68100.0, 67900.0, 68050.5, 321, 12.0)),
    "HistData": ("", "20240325 080{m}00;1.5;1.7;1.4;1.6;0\n", "utf-8", (TIME, 1.5, 1.7, 1.4, 1.6, 0, None)),
    "Bloomberg": ("Date,PX_LAST,PX_OPEN,PX_HIGH,PX_LOW,PX_VOLUME\n", "3/2{d}/2024,1.6,1.5,1.7,1.4,12\n", "utf-8",
                  (DAY, 1.5, 1.7, 1.4, 1.6, 12, None)),
    "the month in front": ("Date,Open,High,Low,Close\n", '"Mar 2{d}, 2024",1.5,1.7,1.4,1.6\n', "utf-8",
                           (DAY, 1.5, 1.7, 1.4, 1.6, 0, None)),
    "R": ('"Index","open","high","low","close"\n', DAYS + "1.5,1.7,1.4,1.6\n", "utf-8",
          (DAY, 1.5, 1.7, 1.4, 1.6, 0, None)),
}  # fmt: skip

#: The same of ticks, with time, bid, ask and last; `{n}` counts from 0.
TICKS = {
    "single quotes": ("'time','bid','ask'\n", "'2024-03-25 13:07:0{n}','1.08412','1.08415'\n",
                      (TIME, 1.08412, 1.08415, 0)),
    "half days without a space": ("date,time,bid,ask\n", "03/25/2024,1:07:0{n}PM,1.08412,1.08415\n",
                                  (TIME, 1.08412, 1.08415, 0)),
    "seconds with a comma": ("time;bid;ask\n", "171137202{n},25;1,08412;1,08415\n", (TIME + 250, 1.08412, 1.08415, 0)),
    "a semicolon behind the names": ("time,bid,ask;\n", "2024-03-25 13:07:0{n},1.08412,1.08415\n",
                                     (TIME, 1.08412, 1.08415, 0)),
    "a comma behind the names": ("time,bid,ask,\n", "2024-03-25 13:07:0{n},1.08412,1.08415\n",
                                 (TIME, 1.08412, 1.08415, 0)),
    "a minus of its own": ("time,bid,ask\n", "2024-03-25 13:07:0{n},\N{MINUS SIGN}37.65,\N{MINUS SIGN}37.63\n",
                           (TIME, -37.65, -37.63, 0)),
    "dollars": ("time,bid,ask\n", "2024-03-25 13:07:0{n},-$37.65,-$37.63\n", (TIME, -37.65, -37.63, 0)),
    "Sierra Chart": ("Date, Time, Open, High, Low, Last, Volume, NumberOfTrades, BidVolume, AskVolume\n",
                     "2024/3/25, 13:07:0{n}.250000, 0.00000, 1.08415, 1.08412, 1.08413, 1, 1, 0, 1\n",
                     (TIME + 250, 1.08412, 1.08415, 1.08413)),
    "Polygon": ("ticker,ask_price,ask_size,bid_price,bid_size,participant_timestamp,sip_timestamp\n",
                "S,1.08415,3,1.08412,2,171137202{n}123456789,171137202{n}123556789\n",
                (TIME + 123, 1.08412, 1.08415, 0)),
}  # fmt: skip

#: By what is wrong with them: the header, a line, and what the message says.
REFUSED = {
    "weeks": ("time,open,high,low,close\n", "2024-W1{n},1.5,1.7,1.4,1.6\n", "is a week of the calendar"),
    "days of the year": ("time,open,high,low,close\n", "2024-08{n},1.5,1.7,1.4,1.6\n", "is a day by its number"),
    "a narrow column": ("Time,Bid,Ask\n", "########,1.08412,1.08415\n", "too narrow"),
    "minutes and seconds alone": ("Time,Bid,Ask\n", "07:0{n}.3,1.08412,1.08415\n", "all that Excel saved"),
    "names parted otherwise than lines": ("time;bid;ask\n", "2024-03-25 13:07:0{n},1.08412,1.08415\n",
                                          "3 of its first 3 lines cannot be used; line 2: it has 1 cells"),
    "semicolons behind lines": ("time,bid,ask\n", "2024-03-25 13:07:0{n},1.08412,1.08415;\n", "3 of its first 3 lines"),
    "prices in percent": ("time,bid,ask\n", "2024-03-25 13:07:0{n},1.2%,1.3%\n", "3 of its first 3 lines"),
    "high and low exchanged": ("time,open,low,high,close\n", "2024-03-25 13:0{n},1.5,1.7,1.4,1.6\n",
                               "line 2: high: must not be below"),
    "spaces between cells": ("time bid ask\n", "2024-03-25T13:07:0{n} 1.08412 1.08415\n", "parted by spaces"),
    "bids, asks and deals in turn": ("Time,Type,Price,Size\n", "2024-03-25 13:07:0{n},BID,1.5,12\n",
                                     "of several kinds"),
    "price and volume without names": ("", "171137202{n},68000.1,0.00123\n", "--columns"),
    "price and volume, near one another": ("", "20240325 13070{n};1.08413;1\n", "a price and a volume"),
    "bars that open or close then": ("", "20240325 130{m}00;1.5;1.7;1.4;1.6;12\n", "say which with --bar-times"),
    "yfinance": ("Price,Close,High,Low,Open,Volume\nTicker,AAPL,AAPL,AAPL,AAPL,AAPL\nDate,,,,,\n",
                 "2024-03-2{n},1.6,1.7,1.4,1.5,12\n",
                 "--skip-rows 3 --columns time,close,high,low,open,volume --symbol AAPL"),
    "several symbols of yfinance": ("Price,Close,Close,High,High\nTicker,AAPL,MSFT,AAPL,MSFT\nDate,,,,\n",
                                    "2024-03-2{n},1.6,1.7,1.4,1.5\n", "by itself: AAPL, MSFT"),
    "Databento": ("ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol\n",
                  "17113720{k}000000,33,1,5482,5411500000000,5412000000000,5411000000000,5411750000000,120,ESM4\n",
                  "pretty_px"),
    "Databento, its prices as one file has them": ("ts_event,rtype,publisher_id,price,size,symbol\n",
                                                   "2024-03-25T13:07:0{n}Z,0,1,5411500000000,3,ESM4\n", "pretty_px"),
    "deals of an account": ("Time,Deal,Symbol,Type,Volume,Price,Order\n",
                            "2024.03.25 13:07:0{n},7,EURUSD,buy,0.1,1.08412,1\n", "the deals of an account"),
    "names below a title": ("Security,EURUSD\nFrom,3/20/2024\n\nDate,Open,High,Low,Close\n",
                            "3/2{d}/2024,1.5,1.7,1.4,1.6\n", "named in line 4; say --skip-rows 3"),
    "the name of a zone": ("Date,Open,High,Low,Close\n", "20240325 13:0{n}:00 US/Eastern,1.5,1.7,1.4,1.6\n", "--zone"),
    "bars in an order of their own": ("", "2024-03-25 13:0{n},1.08412,1.084,1.0845,1.0843\n", "--columns"),
    "points that may part thousands": ("Data;Hora;Preço;Quantidade\n", "25/03/2024;13:07:0{n};127.690;5\n",
                                       "say --decimal"),
    "32nds of a bond": ("time,bid,ask\n", "2024-03-25 13:07:0{n},110'165,110'170\n", "say --decimal"),
    "letters in another encoding": ("Цена открытия;Цена закрытия\n".encode("cp1251").decode("cp1252"), "1;2\n",
                                    "--encoding"),
}  # fmt: skip


def file_of(folder: Path, header: str, line: str, encoding: str = "utf-8") -> Path:
    path = folder / "file.csv"
    for n in range(LINES):
        counted = {"{n}": n, "{m}": 7 + n, "{d}": 5 + n, "{k}": f"{2020 + 60 * n}000"}
        header += functools.reduce(lambda text, each: text.replace(each[0], str(each[1])), counted.items(), line)
    path.write_bytes(header.encode(encoding))
    return path


@pytest.mark.parametrize("name", BARS)
def test_bars_of_other_languages_and_sites(tmp_path: Path, name: str) -> None:
    header, line, encoding, first = BARS[name]
    path = file_of(tmp_path, header, line, encoding)

    assert kind_of(path, Said()) is Kind.BARS
    with BarFile(path, Said(symbol="S")) as bars:
        found: list[FileBar] = list(bars)

    assert found[0][:7] == first
    assert (len(found), bars.skipped) == (LINES, 0)


@pytest.mark.parametrize("name", TICKS)
def test_ticks_of_other_languages_and_sites(tmp_path: Path, name: str) -> None:
    header, line, first = TICKS[name]
    path = file_of(tmp_path, header, line)

    assert kind_of(path, Said()) is Kind.TICKS
    with TickFile(path, Said(symbol="S")) as ticks:
        found: list[FileTick] = list(ticks)

    tick = found[0]
    assert (tick.time_msc, tick.bid, tick.ask, tick.last) == first
    assert (len(found), ticks.skipped) == (LINES, 0)


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_would_lose_its_lines_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    header, line, why = REFUSED[name]
    path = file_of(tmp_path, header, line)

    with pytest.raises(UnknownForm) as caught:
        (TickFile if kind_of(path, Said()) is Kind.TICKS else BarFile)(path, Said(symbol="S")).__enter__()
    assert why in str(caught.value)


def test_whether_times_are_of_openings_or_closes_may_be_said(tmp_path: Path) -> None:
    path = file_of(tmp_path, "", "20240325 130{m}00;1.5;1.7;1.4;1.6;12\n")

    for closes, first in ((False, TIME), (True, TIME - 60_000)):
        with BarFile(path, Said(symbol="S", closes=closes)) as bars:
            assert next(bars).time_msc == first
            assert (", at which bars close" in dict(bars.dialect.described())["times"]) is closes


def test_days_have_their_own_dates_where_times_are_of_closes(tmp_path: Path) -> None:
    path = file_of(tmp_path, "Date,Open,High,Low,Close\n", "2024-03-2{d},1.5,1.7,1.4,1.6\n")

    with BarFile(path, Said(symbol="S", closes=True)) as bars:
        assert (next(bars).time_msc, bars.timeframe) == (DAY, "D1")


def test_the_encoding_may_be_said(tmp_path: Path) -> None:
    path = file_of(tmp_path, "Время;x;Бид;Аск\n", "2024-03-25 13:07:0{n};ы;1,5;1,6\n", "mac_cyrillic")
    with TickFile(path, Said(symbol="S", encoding="mac_cyrillic")) as ticks:
        assert len(list(ticks)) == LINES


PART = "time,bid,ask\n" + "".join(f"2024-03-25 13:07:0{n},1.08412,1.08415\n" for n in range(4))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_names_within_joined_files_are_one_bad_line(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(PART.encode(encoding) * 2)

    with TickFile(path, Said(symbol="S")) as ticks:
        assert len(list(ticks)) == 8
    assert ticks.reasons == [f"{path}: line 6: it names the columns once more"]


def test_a_byte_order_mark_within_joined_files_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(PART.partition("\n")[2].encode("utf-8-sig") * 2 + "\ufeff".encode())

    with TickFile(path, Said(symbol="S")) as ticks:
        assert (len(list(ticks)), ticks.skipped) == (8, 0)


def test_names_in_another_order_within_joined_files_end_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text(PART + PART.replace("bid,ask", "ask,bid"))

    read: list[FileTick] = []
    with (
        TickFile(path, Said(symbol="S")) as ticks,
        pytest.raises(DataFileError, match="line 6: it names other columns"),
    ):
        read.extend(ticks)


def test_the_end_of_a_day_may_be_24_00(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    times = ("2024-03-24 23:59", "2024-03-24 24:00", "2024-03-25 00:01", "2024-03-25 24:01")
    path.write_text("time,open,high,low,close\n" + "".join(f"{time},1.5,1.7,1.4,1.6\n" for time in times))

    with BarFile(path, Said(symbol="S")) as bars:
        assert [bar.time_msc for bar in bars] == [DAY - 60_000, DAY, DAY + 60_000]
    assert "line 5: time: '2024-03-25 24:01' is no time of the calendar" in bars.reasons[0]


def test_few_lines_of_a_wanted_symbol_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    lines = (f"2024-03-25 13:07:0{n},{'EURUSD' if n == 5 else 'GBPUSD'},1.08412,1.08415\n" for n in range(9))
    path.write_text("time,symbol,bid,ask\n" + "".join(lines))

    with TickFile(path, Said(symbol="EURUSD")) as ticks:
        assert (len(list(ticks)), ticks.skipped) == (1, 8)
    with pytest.raises(
        UnknownForm, match="9 of its first 9 lines cannot be used; line 2: it is of GBPUSD, not of USDJPY"
    ):
        TickFile(path, Said(symbol="USDJPY")).__enter__()


@pytest.mark.parametrize("form", ["parquet", "feather"])
def test_a_table_of_very_many_columns_is_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"ticks.{form}"
    table = pa.table({name: [1.5] for name in ("time", "bid", "ask", *map(str, range(1_500)))})
    if form == "parquet":
        parquet.write_table(table, path)
    else:
        feather.write_feather(table, path, compression="zstd")
    with pytest.raises(UnknownForm, match="it has 1,503 columns, which no file of ticks has"):
        kind_of(path, Said())


@pytest.mark.parametrize("form", ["parquet", "feather"])
def test_a_long_text_in_every_row_is_not_decoded_for_each(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"ticks.{form}"
    rows = 300
    remarks = pa.DictionaryArray.from_arrays(pa.array([0] * rows), pa.array(["x" * 3_000_000]))
    table = pa.table({"time_msc": [TIME] * rows, "bid": [1.1] * rows, "ask": [1.2] * rows, "remark": remarks})
    if form == "parquet":
        parquet.write_table(table, path, store_schema=False)
    else:
        feather.write_feather(table, path, compression="zstd")
    pool = pa.default_memory_pool()
    before = pool.max_memory()

    with TickFile(path, Said(symbol="S")) as ticks:
        assert len(list(ticks)) == rows
    assert pool.max_memory() - before < 300_000_000


@pytest.mark.parametrize("form", ["file", "stream"])
@pytest.mark.parametrize("packed", ["zstd", "lz4", None])
def test_a_packed_batch_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, packed: str | None
) -> None:
    monkeypatch.setattr(arrowfile, "_MOST_UNPACKED_BYTES", 2_000_000)
    path = tmp_path / "ticks.arrow"
    rows = 20_000
    table = pa.table({name: [TIME] * rows for name in ("time_msc", "bid", "ask")} | {"symbol": ["S" * 100] * rows})
    new = ipc.new_file if form == "file" else ipc.new_stream
    with new(path, table.schema, options=ipc.IpcWriteOptions(compression=packed)) as writer:
        writer.write_table(table)

    if packed is None:
        # What is not packed is read where it lies, a part at a time.
        assert kind_of(path, Said()) is Kind.TICKS
        return
    # Three columns of 8 bytes, one of 100 and of 4 for where each ends; a bitmap of what is there is left out.
    with pytest.raises(UnknownForm, match=r"unpacked, one of its batches takes 3 MB; write shorter ones"):
        kind_of(path, Said())


def test_packed_batches_of_a_usual_length_are_read(tmp_path: Path) -> None:
    path = tmp_path / "ticks.feather"
    sides = pa.array(["a", "b"] * 10_000).dictionary_encode()
    table = pa.table({"time_msc": range(TIME, TIME + 20_000), "bid": [1.1] * 20_000, "ask": [1.2] * 20_000, "x": sides})
    feather.write_feather(table, path, compression="zstd")

    with TickFile(path, Said(symbol="S")) as ticks:
        assert sum(1 for _ in ticks) == 20_000


def test_prices_in_billionths_are_refused_when_their_columns_are_said(tmp_path: Path) -> None:
    path = tmp_path / "mbp-1.csv"
    said = Said(symbol="S", columns=("time", "-", "-", "bid", "ask"))
    header, line = "ts_event,rtype,publisher_id,bid_px_00,ask_px_00\n", "2024-03-25T13:07:0{n}Z,1,1,{bid},{ask}\n"
    path.write_text(header + "".join(line.format(n=n, bid="5411.5", ask="5411.75") for n in range(4)))
    with TickFile(path, said) as ticks:
        assert [(tick.bid, tick.ask) for tick in ticks] == [(5411.5, 5411.75)] * 4
    path.write_text(header + "".join(line.format(n=n, bid=5411 * 10**9, ask=5412 * 10**9) for n in range(4)))
    with pytest.raises(UnknownForm, match="its prices are billionths; save it with pretty_px"):
        kind_of(path, said)
