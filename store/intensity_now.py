"""The newest reading of each of many zones, in one query that looks into an index twice a zone."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import ARRAY, String, func, literal, select, true
from sqlalchemy.orm import Session, aliased

from greencore.carbon.series import SIGNALS
from store.tables import IntensityReading


def newest_readings(session: Session, zones: Collection[str], *, at: datetime) -> Mapping[str, IntensityReading]:
    """The last reading that had begun by a time, by zone; of two signals the one that was fetched last."""
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
