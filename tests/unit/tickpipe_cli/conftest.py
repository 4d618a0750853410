"""Fixtures of the command line's tests."""

from collections.abc import Iterator

import pytest

from tests.unit.tickpipe_cli.small_producer import SmallProducer, small_producer


@pytest.fixture
def producer() -> Iterator[SmallProducer]:
    with small_producer() as running:
        yield running
