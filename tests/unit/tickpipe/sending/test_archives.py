"""Requests that EAs and relays have put aside as JSON are posted again as they were."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.contract.fields import is_bar
from tests.conftest import fewer_examples
from tickpipe.sending import archives, document
from tickpipe.sending.archives import ArchiveFile, Origin, is_archive
from tickpipe.sending.bodies import bodies_in
from tickpipe.sending.dialects import UnknownForm

AGENT = "DataCollectorPRO/PDC/1.65 (Account:12345; Server:Broker-Demo; Build:3850)"


def tick(number: int, **more: Any) -> dict[str, Any]:
    return {
        "ts": "2025-10-20T02:20:00Z", "symbol": "EURUSD", "bid": 1.16512, "ask": 1.16518, "last": 0.0, "volume": 0,
        "flags": 6, "ts_msc": 1_760_926_800_417 + number, **more,
    }  # fmt: skip


def bar(minute: int) -> dict[str, Any]:
    return {
        "ts": f"2025-10-20T02:{minute:02d}:00Z", "symbol": "EURUSD", "timeframe": "M1", "open": 1.1, "high": 1.2,
        "low": 1.0, "close": 1.1, "volume": 5,
    }  # fmt: skip


class Request(NamedTuple):
    """A request with its items decoded."""

    origin: Origin
    items: list[Any]


def requests(path: Path, symbol: str | None = None) -> tuple[list[Request], list[str]]:
    assert is_archive(path)
    with ArchiveFile(path, symbol=symbol) as archive:
        return [Request(origin, [json.loads(item) for item in items]) for origin, items, _ in archive], archive.reasons


def test_the_outbound_archive_has_a_request_in_each_line(tmp_path: Path) -> None:
    lines = [
        {"ts": "2025-10-20T02:20:01Z", "kind": "tick", "body": {"ticks": [tick(0), tick(1)]}},
        {"ts": "2025-10-20T02:20:02Z", "kind": "tick", "body": json.dumps({"ticks": [tick(2)]})},
        {"ts": "2025-10-20T02:21:00Z", "kind": "ohlcv", "body": {"items": [bar(20)]}},
        {"ts": "2025-10-20T02:21:01Z", "kind": "tick", "body": tick(3)},
    ]
    path = tmp_path / "PDC_outbound_20251020.jsonl"
    path.write_text("\ufeff" + "\r\n".join(map(json.dumps, lines)) + "\r\n", encoding="utf-8", newline="")

    found, reasons = requests(path)

    # Ticks in order; short requests are joined until a bar comes between.
    assert [(posted.origin.route, posted.items) for posted in found] == [
        ("/ingest/tick", [tick(0), tick(1), tick(2)]), ("/ingest", [bar(20)]), ("/ingest/tick", [tick(3)]),
    ]  # fmt: skip
    assert reasons == []


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_queued_request_says_who_sent_it(tmp_path: Path, indent: int | None, *, as_text: bool) -> None:
    payload: Any = {"ticks": [tick(0)], "utc_offset_s": 7200}
    entry = {
        "url": "http://127.0.0.1:18001/ingest/tick", "payload": json.dumps(payload) if as_text else payload,
        "headers": {"X-API-Key": "secret", "User-Agent": AGENT, "X-Source": "Broker-Demo"},
    }  # fmt: skip
    path = tmp_path / "1760926800417.json"
    path.write_text(json.dumps(entry, indent=indent))

    ((origin, items),), _ = requests(path)

    assert origin == ("/ingest/tick", "Broker-Demo", AGENT, 7200)
    assert items == [tick(0)]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"items": [bar(20), bar(21)]}),
        json.dumps([bar(20), bar(21)], indent=1),
        json.dumps(bar(20)) + "\n" + json.dumps(bar(21)) + "\n",
        # A line that is JSON by itself, though it belongs to a document.
        "[\n" + json.dumps(bar(20)) + ",\n" + json.dumps(bar(21)) + "\n]\n",
    ],
)
def test_a_fallback_holds_bodies(tmp_path: Path, content: str) -> None:
    path = tmp_path / "PDC_batch_fallback_20251020.json"
    path.write_text(content)

    ((origin, items),), _ = requests(path)

    assert (origin.route, items) == ("/ingest", [bar(20), bar(21)])


#: As the MetaTrader5 package for Python has it, without symbol and timeframe.
RATE = {"time": 1_760_926_800, "open": 1.1, "high": 1.2, "low": 1.0, "close": 1.1, "tick_volume": 5, "spread": 2}


@pytest.mark.parametrize("content", [json.dumps([RATE, RATE]), f"{json.dumps(RATE)}\n{json.dumps(RATE)}\n"])
def test_bars_without_a_timeframe_have_that_which_is_said_or_of_the_files_name(tmp_path: Path, content: str) -> None:
    for name, timeframe, expected in (("EURUSD_M5.json", None, "M5"), ("EURUSD.json", "H1", "H1")):
        (tmp_path / name).write_text(content)
        with ArchiveFile(tmp_path / name, timeframe=timeframe) as archive:
            ((origin, items, _),) = archive
        assert origin.route == "/ingest"
        assert [json.loads(item) for item in items] == [RATE | {"symbol": "EURUSD", "timeframe": expected}] * 2
        assert archive.reasons == []


def test_a_bar_without_a_timeframe_is_told_what_to_say(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD.jsonl"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in (RATE, RATE | {"timeframe": None}, tick(0), bar(20))))

    found, reasons = requests(path)

    assert [items for _, items in found] == [[tick(0)], [bar(20)]]
    assert [reason.partition(": ")[2] for reason in reasons] == [
        f"line {line}: it is a bar without a timeframe; say it with --timeframe" for line in (1, 2)
    ]


def test_an_item_without_a_symbol_is_told_what_to_say(tmp_path: Path) -> None:
    path = tmp_path / "ticks.jsonl"
    without = {name: value for name, value in tick(0).items() if name != "symbol"}
    path.write_text(f"{json.dumps(without)}\n{json.dumps(tick(1))}\n")

    ((_, items),), reasons = requests(path)

    assert (items, reasons) == ([tick(1)], [f"{path}: line 1: it names no symbol; say it with --symbol"])


def test_who_says_a_timeframe_gets_no_bars_of_another(tmp_path: Path) -> None:
    path = tmp_path / "bars.jsonl"
    path.write_text("".join(f"{json.dumps(bar(20) | {'timeframe': name})}\n" for name in ("M1", "PERIOD_H1", "H1")))

    with ArchiveFile(path, timeframe="H1") as archive:
        items = [json.loads(item)["timeframe"] for _, written, _ in archive for item in written]

    assert (items, archive.reasons) == (["PERIOD_H1", "H1"], [f"{path}: line 1: it is of M1, not of H1"])


def test_bytes_of_windows_1252_are_read_as_the_server_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "PDC_fallback_1.json"
    path.write_bytes(b'{"ticks":[{"symbol":"EURUSD.\xa3","bid":1.1,"ask":1.2,"ts_msc":1760926800417}]}')

    ((_, items),), _ = requests(path)

    assert [item["symbol"] for item in items] == ["EURUSD.£"]


def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "PDC_outbound_20251020.jsonl"
    whole = [json.dumps({"ts": "x", "kind": "tick", "body": {"ticks": [tick(n)]}}) for n in range(3)]
    path.write_text("\n".join([whole[0][:90], *whole, whole[0][:50]]))

    ((_, items),), reasons = requests(path)

    assert items == [tick(0), tick(1), tick(2)]
    assert [reason.partition(": ")[2][:6] for reason in reasons] == ["line 1", "line 5"]
    assert all("the body is not JSON" in reason for reason in reasons)


#: Nothing in a text ends an item.
AWKWARD = {"comment": 'an "item", {with [all] of} it: \\ },{', "meta": {"a": [1, [2], {"b": None}]}}


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents are long from 100 KB on, in place of 8 MB, and cut into pieces of 50 KB."""
    monkeypatch.setattr(archives, "_LONGEST_TEXT", 100_000)
    monkeypatch.setattr(document, "_PIECE", 50_000)
    monkeypatch.setattr(archives, "_TOGETHER_BYTES", 50_000)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("indent", [None, 1])
