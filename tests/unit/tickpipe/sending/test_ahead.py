"""Groups are posted in order while the next is read, and no error loses or repeats one."""

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from tickpipe.sending.ahead import posted_ahead, posted_in_turn
from tickpipe.sending.textfile import DataFileError

GROUPS = [[1, 2], [3], [4, 5]]

Post = Callable[[Sequence[int]], None]
PostAll = Callable[[Iterator[list[int]], Post], Iterator[list[int]]]


def groups_of(*, is_damaged: bool) -> Iterator[list[int]]:
    yield from GROUPS
    if is_damaged:
        raise DataFileError("damaged")


def take_all(groups: Iterator[list[int]], given: list[list[int]], posted: list[Sequence[int]]) -> None:
    for group in groups:
        # It was posted before it is given out.
        assert posted[len(given)] == group
        given.append(group)


@pytest.mark.parametrize("post_all", [posted_ahead, posted_in_turn])
def test_groups_before_an_error_of_reading_are_posted_in_order(post_all: PostAll) -> None:
    posted: list[Sequence[int]] = []
    given: list[list[int]] = []

    with pytest.raises(DataFileError, match="damaged"):
        take_all(post_all(groups_of(is_damaged=True), posted.append), given, posted)

    assert posted == given == GROUPS


@pytest.mark.parametrize("post_all", [posted_ahead, posted_in_turn])
@pytest.mark.parametrize("refused", range(3))
@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_group_that_the_server_refuses_is_not_given_out(post_all: PostAll, refused: int, *, is_damaged: bool) -> None:
    posted: list[Sequence[int]] = []
    given: list[list[int]] = []

    def post(group: Sequence[int]) -> None:
        if len(posted) == refused:
            raise ConnectionError(str(group))
        posted.append(group)

    with pytest.raises(ConnectionError):
        take_all(post_all(groups_of(is_damaged=is_damaged), post), given, posted)

    assert posted == given == GROUPS[:refused]


def test_the_next_group_is_read_while_one_is_posted() -> None:
    second_was_read = threading.Event()

    def groups() -> Iterator[list[int]]:
        yield [1]
        second_was_read.set()
        yield [2]

    def post(group: Sequence[int]) -> None:
        assert second_was_read.wait(10)

    assert list(posted_ahead(groups(), post)) == [[1], [2]]
