"""Forecasts a zone's carbon intensity from its past, where no provider gives a forecast."""

from greencore.carbon.forecasting.own_forecast import forecast_own
from greencore.carbon.forecasting.regression import MAX_FORECAST_HOURS, rolling_forecasts

__all__ = ["MAX_FORECAST_HOURS", "forecast_own", "rolling_forecasts"]
