"""Text type that the database, JSON and tokenizers can all store; used by hyperparameters and API schemas."""

from typing import Annotated

from pydantic import AfterValidator


def check_storable(text: str) -> str:
    """Return the text. Raises ValueError where it holds NUL or half a surrogate pair."""
    if "\0" in text:
        raise ValueError("holds the character NUL, which cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half a surrogate pair at position {error.start}, which is no character") from error
    return text


StorableText = Annotated[str, AfterValidator(check_storable)]
"""Text of whole Unicode characters without NUL."""
