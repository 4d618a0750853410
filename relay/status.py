"""What the relay says of itself: numbers for programs, and a page for people in English and Portuguese."""

import math
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from marketdata.contract.http import Refusal
from relay.back_channel import FillCounts
from relay.collector import Collected
from relay.forwarder import Totals
from relay.item import Facts
from relay.pending import Backlog
from relay.store import Store
from runtime.health import Health
from runtime.pages import Language, page

#: How many symbols /stats names, and how many the page.
_TOP_SYMBOLS: Final = 10
_PAGE_SYMBOLS: Final = 500

#: Rows that /debug/recent shows when nothing says how many, and at most.
_RECENT: Final = 50
_MOST_RECENT: Final = 1_000

#: How often the page is loaded again (seconds).
_REFRESH_SECONDS: Final = 5

_EPOCH: Final = datetime.fromtimestamp(0, UTC)

_TEXTS: Final[dict[Language, dict[str, str]]] = {
    "en": {
        "title": "Tickpipe relay",
        "forwarding": "Ticks are stored and forwarded.",
        "only_stores": "Ticks are stored on this PC; no server is named (--forward).",
        "trouble": "Ticks are stored, but cannot be forwarded now.",
        "not_stored": "Ticks cannot be stored now; EAs are asked to send them again.",
        "failed": "A part of the relay failed; it is starting again.",
        "unavailable": "The server does not take ticks now.",
        "no_answer": "The server does not answer.",
        "refused": "The server refuses what is sent.",
        "key": "The server does not know the key.",
        "no_endpoint": "The address is that of another program.",
        "foreign_answer": "Something else answers in the place of the server: a login page, a proxy?",
        "store": "The database cannot be written.",
        "ticks": "Ticks and bars in the file",
        "waiting": "Waiting for the server",
        "oldest": "the oldest for {}",
        "server": "Server",
        "none": "none",
        "forwarded": "Forwarded since the start",
        "rejected": "Refused by the server since the start",
        "last_error": "Last error since the start",
        "fills": "What the server lacked, since the start",
        "filled": "{asked} ranges asked for, {done} filled, {failed} not; {ticks} ticks",
        "collecting": "Collecting from the terminal",
        "collected": "{ticks} ticks of {symbols} symbols, {late} of them late ({server})",
        "terminal": "Ticks cannot be collected from the terminal now.",
        "file": "File",
        "symbols": "Symbols",
        "symbol": "Symbol",
        "rows": "Rows",
        "newest": "Newest tick (sender's clock)",
        "stored": "Stored",
        "ago": "{} ago",
        "no_symbols": "No tick has come yet. Is the EA on a chart, and http://127.0.0.1 allowed for WebRequest?",
        "more": "{} more symbols are not shown.",
        "links": "For programs",
    },
    "pt": {
        "title": "Relay do Tickpipe",
        "forwarding": "Os ticks são gravados e encaminhados.",
        "only_stores": "Os ticks são gravados neste PC; nenhum servidor foi indicado (--forward).",
        "trouble": "Os ticks são gravados, mas não podem ser encaminhados agora.",
        "not_stored": "Os ticks não podem ser gravados agora; pede-se aos EAs que os enviem de novo.",
        "failed": "Uma parte do relay falhou; ele está sendo reiniciado.",
        "unavailable": "O servidor não aceita ticks agora.",
        "no_answer": "O servidor não responde.",
        "refused": "O servidor recusa o que é enviado.",
        "key": "O servidor não conhece a chave.",
        "no_endpoint": "O endereço é de outro programa.",
        "foreign_answer": "Outra coisa responde no lugar do servidor: uma página de login, um proxy?",
        "store": "O banco de dados não pode ser gravado.",
        "ticks": "Ticks e barras no arquivo",
        "waiting": "À espera do servidor",
        "oldest": "o mais antigo há {}",
        "server": "Servidor",
        "none": "nenhum",
        "forwarded": "Encaminhados desde o início",
        "rejected": "Recusados pelo servidor desde o início",
        "last_error": "Último erro desde o início",
        "fills": "O que faltava no servidor, desde o início",
        "filled": "{asked} intervalos pedidos, {done} preenchidos, {failed} não; {ticks} ticks",
        "collecting": "Coleta no terminal",
        "collected": "{ticks} ticks de {symbols} símbolos, {late} deles atrasados ({server})",
        "terminal": "Os ticks não podem ser coletados no terminal agora.",
        "file": "Arquivo",
        "symbols": "Símbolos",
        "symbol": "Símbolo",
        "rows": "Linhas",
        "newest": "Tick mais novo (relógio do remetente)",
        "stored": "Gravado",
        "ago": "há {}",
        "no_symbols": "Nenhum tick chegou ainda. O EA está em um gráfico, e http://127.0.0.1 liberado no WebRequest?",
        "more": "Mais {} símbolos não são mostrados.",
        "links": "Para programas",
    },
}

_decode_facts: Final = msgspec.json.Decoder(Facts).decode


