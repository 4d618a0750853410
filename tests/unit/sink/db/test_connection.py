from hypothesis import given
from hypothesis import strategies as st

from sink.db.connection import StepSize

STEPS = st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=200)


@given(st.integers(1, 10_000), STEPS)
def test_a_step_is_never_empty_nor_larger_than_allowed(most: int, steps: list[tuple[float, bool]]) -> None:
    size = StepSize(most, goal_seconds=10.0)
    for seconds, is_too_slow in steps:
        before = size.value
        size.too_slow(before) if is_too_slow else size.took(seconds, before)
        assert 1 <= size.value <= most
        if is_too_slow or seconds > 10:
            assert size.value == max(1, before // 2)
        elif seconds < 5:
            assert size.value == min(most, before * 2)
        else:
            assert size.value == before


def test_small_work_that_was_quick_says_nothing_about_larger_work() -> None:
    size = StepSize(10_000, goal_seconds=10.0)
    size.too_slow(500)  # even 500 were too many
    assert size.value == 250
    size.took(0.1, 3)
    assert size.value == 250
    size.took(0.1, 250)
    assert size.value == 500
