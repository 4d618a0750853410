"""`python -m tests.integration.broken SERVICE PLACE`: a service in which the function at PLACE raises, like a bug."""

import inspect
import pkgutil
import runpy
import sys
from typing import Any


def _fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("a bug")


async def _fail_later(*_: Any, **__: Any) -> None:
    _fail()


if __name__ == "__main__":
    _, service, place = sys.argv
    sys.argv = [service]
    owner, _, name = place.rpartition(":" if "." not in place.partition(":")[2] else ".")
    broken = _fail_later if inspect.iscoroutinefunction(pkgutil.resolve_name(place)) else _fail
    setattr(pkgutil.resolve_name(owner), name, broken)
    runpy.run_module(f"{service}.__main__", run_name="__main__")
