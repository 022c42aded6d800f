"""Newest reading and newest forecast of each of many zones, each in one query with a few index lookups."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import ARRAY, String, func, literal, select, true
from sqlalchemy.orm import Session, aliased

from greencore.carbon.series import SIGNALS
from store.tables import IntensityForecast, IntensityReading


def newest_readings(session: Session, zones: Collection[str], *, at: datetime) -> Mapping[str, IntensityReading]:
    """Return by zone the newest reading that began by `at`; of two signals, the one fetched last."""
    zone = func.unnest(literal(list(zones), ARRAY(String))).table_valued("zone").render_derived(name="zones")
    signal = func.unnest(literal(list(SIGNALS), ARRAY(String))).table_valued("signal").render_derived(name="signals")
    newest = (
        select(IntensityReading)
        .where(
            IntensityReading.zone == zone.c.zone,
            IntensityReading.signal == signal.c.signal,
            IntensityReading.start <= at,
        )
        .order_by(IntensityReading.start.desc())
        .limit(1)
        .lateral("newest")
    )
    reading = aliased(IntensityReading, newest)
    query = select(reading).select_from(zone).join(signal, true()).join(newest, true()).order_by(reading.fetched_at)
    return {found.zone: found for found in session.scalars(query)}


def forecast_reach_by_zone(session: Session, signals: Mapping[str, str]) -> Mapping[str, tuple[datetime, datetime]]:
    """Return by zone when the newest forecast of its signal was fetched, and the end of its last interval."""
    zones, of_zones = literal(list(signals), ARRAY(String)), literal(list(signals.values()), ARRAY(String))
    asked = func.unnest(zones, of_zones).table_valued("zone", "signal").render_derived(name="asked")
    newest = (
        select(IntensityForecast.fetched_at, IntensityForecast.end)
        .where(IntensityForecast.zone == asked.c.zone, IntensityForecast.signal == asked.c.signal)
        .order_by(IntensityForecast.start.desc())
        .limit(1)
        .lateral("newest")
    )
    query = select(asked.c.zone, newest.c.fetched_at, newest.c.end).select_from(asked).join(newest, true())
    return {zone: (fetched_at, end) for zone, fetched_at, end in session.execute(query)}
