"""`python -m tickpipe`: the command line."""

from tickpipe.cli import main

if __name__ == "__main__":
    main()
