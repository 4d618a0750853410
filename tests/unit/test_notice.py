"""NOTICE names every package that an installation brings, and the licences that ask something of who passes it on."""

import re
from importlib.metadata import PackageNotFoundError, metadata, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture import ROOT

NOTICE = (ROOT / "NOTICE").read_text()


def brought() -> set[str]:
    """Every package that Tickpipe with all extras brings, itself left out, of those that are installed here."""
    found: set[str] = set()
    waiting = {("tickpipe", extra) for extra in metadata("tickpipe").get_all("Provides-Extra") or ()}
    done: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        done.add((name, extra))
        try:
            needed = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue
        found.add(name)
        for one in needed:
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                waiting |= {(canonicalize_name(one.name), more) for more in ("", *one.extras)} - done
    return found - {"tickpipe"}


def test_every_package_that_is_brought_is_named() -> None:
    named = set(re.findall(r"[a-z0-9][a-z0-9-]+", NOTICE.partition("Of these")[0]))
    assert len(brought()) > 60
    assert brought() - named == set()


def test_every_image_of_the_deployment_is_named() -> None:
    compose = (ROOT / "compose" / "compose.yaml").read_text()
    images = set(re.findall(r"IMAGE:-([\w/-]+):", compose)) - {"tickpipe"}
    assert len(images) > 8
    assert [image for image in images if not re.search(rf"\b{image}\b", NOTICE.partition("Images")[2])] == []
