"""The fields of ticks and bars by the names that columns have for them, in many languages."""

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

#: Eastern Standard Time without summer time, whatever the instrument.
EST: Final = timezone(timedelta(hours=-5), "EST, UTC-05:00")

#: The fields of a tick or a bar, and what their columns are called: in lower case, letters and digits only.
NAMES: Final = {
    "symbol": ("symbol", "ticker", "instrument", "pair", "ric", "currencypair"),
    "timeframe": ("timeframe", "per", "period", "tf"),
    "date": ("date", "day", "dtyyyymmdd", "日期", "日付", "날짜", "일자"),
    "time": ("time", "timestamp", "datetime", "ts", "localtime", "dateandtime", "opentime", "timeopen",
             "transacttime", "transactiontime", "startat", "windowstart", "ratedatetime", "participanttimestamp",
             "siptimestamp", "etcutc", "timestampus", "timestampns", "epochms", "时间", "時間", "時刻", "日時", "시간"),
    "time_msc": ("timemsc", "tsmsc", "timems", "timestampms", "tsms"),
    "milliseconds": ("milliseconds", "millisecond", "millis", "msec", "ms"),
    "bid": ("bid", "bidprice", "ratebid", "bestbidprice", "bestbid", "bidpx", "pricebid"),
    "ask": ("ask", "askprice", "rateask", "bestaskprice", "bestask", "askpx", "priceask", "offer"),
    "last": ("last", "lastprice", "price", "tradeprice", "pxlast", "价格", "価格"),
    "open": ("open", "pxopen", "mido", "bidopen", "开盘", "开盘价", "開盤", "開盤價", "始値", "시가"),
    "high": ("high", "pxhigh", "midh", "bidhigh", "最高", "最高价", "最高價", "高値", "고가"),
    "low": ("low", "pxlow", "midl", "bidlow", "最低", "最低价", "最低價", "安値", "저가"),
    "close": ("close", "closelast", "midc", "bidclose", "收盘", "收盘价", "收盤", "收盤價", "終値", "종가"),
    "tick_volume": ("tickvolume", "tickvol", "ticks", "numberoftrades", "totalticks", "tradecount"),
    "volume": ("volume", "vol", "size", "quantity", "qty", "totalvolume", "lots", "pxvolume", "成交量", "出来高",
               "거래량"),
    "volume_real": ("volumereal", "realvolume"),
    "spread": ("spread", "点差"),
    "flags": ("flags", "flag"),
}  # fmt: skip

#: The same in languages whose numbers have decimal commas.
COMMA_NAMES: Final = {
    "symbol": ("ativo",),
    "date": ("datum", "data", "fecha", "дата"),
    "time": ("zeit", "uhrzeit", "hora", "heure", "ora", "время"),
    "bid": ("geld", "бид"),
    "ask": ("brief", "аск"),
    "last": ("preis", "precio", "preço", "prix", "prezzo", "цена", "zuletzt", "último", "últ"),
    "open": ("abertura", "abert", "apertura", "eröffnung", "eröffn", "erster", "ouverture", "открытие", "откр",
             "otwarcie"),
    "high": ("máxima", "máximo", "máx", "hoch", "höchst", "haut", "massimo", "максимум", "макс", "najwyższy"),
    "low": ("mínima", "mínimo", "mín", "tief", "tiefst", "bas", "minimo", "минимум", "мин", "najniższy"),
    "close": ("fechamento", "fech", "cierre", "schluss", "schlusskurs", "clôture", "chiusura", "закрытие", "закр",
              "zamknięcie"),
    "tick_volume": ("тики",),
    "volume": ("volumen", "wolumen", "quantidade", "stück", "stücke", "объем"),
    "spread": ("спред",),
}  # fmt: skip

#: The prices of a bar.
PRICES: Final = ("open", "high", "low", "close")

#: What one letter means where those of all four prices stand together.
_LETTERS: Final = {
    "t": "time", "o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "n": "tick_volume",
}  # fmt: skip
_LETTERS_OF_PRICES: Final = frozenset("ohlc")

#: Accents, which many leave out, and what German keyboards write in the place of theirs.
_ACCENTS: Final = dict.fromkeys(range(0x0300, 0x0370))
_UMLAUTS: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})


def normalised(name: str) -> str:
    """The letters and digits of a column's name, in lower case and without accents: `<Tick_Vol>` is `tickvol`."""
    # Some programs, and macOS, write é as two characters; what Korean letters are made of has to be put together again.
    plain = unicodedata.normalize("NFD", name.lower()).translate(_ACCENTS)
    return "".join(filter(str.isalnum, unicodedata.normalize("NFC", plain)))


_FIELD_OF: Final = {
    normalised(spelled): field for table in (NAMES, COMMA_NAMES) for field, names in table.items() for name in names
    for spelled in (name, name.translate(_UMLAUTS))
}  # fmt: skip
_WITH_COMMA: Final = frozenset(normalised(name) for names in COMMA_NAMES.values() for name in names)

#: Words before those of a time, as in `Server time`, and between them: `Data e hora`, `Fecha y hora`, `Дата и время`.
#: At the end `ET` is the time of New York.
_BEFORE: Final = ("server", "broker", "tick")
_BETWEEN: Final = ("e", "y", "and", "und", "et", "и")

#: What a column may be said to be with --columns; `-` is one that is not read.
FIELDS: Final = (*NAMES, "-")

#: Zones that the name of a column of times says, as in `Gmt time` and `Time (EET)`.
ZONE_IN_NAME: Final = {"gmt": UTC, "utc": UTC, "eet": ZoneInfo("EET"), "est": EST}


def fields_of(names: Sequence[str]) -> tuple[str, ...]:
    """The field that each column holds, by the names of all; empty for those that are not read."""
    # R's xts writes `EURUSD.Open`.
    ends = [name.rpartition(".")[2] for name in names]
    if {"Open", "High", "Low", "Close"} <= {*ends} and not {"Open", "High", "Low", "Close"} & {*names}:
        return tuple(map(field_of, ends))
    if {name.strip().lower() for name in names} >= _LETTERS_OF_PRICES:
        return tuple(_LETTERS.get(name.strip().lower(), "") or field_of(name) for name in names)
    return tuple(map(field_of, names))


def writes_comma(names: Sequence[str]) -> bool:
    """Whether a header is in a language whose numbers have decimal commas."""
    return any(normalised(name) in _WITH_COMMA for name in names)


def field_of(name: str) -> str:
    """The field that a column holds by its name; empty when it is none that is read."""
    words = [word for word in _words(name) if word not in ZONE_IN_NAME]
    if found := _FIELD_OF.get(normalised(name)) or _FIELD_OF.get(normalised("".join(words))):
        return found
    if words[:1] and words[0] in _BEFORE:
        del words[0]
    said = {_FIELD_OF.get(normalised(word)) for word in words[:1] + words[-1:]}
    said |= {_FIELD_OF.get(normalised(word)) for word in words[1:-1] if word not in _BETWEEN}
    return "time" if "time" in said and said <= {"date", "time"} else ""


def zone_in(name: str) -> tzinfo | None:
    """The zone that the name of a column of times says."""
    return next((zone for word, zone in ZONE_IN_NAME.items() if word in _words(name)), None)


def _words(name: str) -> list[str]:
    return list(filter(None, re.split(r"[\W_]+", name.lower())))
