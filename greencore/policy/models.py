"""The kinds of policy by emissions, and the union of all kinds by `kind`, which parsing and the interface share."""

from typing import Annotated, Literal

from pydantic import Field

from greencore.policy.kinds.by_intensity import Constant, Linear, Steps
from greencore.policy.kinds.percentile import Percentile
from greencore.policy.kinds.policy import Number, RhoRangePolicy

POLICY_KINDS = ("constant", "steps", "linear", "percentile", "budget", "price")


class Budget(RhoRangePolicy):
    """As much learning as `budget_gco2e` gCO2e allow for the whole run."""

    kind: Literal["budget"]
    budget_gco2e: Annotated[Number, Field(gt=0, description="In gCO2e")]


class Price(RhoRangePolicy):
    """As many FLOPs as pay, where 1 off the loss is worth `gco2e_per_loss` gCO2e."""

    kind: Literal["price"]
    gco2e_per_loss: Annotated[Number, Field(gt=0, description="In gCO2e")]


AnyPolicy = Constant | Steps | Linear | Percentile | Budget | Price
PolicyBody = Annotated[AnyPolicy, Field(discriminator="kind")]
