"""`tickpipe relay unpack`: what a trading PC needs beside the package."""

from pathlib import Path

from typer.testing import CliRunner

from tickpipe.cli import app


def test_the_ea_with_its_includes_and_the_scripts_are_written(tmp_path: Path) -> None:
    for _ in range(2):
        result = CliRunner().invoke(app, ["relay", "unpack", str(tmp_path / "new")])
        assert result.exit_code == 0, result.output
    ea = tmp_path / "new" / "DataCollectorPRO"
    included = {
        line.split('"')[1]
        for path in ea.iterdir()
        for line in path.read_text(encoding="utf-8-sig").splitlines()
        if line.startswith("#include")
    }
    assert {path.name for path in ea.iterdir()} == included | {"DataCollectorPRO.mq5", "DataCollectorPROService.mq5"}
    assert (tmp_path / "new" / "windows" / "install-task.ps1").is_file()
