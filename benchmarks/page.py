"""Put stored results and their plots into the pages that have a place for them: `python -m benchmarks.page [NAME …]`.

A result NAME goes between the comments `figures NAME: begin` and `figures NAME: end`; without names every stored result
goes in that has its place there.
"""

import re
import shutil
import sys
from pathlib import Path

from benchmarks.report import RESULTS, text_of

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.md"
#: Where results have places.
PAGES = (PAGE, DOCS / "dashboard.md")


def with_figures(page: str, name: str, text: str) -> str:
    """The page with the text of one result in its place; its plot, `NAME.png`, is looked for where the page has it.

    Raises:
        ValueError: when the page has no place for it.
    """
    begin, end = (f"<!-- figures {name}: {edge} -->" for edge in ("begin", "end"))
    place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not place.search(page):
        raise ValueError(f"the page has no place for {name}: write {begin} and {end} where it belongs")
    shown = text.replace(f"]({name}.png)", f"](images/{_picture(name)})")
    return place.sub(lambda _: f"{begin}\n{shown}\n{end}", page)


def _picture(name: str) -> str:
    return f"performance-{name}.png"


def main() -> None:
    """Of the named results, or of all that have their place."""
    wanted = set(sys.argv[1:]) or {path.stem for path in RESULTS.glob("*.md")}
    unplaced = set(sys.argv[1:])
    for path in PAGES:
        page = path.read_text()
        placed = re.findall(r"<!-- figures (\S+): begin -->", page)
        for name in placed:
            if name not in wanted:
                continue
            page = with_figures(page, name, text_of(name))
            if (plot := RESULTS / f"{name}.png").exists():
                shutil.copyfile(plot, DOCS / "images" / _picture(name))
            print(f"{path.name}: {name}")
            unplaced.discard(name)
        path.write_text(page)
    if unplaced:
        sys.exit(f"no page has a place for {', '.join(sorted(unplaced))}")


if __name__ == "__main__":
    main()
