"""A zone's carbon intensity forecast from its own past, where no provider gives one."""

from greencore.carbon.forecasting.own_forecast import OwnForecast
from greencore.carbon.forecasting.regression import LONGEST_HOURS, rolling_forecasts

__all__ = ["LONGEST_HOURS", "OwnForecast", "rolling_forecasts"]
