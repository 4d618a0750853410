"""Which test files xdist gives to one process."""

from functools import cached_property

from xdist.scheduler import LoadFileScheduling

_PGLITE = "[pglite"


class PgliteTogether(LoadFileScheduling):  # type: ignore[misc]
    """By file, and all files that use PGlite in one process: its start takes four seconds of a processor."""

    collection: list[str]

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return _PGLITE if file in self._pglite_files else file

    @cached_property
    def _pglite_files(self) -> set[str]:
        return {super(PgliteTogether, self)._split_scope(name) for name in self.collection if _PGLITE in name}
