"""Forecasts a zone's carbon intensity from its past, where no provider gives a forecast."""

from greencore.carbon.forecasting.own_forecast import OwnForecast
from greencore.carbon.forecasting.regression import MAX_FORECAST_HOURS, rolling_forecasts

__all__ = ["MAX_FORECAST_HOURS", "OwnForecast", "rolling_forecasts"]
