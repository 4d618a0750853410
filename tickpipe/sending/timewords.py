"""Names of months in the languages of files, and times that are not read, with what to do about them."""

import re
from typing import Final
from unicodedata import normalize

#: The names of the months, each in English, German, French, Italian, Portuguese, Spanish, Polish and Russian, and
#: abbreviations that are not how a name begins.
_MONTHS: Final = (
    "january januar jänner janvier gennaio janeiro enero styczeń stycznia январь января",
    "february februar février fevrier febbraio fevereiro febrero luty lutego февраль февраля",
    "march märz maerz mrz mars marzo março marco marzec marca март марта",
    "april avril aprile abril kwiecień kwietnia апрель апреля",
    "may mai maggio maio mayo maj maja май мая",
    "june juni juin giugno junho junio czerwiec czerwca июнь июня",
    "july juli juillet luglio julho julio lipiec lipca июль июля",
    "august août aout agosto sierpień sierpnia август августа",
    "september septembre settembre setembro septiembre wrzesień września сентябрь сентября",
    "october oktober octobre ottobre outubro octubre październik października октябрь октября",
    "november novembre novembro noviembre listopad listopada ноябрь ноября",
    "december dezember décembre decembre dicembre dezembro diciembre grudzień grudnia декабрь декабря",
)

#: Times that are not read, and what to do about them.
_UNREAD: Final = tuple(
    (re.compile(pattern), why)
    for pattern, why in (
        (r"[0-9]{4}-?W[0-9]{2}(?:-?[0-9])?", "is a week of the calendar; write the date of its first day"),
        (r"[0-9]{4}-[0-9]{3}", "is a day by its number in the year; write its date"),
        (r"[0-9]{1,2}:[0-9]{2}\S*(?: ?[AaPp]\.?[Mm]\.?)? .*[0-9].*", "has the time of day "
         "before the date; write the date before it, or each into a column of its own"),
        (r"#{3,}", "is what Excel saves where a column is too narrow; widen it and save the file again"),
        (r"[0-9]{8} [0-9]{1,5}", "has a time of day that has lost its first zeros; write all digits, as in 090709"),
        (r"(?:.* )?[0-9]{1,2}:[0-9]{2}[.,][0-9]+", "is all that Excel saved of the time; have its column shown "
         "as yyyy-mm-dd hh:mm:ss.000 and save the file again"),
        (r"[2-6][0-9]{4}(?:[.,][0-9]+)?", "are days as Excel counts them; have its column shown as yyyy-mm-dd "
                                         "hh:mm:ss.000 and save the file again"),
        (r"[0-9](?:[.,][0-9]{1,8})?[eE]\+?[0-9]{1,2}", "is no time any more, a program has rounded it; save the file "
                                                      "again with all digits"),
        (r".*[0-9] ?(?:[A-Z]{3,4}|[A-Z][A-Za-z]+/[A-Za-z_]+)", "ends with the name of a zone, which may "
         "mean several; take it away and say --zone"),
    )
)  # fmt: skip
_UNKNOWN: Final = "is no time in a form that is known; say it with --date-format"


def month_named(name: str) -> int:
    """The number of the month that a name or its beginning says; 0, which no calendar has, where none or several do."""
    beginning = normalize("NFC", name).lower()
    found = [number for number, names in enumerate(_MONTHS, 1) if f" {beginning}" in f" {names}"]
    return found[0] if len(found) == 1 else 0


def why_unread(text: str) -> str:
    """Why a text is no time that is read, and what to do about it."""
    return next((why for pattern, why in _UNREAD if pattern.fullmatch(text)), _UNKNOWN)
