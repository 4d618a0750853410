"""Bodies as EAs and the exporter write them."""

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.contract.body import MAX_ITEMS, decode, has_decimal_comma, readable, text_of
from marketdata.contract.http import Refusal


@pytest.mark.parametrize(
    "body", [b'{"ticks":[{"a":1}]}', b'{"items":[{"a":1}]}', b'[{"a":1}]', b'{"a":1}', b'\xef\xbb\xbf[{"a":1}]\x00']
)
def test_every_form_of_a_body_holds_its_items(body: bytes) -> None:
    assert decode(body).items == [{"a": 1}]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"7", 400), (b'{"ticks":7}', 400), (b'{"ticks":[],"utc_offset_s":"x"}', 400),
        (b"[" * 100_000, 400), (b"[" + b"0," * MAX_ITEMS + b"0]", 413), (b"\xff", 400),
    ],
)  # fmt: skip
def test_what_holds_no_items_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        decode(body)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("written", "seconds"), [("7200", 7200), ("7200.0", 7200), ('"7200"', 7200), ('"-12600"', -12_600), ("null", None)]
)
def test_the_offset_of_the_clock_is_read(written: str, seconds: int | None) -> None:
    assert decode(f'{{"utc_offset_s":{written},"ticks":[]}}'.encode()).utc_offset_seconds == seconds


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("nan", math.nan), ("-nan(ind)", math.nan), ("NaN", math.nan), ("-1.#IND", math.nan), ("1.#QNAN", math.nan),
        ("-1.#IND00", math.nan), ("inf", math.inf), ("-inf", -math.inf), ("+Infinity", math.inf),
        ("1.#INF", math.inf), ("-1.#INF", -math.inf), ("1.#INF00", math.inf),
        ('"1.#INF, nan"', "1.#INF, nan"), ('"say \\"nan\\""', 'say "nan"'), ("1.5", 1.5),
    ],
)  # fmt: skip
def test_what_c_prints_for_no_number_is_read(token: str, value: Any) -> None:
    (read,) = json.loads(readable(f"[{token}]"))
    assert read == value or (math.isnan(read) and math.isnan(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'["C:\Users\x", "a\"b", "\\", "\u00e9\n"]', ["C:\\Users\\x", 'a"b', "\\", "é\n"]),
        (r'["\u12", "\q\\q"]', ["\\u12", "\\q\\q"]),
        ('[{"a": 1,}, {"b": [2, 3 , ], } ,\n]', [{"a": 1}, {"b": [2, 3]}]),
        ('[",]", ",}"]', [",]", ",}"]),
        # A loop that joins by a comma what may be empty.
        ('[,{"a": 1},, {"a": 2} , ,{"a": 3},,]', [{"a": 1}, {"a": 2}, {"a": 3}]),
        ('{,"a": 1.5,,"b": 2,,}', {"a": 1.5, "b": 2}),
        ('["[,", ",,"]', ["[,", ",,"]),
    ],
)
def test_backslashes_and_commas_that_loops_leave_are_read(text: str, value: Any) -> None:
    assert json.loads(readable(text)) == value


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_json_stays_as_it_is(value: Any) -> None:
    text = json.dumps(value)
    assert readable(text) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"Soci\xe9t\xe9 \x80", "Société €"),
        ("Société Газ".encode(), "Société Газ"),
        (b"\xc3\xa9 \xe9", "é é"),
        (b"a\x81b", "a\ufffdb"),
        (b"\xed\xa0\x80", "í\xa0€"),  # half a character in UTF-8
        ("opções, créée".encode("cp1252"), "opções, créée"),
        ("Газпром, ВТБ".encode("cp1251"), "\ufffd" * 7 + ", " + "\ufffd" * 3),
        ("Газ".encode() + " Газ".encode("cp1251") + b" \xe9", "Газ \ufffd\ufffd\ufffd é"),
    ],
)
def test_what_is_no_utf_8_is_windows_1252(body: bytes, text: str) -> None:
    assert text_of(body) == text


@given(st.text())
def test_utf_8_stays_as_it_is(text: str) -> None:
    assert text_of(text.encode()) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [('{"bid":1,16512,"ask":2}', True), ('{"a":1,"b":2}', False), ('{"a":[1,2,3],', False)],
)
def test_a_decimal_comma_is_recognised(text: str, expected: bool) -> None:
    assert has_decimal_comma(text, len(text)) is expected


@pytest.mark.parametrize(
    ("body", "cure"),
    [
        (b'{"ticks":[]}\0{"symbol":"EUR', "no more of the array than the text has"),
        (b'{"ticks":[{"spread":1.#INF}]}\0 1.1}]}', "no more of the array than the text has"),
        (b'{"symbol":"A"}\n{"symbol":"B"}\n', "put their items into one array"),
        (b'[{"symbol":"A"}][{"symbol":"B"}]', "put their items into one array"),
        ('{"ticks":[]}'.encode("utf-16-le"), "post UTF-8"),
        ('{"ticks":[]}'.encode("utf-16-be"), "post UTF-8"),
        ('{"ticks":[{"symbol":"Газпром"}'.encode(), "counts characters instead of bytes"),
        (b"%7B%22ticks%22%3A%5B%5D%7D", "the body is form data"),
        (b'--x1\r\nContent-Disposition: form-data; name="a"\r\n\r\n[]\r\n--x1--\r\n', "the body is form data"),
    ],
)
def test_a_body_that_is_no_json_is_told_what_to_do(body: bytes, cure: str) -> None:
    with pytest.raises(Refusal) as refused:
        decode(body)
    assert cure in refused.value.message


@pytest.mark.parametrize(
    "unit",
    [
        b'\\"',
        b'"',
        b'"a',
        b'"\\',
        b"nan(",
        b"nan",
        b"1.#",
        b"1",
        b"-",
        b"a=",
        b"\xa3",
        b"a\xa3",
        b'{"a":1,2',
        b":1,",
        b", ",
        b",",
        b"\\u",
        b"\\q",
    ],
)
def test_the_time_for_a_body_grows_with_its_length_alone(unit: bytes) -> None:
    body = b"[" + unit * (1_000_000 // len(unit))
    began = time.process_time()
    with pytest.raises(Refusal):
        decode(body)
    # Each takes 0.01 to 0.1 s; where a string that does not end is looked at from every quote it takes many minutes.
    assert time.process_time() - began < 2
