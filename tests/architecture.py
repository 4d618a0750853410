"""What docs/architecture.md says, for the tests that hold it to the code."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"

PACKAGES = ("marketdata", "runtime", "producer", "stream_app", "sink", "relay", "dashboard", "tickpipe")

#: A module of ours, or a function or class in it, as `module.Class.function`.
_NAME = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+)`")

#: A name in a file that is not Python.
IN_FILE = re.compile(r"`([\w.#]+)`(?: and `([\w.#]+)`)? in\s+`([\w/.-]+\.(?:js|sql))`")


def sections(page: str) -> dict[str, str]:
    """The text under each heading that names a service."""
    parts = re.split(r"^## .*`python -m (\w+)`$", page, flags=re.MULTILINE)
    return {service: text.partition("\n## ")[0] for service, text in zip(parts[1::2], parts[2::2], strict=True)}


def steps(section: str) -> str:
    """The numbered steps of a section, without what stands before and behind them."""
    return "\n".join(re.findall(r"^(?:\d+\. |   ).*$", section, re.MULTILINE))


def names(text: str) -> list[str]:
    """The names in a text, in order."""
    return _NAME.findall(text)
