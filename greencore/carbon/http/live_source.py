"""Source of a provider over HTTP: caches responses, sends one request at a time, and backs off after failures."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus

from greencore.carbon.errors import (
    AccessDenied,
    CarbonError,
    InvalidResponse,
    NoReading,
    SourceUnavailable,
    UnknownZone,
)
from greencore.carbon.http.breaker import CircuitBreaker
from greencore.carbon.http.cleaning import DataPoint, clean_points
from greencore.carbon.http.client import ACCESS_STATUSES, HttpLimits, HttpStatusError, JsonClient
from greencore.carbon.providers.provider import Provider, RequestJson
from greencore.carbon.series import Basis, EmissionFactors, IntensitySeries, Reading, Signal, check_window
from greencore.carbon.source import forecast_end
from greencore.clock import HOUR, Clock

SHORTEST_REUSE_OF_LATEST = timedelta(seconds=30)
LONGEST_REUSE_OF_LATEST = HOUR
# A provider that lags has no new reading for a while; polling it would use up its rate limit.
REUSE_OF_ENDED = timedelta(minutes=10)
SHORTEST_REUSE_OF_FORECAST = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class _CachedSeries:
    """A response that is reused until `until`."""

    series: IntensitySeries
    asked_at: datetime
    until: datetime
    hours: float = 0.0

    def is_valid_for(self, now: datetime, hours: float = 0.0) -> bool:
        return self.asked_at <= now < self.until and hours <= self.hours


class LiveSource:
    """A provider's readings of one zone; thread-safe.

    One request is in flight at a time: a second caller waits for its result or its failure. The latest reading is
    reused until its interval ends (at least 30 s), one that has already ended for 10 minutes, a forecast for half the
    provider's period (at least 5 minutes). Requests pause after 5 failures in a row and after a 429; after a 401 or
    403 only those of the same kind, as a key may be valid for some only. Each request raises SourceUnavailable where
    the provider is paused or fails, AccessDenied, InvalidResponse and UnknownZone.
    """

    def __init__(self, provider: Provider, zone: str, *, clock: Clock, limits: HttpLimits) -> None:
        self.zone = zone
        self.signal: Signal = provider.signal
        self.emission_factors: EmissionFactors = provider.emission_factors
        self._provider = provider
        self._clock = clock
        self._client = JsonClient(provider.name, provider.url, limits=limits, secrets=provider.secrets)
        self._lock = threading.Lock()
        self._breaker = CircuitBreaker()
        self._access = {question: CircuitBreaker() for question in ("latest", "forecast", "history")}
        self._last_failure: tuple[object, float, CarbonError] | None = None
        self._latest: _CachedSeries | None = None
        self._forecast: _CachedSeries | None = None

    def latest(self) -> Reading:
        """Return the current reading, else the most recent one that has begun.

        Raises NoReading where the provider has none.
        """
        with self._serialize_requests("latest"):
            now = self._clock()
            cached = self._latest
            if cached is None or not cached.is_valid_for(now):
                cached = self._latest = self._request_latest(now)
        reading = cached.series.latest_at(now)
        if reading is None:
            raise NoReading(f"{self._provider.name} has no reading of {self.zone} that has begun by {now.isoformat()}")
        return reading

    def forecast(self, hours: float) -> IntensitySeries:
        """Return the provider's forecast from now on, for `hours` or its horizon, whichever is shorter.

        Raises ValueError where hours is not a finite number greater than 0.
        """
        forecast_end(self._clock(), hours)
        horizon = self._provider.forecast_horizon_hours(hours)
        with self._serialize_requests("forecast"):
            now = self._clock()
            cached = self._forecast
            if cached is None or not cached.is_valid_for(now, horizon):
                series = self._request(
                    "forecast", lambda request_json: self._provider.forecast(request_json, now, horizon)
                )
                reuse = max(self._provider.period / 2, SHORTEST_REUSE_OF_FORECAST)
                cached = self._forecast = _CachedSeries(series, now, now + reuse, horizon)
        end = forecast_end(now, hours)
        return IntensitySeries(cached.series.overlapping(now, end))

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        """Request the readings that overlap `[start, end)` and have begun, uncut; never cached.

        A window longer than the provider's limit takes several requests. Raises ValueError where a time is naive or
        `end` is before `start`.
        """
        check_window(start, end)
        start, end = start.astimezone(UTC), end.astimezone(UTC)
        with self._serialize_requests(("history", start, end)):
            now = self._clock()
            windows = list(_windows(start, min(end, now), self._provider.longest_window))
            if not windows:
                return IntensitySeries()
            series = self._request(
                "history",
                lambda request_json: [
                    point
                    for window_start, window_end in windows
                    for point in self._provider.history(request_json, window_start, window_end, now)
                ],
            )
        return IntensitySeries(reading for reading in series.overlapping(start, end) if reading.start <= now)

    def _request_latest(self, now: datetime) -> _CachedSeries:
        series = self._request("latest", lambda request_json: self._provider.latest(request_json, now))
        reading = series.at(now)
        if reading is None:
            return _CachedSeries(series, now, now + REUSE_OF_ENDED)
        reuse = min(max(reading.end - now, SHORTEST_REUSE_OF_LATEST), LONGEST_REUSE_OF_LATEST)
        return _CachedSeries(series, now, now + reuse)

    @contextmanager
    def _serialize_requests(self, question: object) -> Iterator[None]:
        """Wait for the request in flight; raise its failure where it was for the same question."""
        arrived = time.monotonic()
        with self._lock:
            if self._last_failure is not None:
                failed_question, failed_at, failure = self._last_failure
                if failed_question == question and failed_at >= arrived:
                    raise failure
            try:
                yield
            except CarbonError as failure:
                self._last_failure = (question, time.monotonic(), failure)
                raise

    def _request(self, question: str, fetch: Callable[[RequestJson], list[DataPoint]]) -> IntensitySeries:
        """Return the cleaned response, and record success or failure in the breakers."""
        now = self._clock()
        access = self._access[question]
        for breaker in (self._breaker, access):
            if waiting := breaker.open_state(now):
                raise SourceUnavailable(_add_retry_time(waiting.reason, waiting.until), retry_at=waiting.until)
        one_try = self._breaker.half_open or access.half_open
        request_json = partial(self._client.get, tries=1) if one_try else self._client.get
        try:
            points = fetch(request_json)
        except HttpStatusError as refusal:
            raise self._record_refusal(refusal, access) from None
        except (SourceUnavailable, InvalidResponse, UnknownZone) as error:
            raise self._record_failure(error) from None
        self._breaker.record_success()
        access.record_success()
        return clean_points(
            points,
            zone=self.zone,
            source=self._provider.name,
            basis=Basis(self.signal, self.emission_factors),
            usual=self._provider.period,
            fetched_at=self._clock(),
        )

    def _record_refusal(self, refusal: HttpStatusError, access: CircuitBreaker) -> CarbonError:
        now = self._clock()
        reason = str(refusal)
        if refusal.status in ACCESS_STATUSES:
            until = access.record_refusal(now, reason, refusal.retry_after)
            return AccessDenied(_add_retry_time(reason, until), retry_at=until)
        # A 503 with Retry-After is a rate limit, not a failure.
        if refusal.status == HTTPStatus.TOO_MANY_REQUESTS or refusal.retry_after is not None:
            until = self._breaker.record_rate_limit(now, reason, refusal.retry_after)
            return SourceUnavailable(_add_retry_time(reason, until), retry_at=until)
        if self._provider.is_unknown_zone(refusal):
            return self._record_failure(UnknownZone(self.zone, reason))
        return self._record_failure(InvalidResponse(reason))

    def _record_failure(self, error: CarbonError) -> CarbonError:
        reason = self._client.redacted(str(error))
        until = self._breaker.record_failure(self._clock(), reason)
        if isinstance(error, SourceUnavailable):
            return SourceUnavailable(reason if until is None else _add_retry_time(reason, until), retry_at=until)
        return InvalidResponse(reason) if isinstance(error, InvalidResponse) else error


def _windows(start: datetime, end: datetime, longest: timedelta) -> Iterator[tuple[datetime, datetime]]:
    while start < end:
        until = min(start + longest, end)
        yield start, until
        start = until


def _add_retry_time(reason: str, until: datetime) -> str:
    return f"{reason}; next request at {until.isoformat(timespec='seconds')}"
