"""The declarative base class of every table."""

from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, Double, MetaData, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase

from greencore.carbon import EmissionFactors, Signal

Json = dict[str, Any]


class Table(DeclarativeBase):
    """Declarative base; constraint names follow a convention, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        str: Text,
        float: Double,
        datetime: DateTime(timezone=True),
        Json: JSONB(none_as_null=True),
        list[str]: ARRAY(Text),
        Signal: Text,
        EmissionFactors: Text,
    }
