"""The boundary of prompt and completion: a row decodes to both, and its tokens are those of generation."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from greencore.dataset import PromptRow, Row
from greencore.training.data.continuations import tokenise_continuation
from greencore.training.data.prompt_formats import SUMMARIZE, TLDR
from greencore.training.data.special_text import encode_marked
from greencore.training.data.tokenisation import tokenise_prompt, tokenise_rows
from tests.greencore.training.data.tokenizers_of_kinds import byte_level, llama_2, metaspace, unigram

pytestmark = pytest.mark.fault(number=3)

KINDS = {
    "llama 2": llama_2(),
    "metaspace": metaspace(),
    "metaspace, always": metaspace("always"),
    "unigram": unigram(),
    "byte-level": byte_level(),
    "byte-level, opened": byte_level(opening=True),
}
BYTE_LEVEL_WITH_PREFIX_SPACE = byte_level(prefix_space=True)
SEAMS = [
    ("2+2=", "4"),
    ("2+2= ", "4"),
    ("2+2=", " 4"),
    ("The ans", "wer"),
    ("The answer is", " 4"),
    ("a + b\n", "    return"),
    ("the source\n\n", "\nthe"),
    ("", "the answer"),
    ("two and", "4 is the answer"),
]


def decode(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("prompt", "completion"), SEAMS)
def test_a_row_decodes_to_its_prompt_and_its_completion(kind: str, prompt: str, completion: str) -> None:
    tokenizer = KINDS[kind]
    row = PromptRow(prompt, completion)
    [example] = tokenise_rows([row], tokenizer, max_length=99).examples
    given, _ = tokenise_prompt(row, tokenizer, max_length=99)
    assert list(example.input_ids[: len(given)]) == given == tokenizer(prompt)["input_ids"]
    assert example.labels[len(given) :] == example.input_ids[len(given) :]
    assert example.labels[-1] == tokenizer.eos_token_id
    assert decode(tokenizer, list(example.input_ids)) == prompt + completion


@pytest.mark.parametrize("kind", KINDS)
def test_the_completions_tokens_are_those_of_the_whole_text_unless_one_spans_the_boundary(kind: str) -> None:
    tokenizer = KINDS[kind]
    for prompt, completion in [("2+2=", "4"), ("the\n", "source"), ("The answer is", " 4")]:
        before, joint = encode_marked(prompt, tokenizer), encode_marked(prompt + completion, tokenizer)
        assert joint == [*before, *tokenise_continuation(prompt, completion, tokenizer)]
    before, joint = encode_marked("The ", tokenizer), encode_marked("The answer", tokenizer)
    assert joint[: len(before)] != before  # " answer" holds the prompt's space
    after = tokenise_continuation("The ", "answer", tokenizer)
    assert decode(tokenizer, [*before, *after]) == "The answer"


def test_no_leading_space_is_added_before_a_completion() -> None:
    tokenizer = BYTE_LEVEL_WITH_PREFIX_SPACE
    for prompt, completion in SEAMS:
        tokens = [*encode_marked(prompt, tokenizer), *tokenise_continuation(prompt, completion, tokenizer)]
        assert decode(tokenizer, tokens) == f" {prompt}{completion}"


@given(
    kind=st.sampled_from(sorted(KINDS)), text=st.text("the ansourc2+=4.\n", min_size=2, max_size=24), at=st.integers(0)
)
@settings(max_examples=60, deadline=None)
def test_every_split_of_a_text_decodes_to_the_text(kind: str, text: str, at: int) -> None:
    tokenizer = KINDS[kind]
    place = at % len(text)
    prompt, completion = text[:place], text[place:]
    before = encode_marked(prompt, tokenizer)
    assert (
        decode(tokenizer, [*before, *tokenise_continuation(prompt, completion, tokenizer)])
        == decode(tokenizer, encode_marked(prompt, tokenizer)) + completion
        if place
        else True
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_format_and_a_shortened_prompt_keep_the_boundary(kind: str) -> None:
    tokenizer = KINDS[kind]
    row: Row = PromptRow("the source of the summary", "short 4")
    for form in (TLDR, SUMMARIZE):
        [whole] = tokenise_rows([row], tokenizer, max_length=99, prompt_format=form).examples
        assert decode(tokenizer, list(whole.input_ids)) == form.wrap("the source of the summary") + "short 4"
        [cut] = tokenise_rows([row], tokenizer, max_length=len(whole.input_ids) - 3, prompt_format=form).examples
        learned = [label for label in whole.labels if label >= 0]
        assert [label for label in cut.labels if label >= 0] == learned


def test_words_of_a_word_tokenizer_are_encoded_by_themselves() -> None:
    tokenizer = KINDS["unigram"]
    assert tokenise_continuation("字", "é", tokenizer) == encode_marked("é", tokenizer)


def test_an_encoder_and_its_decoder_have_no_boundary() -> None:
    tokenizer = KINDS["unigram"]
    [example] = tokenise_rows([PromptRow("2+2=", "4")], tokenizer, max_length=99, encoder=True).examples
    assert list(example.labels) == [*encode_marked("4", tokenizer), tokenizer.eos_token_id]
