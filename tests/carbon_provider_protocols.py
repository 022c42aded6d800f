"""Protocols of the carbon-intensity providers: the response to each request."""

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

Clock = Callable[[], datetime]
LBS_PER_MWH_IN_G_PER_KWH = 1 / 0.45359237
DAY = timedelta(hours=24)


@dataclass(frozen=True)
class Row:
    """One interval with its forecast and its measured value in gCO2e/kWh, each None where it is missing."""

    start: datetime
    end: datetime
    forecast: float | None = None
    actual: float | None = None


@dataclass(frozen=True)
class Request:
    """One received request."""

    path: str
    parameters: dict[str, str]
    headers: dict[str, str]


class ProviderProtocols:
    """Data of the grid, known zones and valid keys."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rows: list[Row] = []
        self.zones = {"DE", "de", "13", "RG10", "CAISO_NORTH", "westeurope"}
        self.token = "em-token-of-the-operator"
        self.user, self.password = "ada-of-watttime", "correct horse battery"
        self.valid_bearers: set[str] = set()
        self.regional_shape: Literal["usual", "list", "object", "regions"] = "usual"
        self.caller_zone = "FR"
        self.units = "lbs_co2_per_mwh"
        self._logins = 0

    def expire_bearers(self) -> None:
        """Expire every WattTime token."""
        self.valid_bearers.clear()

    def answer(self, request: Request) -> tuple[int, Any]:
        """Return the status, and the JSON or None."""
        steps = request.path.strip("/").split("/")
        if steps[0] == "intensity" or steps[0] == "regional":
            return self._uk(steps)
        if steps[1:2] == ["carbon-intensity"]:
            return self._electricity_maps(steps, request)
        if steps == ["login"]:
            return self._login(request)
        if steps in (["v3", "forecast"], ["v3", "historical"]):
            return self._watttime(steps[1], request)
        if steps == ["co2eq"]:
            return self._energy_charts(request.parameters)
        if steps[0] == "emissions":
            return self._carbon_aware_sdk(steps[1:], request.parameters)
        return 404, {"error": "no such path"}

    def _between(self, start: datetime, end: datetime) -> Iterator[Row]:
        return (row for row in self.rows if row.end > start and row.start < end)

    def _now(self) -> list[Row]:
        return list(self._between(self.clock(), self.clock() + timedelta(microseconds=1)))[:1]

    # Carbon Intensity API

    def _uk(self, steps: list[str]) -> tuple[int, Any]:
        regional = steps.pop(0) == "regional"
        place = None
        if regional and steps[-2:-1] in (["regionid"], ["postcode"]):
            place = steps.pop()
            steps.pop()
            if place not in self.zones:
                return 400, {
                    "error": {"code": "400 Bad Request", "message": "Please enter a valid region or postcode."}
                }
        if regional and steps[:1] == ["intensity"]:
            steps.pop(0)
        if not steps:
            found = self._now()
        else:
            start = _time(steps[0])
            end = start + timedelta(hours=48) if steps[1] == "fw48h" else _time(steps[1])
            if end - start > timedelta(days=14):
                return 400, {"error": {"code": "400 Bad Request", "message": "The date range is limited to 14 days."}}
            # The half hour that ends at the start comes too.
            found = list(self._between(start - timedelta(minutes=1), end))
        records = [_uk_record(row, regional) for row in found]
        if not regional:
            return 200, {"data": records}
        shape = self.regional_shape
        if shape == "usual":
            shape = "object" if steps else "list"
        region = {"regionid": int(place) if place and place.isdigit() else 13, "shortname": "London"}
        if shape == "regions":
            others = {"regionid": 5, "intensity": {"forecast": 999, "index": "high"}}
            return 200, {
                "data": [
                    {
                        "from": record["from"],
                        "to": record["to"],
                        "regions": [others, {**region, "intensity": record["intensity"]}],
                    }
                    for record in records
                ]
            }
        whole = {**region, "data": records}
        return 200, {"data": whole if shape == "object" else [whole]}

    # Electricity Maps

    def _electricity_maps(self, steps: list[str], request: Request) -> tuple[int, Any]:
        asked = request.parameters
        if request.headers.get("auth-token") != self.token:
            return 401, {"error": "Invalid auth-token"}
        zone = asked.get("zone", "")
        if zone not in self.zones:
            if asked.get("disableCallerLookup") == "true":
                return 400, {"status": "error", "message": f"Zone '{zone}' does not exist."}
            zone = self.caller_zone
        factors = asked.get("emissionFactorType", "lifecycle")
        v4 = {"temporalGranularity": "hourly"} if steps[0] == "v4" else {}
        now = self.clock()

        def record(row: Row) -> dict[str, Any]:
            value = row.forecast if row.actual is None else row.actual
            flags = {"emissionFactorType": factors, "isEstimated": row.actual is None}
            return {"zone": zone, "carbonIntensity": value, "datetime": _z(row.start), **flags}

        if steps[2] == "latest":
            found = self._now()
            if not found:
                return 404, {"status": "error", "message": f"No data for zone {zone}"}
            return 200, {**record(found[0]), **v4}
        if steps[2] == "history":
            return 200, {"zone": zone, "history": [record(row) for row in self._between(now - DAY, now)], **v4}
        if steps[2] == "past-range":
            start, end = _time(asked["start"]), _time(asked["end"])
            if end - start > timedelta(days=10):
                return 400, {"status": "error", "message": "The time range is limited to 10 days."}
            found = [row for row in self.rows if start <= row.start < end]
            return 200, {"zone": zone, "data": [record(row) for row in found], **v4}
        if asked["horizonHours"] not in ("6", "24", "48", "72"):
            return 400, {"status": "error", "message": "horizonHours must be one of 6, 24, 48, 72"}
        ahead = self._between(now, now + timedelta(hours=int(asked["horizonHours"])))
        forecast = [{"carbonIntensity": row.forecast, "datetime": _z(row.start)} for row in ahead]
        return 200, {"zone": zone, "forecast": forecast, "updatedAt": _z(now), **v4}

    # WattTime

    def _login(self, request: Request) -> tuple[int, Any]:
        expected = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {expected}":
            return 401, {"error": "Unauthorized"}
        self._logins += 1
        bearer = f"bearer-number-{self._logins}"
        self.valid_bearers.add(bearer)
        return 200, {"token": bearer}

    def _watttime(self, question: str, request: Request) -> tuple[int, Any]:
        asked = request.parameters
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.valid_bearers:
            return 401, {"error": "Invalid or expired token"}
        if asked["region"] not in self.zones:
            return 400, {"error": "Invalid request", "message": f"region {asked['region']} not found"}
        if question == "forecast":
            if int(asked["horizon_hours"]) > 72:
                return 400, {"error": "horizon_hours must be at most 72"}
            found = list(self._between(self.clock(), self.clock() + timedelta(hours=int(asked["horizon_hours"]))))
        else:
            start, end = _time(asked["start"]), _time(asked["end"])
            if end - start > timedelta(days=32):
                return 400, {"error": "the window is limited to 32 days"}
            found = [row for row in self.rows if start <= row.start < end]
        data: list[dict[str, Any]] = []
        for row in found:
            value = row.forecast if question == "forecast" or row.actual is None else row.actual
            pounds = None if value is None else value * LBS_PER_MWH_IN_G_PER_KWH
            data.append({"point_time": row.start.isoformat(), "value": pounds})
        period = (found[0].end - found[0].start).total_seconds() if found else 300
        meta: dict[str, Any] = {"data_point_period_seconds": period, "region": asked["region"], "warnings": []}
        return 200, {"data": data, "meta": {**meta, "signal_type": asked["signal_type"], "units": self.units}}

    # Energy-Charts

    def _energy_charts(self, asked: Mapping[str, str]) -> tuple[int, Any]:
        if asked["country"] not in self.zones:
            return 422, {"detail": [{"loc": ["query", "country"], "msg": "value is not a valid enumeration member"}]}
        found = list(self._between(_time(asked["start"]), _time(asked["end"])))
        if not found:
            return 404, {"detail": "no content available"}
        return 200, {
            "unix_seconds": [int(row.start.timestamp()) for row in found],
            "co2eq": [row.actual for row in found],
            "co2eq_forecast": [row.forecast for row in found],
            "deprecated": False,
        }

    # Carbon Aware SDK

    def _carbon_aware_sdk(self, steps: list[str], asked: Mapping[str, str]) -> tuple[int, Any]:
        location = asked["location"]
        if location not in self.zones:
            detail = f"Unknown Location: '{location}' not found"
            return 400, {"title": "ArgumentException", "status": 400, "detail": detail}
        if steps == ["bylocation"]:
            found = list(self._between(_time(asked["time"]), _time(asked["toTime"])))
            if not found:
                return 204, None
            return 200, [
                {
                    "location": "NL",
                    "time": row.start.isoformat(),
                    "rating": row.forecast if row.actual is None else row.actual,
                }
                for row in found
            ]
        now = self.clock()
        data = [
            {
                "location": "NL",
                "timestamp": row.start.isoformat(),
                "duration": (row.end - row.start).total_seconds() / 60,
                "value": row.forecast,
            }
            for row in self._between(now, now + timedelta(hours=24))
        ]
        return 200, [{"generatedAt": now.isoformat(), "location": location, "windowSize": 30, "forecastData": data}]


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.utcoffset() is None else time.astimezone(UTC)


def _z(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _uk_record(row: Row, regional: bool) -> dict[str, Any]:
    intensity: dict[str, Any] = {"forecast": row.forecast, "index": "moderate"}
    if not regional:
        intensity["actual"] = row.actual
    times = {"from": row.start.strftime("%Y-%m-%dT%H:%MZ"), "to": row.end.strftime("%Y-%m-%dT%H:%MZ")}
    return {**times, "intensity": intensity}
