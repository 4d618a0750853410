"""Python's collector of garbage, for processes that decode thousands of small objects at a time."""

import gc


def collect_rarely() -> None:
    """Look for garbage after 100,000 new objects instead of 700, and never again at what is there now.

    A poll decodes to some ten thousand objects that die together without the collector's help. Looking at them over and
    over costs a quarter of the decoding, and half of folding again from the log, which keeps many minutes in memory.
    """
    gc.set_threshold(100_000, 20, 20)
    gc.freeze()
