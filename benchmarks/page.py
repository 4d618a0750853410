"""Put stored results into docs/performance.md, with their plots: `python -m benchmarks.page [NAME …]`.

A result NAME goes between the comments `figures NAME: begin` and `figures NAME: end`; without names every stored result
goes in that has its place there.
"""

import re
import shutil
import sys
from pathlib import Path

from benchmarks.report import RESULTS, text_of

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def with_figures(page: str, name: str, text: str) -> str:
    """The page with the text of one result in its place; its plot, `NAME.png`, is looked for where the page has it.

    Raises:
        ValueError: when the page has no place for it.
    """
    begin, end = (f"<!-- figures {name}: {edge} -->" for edge in ("begin", "end"))
    place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not place.search(page):
        raise ValueError(f"{PAGE.name} has no place for {name}: write {begin} and {end} where it belongs")
    shown = text.replace(f"]({name}.png)", f"](images/{_picture(name)})")
    return place.sub(lambda _: f"{begin}\n{shown}\n{end}", page)


def _picture(name: str) -> str:
    return f"performance-{name}.png"


def main() -> None:
    """Of the named results, or of all that have their place."""
    page = PAGE.read_text()
    placed = re.findall(r"<!-- figures (\S+): begin -->", page)
    names = sys.argv[1:] or [name for name in placed if (RESULTS / f"{name}.md").exists()]
    for name in names:
        page = with_figures(page, name, text_of(name))
        if (plot := RESULTS / f"{name}.png").exists():
            shutil.copyfile(plot, PAGE.parent / "images" / _picture(name))
        print(f"{PAGE.name}: {name}")
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
