"""The EA's MQL5 as C++: what its part of the language writes differently is three things, each on one line.

- `T name[]`, a dynamic array, also as a parameter: `Array<T> name`.
- `input T name = value;` in the .mq5: a variable.
- `#property` and `input group`, which C++ does not have.
"""

import re
from pathlib import Path

_PARAMETER = re.compile(r"\b(\w+) &(\w+)\[\]")
_VARIABLE = re.compile(r"^(\s*)(\w+) (\w+)\[\];", re.M)
_PROPERTY = re.compile(r"^(#property|input group) .*$", re.M)
_INPUT = re.compile(r"^input (?=\w+ \w+ = )", re.M)
_INCLUDE = re.compile(r'^#include "(\w+)\.mqh"', re.M)


def translated(source: str) -> str:
    """The same program for a C++ compiler, line for line."""
    source = _PARAMETER.sub(r"Array<\1> &\2", source)
    source = _VARIABLE.sub(r"\1Array<\2> \3;", source)
    source = _PROPERTY.sub("", source)
    source = _INPUT.sub("static ", source)
    return _INCLUDE.sub(r'#include "\1.translated.hpp"', source)


def translate(folder: Path, target: Path) -> None:
    """Write the translation of every MQL5 file of a folder to another."""
    for path in [*folder.glob("*.mqh"), *folder.glob("*.mq5")]:
        (target / f"{path.stem}.translated.hpp").write_text(
            translated(path.read_text(encoding="utf-8-sig")), encoding="utf-8"
        )
