"""The pages of the trading PC in Portuguese: they say what the English ones say, as far as that can be counted."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

_DOCS = Path(__file__).parents[2] / "docs"

#: A section that leaves the rest to the English page says so.
_ELSEWHERE = "página em inglês"

#: Words within code that are translated.
_WORDS = {"ARQUIVO": "FILE", "PASTA": "FOLDER"}

each_page = pytest.mark.parametrize("name", ["ea", "relay", "windows"])


def sections(page: str) -> list[str]:
    return re.split(r"^## ", (_DOCS / page).read_text(), flags=re.M)


def pairs(name: str) -> Iterator[tuple[str, str]]:
    return zip(sections(f"{name}.md"), sections(f"{name}.pt-BR.md"), strict=True)


def rows(section: str) -> int:
    return len(re.findall(r"^\|", section, re.M))


def blocks(section: str) -> list[str]:
    return re.findall(r"^ *```\w*\n(.*?)```", section, re.M | re.S)


def code(section: str) -> set[str]:
    text = re.sub(r"^ *```.*?```", "", section, flags=re.M | re.S)
    spans = {re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", text)}
    return {re.sub("|".join(_WORDS), lambda word: _WORDS[word[0]], span) for span in spans}


@each_page
def test_both_pages_have_the_same_sections_tables_and_commands(name: str) -> None:
    assert len(sections(f"{name}.md")) == len(sections(f"{name}.pt-BR.md"))
    for english, portuguese in pairs(name):
        heading = portuguese.partition("\n")[0]
        assert blocks(english) == blocks(portuguese), heading
        if _ELSEWHERE not in portuguese:
            assert rows(english) == rows(portuguese), heading


@each_page
def test_both_pages_name_the_same_settings_metrics_and_options(name: str) -> None:
    for english, portuguese in pairs(name):
        heading = portuguese.partition("\n")[0]
        assert code(portuguese) - code(english) == set(), heading
        if _ELSEWHERE not in portuguese:
            assert code(english) - code(portuguese) == set(), heading


def test_the_first_page_has_the_same_sections_and_commands() -> None:
    def commands(page: str) -> list[list[str]]:
        text = (_DOCS.parent / page).read_text()
        return [
            [re.sub(r"\s+# .*", "", block) for block in blocks(part)] for part in re.split(r"^## ", text, flags=re.M)
        ]

    assert commands("README.md") == commands("README.pt-BR.md")
