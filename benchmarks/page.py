"""Put stored results into docs/performance.md, with their plots: `python -m benchmarks.page [NAME …]`.

A result NAME goes between the comments `figures NAME: begin` and `figures NAME: end`; without names every stored result
goes in that has its place there.
"""

import re
import shutil
import sys
from pathlib import Path

from benchmarks.report import RESULTS, Report, markdown

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def with_figures(page: str, report: Report, picture: str) -> str:
    """The page with the table of one result in its place; `picture` is the plot's address on the page.

    Raises:
        ValueError: when the page has no place for it.
    """
    begin, end = (f"<!-- figures {report.name}: {edge} -->" for edge in ("begin", "end"))
    place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not place.search(page):
        raise ValueError(f"{PAGE.name} has no place for {report.name}: write {begin} and {end} where it belongs")
    text = f"{begin}\n{markdown(report, picture)}\n{end}"
    return place.sub(lambda _: text, page)


def main() -> None:
    """Of the named results, or of all that have their place."""
    page = PAGE.read_text()
    placed = re.findall(r"<!-- figures (\S+): begin -->", page)
    names = sys.argv[1:] or [name for name in placed if (RESULTS / f"{name}.json").exists()]
    for name in names:
        picture = PAGE.parent / "images" / f"performance-{name}.png"
        shutil.copyfile(RESULTS / f"{name}.png", picture)
        page = with_figures(page, Report.read(RESULTS / f"{name}.json"), f"images/{picture.name}")
        print(f"{PAGE.name}: {name}")
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
