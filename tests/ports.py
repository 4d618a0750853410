"""Ports for the servers of tests, none of them given twice while many test processes run at once."""

from typing import Final

from tickpipe.embedded.state import hold, is_free, shuffled

#: Below the range from which Linux takes the ports of outgoing connections, and apart from the stack's own.
_RANGE: Final = range(10_000, 17_000)


def free_port() -> int:
    """A port that nobody listens on, and that no other test process is given as long as this one lives."""
    return next(port for port in shuffled(_RANGE) if is_free(port) and hold(port))
