"""NOTICE names every package that is installed, and its licence."""

from tests.notice import ROOT, lines


def test_every_package_stands_in_notice_with_its_licence() -> None:
    found = lines()
    assert len(found) > 50
    missing = set(found) - set((ROOT / "NOTICE").read_text().splitlines())
    assert not missing, "python -m tests.notice > NOTICE"
    assert not [line for line in found if line.endswith("not said")]