def test_a_long_document_comes_back_whole(tmp_path: Path, indent: int | None) -> None:
    # Arrange: what is said behind the items holds for all of them
    ticks = [tick(number, **AWKWARD) for number in range(2_000)]
    path = tmp_path / "1760926800417.json"
    payload = {"ticks": ticks, "utc_offset_s": 7200}
    path.write_text(json.dumps({"url": "u", "payload": payload, "headers": {"X-Source": "Demo"}}, indent=indent))
    assert path.stat().st_size > 300_000

    # Act
    found, reasons = requests(path)

    # Assert
    assert {posted.origin for posted in found} == {Origin("/ingest/tick", "Demo", None, 7200)}
    assert [item for posted in found for item in posted.items] == ticks
    assert max(len(posted.items) for posted in found) < 500
    assert reasons == []


@pytest.mark.usefixtures("small_pieces")
def test_a_bad_item_of_a_long_document_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "PDC_fallback_1.json"
    items = [json.dumps(tick(number)) for number in range(2_000)]
    items[1_000] = '{"symbol" "EURUSD"}'
    path.write_text("[\n" + ",\n".join(items) + "\n]")

    found, reasons = requests(path)

    expected = [tick(number) for number in range(2_000) if number != 1_000]
    assert [item for posted in found for item in posted.items] == expected
    assert len(reasons) == 1


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"ticks":[ITEMS,\n', "is no item"),
        ('{"ticks":[ITEMS\n],"items":[{"bid":1}\n]}', "several lists"),
        ('{"a":[ITEMS],\n"b":2}', "no list of items"),
        ('{"ticks":[\n],"b":[ITEMS]}', "much stands behind"),
    ],
)
def test_a_long_document_that_is_no_list_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "PDC_fallback_1.json"
    item = json.dumps({"bid": 1, "comment": "x" * 1_000})
    path.write_text(text.replace("ITEMS", f"{item},\n" * 300 + item))
    with ArchiveFile(path) as archive, pytest.raises(UnknownForm, match=why):
        list(archive)


