"""What operators do to a running stack by hand, by its name; the acts themselves are in the modules beside."""

from collections.abc import Awaitable, Callable

from tests.faults.operator_at_work import Operator

Act = Callable[[Operator], Awaitable[None]]

ACTS: dict[str, Act] = {}

#: Acts after which the table lacks something, until `tickpipe verify --complete --repair`.
TO_REPAIR: set[str] = set()


def act(name: str, *, repair: bool = False) -> Callable[[Act], Act]:
    def register(function: Act) -> Act:
        ACTS[name] = function
        if repair:
            TO_REPAIR.add(name)
        return function

    return register
