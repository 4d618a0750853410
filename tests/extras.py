"""Python with no more installed than some extras bring: a folder of links to the packages that they need.

An environment for each would take minutes; what is not linked cannot be imported here either.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Set
from functools import cache
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


@cache
def packages(*extras: str) -> Mapping[str, Distribution]:
    """The distributions that `pip install tickpipe[EXTRAS]` installs, by name, without ours."""
    found: dict[tuple[str, str], Distribution] = {}
    to_do = [("tickpipe", extra) for extra in ("", *extras)]
    while to_do:
        name, extra = to_do.pop()
        if (name, extra) in found:
            continue
        found[name, extra] = distribution(name)
        for text in _requires(found[name, extra]):
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                to_do += [(needed.name.lower(), one) for one in ("", *needed.extras)]
    return {name: one for (name, _), one in found.items() if name != "tickpipe"}


@cache
def tops(name: str) -> Set[str]:
    """The first part of the path of every file of a distribution: its packages, modules and what belongs to it."""
    return {file.parts[0] for file in distribution(name).files or []}


def _requires(found: Distribution) -> list[str]:
    # pyproject.toml leaves lwcharts' requirements out.
    return [] if found.metadata["Name"] == "lwcharts" else found.requires or []


class Installed:
    """A Python that has only what `extras` bring, and the project itself."""

    def __init__(self, folder: Path, *extras: str) -> None:
        self._folder = folder
        for name, one in packages(*extras).items():
            for top in tops(name) - {"..", "__pycache__"}:
                link = folder / top
                if not link.is_symlink():
                    link.symlink_to(Path(str(one.locate_file(top))))
        # Commands ask for our version.
        ours = distribution("tickpipe")
        info = next(file.parts[0] for file in ours.files or [] if file.parts[0].endswith(".dist-info"))
        (folder / info).symlink_to(Path(str(ours.locate_file(info))))

    def run(self, code: str, *arguments: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program, with `given` on its standard input."""
        # Without site, and so without what is in the environment of the tests.
        return subprocess.run(
            [sys.executable, "-S", "-c", code, *arguments],
            env=os.environ | {"PYTHONPATH": f"{self._folder}{os.pathsep}{ROOT}"} | environment,
            input=given, capture_output=True, text=True, check=False, timeout=150,
        )  # fmt: skip
