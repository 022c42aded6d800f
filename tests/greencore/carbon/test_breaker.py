from datetime import UTC, datetime, timedelta

from greencore.carbon.breaker import CircuitBreaker

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_it_is_closed_until_five_failures_in_a_row() -> None:
    breaker = CircuitBreaker()
    for _ in range(4):
        assert breaker.failed(NOW, "no answer") is None
    breaker.succeeded()
    for _ in range(4):
        assert breaker.failed(NOW, "no answer") is None
    assert breaker.waiting(NOW) is None
    assert breaker.failed(NOW, "still no answer") == NOW + MINUTE
    waiting = breaker.waiting(NOW)
    assert waiting is not None
    assert waiting.reason == "still no answer"


def test_after_its_time_it_is_half_open_and_one_failure_opens_it_for_longer() -> None:
    breaker = CircuitBreaker()
    for _ in range(5):
        breaker.failed(NOW, "")
    later = NOW + MINUTE
    assert breaker.waiting(later) is None
    assert breaker.half_open
    assert breaker.failed(later, "") == later + 2 * MINUTE
    breaker.succeeded()
    assert breaker.failed(later, "") is None


def test_a_month_of_failures_leaves_it_at_the_longest_pause() -> None:
    breaker = CircuitBreaker()
    for _ in range(5000):
        until = breaker.failed(NOW, "")
    assert until == NOW + 15 * MINUTE
    for _ in range(5000):
        until = breaker.rate_limited(NOW, "", None)
    assert until == NOW + 60 * MINUTE


def test_a_refusal_opens_it_at_once() -> None:
    breaker = CircuitBreaker()
    assert breaker.refused(NOW, "", None) == NOW + 15 * MINUTE
    assert breaker.refused(NOW, "", 2 * MINUTE) == NOW + 2 * MINUTE
