"""`tickpipe` and `python -m tickpipe`: the command line, which Ctrl-C ends without a traceback while it loads, too."""

import sys


def main() -> None:
    """Entry point of the console script."""
    try:
        from tickpipe import cli  # noqa: PLC0415  # what takes the time
    except KeyboardInterrupt:
        sys.exit(130)  # `tickpipe.console.INTERRUPTED`, which is not loaded either
    cli.main()


if __name__ == "__main__":
    main()
