"""Previews a dataset's first rows and counts its tokens, tokenised as for training but without a length limit."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any, cast

import structlog
from transformers import PreTrainedTokenizerBase

from greencore.clock import utc_now
from greencore.dataset import Row
from greencore.length_statistics import LengthCounter
from greencore.settings.value_types import FormatName, TrainOn
from greencore.training.batches.batch_shapes import is_encoder_decoder
from greencore.training.data.chat_template import TemplateClock
from greencore.training.data.preview import preview_rows
from greencore.training.data.prompt_formats import PLAIN, PromptFormat, resolve_prompt_format
from greencore.training.data.tokenisation import MAX_NAMED_LINES, refuse_nothing_learned, tokenise_rows
from greencore.training.models.loading import load_meta_model, load_tokenizer
from runtime.settings import Settings, get_settings
from store.database import Database
from store.repositories.datasets import locate_rows_file
from store.repositories.token_statistics import CountRequest, TokenStatisticsRepository
from store.stored_rows import enumerate_stored_rows
from worker.base_model import fetch_model_folder
from worker.database_retry import TRANSIENT_DATABASE_ERRORS
from worker.failure_reports import explain_error

LENGTH_BOUNDS = (512, 1024, 2048)
PREVIEWED_ROWS = 20
BATCH_ROWS = 1000
NO_LENGTH_LIMIT = 2**31


def count_dataset_tokens(wanted: CountRequest) -> None:
    """Store the preview of a dataset's first rows for a model, then its token counts, or the error.

    Does nothing where they are stored.
    """
    settings, log = get_settings(), structlog.get_logger().bind(**asdict(wanted))
    with Database(settings.database_url) as database:
        with database.session() as session:
            if not TokenStatisticsRepository(session).is_pending(wanted):
                log.info("token_counts.not_needed")
                return
        counts, error = None, None
        try:
            counts = _count_stored_dataset(database, settings, wanted)
        except TRANSIENT_DATABASE_ERRORS:
            raise
        except Exception as fault:
            log.warning("token_counts.failed", exc_info=fault)
            error = explain_error(fault, reference=f"dataset={wanted.dataset_id} model={wanted.model}")["detail"]
        with database.session() as session:
            TokenStatisticsRepository(session).put(wanted, at=utc_now(), counts=counts, error=error)
        log.info("token_counts.stored", error=error)


def count_row_tokens(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    encoder: bool = False,
    prompt_format: PromptFormat = PLAIN,
    train_on: TrainOn = "assistant",
) -> dict[str, Any]:
    """Return statistics of the examples' token counts, in all and of what is only read (prompt) and learned.

    A conversation may have several examples; a row without a learned token is dropped. `encoder`, `prompt_format` and
    `train_on` are as in `tokenise_rows`, whose errors are raised. A prompt includes the tokenizer's
    start token, a completion the end of text. Raises `UnusableRow` where nothing of any row is learned.
    """
    together, prompts, completions = LengthCounter(), LengthCounter(), LengthCounter()
    kept = 0
    dropped: list[int] = []
    for batch in _batches(iter(rows)):
        tokenised = tokenise_rows(
            batch,
            tokenizer,
            max_length=NO_LENGTH_LIMIT,
            prompt_format=prompt_format,
            encoder=encoder,
            train_on=train_on,
        )
        kept += len(tokenised.rows)
        dropped += tokenised.dropped_lines
        for example in tokenised.examples:
            if encoder:
                prompt, completion = len(example.input_ids), len(example.labels)
            else:
                completion = sum(label >= 0 for label in example.labels)
                prompt = len(example.labels) - completion
            together.add(prompt + completion)
            prompts.add(prompt)
            completions.add(completion)
    refuse_nothing_learned(kept, dropped)
    return {
        "rows": kept,
        "examples": len(together),
        "dropped_rows": len(dropped),
        "dropped_lines": dropped[:MAX_NAMED_LINES],
        "tokens": asdict(together.distribution()),
        "prompt": asdict(prompts.distribution()),
        "completion": asdict(completions.distribution()),
        "longer_than": {str(bound): together.count_longer_than(bound) for bound in LENGTH_BOUNDS},
        "histogram": [{"up_to": bound, "rows": number} for bound, number in together.histogram()],
    }


def _count_stored_dataset(database: Database, settings: Settings, wanted: CountRequest) -> dict[str, Any]:
    with database.session() as session:
        file = locate_rows_file(session, wanted.dataset_id, settings)
    folder = fetch_model_folder(wanted.model, settings)
    tokenizer = load_tokenizer(folder)
    options: Any = {
        "encoder": is_encoder_decoder(load_meta_model(folder)),
        "prompt_format": resolve_prompt_format(cast(FormatName, wanted.prompt_format), tokenizer, TemplateClock()),
        "train_on": wanted.train_on,
    }
    first = (row for _, row in islice(enumerate_stored_rows(file), PREVIEWED_ROWS))
    preview = [asdict(row) for row in preview_rows(first, tokenizer, max_length=NO_LENGTH_LIMIT, **options)]
    with database.session() as session:
        TokenStatisticsRepository(session).put_preview(wanted, {"rows": preview})
    return count_row_tokens((row for _, row in enumerate_stored_rows(file)), tokenizer, **options)


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(islice(rows, BATCH_ROWS)):
        yield batch
