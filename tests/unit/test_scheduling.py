"""Test files that share what takes long to start are one group, which begins as early as all of it is long."""

from tests.scheduling import groups_of, seconds_of_groups

PAGE, LIVE, API = (f"tests/integration/dashboard/test_{name}.py" for name in ("page", "page_live", "api"))
PERIODS, ROLES, FOLD = "tests/integration/sink/db/test_periods.py", "tests/integration/sink/db/test_roles.py", "f.py"
TESTS = {
    f"{FOLD}::test_a[x::y]": 50, f"{PAGE}::test_b": 30, f"{PAGE}::test_c": 30, f"{LIVE}::test_d": 25,
    f"{API}::test_e": 0, f"{PERIODS}::test_f[pglite]": 40, f"{PERIODS}::test_g": 40, f"{ROLES}::test_h[pglite-1]": 20,
}  # fmt: skip


def test_pglite_is_one_group_and_the_dashboard_two() -> None:
    assert groups_of(TESTS) == {
        FOLD: FOLD, PERIODS: "[pglite", ROLES: "[pglite", API: "[dashboard 0]", PAGE: "[dashboard 1]",
        LIVE: "[dashboard 0]",
    }  # fmt: skip


def test_a_group_takes_as_long_as_its_files_together() -> None:
    assert seconds_of_groups(TESTS) == {FOLD: 50, PERIODS: 60, ROLES: 60, API: 25, PAGE: 30, LIVE: 25}
