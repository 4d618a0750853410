"""Text that senders chose (symbols, sources, request ids) where people see it: terminals, logs, spreadsheets."""

from typing import Any, Final

#: Characters that a terminal obeys instead of showing them, and those that turn the direction of reading.
_OBEYED: Final = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for codes in (
        {*range(9), *range(11, 32)}, range(127, 160), (0x061C, 0x200E, 0x200F), range(0x2028, 0x202F),
        range(0x2066, 0x206A),
    )
    for code in codes
}  # fmt: skip

#: What a spreadsheet takes for the beginning of a formula, and what begins one that does harm only with a call in it:
#: `@ES` and `-USD` are names of instruments.
_FORMULA: Final = ("=", "\t", "\r", "＝")
_PERHAPS_FORMULA: Final = ("+", "-", "@", "＋", "－", "＠")
_CALLS: Final = frozenset("(|!")


def shown(text: str) -> str:
    """The text with what a terminal would obey written out, as in `\\x1b`; line feeds and tabs stay."""
    return text.translate(_OBEYED)


def cell(value: Any) -> Any:
    """The value as a cell of a CSV file: a text that a spreadsheet would compute gets an apostrophe in front."""
    if not isinstance(value, str) or not value:
        return value
    if value[0] in _FORMULA or (value[0] in _PERHAPS_FORMULA and not _CALLS.isdisjoint(value)):
        return f"'{value}"
    return value


def shown_fields(_logger: Any, _method: str, event: Any) -> Any:
    """A processor of structlog: every text of a line as `shown`, and on one line; names of fields are ours."""
    for name, value in event.items():
        if isinstance(value, str) and name != "exception":
            event[name] = shown(value).replace("\n", "\\n") if name != "event" else shown(value)
    return event
