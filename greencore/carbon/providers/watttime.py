"""WattTime, version 3: the marginal operating emissions rate (MOER) in steps of 5 minutes, with a login.

Protocol: https://docs.watttime.org. MOER is the direct emissions of the plant that supplies one more kWh, in pounds of
CO2 per MWh: g/kWh = lbs/MWh × 0.45359237.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Self

from greencore.carbon.errors import InvalidResponse, UnknownZone
from greencore.carbon.http.answers import ResponseValue
from greencore.carbon.http.cleaning import DataPoint
from greencore.carbon.http.client import HttpStatusError
from greencore.carbon.providers.provider import Provider, RequestJson
from greencore.carbon.series import EmissionFactors, Signal
from greencore.carbon.specification import Credentials
from greencore.clock import HOUR

SIGNAL_TYPE = "co2_moer"
UNITS = "lbs_co2_per_mwh"
G_PER_KWH_IN_LBS_PER_MWH = 0.45359237
LONGEST_STEP = HOUR


@dataclass(kw_only=True)
class WattTimeProvider(Provider):
    """One of WattTime's regions, with the token of its login, which is valid for 30 minutes.

    Not thread-safe: its owner sends one request at a time.
    """

    name = "watttime"
    default_url = "https://api.watttime.org"
    options = ("region", "url")
    place_options = ("region",)
    period = timedelta(minutes=5)
    horizons_hours = range(1, 73)
    # One day below the limit, since points that reach into the window are requested too.
    longest_window = timedelta(days=31)

    signal: Signal = "marginal"
    emission_factors: EmissionFactors = "direct"
    region: str
    user: str = field(repr=False)
    password: str = field(repr=False)
    _token: str | None = field(default=None, init=False, repr=False)

    @classmethod
    def open(cls, url: str, zone: str, options: Mapping[str, str], credentials: Credentials) -> Self:
        """Open with the option `region` (default: the zone), and the keys `watttime_user` and `watttime_password`."""
        return cls(
            url=url,
            zone=zone,
            region=options.get("region", zone),
            user=credentials.require("watttime_user", cls.name),
            password=credentials.require("watttime_password", cls.name),
        )

    def secrets(self) -> Iterable[str]:
        """User name, password, the login's encoding of both, and the token."""
        return (self._basic(), self.password, self.user, *([self._token] if self._token else []))

    def latest(self, request_json: RequestJson, now: datetime) -> list[DataPoint]:
        """Request the start of the forecast, whose first point is the current one and always exists."""
        return self.forecast(request_json, now, 1.0)

    def forecast(self, request_json: RequestJson, now: datetime, hours: float) -> list[DataPoint]:
        """Request the hours ahead; all points are estimated."""
        answer = self._request(request_json, "/v3/forecast", horizon_hours=f"{hours:.0f}")
        return [] if answer is None else self._points(answer, estimated=True)

    def history(self, request_json: RequestJson, start: datetime, end: datetime, now: datetime) -> list[DataPoint]:
        """Request the points of the window, which WattTime models from measurements."""
        window = {"start": _iso(start - LONGEST_STEP), "end": _iso(end)}
        answer = self._request(request_json, "/v3/historical", **window)
        return [] if answer is None else self._points(answer, estimated=False)

    def _request(self, request_json: RequestJson, path: str, **parameters: str) -> ResponseValue | None:
        """Return the response to a request with the token, which is renewed once where it has expired."""
        parameters |= {"region": self.region, "signal_type": SIGNAL_TYPE}
        if self._token is not None:
            try:
                return request_json(path, parameters, self._bearer(self._token))
            except HttpStatusError as refusal:
                if refusal.status != HTTPStatus.UNAUTHORIZED:
                    raise
                self._token = None
        token = self._login(request_json)
        answer = request_json(path, parameters, self._bearer(token))
        # Kept only after a success: a refused new token has not expired.
        self._token = token
        return answer

    def _login(self, request_json: RequestJson) -> str:
        answer = request_json("/login", None, {"authorization": f"Basic {self._basic()}"})
        if answer is None:
            raise InvalidResponse(f"{self.name} answered its login without a body: expected a token")
        token = answer.field("token").text()
        if not token or not (token.isascii() and token.isprintable()):
            raise InvalidResponse(f"{self.name}: token is invalid: expected printable ASCII")
        return token

    def _basic(self) -> str:
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    @staticmethod
    def _bearer(token: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token}"}

    def _points(self, answer: ResponseValue, *, estimated: bool) -> list[DataPoint]:
        meta = answer.field("meta")
        region, units = meta.field("region").text(), meta.field("units").text()
        if region != self.region:
            raise UnknownZone(self.zone, f"{self.name} was asked for {self.region!r}, but answered {region!r}")
        if units != UNITS:
            raise InvalidResponse(f"{meta.path}.units is {units!r}: expected {UNITS!r}")
        period = meta.optional_field("data_point_period_seconds")
        seconds = self.period.total_seconds() if period is None else period.number()
        if seconds is None or not 0 < seconds <= LONGEST_STEP.total_seconds():
            raise InvalidResponse(f"{meta.path}.data_point_period_seconds is {seconds}: expected seconds, up to 3600")
        length = timedelta(seconds=seconds)
        points: list[DataPoint] = []
        for record in answer.field("data").items():
            start, pounds_per_mwh = record.field("point_time").time(), record.field("value").number()
            grams = None if pounds_per_mwh is None else pounds_per_mwh * G_PER_KWH_IN_LBS_PER_MWH
            points.append(DataPoint(start, start + length, grams, estimated))
        return points


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="seconds")
