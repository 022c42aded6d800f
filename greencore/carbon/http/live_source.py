"""A source whose readings come from a provider over HTTP: asked seldom, one request at a time, never for long."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

from greencore.carbon.errors import (
    AccessDenied,
    CarbonError,
    InvalidResponse,
    NoReading,
    SourceUnavailable,
    UnknownZone,
)
from greencore.carbon.http.answers import ResponseValue
from greencore.carbon.http.breaker import CircuitBreaker
from greencore.carbon.http.cleaning import DataPoint, ReadingOrigin, clean_points
from greencore.carbon.http.client import HttpLimits, HttpStatusError, JsonClient
from greencore.carbon.series import EmissionFactors, IntensitySeries, Reading, Signal
from greencore.carbon.source import check_window, forecast_end
from greencore.clock import Clock

SHORTEST_REUSE_OF_LATEST = timedelta(seconds=30)
LONGEST_REUSE_OF_LATEST = timedelta(hours=1)
# A provider that lags has no news for a while, and asking for them must not wear out its limits.
REUSE_OF_ENDED = timedelta(minutes=10)
SHORTEST_REUSE_OF_FORECAST = timedelta(minutes=5)
ACCESS_STATUSES = (401, 403)
RATE_LIMITED = 429


class RequestJson(Protocol):
    """Asks the provider one question; raises as `JsonClient.get` does."""

    def __call__(
        self, path: str, parameters: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> ResponseValue | None:
        """What `path` answers, or None where that is empty."""


class Provider(Protocol):
    """One provider's protocol: which questions it is asked, and what its answers mean.

    The three questions give points in the order in which they were answered, and raise InvalidResponse or UnknownZone;
    all times are in UTC.
    """

    @property
    def name(self) -> str:
        """The provider's name, as in a specification."""

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""

    @property
    def signal(self) -> Signal:
        """Average or marginal."""

    @property
    def emission_factors(self) -> EmissionFactors:
        """Life cycle or direct."""

    @property
    def period(self) -> timedelta:
        """How often it has news; the length of a reading where nothing else tells it."""

    @property
    def longest_window(self) -> timedelta:
        """How much history one request may span."""

    def secrets(self) -> Iterable[str]:
        """The keys in use."""

    def forecast_horizon_hours(self, hours: float) -> float:
        """How many hours ahead it is asked for, where `hours` are wanted."""

    def latest(self, request_json: RequestJson, now: datetime) -> list[DataPoint]:
        """Points around `now`, the present one among them where there is one."""

    def forecast(self, request_json: RequestJson, now: datetime, hours: float) -> list[DataPoint]:
        """Points from `now` on, for `hours`, which `horizon` gave."""

    def history(self, request_json: RequestJson, start: datetime, end: datetime, now: datetime) -> list[DataPoint]:
        """Points of `[start, end)`, which is no longer than `longest_window`."""

    def is_unknown_zone(self, refusal: HttpStatusError) -> bool:
        """Whether the provider's refusal means that it does not know the zone."""


@dataclass(frozen=True, slots=True)
class _CachedSeries:
    """An answer that is used again until news can be expected."""

    series: IntensitySeries
    asked_at: datetime
    until: datetime
    hours: float = 0.0

    def is_valid_for(self, now: datetime, hours: float = 0.0) -> bool:
        return self.asked_at <= now < self.until and hours <= self.hours


