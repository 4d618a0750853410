"""The processes of a run import their test files in different orders at first.

pytest rewrites the assertions of each file that it imports for the first time and keeps the result. All processes begin
at once, so in one order each would rewrite every file: four seconds of a processor more for each of them.
"""

import importlib
from contextlib import suppress
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]


def import_share(config: pytest.Config) -> None:
    """In a worker of xdist, import its share of the files that are going to be collected; the others find it stored."""
    worker: dict[str, str] = getattr(config, "workerinput", {})
    if not worker:
        return
    files = sorted(
        file
        for folder in map(Path, config.args)
        for file in folder.absolute().rglob("test_*.py")
        if not config.hook.pytest_ignore_collect(collection_path=file, config=config)
    )
    for file in files[int(worker["workerid"].removeprefix("gw")) :: int(worker["workercount"])]:
        # What fails is collected later, and told then.
        with suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(file.relative_to(_ROOT).with_suffix("").parts))
