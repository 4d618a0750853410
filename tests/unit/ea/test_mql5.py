"""The EA's sources keep to MQL5: the C++ compiler of the other tests takes more than MetaEditor does."""

import re
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[3] / "ea"
SOURCES = sorted([*_FOLDER.glob("*.mqh"), *_FOLDER.glob("*.mq5")])

#: What C++ has and MQL5 has not, or means differently.
ONLY_CPP = {
    "a pointer's arrow": r"->",
    "a scope": r"::",
    "a word of C++": r"\b(?:auto|nullptr|using|namespace|std|unsigned|size_t|constexpr|throw|try|goto)\b",
    "a pointer": r"\b(?:char|int|long|double|string|void|[A-Z][a-z]\w*) \*\w",
    "a loop over a range": r"for\([^;)]*:[^;)]*\)",
    "a local reference": r"^\s+(?:const )?\w+ &\w+ = ",
    "a member initialised in place": r"^    (?:bool|int|uint|long|ulong|double|string|char) m_\w+ = ",
    "two texts side by side": r'""\s*""',
    "a sum that begins with two texts": r'"" \+ (?:""|[A-Z_]{4,}\b)',
    "an initialiser list of a variable": r"\b\w+ \w+\{",
}


def code(path: Path) -> str:
    """The program without comments, and with empty texts."""
    text = path.read_text(encoding="utf-8-sig")
    text = re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)
    text = re.sub(r"//.*", "", text)
    return re.sub(r'^#include ""', "", text, flags=re.M)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
@pytest.mark.parametrize("name", ONLY_CPP)
def test_it_has_nothing_that_only_cpp_has(path: Path, name: str) -> None:
    assert re.findall(ONLY_CPP[name], code(path), re.M) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a pointer's arrow", "a->b();"),
        ("a scope", "A::b();"),
        ("a word of C++", "auto x = 1;"),
        ("a pointer", "char *text;"),
        ("a loop over a range", "for(int x : all)"),
        ("a local reference", "    Entry &entry = entries[0];"),
        ("a member initialised in place", "    int m_count = 0;"),
        ("two texts side by side", '""\n    ""'),
        ("a sum that begins with two texts", 'text = "" + VERSION;'),
        ("an initialiser list of a variable", "Header header{};"),
    ],
)
def test_each_is_found(name: str, line: str) -> None:
    assert re.findall(ONLY_CPP[name], line, re.M)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_metaeditor_reads_it_right(path: Path) -> None:
    content = path.read_bytes()
    # Without the mark MetaEditor takes a file for the PC's own code page.
    assert content.isascii() or content.startswith(b"\xef\xbb\xbf")


def test_the_documentation_has_every_input_with_its_default() -> None:
    text = (_FOLDER / "DataCollectorPRO.mq5").read_text(encoding="utf-8-sig")
    inputs = dict(re.findall(r"^input \w+ (\w+) = ([^;]*);", text, re.M))
    page = (_FOLDER.parent / "docs" / "ea.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .* \| ([^|]*) ?\|$", page, re.M)
    defaults = {name: default.strip(" `") for name, default in rows}
    assert defaults.pop("Clock") == "this terminal"
    assert inputs.pop("Clock") == "CLOCK_AUTO"
    assert {name: value.strip('"') for name, value in inputs.items()} == defaults


def test_every_input_is_explained_in_english_and_portuguese() -> None:
    text = (_FOLDER / "DataCollectorPRO.mq5").read_text(encoding="utf-8-sig")
    inputs = re.findall(r"^input \w+ (\w+) = [^;]*;( +//.*)$", text, re.M)
    assert len(inputs) == 14
    for name, comment in inputs:
        assert re.fullmatch(r" +// \S.* / \S.*", comment), name
        # The dialog's column is narrow.
        assert len(comment.strip(" /")) <= 63, name
