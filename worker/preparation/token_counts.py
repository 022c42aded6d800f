"""Counts the tokens of a dataset's rows, tokenised as for training but without a length limit."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

import structlog
from transformers import PreTrainedTokenizerBase

from greencore.clock import utc_now
from greencore.dataset import Row
from greencore.length_statistics import LengthCounter
from greencore.training.data.tokenisation import MAX_NAMED_LINES, refuse_nothing_learned, tokenise_rows
from greencore.training.methods.batch_shapes import is_encoder_decoder
from greencore.training.models.loading import load_meta_model, load_tokenizer
from runtime.settings import Settings, get_settings
from store.database import Database
from store.repositories.datasets import locate_rows_file
from store.repositories.token_statistics import TokenStatisticsRepository
from store.stored_rows import enumerate_stored_rows
from worker.base_model import fetch_model_folder
from worker.database_retry import TRANSIENT_DATABASE_ERRORS
from worker.failure_reports import explain_error

log = structlog.get_logger()

LENGTH_BOUNDS = (512, 1024, 2048)
BATCH_ROWS = 1000
NO_LENGTH_LIMIT = 2**31


def count_dataset_tokens(dataset_id: str, model: str) -> None:
    """Count and store a dataset's tokens for a model, or the error; does nothing where they are stored."""
    settings = get_settings()
    with Database(settings.database_url) as database:
        with database.session() as session:
            if not TokenStatisticsRepository(session).is_pending(dataset_id, model):
                log.info("token_counts.not_needed", dataset=dataset_id, model=model)
                return
        counts, error = None, None
        try:
            counts = _count_stored_dataset(database, settings, dataset_id, model)
        except TRANSIENT_DATABASE_ERRORS:
            raise
        except Exception as fault:
            log.warning("token_counts.failed", dataset=dataset_id, model=model, exc_info=fault)
            error = explain_error(fault, reference=f"dataset={dataset_id} model={model}")["detail"]
        with database.session() as session:
            TokenStatisticsRepository(session).put(dataset_id, model, at=utc_now(), counts=counts, error=error)
        log.info("token_counts.stored", dataset=dataset_id, model=model, error=error)


def count_row_tokens(
    rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, *, encoder: bool = False
) -> dict[str, Any]:
    """Return statistics of the examples' token counts, in all and of what is only read (prompt) and learned.

    A conversation, of which each turn of the assistant is learned, may have several examples; a row without a learned
    token is dropped. `encoder` is as in `tokenise_rows`, whose errors are raised. A prompt includes the tokenizer's
    start token, a completion the end of text. Raises `UnusableRow` where nothing of any row is learned.
    """
    together, prompts, completions = LengthCounter(), LengthCounter(), LengthCounter()
    kept = 0
    dropped: list[int] = []
    for batch in _batches(iter(rows)):
        tokenised = tokenise_rows(batch, tokenizer, max_length=NO_LENGTH_LIMIT, encoder=encoder)
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


def _count_stored_dataset(database: Database, settings: Settings, dataset_id: str, model: str) -> dict[str, Any]:
    with database.session() as session:
        file = locate_rows_file(session, dataset_id, settings)
    folder = fetch_model_folder(model, settings)
    rows = (row for _, row in enumerate_stored_rows(file))
    return count_row_tokens(rows, load_tokenizer(folder), encoder=is_encoder_decoder(load_meta_model(folder)))


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(islice(rows, BATCH_ROWS)):
        yield batch
