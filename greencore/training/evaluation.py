"""How well a model does on rows it was not trained on: loss on the completions, ROUGE of what it writes."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from greencore.dataset import Row, TextRow
from greencore.training.rows import Collator, Tokenised, prompt_and_completion, to_device

ROUGE = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class Evaluation:
    """Mean loss per learned token (nats), and mean ROUGE F1 in per cent (None where no row has a prompt)."""

    loss: float
    rouge: dict[str, float] | None
    rows: int


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    tokenised: Tokenised,
    *,
    batch_size: int,
    max_new_tokens: int,
) -> Evaluation:
    """Evaluate held-out rows and their tokenised form, greedily and without randomness."""
    loss = mean_loss(model, tokenizer, tokenised, batch_size=batch_size)
    asked = [prompt_and_completion(row, tokenizer) for row in rows if not isinstance(row, TextRow)]
    if not asked:
        return Evaluation(loss, None, len(rows))
    written: list[str] = []
    for start in range(0, len(asked), batch_size):
        prompts = [prompt for prompt, _ in asked[start : start + batch_size]]
        written += complete(model, tokenizer, prompts, max_new_tokens=max_new_tokens)
    return Evaluation(loss, rouge([completion for _, completion in asked], written), len(rows))


def rouge(references: Sequence[str], candidates: Sequence[str]) -> dict[str, float]:
    """Mean ROUGE-1, -2 and -L F1 in per cent, with stemming as in the paper's evaluation; no bootstrap."""
    scorer = RougeScorer(list(ROUGE), use_stemmer=True)
    scores = [scorer.score(target, text) for target, text in zip(references, candidates, strict=True)]
    return {name: 100 * sum(score[name].fmeasure for score in scores) / len(scores) for name in ROUGE}


@torch.inference_mode()
def complete(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, max_new_tokens: int
) -> list[str]:
    """What the model writes after each prompt, greedily, up to the end of text or `max_new_tokens` tokens."""
    tokens = tokenizer(list(prompts), add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
    training = model.training
    model.eval()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*do_sample.*")  # the model's own sampling defaults are unused
            written = model.generate(  # type: ignore[operator]
                **to_device(tokens, model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
    finally:
        model.train(training)
    new = written[:, tokens["input_ids"].shape[1] :]
    return [str(text) for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


@torch.inference_mode()
def mean_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokenised: Tokenised, *, batch_size: int
) -> float:
    """Mean loss per learned token, in nats."""
    collate = Collator(_pad_id(tokenizer))
    training = model.training
    model.eval()
    total, tokens = 0.0, 0
    try:
        for start in range(0, len(tokenised.examples), batch_size):
            batch = collate(tokenised.examples[start : start + batch_size])
            learned = int((batch["labels"][:, 1:] >= 0).sum())
            total += learned * float(model(**to_device(batch, model.device)).loss)
            tokens += learned
    finally:
        model.train(training)
    return total / tokens


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    pad = tokenizer.pad_token_id
    assert isinstance(pad, int)
    return pad