class Status:
    """How a relay stands; `totals`, `fills` and `server_url` only where it forwards, `collected` where it collects."""

    def __init__(
        self, store: Store, totals: Totals | None, parts: Health, fills: FillCounts, *, server_url: str = "",
        collected: Collected | None = None,
    ) -> None:  # fmt: skip
        self._collected, self._fills = collected, fills
        self.backlog = Backlog(store)
        self._store, self._totals, self._parts, self._server_url = store, totals, parts, server_url

    def health(self) -> dict[str, Any]:
        """GET /health while no part has failed."""
        total, pending = self._store.counts().by_symbol.total(), self.backlog.rows()
        health = {"ok": True, "total_ticks": total, **self._old_names(total, pending)}
        if self._totals is not None:
            # The status stays 200: starting the relay again would cure nothing, and it stores what comes.
            health |= {"ok": not self._totals.trouble, **self._trouble(self._totals)}
        if (collected := self._collected) is not None:
            health["collecting"] = {
                "server": collected.server, "symbols": collected.symbols, "ticks": collected.ticks,
                "late": collected.late, "waiting": dict(collected.waiting), "trouble": collected.trouble or None,
            }  # fmt: skip
            health["ok"] = health["ok"] and not collected.trouble
        return health

    def _trouble(self, totals: Totals) -> dict[str, Any]:
        return {"trouble": totals.trouble or None, "oldest_unsent_seconds": round(self.backlog.oldest_seconds())}

    def _old_names(self, total: int, pending: int) -> dict[str, Any]:
        """The same numbers under the names that scripts written for earlier relays read."""
        return {"count": total, "db": str(self._store.path), "queue": pending}

    def stats(self) -> dict[str, Any]:
        """GET /stats."""
        counts, pending = self._store.counts().by_symbol, self.backlog.rows()
        stats: dict[str, Any] = {
            "total_ticks": counts.total(),
            "unique_symbols": len(counts),
            "top_symbols": [{"symbol": symbol, "ticks": n} for symbol, n in counts.most_common(_TOP_SYMBOLS)],
            "pending": pending,
            **self._old_names(counts.total(), pending),
        }
        if self._totals is not None:
            stats["forwarding"] = {
                "forwarded": self._totals.forwarded,
                "rejected": self._totals.rejected,
                **self._trouble(self._totals),
            }
        return stats

    def page(self, language: Language) -> bytes:
        """GET /: the state in a sentence, the backlog, the last error, and the newest tick of each symbol."""
        texts = _TEXTS[language]
        body = f"{self._state(texts)}{self._table(texts, language)}{self._symbols(texts, language)}"
        links = " · ".join(
            f'<a href="{path}">{path}</a>' for path in ("/debug/recent", "/stats", "/health", "/metrics")
        )
        return page(
            language, texts["title"], f'{body}<p class="faint">{texts["links"]}: {links}</p>',
            refresh_seconds=_REFRESH_SECONDS,
        )  # fmt: skip

    def _state(self, texts: dict[str, str]) -> str:
        totals = self._totals
        if self._parts.failed:
            sentence, is_good = texts["failed"], False
        elif self._store.is_failing:
            sentence, is_good = texts["not_stored"], False
        elif self._collected is not None and self._collected.trouble:
            detail = f"<p>{escape(self._collected.trouble)}</p>"
            return f'<p class="state bad">{texts["terminal"]}</p>{detail}'
        elif totals is None:
            sentence, is_good = texts["only_stores"], True
        elif totals.trouble:
            sentence, is_good = f"{texts['trouble']} {texts.get(totals.cause, '')}", False
        else:
            sentence, is_good = texts["forwarding"], True
        detail = f"<p>{escape(totals.trouble)}</p>" if totals is not None and totals.trouble else ""
        return f'<p class="state {"good" if is_good else "bad"}">{sentence}</p>{detail}'

    def _table(self, texts: dict[str, str], language: Language) -> str:
        rows = [(texts["ticks"], _number(self._store.counts().by_symbol.total(), language))]
        if (totals := self._totals) is not None:
            waiting = _number(self.backlog.rows(), language)
            if oldest := self.backlog.oldest_seconds():
                waiting += f" ({texts['oldest'].format(_duration(oldest))})"
            rows.append((texts["waiting"], waiting))
            rows.append((texts["forwarded"], _number(totals.forwarded, language)))
            rows.append((texts["rejected"], _number(totals.rejected, language)))
            counted = {name: _number(value, language) for name, value in asdict(self._fills).items()}
            rows.append((texts["fills"], texts["filled"].format(**counted)))
        if (collected := self._collected) is not None:
            counts = {name: _number(getattr(collected, name), language) for name in ("ticks", "symbols", "late")}
            rows.append((texts["collecting"], texts["collected"].format(**counts, server=escape(collected.server))))
            rows += [(escape(symbol), escape(error)) for symbol, error in [*collected.waiting.items()][:_TOP_SYMBOLS]]
        rows.append((texts["server"], escape(self._server_url) or texts["none"]))
        errors = [error for error in (totals and totals.last_error, self._store.last_error) if error]
        if errors:
            when, what = max(errors)
            rows.append((texts["last_error"], f"{when:%Y-%m-%d %H:%M:%S} UTC: {escape(what)}"))
        else:
            rows.append((texts["last_error"], texts["none"]))
        rows.append((texts["file"], escape(str(self._store.path))))
        return f"<table>{''.join(f'<tr><th>{name}</th><td>{value}</td></tr>' for name, value in rows)}</table>"

    def _symbols(self, texts: dict[str, str], language: Language) -> str:
        counts = self._store.counts()
        shown = sorted(counts.by_symbol, key=str)[:_PAGE_SYMBOLS]
        if not shown:
            return f"<h2>{texts['symbols']}</h2><p>{texts['no_symbols']}</p>"
        ticks = _newest(self._store, [counts.newest[symbol] for symbol in shown if symbol in counts.newest])
        lines = []
        for symbol in shown:
            bid, ask, last, ts_ms, created_at = ticks.get(symbol, (None,) * 5)
            cells = [_number(counts.by_symbol[symbol], language), *map(_price, (bid, ask, last)), _moment(ts_ms)]
            ago = _seconds_since(created_at)
            cells.append("" if ago is None else texts["ago"].format(_duration(ago)))
            numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
            lines.append(f"<tr><td>{escape(str(symbol))}</td>{numbers}</tr>")
        names = [texts["rows"], "Bid", "Ask", "Last", texts["newest"], texts["stored"]]
        head = "".join(f'<th class="n">{name}</th>' for name in names)
        more = len(counts.by_symbol) - len(shown)
        rest = f"<p>{texts['more'].format(more)}</p>" if more else ""
        return (
            f"<h2>{texts['symbols']}</h2><table><tr><th>{texts['symbol']}</th>{head}</tr>{''.join(lines)}</table>{rest}"
        )


