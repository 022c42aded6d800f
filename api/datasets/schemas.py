"""Request and response models of datasets."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.datasets.form import LONGEST_COLUMNS, MAX_PARTS
from api.datasets.receiving import FORM, RAW
from api.row_model import RowModel
from greencore.dataset import MessagesRow, PromptRow, Row, row_form

LONGEST_EXCERPT = 500
MAX_MESSAGES = 100

UPLOAD_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        FORM: {
            "schema": {
                "type": "object",
                "required": ["file"],
                "maxProperties": MAX_PARTS,
                "properties": {
                    "file": {"type": "string", "format": "binary", "description": "Rows in any container"},
                    "columns": {
                        "type": "string",
                        "maxLength": LONGEST_COLUMNS,
                        "description": "As the query parameter of this name",
                    },
                },
            }
        },
        **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in RAW},
    },
}


class CharactersOut(BaseModel):
    """Characters per row, all its texts together; `total` is over all rows."""

    total: int
    mean: float
    median: int
    max: int


class ContentsOut(BaseModel):
    """Summary of a dataset's rows."""

    forms: dict[str, int] = Field(
        description="Number of rows of each form, by name: messages, sharegpt, prompt, instruction, text"
    )
    characters: CharactersOut
    ignored_fields: list[str] = Field(
        description="Fields or columns that are not used, of a list's objects such as messages[].id; at most twenty"
    )


class DatasetOut(RowModel):
    """An uploaded file of training rows."""

    id: str
    name: str
    format: str = Field(description="Container of the rows: jsonl, json (an array), csv, tsv or parquet")
    compression: str | None = Field(description="gzip or zstd; null for a file that is not compressed as a whole")
    columns: dict[str, str] | None = Field(description="Fields of a row, and what they were taken from on upload")
    rows: int
    bytes: int
    sha256: str
    contents: ContentsOut | None = Field(description="Null for datasets stored before this was counted")
    created_at: datetime


class ExcerptOut(BaseModel):
    """One text of a row: its first 500 characters, and its full length."""

    field: str
    role: str | None
    text: str
    characters: int
    cut: bool

    @classmethod
    def of(cls, field: str, text: str, role: str | None = None) -> "ExcerptOut":
        return cls(
            field=field,
            role=role,
            text=text[:LONGEST_EXCERPT],
            characters=len(text),
            cut=len(text) > LONGEST_EXCERPT,
        )


class RowOut(BaseModel):
    """A row for display. `number` is its line, or its row in a Parquet file, from 1."""

    number: int
    form: str = Field(description="prompt (of instructions, too), messages (of ShareGPT's, too) or text")
    texts: list[ExcerptOut] = Field(description="Of a long conversation, those of the first hundred messages")

    @classmethod
    def of(cls, number: int, row: Row) -> "RowOut":
        """Build from a row, with long texts truncated."""
        if isinstance(row, MessagesRow):
            texts = [] if row.tools is None else [ExcerptOut.of("tools", row.tools)]
            for index, message in enumerate(row.messages[:MAX_MESSAGES]):
                field = f"messages[{index}]"
                if message.content or message.tool_calls is None:
                    texts.append(ExcerptOut.of(f"{field}.content", message.content, message.role))
                if message.tool_calls is not None:
                    texts.append(ExcerptOut.of(f"{field}.tool_calls", message.tool_calls, message.role))
        elif isinstance(row, PromptRow):
            texts = [ExcerptOut.of("prompt", row.prompt), ExcerptOut.of("completion", row.completion)]
        else:
            texts = [ExcerptOut.of("text", row.text)]
        return cls(number=number, form=row_form(row), texts=texts)


class TokenDistributionOut(BaseModel):
    """Tokens per example. A percentile is the smallest number that this share of the examples does not exceed."""

    total: int
    mean: float
    median: int
    p90: int
    p99: int
    max: int


class TokenBinOut(BaseModel):
    """Number of examples (`rows`) with more tokens than the previous bin's bound, and at most `up_to`."""

    up_to: int
    rows: int


class TokenCountsOut(BaseModel):
    """Lengths of untruncated examples in a model's tokens, including the end of text."""

    model: str
    counted_at: datetime
    rows: int = Field(description="Rows of which something is learned")
    examples: int = Field(description="Examples of these rows: a conversation may have one for each learned turn")
    dropped_rows: int = Field(description="Rows of which nothing is learned")
    dropped_lines: list[int] = Field(description="Line numbers of the first twenty of these")
    tokens: TokenDistributionOut
    prompt: TokenDistributionOut = Field(description="Tokens that are only read")
    completion: TokenDistributionOut = Field(description="Tokens that are learned")
    longer_than: dict[str, int] = Field(description="Number of examples with more than 512, 1024 and 2048 tokens")
    histogram: list[TokenBinOut]


class SegmentOut(BaseModel):
    """Consecutive tokens that are all learned, or all only read, as text."""

    text: str
    tokens: int
    learned: bool


class LearnedRowOut(BaseModel):
    """A row as training renders it. `line` is its line, or its row in a file of columns, from 1."""

    line: int
    examples: list[list[SegmentOut]] = Field(
        description="Text of each example; a conversation may have several. Empty where nothing of the row is learned"
    )
    tokens: int = Field(description="Tokens of all examples")
    learned_tokens: int
    is_cut: bool = Field(description="True if only the beginning is shown")
    error: str | None = Field(description="Why the model cannot use this row")


class LearnedTextOut(BaseModel):
    """First rows of a dataset with their learned tokens marked, in a model's prompt format."""

    model: str
    prompt_format: str
    train_on: str
    rows: list[LearnedRowOut]


class CountingOut(BaseModel):
    """The tokens are being counted; repeat the request."""

    model: str
    asked_at: datetime
