"""Reference data: who sends, and how an instrument is quoted. Records of the compacted topic `reference`."""

from math import isfinite
from typing import Annotated, Final

from msgspec import Meta, Struct

from marketdata.tick import TimeMsc

_Name = Annotated[str, Meta(max_length=64)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]

#: Senders compute the size of a point, so its last digits may be noise (significant digits).
_POINT_DIGITS: Final = 9

#: More decimals than any price has.
MAX_DECIMALS: Final = 18


class SenderCount(Struct, frozen=True, gc=False, kw_only=True, tag_field="kind", tag="sender"):
    """How much one producer has accepted from one sender; a later record replaces an earlier one."""

    source: Annotated[str, Meta(min_length=1, max_length=64)]
    #: As in `marketdata.contract.http`; empty where the sender does not say.
    server: _Name
    account: _Name
    build: _Name
    ea: _Name
    version: _Name
    #: The address that the requests came from.
    address: _Name
    #: Tells this count from those of other producers, and from earlier ones of the same; the sum of all is the total.
    counter: Annotated[str, Meta(min_length=1, max_length=64)]
    #: Receipt of the first and of the newest request (UTC epoch milliseconds).
    first_seen: TimeMsc
    last_seen: TimeMsc
    #: Ticks and broker's bars that Kafka confirmed.
    ticks: _Count
    bars: _Count
    #: Those of the ticks that came into the terminal's list behind later ones, as the sender says.
    late_ticks: _Count = 0


class Instrument(Struct, frozen=True, gc=False, kw_only=True, tag_field="kind", tag="instrument"):
    """How a source quotes a symbol; a later record replaces an earlier one."""

    source: Annotated[str, Meta(min_length=1, max_length=64)]
    symbol: Annotated[str, Meta(min_length=1, max_length=32)]
    #: Size of a point in price units (MT5: SYMBOL_POINT).
    point: Annotated[float, Meta(gt=0)]
    #: When the producer received it (UTC epoch milliseconds).
    received: TimeMsc


Reference = SenderCount | Instrument


def decimals_of(point: float) -> int:
    """Decimals of a price whose smallest step is `point`: 5 for 0.00001, 0 for 1 and for 10, 2 for 0.25."""
    if not isfinite(point) or point <= 0:
        return 0
    mantissa, _, exponent = f"{point:.{_POINT_DIGITS - 1}e}".partition("e")
    significant = len(mantissa.rstrip("0").partition(".")[2])
    return min(MAX_DECIMALS, max(0, significant - int(exponent)))
