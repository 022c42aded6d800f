"""Carbon policies: decide from the carbon intensity which share ρ of an epoch's FLOPs to train, and when to run."""

from greencore.policy.backtesting.backtest import BacktestError, BacktestResult, Spread, backtest
from greencore.policy.backtesting.simulation import BacktestDecision
from greencore.policy.context import PolicyContext
from greencore.policy.decision import IntensityMissing, RhoDecision, decide_rho
from greencore.policy.kinds.by_intensity import Constant, Linear, Step, Steps
from greencore.policy.kinds.percentile import Percentile
from greencore.policy.kinds.policy import FixedRho, Gate, Policy, Smoothing
from greencore.policy.models import Budget, PolicyBody, Price
from greencore.policy.parsing import FieldError, PolicyError, parse_policy, parse_stored_policy
from greencore.policy.rho.budget_price import BudgetPlan, budget_rhos, price_rho, smallest_budget_gco2e
from greencore.policy.rho.smoothing import PreviousRho
from greencore.policy.rho.utility import DEFAULT_UTILITY, UtilityCurve

__all__ = [
    "DEFAULT_UTILITY",
    "BacktestDecision",
    "BacktestError",
    "BacktestResult",
    "Budget",
    "BudgetPlan",
    "Constant",
    "FieldError",
    "FixedRho",
    "Gate",
    "IntensityMissing",
    "Linear",
    "Percentile",
    "Policy",
    "PolicyBody",
    "PolicyContext",
    "PolicyError",
    "PreviousRho",
    "Price",
    "RhoDecision",
    "Smoothing",
    "Spread",
    "Step",
    "Steps",
    "UtilityCurve",
    "backtest",
    "budget_rhos",
    "decide_rho",
    "parse_policy",
    "parse_stored_policy",
    "price_rho",
    "smallest_budget_gco2e",
]
