"""The keys of the providers that ask for one."""

from dataclasses import dataclass, field, fields

from greencore.carbon.errors import InvalidSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Keys of carbon-intensity providers; None, or an empty text, where there is none.

    White space around a key is dropped, as a file or a variable often ends in a line break. No representation
    shows a key.
    """

    electricity_maps_token: str | None = field(default=None, repr=False)
    watttime_user: str | None = field(default=None, repr=False)
    watttime_password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in (entry.name for entry in fields(self)):
            value: str | None = getattr(self, name)
            object.__setattr__(self, name, (value or "").strip() or None)

    def require(self, name: str, source: str) -> str:
        """The key of this name; raises InvalidSpec where there is none, or where no HTTP header may hold it."""
        value: str | None = getattr(self, name)
        if value is None:
            raise InvalidSpec(f"the source {source} needs the key {name}, which is not set")
        if not (value.isascii() and value.isprintable()):
            raise InvalidSpec(
                f"the key {name} holds a character that no HTTP header may hold: expected printable ASCII"
            )
        return value