class LiveSource:
    """A provider's readings of one zone; safe between threads.

    One request is in flight at a time: a second caller waits, and gets what the first one got, its failure
    too. The latest reading is used again until its interval ends (at least 30 s), one that has ended already for
    10 minutes, a forecast for half the provider's period (at least 5 minutes). After 5 failures in a row, or once the
    provider asks for rest (429), it is left alone for a while; after a refusal (401, 403), so is the question that
    was refused, as a key may serve for one and not for another. Each question raises SourceUnavailable where the
    provider cannot be asked or does not answer, AccessDenied, InvalidResponse and UnknownZone.
    """

    def __init__(self, provider: Provider, zone: str, *, clock: Clock, limits: HttpLimits) -> None:
        self._provider = provider
        self._zone = zone
        self._clock = clock
        self._client = JsonClient(provider.name, provider.url, limits=limits, secrets=provider.secrets)
        self._origin = ReadingOrigin(
            zone=zone,
            source=provider.name,
            signal=provider.signal,
            emission_factors=provider.emission_factors,
        )
        self._lock = threading.Lock()
        self._breaker = CircuitBreaker()
        self._access = {question: CircuitBreaker() for question in ("latest", "forecast", "history")}
        self._last_failure: tuple[object, float, CarbonError] | None = None
        self._latest: _CachedSeries | None = None
        self._forecast: _CachedSeries | None = None

    @property
    def zone(self) -> str:
        """The zone as it was asked for."""
        return self._zone

    @property
    def signal(self) -> Signal:
        """Whether the provider gives the grid's average or its marginal intensity."""
        return self._provider.signal

    @property
    def emission_factors(self) -> EmissionFactors:
        """Whether the provider counts the life cycle, or direct emissions alone."""
        return self._provider.emission_factors

    def latest(self) -> Reading:
        """The reading that covers the present, else the most recent one that has begun.

        Raises NoReading where the provider has none.
        """
        with self._serialize_requests("latest"):
            now = self._clock()
            cached = self._latest
            if cached is None or not cached.is_valid_for(now):
                cached = self._latest = self._newest(now)
        reading = cached.series.latest_at(now)
        if reading is None:
            raise NoReading(f"{self._provider.name} has no reading of {self._zone} that has begun by {now.isoformat()}")
        return reading

    def forecast(self, hours: float) -> IntensitySeries:
        """What the provider expects from now on, for `hours` or as far as it looks, whichever is shorter.

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
        return IntensitySeries(reading for reading in cached.series if reading.end > now and reading.start < end)

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        """Each reading that touches `[start, end)` and has begun, whole; asked anew each time.

        A window that is longer than the provider allows takes several requests. Raises ValueError where a time
        is naive or end lies before start.
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
        return IntensitySeries(
            reading for reading in series if reading.end > start and reading.start < end and reading.start <= now
        )

    def _newest(self, now: datetime) -> _CachedSeries:
        series = self._request("latest", lambda request_json: self._provider.latest(request_json, now))
        reading = series.at(now)
        if reading is None:
            return _CachedSeries(series, now, now + REUSE_OF_ENDED)
        reuse = min(max(reading.end - now, SHORTEST_REUSE_OF_LATEST), LONGEST_REUSE_OF_LATEST)
        return _CachedSeries(series, now, now + reuse)

    @contextmanager
    def _serialize_requests(self, question: object) -> Iterator[None]:
        """Waits for whoever is asking; raises what they got where they asked the same and failed."""
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
        """The cleaned answer; keeps the breakers informed of how asking went."""
        now = self._clock()
        access = self._access[question]
        for breaker in (self._breaker, access):
            if waiting := breaker.open_state(now):
                raise SourceUnavailable(
                    f"{waiting.reason}; asked again at {waiting.until.isoformat(timespec='seconds')}",
                    retry_at=waiting.until,
                )
        one_try = self._breaker.half_open or access.half_open
        request_json = partial(self._client.get, tries=1) if one_try else self._client.get
        try:
            points = fetch(request_json)
        except HttpStatusError as refusal:
            raise self._refusal(refusal, access) from None
        except (SourceUnavailable, InvalidResponse, UnknownZone) as error:
            raise self._failure(error) from None
        self._breaker.record_success()
        access.record_success()
        return IntensitySeries(
            clean_points(points, self._origin, usual=self._provider.period, fetched_at=self._clock())
        )

    def _refusal(self, refusal: HttpStatusError, access: CircuitBreaker) -> CarbonError:
        now = self._clock()
        reason = str(refusal)
        if refusal.status in ACCESS_STATUSES:
            until = access.record_refusal(now, reason, refusal.retry_after)
            return AccessDenied(_until(reason, until), retry_at=until)
        # A 503 that says for how long is no failure to count, but a wish to be left alone.
        if refusal.status == RATE_LIMITED or refusal.retry_after is not None:
            until = self._breaker.record_rate_limit(now, reason, refusal.retry_after)
            return SourceUnavailable(_until(reason, until), retry_at=until)
        if self._provider.is_unknown_zone(refusal):
            return self._failure(UnknownZone(self._zone, reason))
        return self._failure(InvalidResponse(reason))

    def _failure(self, error: CarbonError) -> CarbonError:
        reason = self._client.redacted(str(error))
        until = self._breaker.record_failure(self._clock(), reason)
        if isinstance(error, SourceUnavailable):
            return SourceUnavailable(reason if until is None else _until(reason, until), retry_at=until)
        return InvalidResponse(reason) if isinstance(error, InvalidResponse) else error


def _windows(start: datetime, end: datetime, longest: timedelta) -> Iterator[tuple[datetime, datetime]]:
    while start < end:
        until = min(start + longest, end)
        yield start, until
        start = until


def _until(reason: str, until: datetime) -> str:
    return f"{reason}; asked again at {until.isoformat(timespec='seconds')}"