def test_items_of_other_symbols_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "PDC_fallback_1.json"
    path.write_text(json.dumps([tick(0), tick(1, symbol="GBPUSD")]))

    ((_, items),), reasons = requests(path, "EURUSD")

    assert items == [tick(0)]
    assert [reason.partition(": ")[2] for reason in reasons] == ["line 1: it is of GBPUSD, not of EURUSD"]


@pytest.mark.parametrize("text", ["time,bid,ask\n1,2,3\n", "[SP500],20190204 00:00:01.123,1.1,1.2\n", ""])
def test_other_text_is_no_archive(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    assert not is_archive(path)


@pytest.mark.parametrize("form", ["lines", "list"])
def test_items_without_a_symbol_are_of_the_one_that_is_said_or_named_by_the_file(tmp_path: Path, form: str) -> None:
    items = [{"time_msc": 1_760_926_800_417 + number, "bid": 1.1, "ask": 1.2} for number in range(2)]
    text = "\n".join(map(json.dumps, items)) if form == "lines" else json.dumps(items)
    for name, said, symbol in (("EURUSD_2025.json", None, "EURUSD"), ("ticks.json", "GBPUSD", "GBPUSD")):
        path = tmp_path / name
        path.write_text(text)
        (posted,), reasons = requests(path, said)
        assert ([item["symbol"] for item in posted.items], reasons) == ([symbol] * 2, [])


@pytest.mark.parametrize(
    "table",
    [
        {"columns": ["time", "bid", "ask"], "index": [0], "data": [[1, 1.1, 1.2]]},
        {"time": {"0": 1}, "bid": {"0": 1.1}, "ask": {"0": 1.2}},
        {"time": [1], "bid": [1.1], "ask": [1.2]},
        {"0": {"time": 1, "bid": 1.1, "ask": 1.2}},
        [[1, 1.1, 1.2]],
        {"s": "ok", "t": [1], "o": [1.1], "h": [1.2], "l": [1.0], "c": [1.1]},
        {"instrument": "EUR_USD", "candles": [{"time": "2025-10-20T02:20:00Z"}]},
    ],
)
def test_a_table_by_its_columns_is_told_and_takes_no_request_with_it(tmp_path: Path, table: Any) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(f"{json.dumps(table)}\n{json.dumps({'ticks': [tick(0)]})}\n")

    found, (reason,) = requests(path)

    assert [posted.items for posted in found] == [[tick(0)]]
    assert "line 1" in reason
    assert "orient='records', lines=True" in reason


#: Ticks as an EA writes them, and whether each is one that needs no closer look.
WRITTEN = '{"ts":"2025-10-20T02:20:00Z","symbol":"EURUSD","bid":1.165120,"ask":1.165180,"ts_msc":1760926800417%s}'


@pytest.mark.parametrize(
    "line",
    [
        WRITTEN % "",
        f"[{WRITTEN % ''}, {WRITTEN % ''}]",
        '{"ticks":[%s]}' % (WRITTEN % ',"meta":{"ea":"PDC"}'),
        '{"ts":"x","kind":"tick","body":{"utc_offset_s":7200,"ticks":[%s]}}' % (WRITTEN % ""),
        '{"ts":"x","kind":"tick","body":{"ticks":[%s,{"Symbol":"GBPUSD"}]}}' % (WRITTEN % ',"comment":"a[1]"'),
        '{"url":"u","payload":{"ticks":[%s]},"headers":{"X-Source":"Demo"}}' % (WRITTEN % ',"comment":"a[1]"'),
    ],
)
def test_items_are_passed_on_as_they_were_written(tmp_path: Path, line: str) -> None:
    path = tmp_path / "ticks.jsonl"
    path.write_text(f"{line}\n")
    with ArchiveFile(path) as archive:
        ((_, items, _),) = archive
    assert all(item in line.encode() for item in map(bytes.strip, items))
    assert line.count("symbol") + line.count("Symbol") == len(items)
    assert items.text.count(b"1.165120") == line.count("1.165120")


items_in_archives = st.fixed_dictionaries(
    {},
    optional={
        "symbol": st.sampled_from(["EURUSD", "GBPUSD", "[SP500]", None, 5]),
        "Symbol": st.just("GBPUSD"),
        "bid": st.sampled_from([1.1, 0, "1.1", 1e308, float("nan"), [1.1]]),
        "ask": st.sampled_from([1.2, 0, None]),
        "ts_msc": st.sampled_from([1_760_926_800_417, 0, "1760926800417"]),
        "Ts_Msc": st.just(1_760_926_800_417),
        "open": st.sampled_from([1.1, None]),
        "Open": st.just(1.1),
        "timeframe": st.sampled_from(["M1", "tick", None]),
        "Timeframe": st.just("M1"),
        "meta": st.sampled_from([{"ea": "PDC"}, {"a": [1]}]),
        "data": st.just([1]),
        "payload": st.sampled_from([None, 5, {"ticks": [tick(7)]}]),
    },
)


@fewer_examples
@given(
    items=st.lists(st.one_of(items_in_archives, st.just(tick(0)), st.just(bar(20))), max_size=4),
    form=st.sampled_from(["%s", '{"ticks":%s}', '{"ticks":%s,"utc_offset_s":3600}', '{"ts":"x","body":{"ticks":%s}}']),
    symbol=st.sampled_from([None, "EURUSD"]),
)
def test_what_needs_no_closer_look_is_read_as_if_it_had_one(items: list[Any], form: str, symbol: str | None) -> None:
    # The second form of the same text has one more array in it, so that its items are decoded one by one.
    text = form % json.dumps(items)
    bodies = [
        [
            (each.source, each.utc_offset_seconds, [json.loads(item) for item in each.written])
            for each in bodies_in(given_text.encode(), symbol)
        ]
        for given_text in (text, f'{text[:-1]},"note":[]}}' if text[0] == "{" else f'{{"ticks":{text},"note":[]}}')
    ]
    assert repr(bodies[0]) == repr(bodies[1])


@fewer_examples
@given(item=items_in_archives)
def test_a_usual_tick_is_no_bar_no_table_and_no_envelope(item: dict[str, Any]) -> None:
    text = json.dumps(item).encode()
    for body in bodies_in(b"[%b]" % text, None):
        if body.items is None and body.written.text == text:
            assert not is_bar(item)
            assert not archives._is_table(item)
            assert item.get("payload") is None
            assert "symbol" in item


def test_lines_of_one_tick_are_joined_into_requests_of_a_megabyte(tmp_path: Path) -> None:
    path = tmp_path / "PDC_outbound_20251020.jsonl"
    lines = (json.dumps({"ts": "x", "kind": "tick", "body": {"ticks": [tick(number)]}}) for number in range(20_000))
    path.write_text("\n".join(lines))
    with ArchiveFile(path) as archive:
        sizes = [(len(items), items.size_bytes) for _, items, _ in archive]
    assert sum(count for count, _ in sizes) == 20_000
    assert [size // 100_000 for _, size in sizes[:-1]] == [8] * (len(sizes) - 1)


@pytest.mark.parametrize("extra", [{}, {"comment": "a[1]"}, {"list": []}])
def test_a_request_that_was_posted_again_is_not_joined_with_the_first(tmp_path: Path, extra: dict[str, Any]) -> None:
    # In one frame its ticks would count twice; as frames of their own they are known for a resend.
    path = tmp_path / "PDC_outbound_20251020.jsonl"
    lines = [[0, 1], [2, 3], [2, 3], [4], [4], [5, 6]]
    path.write_text("".join(json.dumps({"body": {"ticks": [tick(i, **extra) for i in line]}}) + "\n" for line in lines))
    found, _ = requests(path)
    times = [[item["ts_msc"] - tick(0)["ts_msc"] for item in request.items] for request in found]
    assert times == [[0, 1, 2, 3], [2, 3, 4], [4, 5, 6]]


@pytest.mark.parametrize("extra", [{"ts_msc": 0}, {"last": 1.165}])
def test_requests_that_the_fold_tells_by_the_whole_stay_as_they_were(tmp_path: Path, extra: dict[str, Any]) -> None:
    path = tmp_path / "PDC_outbound_20251020.jsonl"
    path.write_text("".join(json.dumps({"body": {"ticks": [tick(i, **extra)]}}) + "\n" for i in range(3)))
    found, _ = requests(path)
    assert [len(request.items) for request in found] == [1, 1, 1]


def test_a_part_of_joined_requests_has_the_items_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "PDC_fallback_1.json"
    lines = [[tick(0), tick(1)], [tick(2, Comment=float("nan"))], [tick(3), tick(4), tick(5)]]
    path.write_text("".join(json.dumps({"ticks": line}) + "\n" for line in lines))
    with ArchiveFile(path) as archive:
        ((_, items, _),) = archive
    part = items[1:5]
    assert [json.loads(item)["ts_msc"] - tick(0)["ts_msc"] for item in part] == [1, 2, 3, 4]
    assert json.loads(items[3]) == tick(3)
    assert len(json.loads(b"[%b]" % part.text)) == len(part) == 4


def test_a_symbol_is_known_by_its_name_in_any_spelling(tmp_path: Path) -> None:
    path = tmp_path / "PDC_fallback_1.json"
    path.write_text(json.dumps([{"Symbol": "GBPUSD", "Bid": 1.1, "Ask": 1.2, "ts_msc": 1}]))
    found, reasons = requests(path, "EURUSD")
    assert found == []
    assert "it is of GBPUSD, not of EURUSD" in reasons[0]


def test_half_a_character_in_what_is_only_nearly_json_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "PDC_outbound_20251020.jsonl"
    broken = '{"ts":nan,"kind":"tick","body":"{\\"ticks\\":[{\\"symbol\\":\\"\\ud800\\"}]}"}\n'
    path.write_text(broken + json.dumps({"ticks": [tick(0)]}) + "\n")
    found, _ = requests(path)
    assert found[-1].items[-1] == tick(0)


#: With TICK and BAR in the place of such items.
ODD_LINES = (
    '{"ts":"x","kind":"tick","body":{"ticks":[{"symbol" "EURUSD"}]}}',
    '{"ts":"x","kind":"tick","body":{"ticks":[TICK],"utc_offset_s":3600}}',
    '{"ts":"x","kind":"tick","body":{"ticks":[TICK],"utc_offset_s":3600,"utc_offset_s":3600}}',
    '{"ts":"x","kind":"tick","body":{"ticks":[TICK]},"headers":{"X-Source":"Other"}}',
    '{"ts":"x","kind":"tick","body":{"ticks":[TICK]}},{"ts":"x"}',
    '{"ts":"x","kind":"ohlcv","body":{"items":[BAR]}}',
    '{"ts":"x","kind":"tick","body":{"ticks":[]}}',
    '{"ts":"x","kind":"tick","body":{"ticks":[TICK],"ticks":[TICK]}}',
    '{"ts":"x","kind":"tick","body":{"ticks":[TICK],"Ticks":[TICK]}}',
    '{"ts":"x","kind":"tick","body":"[TICK"}',
    '{"ts":"x","kind":"tick","body":"{}"}',
    "TICK",
    "[TICK]",
    '{"ticks":[TICK,{"symbol":"X","bid":1,"ask":1,"ts":"2025","list":["]"]}]}',
    '{"ticks":[TICK',
    "TICK]}",
)
ONE_TICK = '{"ticks":[TICK]}'


def with_items(line: str) -> str:
    return line.replace("TICK", WRITTEN % "").replace("BAR", json.dumps(bar(20)))


@fewer_examples
@given(lines=st.lists(st.one_of(st.just(ONE_TICK), st.sampled_from(ODD_LINES)), max_size=6))
def test_lines_that_are_read_together_say_what_each_says(lines: list[str], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("lines") / "PDC_outbound_20251020.jsonl"
    path.write_text("".join(f"{with_items(line)}\n" for line in lines))
    found = []
    for block_bytes in (1, 64 * 1024):
        with ArchiveFile(path) as archive, pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(archives, "_BLOCK_BYTES", block_bytes)
            requests_found = [(origin, [*map(bytes.strip, items)]) for origin, items, _ in archive]
            found.append((requests_found, archive.reasons, archive.skipped))
    assert found[0] == found[1]
