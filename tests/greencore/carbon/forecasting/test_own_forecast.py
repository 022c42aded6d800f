import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from greencore.carbon import IntensitySeries, NoReading, Reading
from greencore.carbon.forecasting import MAX_FORECAST_HOURS, forecast_own, rolling_forecasts
from greencore.carbon.forecasting.hourly import resample_hourly
from greencore.clock import HOUR

Array = NDArray[np.float64]

START = datetime(2026, 3, 2, 5, tzinfo=UTC)


def reading(start: datetime, length: timedelta, value: float, **fields: object) -> Reading:
    given: dict[str, object] = {"zone": "ES", "source": "test", "fetched_at": START} | fields
    return Reading(start=start, end=start + length, gco2e_per_kwh=value, **given)  # type: ignore[arg-type]


def hourly(values: Array, start: datetime = START, **fields: object) -> IntensitySeries:
    """A series of hourly readings; NaN leaves an hour out."""
    return IntensitySeries(
        reading(start + index * HOUR, HOUR, float(value), **fields)
        for index, value in enumerate(values)
        if not math.isnan(value)
    )


def solar_and_wind(hours: int, seed: int = 0) -> Array:
    """Synthetic grid: a dip at noon whose depth differs by day, and wind that varies over days."""
    draw = np.random.default_rng(seed)
    hour = np.arange(hours)
    wind = np.zeros(hours)
    for index in range(1, hours):
        wind[index] = 0.98 * wind[index - 1] + 0.2 * draw.normal()
    sun = (
        np.maximum(0.0, np.sin((hour % 24 - 6) / 12 * np.pi))
        * np.repeat(draw.uniform(0.3, 1, hours // 24 + 1), 24)[:hours]
    )
    values: Array = np.clip(250 - 150 * sun - 40 * wind, 5, None)
    return values


def values_of(series: IntensitySeries) -> Array:
    return np.array([entry.gco2e_per_kwh for entry in series])


def error(forecasts: Array, values: Array, first: int) -> float:
    """Mean absolute error over all hours ahead of the forecasts from `first` on."""
    hours = forecasts.shape[1]
    outcome = np.lib.stride_tricks.sliding_window_view(values, hours)[first:]
    return float(np.abs(forecasts[first : first + len(outcome)] - outcome).mean())


class TestRollingForecasts:
    @settings(max_examples=15, deadline=None)
    @given(cut=st.integers(1, 1199), seed=st.integers(0, 3), first_hour=st.integers(0, 23))
    def test_later_values_do_not_change_a_forecast(self, cut: int, seed: int, first_hour: int) -> None:
        values = solar_and_wind(1200, seed)
        changed = values.copy()
        changed[cut:] = np.random.default_rng(seed + 1).uniform(0, 2000, 1200 - cut)
        before = rolling_forecasts(values, 30, first_hour_utc=first_hour)
        after = rolling_forecasts(changed, 30, first_hour_utc=first_hour)
        np.testing.assert_array_equal(before[: cut + 1], after[: cut + 1])
        assert not np.array_equal(before[cut + 1], after[cut + 1])

    def test_the_shape_has_a_row_for_every_hour_and_one_for_now(self) -> None:
        forecasts = rolling_forecasts(solar_and_wind(500), 50)
        assert forecasts.shape == (501, 50)
        assert np.isnan(forecasts[0]).all()
        assert np.isfinite(forecasts[1:]).all()

    def test_hours_ahead_do_not_depend_on_how_many_are_asked_for(self) -> None:
        values = solar_and_wind(900)
        longest = rolling_forecasts(values, MAX_FORECAST_HOURS)
        for hours in (1, 24, 34, 72):
            np.testing.assert_allclose(rolling_forecasts(values, hours), longest[:, :hours], rtol=1e-9)

    def test_is_better_than_yesterday_and_than_the_mean_day(self) -> None:
        values = solar_and_wind(24 * 150)
        own = error(rolling_forecasts(values, 34), values, 24 * 60)
        yesterday = np.stack([np.roll(values, 24 * (ahead // 24 + 1) - ahead) for ahead in range(34)], axis=1)
        days = values.reshape(-1, 24)
        mean_day = np.stack(
            [np.tile(days.mean(axis=0), 152)[ahead : ahead + len(values)] for ahead in range(34)], axis=1
        )
        assert own < 0.85 * error(yesterday, values, 24 * 60)
        assert own < 0.85 * error(mean_day, values, 24 * 60)

    def test_daily_pattern_is_forecast_exactly(self) -> None:
        day = 200.0 + 100 * np.sin(np.arange(24) / 24 * 2 * np.pi) + np.arange(24.0)
        values = np.tile(day, 60)
        forecasts = rolling_forecasts(values, MAX_FORECAST_HOURS)
        expected = np.tile(day, 80)
        for at in (30, 24 * 6 + 5, 24 * 40 + 11, 24 * 60):
            np.testing.assert_allclose(forecasts[at], expected[at : at + MAX_FORECAST_HOURS], rtol=0.001)

    def test_weekly_pattern_is_learnt(self) -> None:
        weekend = np.repeat([0.0, 0, 0, 0, 0, -100, -120], 24)
        values = np.tile(weekend, 30) + solar_and_wind(168 * 30) + 130
        forecasts = rolling_forecasts(values, 24)

        def step(day: int) -> float:
            """Mean difference between the forecast of a day and the day before, over the last weeks."""
            midnights = [168 * week + 24 * day for week in range(15, 29)]
            return float(np.mean([forecasts[at].mean() - values[at - 24 : at].mean() for at in midnights]))

        assert step(5) < -50
        assert step(7) > 50
        assert abs(step(3)) < 25

    @pytest.mark.parametrize("value", [0.0, 1e-3, 56.0, 900.0])
    def test_flat_series_stays_flat(self, value: float) -> None:
        forecasts = rolling_forecasts(np.full(24 * 40, value), 72)
        np.testing.assert_allclose(forecasts[1:], value, rtol=1e-9, atol=1e-9)

    def test_series_of_zeros_that_ends_is_followed(self) -> None:
        values = np.concatenate([np.zeros(24 * 50), np.full(24 * 10, 300.0)])
        forecasts = rolling_forecasts(values, 34)
        assert np.isfinite(forecasts[1:]).all()
        assert (forecasts[1:] >= 0).all()
        assert forecasts[-1].mean() == pytest.approx(300, abs=60)

    def test_old_zeros_do_not_increase_the_error(self) -> None:
        values = solar_and_wind(24 * 120)
        zeros = values.copy()
        zeros[: 24 * 40] = 0
        usual = error(rolling_forecasts(values, 34), values, 24 * 70)
        assert error(rolling_forecasts(zeros, 34), zeros, 24 * 70) < 1.1 * usual

    def test_an_alternation_of_days_is_learnt(self) -> None:
        days = np.repeat(np.tile([250.0, 150.0], 60), 24)
        values = days + np.random.default_rng(0).normal(0, 10, len(days))
        assert error(rolling_forecasts(values, 24), values, 24 * 80) < 20

    def test_a_spike_loses_its_effect(self) -> None:
        values = solar_and_wind(24 * 80)
        spiked = values.copy()
        spiked[24 * 50 + 7] = 900
        usual = rolling_forecasts(values, 34)
        after = rolling_forecasts(spiked, 34)
        assert np.isfinite(after[1:]).all()
        assert (after[1:] >= 0).all()
        np.testing.assert_allclose(after[24 * 80], usual[24 * 80], atol=0.5 * values.std())

    def test_shift_of_the_level_is_followed(self) -> None:
        values = solar_and_wind(24 * 90)
        values[24 * 45 :] += 400
        forecasts = rolling_forecasts(values, 34)
        assert error(forecasts, values, 24 * 60) < 0.2 * 400

    def test_forecasts_stay_within_what_the_last_weeks_saw(self) -> None:
        values = solar_and_wind(24 * 100, seed=3)
        forecasts = rolling_forecasts(values, 72)
        for at in (24 * 30, 24 * 61 + 7, 24 * 100):
            assert forecasts[at].min() >= values[max(at - 672, 0) : at].min()
            assert forecasts[at].max() <= values[max(at - 672, 0) : at].max()

    def test_without_a_past_the_forecast_is_nan(self) -> None:
        assert np.isnan(rolling_forecasts(np.zeros(0), 10)).all()

    @pytest.mark.parametrize(
        ("values", "hours", "first_hour", "message"),
        [
            ([1.0], 0, 0, "hours is 0: expected 1 to 168"),
            ([1.0], 169, 0, "hours is 169: expected 1 to 168"),
            ([1.0], 10, 24, "first_hour_utc is 24: expected 0 to 23"),
            ([1.0, math.nan], 10, 0, r"values\[1\] is nan: expected a finite intensity"),
            ([1.0, 2.0, -1.0], 10, 0, r"values\[2\] is -1.0: expected a finite intensity"),
            ([[1.0]], 10, 0, "values has 2 dimensions: expected 1"),
        ],
    )
    def test_wrong_arguments_are_named(self, values: list[float], hours: int, first_hour: int, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            rolling_forecasts(np.array(values), hours, first_hour_utc=first_hour)


class TestForecastOwn:
    @pytest.mark.parametrize("ended", [1, 3, 24, 25, 160, 700, 1000])
    def test_is_the_rolling_forecast_of_that_hour(self, ended: int) -> None:
        values = solar_and_wind(1000)
        rolled = rolling_forecasts(values, 72, first_hour_utc=START.hour)
        own = forecast_own(hourly(values), now=START + ended * HOUR, hours=72)
        np.testing.assert_allclose(values_of(own), rolled[ended], rtol=1e-8)

    def test_readings_are_marked_as_own_estimates_of_the_same_signal(self) -> None:
        history = hourly(solar_and_wind(100), signal="marginal", emission_factors="direct", zone="GB")
        now = START + 60 * HOUR + timedelta(minutes=20)
        own = forecast_own(history, now=now, hours=5)
        assert [entry.start for entry in own] == [START + (60 + index) * HOUR for index in range(6)]
        assert {entry.end - entry.start for entry in own} == {HOUR}
        first = own.readings[0]
        assert (first.zone, first.signal, first.emission_factors) == ("GB", "marginal", "direct")
        assert (first.source, first.estimated, first.fetched_at) == ("own forecast", True, now)

    def test_on_the_hour_there_is_one_reading_for_each_hour_asked(self) -> None:
        history = hourly(solar_and_wind(100))
        for hours, count in ((24, 24), (0.5, 1), (MAX_FORECAST_HOURS, MAX_FORECAST_HOURS)):
            assert len(forecast_own(history, now=START + 60 * HOUR, hours=hours)) == count

    def test_readings_that_had_not_ended_are_not_used(self) -> None:
        values = solar_and_wind(400)
        now = START + 300 * HOUR + timedelta(minutes=59)
        own = forecast_own(hourly(values), now=now, hours=48)
        without_later = forecast_own(hourly(values[:300]), now=now, hours=48)
        assert own == without_later

    def test_no_ended_reading_is_an_error(self) -> None:
        with pytest.raises(NoReading, match="no reading had ended by 2026-03-02T05:00:00"):
            forecast_own(IntensitySeries(), now=START, hours=1)
        with pytest.raises(NoReading, match="no reading had ended"):
            forecast_own(hourly(np.ones(5)), now=START + timedelta(minutes=30), hours=1)

    def test_readings_of_years_ago_are_not_used(self) -> None:
        with pytest.raises(NoReading, match="within the 26280 hours before"):
            forecast_own(hourly(np.ones(5)), now=START + timedelta(days=1200), hours=1)

    def test_a_single_reading_gives_a_flat_forecast(self) -> None:
        own = forecast_own(hourly(np.array([123.0])), now=START + HOUR, hours=30)
        np.testing.assert_allclose(values_of(own), 123.0)

    def test_a_few_days_give_their_mean_day(self) -> None:
        day = 100 + 10.0 * np.arange(24)
        history = hourly(np.concatenate([day, day + 40]), start=START.replace(hour=0))
        own = values_of(forecast_own(history, now=START.replace(hour=0) + 48 * HOUR, hours=168))
        assert ((own >= np.tile(day, 7)) & (own <= np.tile(day + 40, 7))).all()
        np.testing.assert_allclose(own[-24:], day + 20, rtol=0.02)

    def test_readings_within_the_current_hour_alone_give_a_forecast(self) -> None:
        history = IntensitySeries([reading(START + timedelta(minutes=10), timedelta(minutes=5), 80.0)])
        own = forecast_own(history, now=START + timedelta(minutes=20), hours=3)
        assert own.readings[0].start == START
        np.testing.assert_allclose(values_of(own), 80.0)

    @pytest.mark.parametrize("minutes", [5, 15, 30])
    def test_shorter_readings_count_by_their_hourly_mean(self, minutes: int) -> None:
        values = solar_and_wind(24 * 30)
        parts = 60 // minutes
        wobble = np.linspace(-1, 1, parts)
        length = timedelta(minutes=minutes)
        history = IntensitySeries(
            reading(START + index * HOUR + part * length, length, float(value + wobble[part]))
            for index, value in enumerate(values)
            for part in range(parts)
        )
        now = START + len(values) * HOUR
        fine = forecast_own(history, now=now, hours=48)
        coarse = forecast_own(hourly(values), now=now, hours=48)
        np.testing.assert_allclose(values_of(fine), values_of(coarse), rtol=1e-6)

    def test_longer_readings_spread_over_their_hours(self) -> None:
        values = np.repeat(solar_and_wind(24 * 10)[::3], 3)
        history = IntensitySeries(reading(START + 3 * i * HOUR, 3 * HOUR, float(v)) for i, v in enumerate(values[::3]))
        now = START + len(values) * HOUR
        own = forecast_own(history, now=now, hours=48)
        np.testing.assert_allclose(values_of(own), values_of(forecast_own(hourly(values), now=now, hours=48)))

    def test_gaps_are_filled(self) -> None:
        values = solar_and_wind(24 * 60)
        with_gaps = values.copy()
        for begin, length in ((100, 2), (200, 30), (900, 1), (1100, 100)):
            with_gaps[begin : begin + length] = np.nan
        now = START + len(values) * HOUR
        whole = values_of(forecast_own(hourly(values), now=now, hours=72))
        filled = values_of(forecast_own(hourly(with_gaps), now=now, hours=72))
        assert np.abs(filled - whole).mean() < 0.25 * values.std()

    def test_a_short_gap_is_interpolated_linearly(self) -> None:
        past = resample_hourly(hourly(np.array([10.0, math.nan, math.nan, 40.0])), START + 4 * HOUR, most_hours=1000)
        np.testing.assert_allclose(past.values, [10, 20, 30, 40])

    def test_a_long_gap_is_filled_with_the_day_before(self) -> None:
        values = solar_and_wind(72)
        with_gaps = values.copy()
        with_gaps[30:60] = np.nan
        past = resample_hourly(hourly(with_gaps), START + 72 * HOUR, most_hours=1000)
        np.testing.assert_allclose(past.values[30:54], values[[*range(6, 30)]])
        np.testing.assert_allclose(past.values[54:60], values[6:12])

    def test_late_readings_are_forecast_too_and_left_out(self) -> None:
        values = solar_and_wind(24 * 40)
        late = forecast_own(hourly(values[:-5]), now=START + len(values) * HOUR, hours=24)
        then = forecast_own(hourly(values[:-5]), now=START + (len(values) - 5) * HOUR, hours=29)
        assert late.readings[0].start == START + len(values) * HOUR
        np.testing.assert_allclose(values_of(late), values_of(then)[5:])

    def test_past_that_ended_weeks_ago_gives_its_mean_day(self) -> None:
        day = 200 + 50 * np.cos(np.arange(24) / 24 * 2 * np.pi)
        history = hourly(np.tile(day, 30), start=START.replace(hour=0))
        own = forecast_own(history, now=START.replace(hour=0) + timedelta(days=60), hours=48)
        np.testing.assert_allclose(values_of(own), np.tile(day, 2), rtol=0.001)

    def test_the_forecast_has_the_emission_factors_of_the_readings(self) -> None:
        own = forecast_own(hourly(np.full(50, 100.0), emission_factors="direct"), now=START + 50 * HOUR, hours=10)
        assert {reading.emission_factors for reading in own} == {"direct"}

    @pytest.mark.parametrize("hours", [0, -1, 168.5, math.nan])
    def test_hours_out_of_range_are_refused(self, hours: float) -> None:
        with pytest.raises(ValueError, match=r"hours is .*: expected more than 0, at most 168"):
            forecast_own(hourly(np.ones(5)), now=START + 5 * HOUR, hours=hours)

    def test_naive_time_is_refused(self) -> None:
        with pytest.raises(ValueError, match="now is 2026-03-02T05:00:00: expected an aware time in UTC"):
            forecast_own(hourly(np.ones(5)), now=START.replace(tzinfo=None), hours=1)
