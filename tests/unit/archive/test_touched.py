"""The periods that the archive's columns touch are those that the log's frames touch, with the same records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.coverage import Coverage
from marketdata.offsets import place, position
from tests.conftest import fewer_examples
from tests.unit.archive.test_folds import Log, archived, days
from tests.unit.archive.test_writer import logs


@fewer_examples
@given(
    st.one_of(days(), logs()), st.integers(1, 40), st.booleans(), st.integers(1, 30),
    st.sampled_from([1_000, 60_000]),
)  # fmt: skip
def test_columns_touch_what_frames_touch(  # noqa: PLR0917 - hypothesis gives them by their place
    tmp_path_factory: pytest.TempPathFactory, log: Log, cut: int, merged: bool, window: int, width_ms: int
) -> None:
    reader = archived(tmp_path_factory.mktemp("archive"), log, cut=cut, merged=merged)
    for partition in {place(at)[0] for at, _ in log}:
        own = [(at, frame) for at, frame in log if place(at)[0] == partition]
        last = place(own[-1][0])[1]
        by_frames, by_columns = Coverage(width_ms), Coverage(width_ms)
        by_frames.feed(own)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("runtime.archive.reader._WINDOW_TICKS", window)
            patch.setattr("runtime.archive.reader.MOST_SERIES", 1)
            records = 0
            for count, touched in reader.touched(partition, 0, last, width_ms):
                by_columns.note(touched)
                records += count

        assert by_columns.settled_until == by_frames.settled_until
        assert by_columns.rest() == by_frames.rest()
        assert records == len(own)
        assert touched.reached == position(partition, last)
