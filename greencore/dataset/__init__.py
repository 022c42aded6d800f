"""Training rows: their forms, parsing of JSON Lines, and errors with line number and field."""

from greencore.dataset.keys import READ_KEYS, find_form, find_ignored_keys
from greencore.dataset.parsing import ROW_FORMS, parse_object, parse_row, row_from_object
from greencore.dataset.row_reading import BYTE_ORDER_MARK, enumerate_rows, load_rows, read_rows
from greencore.dataset.rows import InvalidRow, Message, MessagesRow, PromptRow, Row, TextRow, row_form, row_to_object
from greencore.dataset.values import MAX_SHOWN_CHARACTERS

__all__ = [
    "BYTE_ORDER_MARK",
    "MAX_SHOWN_CHARACTERS",
    "READ_KEYS",
    "ROW_FORMS",
    "InvalidRow",
    "Message",
    "MessagesRow",
    "PromptRow",
    "Row",
    "TextRow",
    "enumerate_rows",
    "find_form",
    "find_ignored_keys",
    "load_rows",
    "parse_object",
    "parse_row",
    "read_rows",
    "row_form",
    "row_from_object",
    "row_to_object",
]
