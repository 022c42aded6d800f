"""Tokenised rows: labels, shortening, and the padding of batches."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from greencore.dataset import Message, MessagesRow, PromptRow, TextRow
from greencore.training.data.held_out_rows import split_rows
from greencore.training.data.prompt_formats import SUMMARIZE, TLDR, PromptFormat, resolve_prompt_format
from greencore.training.data.tokenisation import IGNORED_LABEL, Collator, tokenise_rows
from greencore.training.models.loading import ModelError, load_tokenizer

SENTENCE = "the source says that the summary of a source is shorter than the source, TL;DR: summarize the summary "
TEMPLATE = (
    "<s>{% for turn in messages %}{{ turn.role }}: {{ turn.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def subwords(*, opening: bool) -> PreTrainedTokenizerBase:
    """Return a byte-pair tokenizer of a few merges, which with `opening` puts <s> before every text."""
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    pairs.train_from_iterator([SENTENCE], trainer)
    if opening:
        pairs.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=pairs, bos_token="<s>", eos_token="</s>", pad_token="</s>", chat_template=TEMPLATE
    )


SUBWORDS = subwords(opening=False)
OPENED = subwords(opening=True)
LONGEST_TOKEN = max(map(len, SUBWORDS.get_vocab()))


def encoded(text: str) -> tuple[int, ...]:
    return tuple(SUBWORDS(text, add_special_tokens=False)["input_ids"])


@pytest.fixture
def tokenizer(model_folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(model_folder)


def test_the_loss_is_on_the_completion_and_the_end_of_text(tokenizer: PreTrainedTokenizerBase) -> None:
    [example] = tokenise_rows([PromptRow("w1 w2 w3", " w4 w5")], tokenizer, max_length=16).examples
    assert example.input_ids == (3, 4, 5, 6, 7, 0)
    assert example.labels == (IGNORED_LABEL, IGNORED_LABEL, IGNORED_LABEL, 6, 7, 0)


def test_plain_text_is_learned_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    [example] = tokenise_rows([TextRow("w1 w2")], tokenizer, max_length=16).examples
    assert example.labels == example.input_ids == (3, 4, 0)


def test_a_long_row_loses_the_start_of_its_prompt_first(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = tokenise_rows([PromptRow("w1 w2 w3 w4", " w5 w6")], tokenizer, max_length=5)
    assert tokens.examples[0].input_ids == (5, 6, 7, 8, 0)
    assert (tokens.shortened_prompts, tokens.shortened_completions) == (1, 0)


def test_a_completion_beyond_the_maximum_length_is_shortened_and_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = tokenise_rows([PromptRow("w1", " w2 w3 w4 w5")], tokenizer, max_length=3)
    assert tokens.examples[0].input_ids == (4, 5, 6)
    assert (tokens.shortened_prompts, tokens.shortened_completions) == (1, 1)


def test_a_batch_is_padded_to_its_own_longest_row(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [PromptRow("w1", " w2"), PromptRow("w1 " * 9, " w2")]
    batch = Collator(0)(tokenise_rows(rows, tokenizer, max_length=64).examples)
    assert batch["input_ids"].shape == (2, 16)
    assert batch["attention_mask"].sum(1).tolist() == [3, 11]
    assert bool((batch["labels"][batch["attention_mask"] == 0] == IGNORED_LABEL).all())


def test_the_split_is_the_same_every_time_and_loses_no_row() -> None:
    rows = [TextRow(str(number)) for number in range(40)]
    training, held_out, duplicates = split_rows(rows, eval_share=0.1, seed=1)
    assert (len(training), len(held_out)) == (36, 4)
    assert sorted([*training, *held_out], key=lambda row: int(row.text)) == rows  # type: ignore[union-attr]
    assert split_rows(rows, eval_share=0.1, seed=1) == (training, held_out, duplicates)
    assert split_rows(rows[:1], eval_share=0.5, seed=1) == (rows[:1], [], 0)
    assert split_rows(rows, eval_share=0.0, seed=1) == (rows, [], 0)


def test_batches_keep_their_rows(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [PromptRow("w1", " w2"), PromptRow("w3", " w4")]
    examples = tokenise_rows(rows, tokenizer, max_length=16).examples
    batch = Collator(0)(examples)
    for index, example in enumerate(examples):
        assert torch.equal(batch["input_ids"][index, : len(example.input_ids)], torch.tensor(example.input_ids))


@given(
    source=st.text(st.sampled_from("the sourcmay,.é "), max_size=60),
    prompt_format=st.sampled_from([TLDR, SUMMARIZE, PromptFormat("chat", "user: ", " assistant: ")]),
    room=st.integers(1, 40),
)
def test_a_format_is_kept_and_its_source_is_shortened_as_little_as_possible(
    source: str, prompt_format: PromptFormat, room: int
) -> None:
    completion = (*encoded(" a summary"), 1)
    tokens = tokenise_rows(
        [PromptRow(source, " a summary")], SUBWORDS, max_length=room + len(completion), prompt_format=prompt_format
    )
    [example] = tokens.examples
    prompt = example.input_ids[: -len(completion)]
    assert example.input_ids[-len(completion) :] == completion
    assert example.labels == (*[IGNORED_LABEL] * len(prompt), *completion)
    assert (tokens.shortened_prompts, tokens.shortened_completions) == (
        len(encoded(prompt_format.wrap(source))) > room,
        0,
    )
    fitting = [encoded(prompt_format.wrap(source[:end].rstrip())) for end in range(len(source))]
    fitting = [kept for kept in [*fitting, encoded(prompt_format.wrap(source))] if len(kept) <= room]
    if fitting:
        assert prompt in fitting
        assert len(prompt) > max(map(len, fitting)) - LONGEST_TOKEN  # one more letter may merge many tokens into one
    else:
        assert prompt == encoded(prompt_format.wrap(""))[-room:]


def test_the_papers_prompt_ends_in_its_marker_for_any_source_length(tokenizer: PreTrainedTokenizerBase) -> None:
    row = PromptRow("w1 w2 w3 w4", "w5 w6")
    for length, prompt in [(8, (3, 4, 5, 6, 1)), (6, (3, 4, 1)), (4, (1,))]:
        [example] = tokenise_rows([row], tokenizer, max_length=length, prompt_format=TLDR).examples
        assert example.input_ids == (*prompt, 7, 8, 0)


def test_an_opening_token_is_kept_and_not_learned() -> None:
    row, text = PromptRow("the source of the source", " a summary"), TextRow("a summary")
    completion = (*encoded(" a summary"), 1)
    [whole] = tokenise_rows([row], OPENED, max_length=99).examples
    assert whole.input_ids == (0, *encoded(row.prompt), *completion)
    [short] = tokenise_rows([row], OPENED, max_length=len(completion) + 3).examples
    assert short.input_ids == (0, *encoded(row.prompt)[-2:], *completion)
    assert short.labels[:3] == (IGNORED_LABEL,) * 3
    [plain] = tokenise_rows([text], OPENED, max_length=99).examples
    assert plain.input_ids == (0, *encoded(text.text), 1)
    cut = tokenise_rows([text], OPENED, max_length=2)
    assert (cut.shortened_prompts, cut.shortened_completions) == (0, 1)


@pytest.mark.fault(number=3)
def test_all_opening_tokens_of_a_tokenizer_are_kept() -> None:
    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2, "[gMASK]": 3, "w": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[gMASK] <s> $A </s>", special_tokens=[("[gMASK]", 3), ("<s>", 0), ("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["[gMASK]"],
    )
    [example] = tokenise_rows([PromptRow("w w w", " w")], tokenizer, max_length=16).examples
    assert example.input_ids == (3, 0, 4, 4, 4, 4, 1)
    [cut] = tokenise_rows([PromptRow("w w w", " w")], tokenizer, max_length=6).examples
    assert cut.input_ids == (3, 0, 4, 4, 4, 1)


def test_a_chat_prompt_is_the_same_as_a_conversation_of_one_turn() -> None:
    chat = resolve_prompt_format("chat", OPENED)
    prompt, conversation = (
        tokenise_rows([row], OPENED, max_length=99, prompt_format=chat)
        for row in (
            PromptRow("the source", "a"),
            MessagesRow((Message("user", "the source"), Message("assistant", "a"))),
        )
    )
    assert prompt == conversation
    assert prompt.examples[0].input_ids.count(0) == 1  # the template writes the opening token


def test_a_long_conversation_loses_its_earlier_turns() -> None:
    row = MessagesRow((Message("system", "the summary"), Message("user", "the source"), Message("assistant", " a")))
    tokens = tokenise_rows([row], SUBWORDS, max_length=13)
    assert tokens.shortened_prompts == 1
    assert tokens.examples[0].input_ids[0] == 0  # the opening token, which the template writes
    assert str(SUBWORDS.decode(list(tokens.examples[0].input_ids))).endswith("assistant:  a</s>")


def test_an_encoder_reads_the_prompt_and_the_decoder_learns_the_completion(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [PromptRow("w1 w2 w3 w4", "w5 w6"), PromptRow("w1", "w5 w6 w7 w8 w9")]
    tokens = tokenise_rows(rows, tokenizer, max_length=5, prompt_format=SUMMARIZE, encoder=True)
    long, short = tokens.examples
    assert (long.input_ids, long.labels) == ((1, 3, 4, 5, 0), (7, 8, 0))
    assert (short.input_ids, short.labels) == ((1, 3, 0), (7, 8, 9, 10, 11))
    assert (tokens.shortened_prompts, tokens.shortened_completions) == (1, 1)


def test_an_encoders_input_keeps_the_tokenizers_special_tokens() -> None:
    [example] = tokenise_rows([PromptRow("the source", "a")], OPENED, max_length=99, encoder=True).examples
    assert example.input_ids == (0, *encoded("the source"), 1)
    [cut] = tokenise_rows([PromptRow("the source", "a")], OPENED, max_length=3, encoder=True).examples
    assert cut.input_ids == (0, *encoded("the"), 1)


def test_plain_text_is_refused_with_an_encoder(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ModelError, match="gives it no prompt"):
        tokenise_rows([TextRow("w1")], tokenizer, max_length=8, encoder=True)


def test_a_tokenizer_without_an_end_of_text_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="would never end"):
        tokenise_rows([TextRow("w1")], tokenizer, max_length=8)


def test_source_and_target_are_padded_separately(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [PromptRow("w1 " * 9, "w2"), PromptRow("w3", "w4 w5")]
    batch = Collator(0)(tokenise_rows(rows, tokenizer, max_length=64, encoder=True).examples)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 16)
    assert batch["attention_mask"].sum(1).tolist() == [10, 2]
    assert batch["labels"].tolist() == [[4, 0, *[IGNORED_LABEL] * 6], [6, 7, 0, *[IGNORED_LABEL] * 5]]
