"""A zone's carbon intensity forecast from its own past, where no provider gives one."""

from greencore.carbon.forecasting.own_forecast import OwnForecast
from greencore.carbon.forecasting.regression import MAX_FORECAST_HOURS, rolling_forecasts

__all__ = ["MAX_FORECAST_HOURS", "OwnForecast", "rolling_forecasts"]
