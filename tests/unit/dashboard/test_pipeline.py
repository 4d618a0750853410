"""A stage has stopped when records arrive and nothing that it does shows."""

from dashboard.pipeline import Progress


class Stage:
    def __init__(self) -> None:
        self.now = 0.0
        self.progress = Progress(2.5, lambda: self.now)

    def looks(self, *states: tuple[int, int]) -> list[bool]:
        """What is said second by second, of the end of the input and of the output."""
        found = []
        for state in states:
            found.append(self.progress.note(*state))
            self.now += 1
        return found


def test_stage_that_was_killed_has_stopped_within_four_looks() -> None:
    # Killed after the first: input 2 is owed from the second look on, and 3 s later it is too long.
    assert Stage().looks((1, 1), (2, 1), (3, 1), (4, 1), (5, 1)) == [True, True, True, True, False]


def test_stage_that_works_or_has_nothing_to_do_has_not_stopped() -> None:
    assert all(Stage().looks(*((n, n) for n in range(9))))
    assert all(Stage().looks((1, 1), *((1, 1) for _ in range(9))))
    # One record a second, and what is done with it shows a second later.
    assert all(Stage().looks(*((n, n - 1) for n in range(9))))


def test_stage_that_begins_again_works() -> None:
    stage = Stage()
    assert stage.looks(*((n, 1) for n in range(1, 9)))[-1] is False
    assert stage.looks((9, 2)) == [True]
    # Nothing arrived since.
    assert all(stage.looks(*((9, 2) for _ in range(5))))
