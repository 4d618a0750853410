"""The background process of a detached stack: `python -m tickpipe.embedded CONFIG`, CONFIG as JSON."""

import sys

import structlog

from marketdata.errors import TickpipeError
from tickpipe.embedded.services import StackConfig
from tickpipe.embedded.stack import run_stack
from tickpipe.embedded.supervisor import StackEvent

_log = structlog.get_logger("tickpipe.embedded")


def _log_event(event: StackEvent) -> None:
    _log.info(event.message, service=event.service, state=event.state)


def main() -> int:
    """Run the stack until it is told to stop; the error that keeps it from starting is the last line of its log."""
    try:
        run_stack(StackConfig.from_json(sys.argv[1]), _log_event)
    except TickpipeError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
