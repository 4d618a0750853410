"""`python -m sink`: the sink as a process. Exit code 0 after SIGTERM or SIGINT, 1 after an error, 2 for settings."""

import sys

from prometheus_client import REGISTRY

from runtime.service import run_service
from runtime.settings import Settings
from sink.service import Sink


def main() -> int:
    """Run until a signal; returns the exit code."""

    def new_sink(settings: Settings) -> Sink:
        return Sink(settings, registry=REGISTRY)

    return run_service("sink", new_sink, logger="sink", left=" Offsets were not committed.")


if __name__ == "__main__":
    sys.exit(main())
