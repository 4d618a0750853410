"""Which test files xdist gives to one process, and which of them begin first."""

from collections.abc import Iterable, Mapping
from functools import cached_property

from xdist.scheduler import LoadFileScheduling

_PGLITE = "[pglite"
#: The files that look at one market, most of them in a browser, and how many processes share them.
_DASHBOARD = "tests/integration/dashboard/"
_DASHBOARDS = 2


def groups_of(tests: Iterable[str]) -> dict[str, str]:
    """By test file the group that runs in one process; `tests` are the node IDs of all tests that run.

    A file is a group of its own, unless it needs what takes long to start and is there once for each process: PGlite
    costs four seconds of a processor, a market with its sink, its dashboard and its browser about eight.
    """
    files: dict[str, str] = {}
    for test in tests:
        file = test.partition("::")[0]
        files[file] = _PGLITE if _PGLITE in test else files.get(file, file)
    of_dashboard = sorted(file for file, group in files.items() if group.startswith(_DASHBOARD))
    return files | {file: f"[dashboard {i % _DASHBOARDS}]" for i, file in enumerate(of_dashboard)}


def seconds_of_groups(tests: Mapping[str, int]) -> dict[str, int]:
    """By test file how long its group takes; `tests` are the seconds that a file takes alone, by tests' node IDs."""
    groups = groups_of(tests)
    longest: dict[str, int] = {}
    for test, seconds in tests.items():
        file = test.partition("::")[0]
        longest[file] = max(seconds, longest.get(file, 0))
    totals: dict[str, int] = {}
    for file, seconds in longest.items():
        totals[groups[file]] = totals.get(groups[file], 0) + seconds
    return {file: totals[group] for file, group in groups.items()}


class GroupScheduling(LoadFileScheduling):  # type: ignore[misc]
    """By group of files."""

    collection: list[str]

    def _split_scope(self, nodeid: str) -> str:
        return self._groups[nodeid.partition("::")[0]]

    @cached_property
    def _groups(self) -> dict[str, str]:
        return groups_of(self.collection)
