from elizacloud.processes import Backoff


def test_delays_double_up_to_the_cap() -> None:
    backoff = Backoff(first_seconds=1, cap_seconds=10, jitter=0)
    assert [backoff.delay_seconds(failures, 0.5) for failures in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_chance_only_shortens() -> None:
    backoff = Backoff(first_seconds=8, jitter=0.25)
    assert [backoff.delay_seconds(1, chance) for chance in (0, 0.5, 1)] == [8, 7, 6]


def test_a_year_of_failures_is_still_the_cap() -> None:
    assert Backoff(cap_seconds=30, jitter=0).delay_seconds(10**9, 0) == 30


def test_a_long_life_forgets_the_failures_before_it() -> None:
    backoff = Backoff(reset_after_seconds=60)
    assert [backoff.failures_after(7, uptime) for uptime in (0, 59.9, 60)] == [8, 8, 1]
