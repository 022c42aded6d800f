"""Types of the values of hyperparameters: named words, and unions of them with numbers or switches."""

from typing import Annotated, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

FormatName = Literal["plain", "tldr", "summarize", "chat"]
TrainOn = Literal["assistant", "last"]
ResultForm = Literal["full", "delta"]
EvaluationUnit = Literal["epochs", "steps"]
PrecisionName = Literal["auto", "bf16", "mixed", "fp32"]
Scheduler = Literal["linear", "cosine", "constant", "warmup-stable-decay"]
OptimizerName = Literal["adamw", "adafactor", "sgd"]
LogitPositions = Literal["learned", "all"]
Attention = Literal["sdpa", "flash", "eager"]


def _report_once(expected: str) -> WrapValidator:
    """Return a validator that raises one error for a value of no branch of a union, in place of one for each."""

    def validate(value: object, parse: ValidatorFunctionWrapHandler) -> object:
        try:
            return parse(value)
        except ValidationError as error:
            raise ValueError(f"expected {expected}") from error

    return WrapValidator(validate)


Switch = Annotated[bool | Literal["auto"], _report_once("true, false or auto")]
MicroBatchRows = Annotated[
    Annotated[int, Field(ge=1, le=4096)] | Literal["auto"], _report_once("a number from 1 to 4096, or auto")
]
