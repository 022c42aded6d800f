"""Text type that the database, JSON and tokenizers can all store; used by hyperparameters and API schemas."""

from typing import Annotated

from pydantic import AfterValidator, Field

MAX_DISPLAY_NAME = 100


def check_storable(text: str) -> str:
    """Return the text. Raises ValueError where it holds NUL or half a surrogate pair."""
    if "\0" in text:
        raise ValueError("holds the character NUL, which cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half a surrogate pair at position {error.start}, which is no character") from error
    return text


def check_display_name(text: str) -> str:
    """Return the text. Raises ValueError unless it is one line of printable characters without space at its ends."""
    if not text.isprintable():
        sign = next(sign for sign in text if not sign.isprintable())
        raise ValueError(f"holds U+{ord(sign):04X}, which is not printable: expected one line of printable characters")
    if text != text.strip():
        raise ValueError("begins or ends with a space")
    return text


StorableText = Annotated[str, AfterValidator(check_storable)]
"""Text of whole Unicode characters without NUL."""
DisplayName = Annotated[str, Field(min_length=1, max_length=MAX_DISPLAY_NAME), AfterValidator(check_display_name)]
"""Name that a person gave: one line, printable."""
