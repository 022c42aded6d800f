from datetime import UTC, datetime, timedelta

from greencore.carbon.http.breaker import CircuitBreaker

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_it_is_closed_until_five_failures_in_a_row() -> None:
    breaker = CircuitBreaker()
    for _ in range(4):
        assert breaker.record_failure(NOW, "no answer") is None
    breaker.record_success()
    for _ in range(4):
        assert breaker.record_failure(NOW, "no answer") is None
    assert breaker.open_state(NOW) is None
    assert breaker.record_failure(NOW, "still no answer") == NOW + MINUTE
    waiting = breaker.open_state(NOW)
    assert waiting is not None
    assert waiting.reason == "still no answer"


def test_after_its_pause_it_is_half_open_and_one_failure_opens_it_for_longer() -> None:
    breaker = CircuitBreaker()
    for _ in range(5):
        breaker.record_failure(NOW, "")
    later = NOW + MINUTE
    assert breaker.open_state(later) is None
    assert breaker.half_open
    assert breaker.record_failure(later, "") == later + 2 * MINUTE
    breaker.record_success()
    assert breaker.record_failure(later, "") is None


def test_a_month_of_failures_ends_at_the_longest_pause() -> None:
    breaker = CircuitBreaker()
    for _ in range(5000):
        until = breaker.record_failure(NOW, "")
    assert until == NOW + 15 * MINUTE
    for _ in range(5000):
        until = breaker.record_rate_limit(NOW, "", None)
    assert until == NOW + 60 * MINUTE


def test_a_refusal_opens_it_at_once() -> None:
    breaker = CircuitBreaker()
    assert breaker.record_refusal(NOW, "", None) == NOW + 15 * MINUTE
    assert breaker.record_refusal(NOW, "", 2 * MINUTE) == NOW + 2 * MINUTE
