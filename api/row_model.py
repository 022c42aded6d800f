"""Base of the response models of stored rows: the one place that reads a row's attributes into fields."""

from typing import Any, Self

from pydantic import BaseModel


class RowModel(BaseModel):
    """Response model whose fields have the names of a row's attributes."""

    @classmethod
    def from_row(cls, row: object, **others: Any) -> Self:
        """Build from a row; `others` are the fields that it has no attribute for, or that replace one."""
        unknown = others.keys() - cls.model_fields.keys()  # pydantic would ignore them
        assert not unknown, f"{cls.__name__} has no field {', '.join(unknown)}"
        return cls(**{name: getattr(row, name) for name in cls.model_fields if name not in others}, **others)