def recent(store: Store, query: str) -> list[dict[str, Any]]:
    """The newest rows of the file, the newest first; `symbol=` and `limit=` of the query choose.

    Raises:
        Refusal: 400 when the limit is none.
    """
    asked = parse_qs(query)
    symbol, limit = asked.get("symbol", [None])[0], asked.get("limit", [str(_RECENT)])[0]
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= _MOST_RECENT):
        raise Refusal(400, "VALIDATION_ERROR", f"limit must be a number from 1 to {_MOST_RECENT}")
    # Without an index on symbols a rare one would be looked for in the whole file; a million rows are a second.
    rows = store.connection.execute(
        "SELECT id, symbol, ts_ms, timeframe, open, high, low, close, volume, kind, meta, created_at, facts FROM ticks"
        " WHERE id > (SELECT ifnull(max(id), 0) FROM ticks) - 1000000 AND (?1 IS NULL OR symbol = ?1)"
        " ORDER BY id DESC LIMIT ?2",
        [symbol, int(limit)],
    )
    names = ("id", "symbol", "ts_ms", "timeframe", "open", "high", "low", "close", "volume", "kind")
    return [
        dict(zip(names, row[:10], strict=True))
        | {"stored_at": row[11], "item": row[10], **_facts(row[12])}
        for row in rows
    ]  # fmt: skip


def _facts(text: object) -> dict[str, Any]:
    with suppress(msgspec.MsgspecError, TypeError):  # another program's row has none
        facts = _decode_facts(text)  # type: ignore[arg-type]  # of any type, see above
        return {"source": facts.source, "server": facts.server, "utc_offset_seconds": facts.utc_offset_seconds}
    return {"source": None, "server": None, "utc_offset_seconds": None}


_Tick = tuple[Any, Any, Any, Any, Any]


def _newest(store: Store, ids: list[int]) -> dict[Any, _Tick]:
    """Bid, ask, last, time and time of storage by symbol."""
    marks = ",".join("?" * len(ids))
    query = f"SELECT symbol, open, high, close, ts_ms, created_at FROM ticks WHERE id IN ({marks})"  # noqa: S608
    return {row[0]: row[1:] for row in store.connection.execute(query, ids)}


def _number(value: int, language: Language) -> str:
    text = f"{value:,}"
    return text.replace(",", ".") if language == "pt" else text


def _price(value: object) -> str:
    # 0 is none.
    return f"{value:.10g}" if isinstance(value, (int, float)) and value and math.isfinite(value) else ""


def _moment(ts_ms: object) -> str:
    with suppress(OverflowError, TypeError):
        return f"{_EPOCH + timedelta(milliseconds=ts_ms):%Y-%m-%d %H:%M:%S.%f}"[:-3]  # type: ignore[arg-type]
    return ""


def _seconds_since(stored_at: object) -> float | None:
    with suppress(TypeError, ValueError):
        stored = datetime.fromisoformat(stored_at).replace(tzinfo=UTC)  # type: ignore[arg-type]
        return max(0.0, (datetime.now(UTC) - stored).total_seconds())
    return None


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
