"""Special tokens spelled out in data are encoded as text, those of a template as tokens."""

from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerBase

from greencore.dataset import Message, MessagesRow, PromptRow, TextRow
from greencore.training.data.prompt_formats import PLAIN, TLDR, resolve_prompt_format
from greencore.training.data.tokenisation import (
    get_reference_text,
    tokenise_prompt,
    tokenise_rows,
)
from tests.greencore.training.data.chat_templates import CHATML, ENDLESS, GEMMA, LLAMA_3, MISTRAL, TOKENS
from tests.greencore.training.data.tokenizers_of_kinds import byte_level, llama_2, metaspace, unigram, with_template

pytestmark = pytest.mark.fault(number=5)

KINDS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "Llama 2": llama_2,
    "Metaspace": metaspace,
    "Metaspace before every text": lambda: metaspace("always"),
    "Unigram": unigram,
    "byte level": byte_level,
    "byte level, opened": lambda: byte_level(opening=True),
}
# the characters that the small tokenizers know
TEXTS = ["</s>", "the <s>source</s> is 4", "a</s>", "</s>a </s></s>", "<s></s>", "add (</s>) <s> 4"]


def special(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    return {tokenizer.bos_token_id, tokenizer.eos_token_id, *tokenizer.added_tokens_decoder} - {tokenizer.unk_token_id}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_special_token_spelled_out_in_a_row_is_text(kind: str, text: str) -> None:
    tokenizer = KINDS[kind]()
    rows: list[PromptRow | TextRow] = [
        TextRow(text),
        PromptRow(f"the {text}", text),
        PromptRow(text, "the answer"),
        PromptRow("is", text),
    ]
    for row in rows:
        for form in (PLAIN, TLDR):
            [example] = tokenise_rows([row], tokenizer, max_length=256, prompt_format=form).examples
            inner = [*example.input_ids]
            if inner[0] == tokenizer.bos_token_id:
                inner = inner[1:]
            assert inner[-1] == tokenizer.eos_token_id
            assert not special(tokenizer).intersection(inner[:-1])
            given = form.wrap(row.prompt) if isinstance(row, PromptRow) else ""
            learned = row.completion if isinstance(row, PromptRow) else row.text
            if tokenizer.unk_token_id not in inner:
                assert str(tokenizer.decode(inner[:-1])).strip() == (given + learned).strip()
            assert get_reference_text(row, tokenizer, form) == learned
            prompt, _ = tokenise_prompt(row, tokenizer, max_length=256, prompt_format=form)
            assert example.input_ids[: len(prompt)] == tuple(prompt)


@pytest.mark.parametrize("kind", ["Llama 2", "byte level"])
def test_text_is_encoded_as_if_the_tokenizer_had_no_special_tokens(kind: str) -> None:
    tokenizer = KINDS[kind]()
    text = "the <s>source</s> is 4"
    [example] = tokenise_rows([TextRow(text)], tokenizer, max_length=256).examples
    plain = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert [token for token in example.input_ids if token not in special(tokenizer)] == plain


@pytest.mark.parametrize("template", [CHATML, LLAMA_3, MISTRAL, GEMMA, ENDLESS])
@pytest.mark.parametrize("kind", ["byte level", "Llama 2"])
def test_a_template_keeps_its_tokens_and_messages_have_none(kind: str, template: str) -> None:
    tokenizer = with_template(KINDS[kind](), template, *TOKENS.get(template, ()))
    said = f"a {''.join(TOKENS.get(template, ()))}</s> of <s>it"
    plain = MessagesRow(
        (
            Message("user", "a of it"),
            Message("assistant", "a of it"),
            Message("user", "a of it"),
            Message("assistant", "a of it"),
        )
    )
    spelled = MessagesRow(
        (Message("user", said), Message("assistant", said), Message("user", said), Message("assistant", said))
    )
    tokens = [
        [
            token
            for token in tokenise_rows([row], tokenizer, max_length=4096).examples[-1].input_ids
            if token in special(tokenizer)
        ]
        for row in (plain, spelled)
    ]
    assert tokens[0] == tokens[1]
    [*_, example] = tokenise_rows([spelled], tokenizer, max_length=4096).examples
    assert str(tokenizer.decode(list(example.input_ids))).count(said) == 4
    assert said in get_reference_text(spelled, tokenizer)
    pair = PromptRow(said, said)
    form = resolve_prompt_format("chat", tokenizer)
    messages = MessagesRow((Message("user", said), Message("assistant", said)))
    assert tokenise_rows([pair], tokenizer, max_length=4096, prompt_format=form) == tokenise_rows(
        [messages], tokenizer, max_length=4096
    )


def test_an_encoder_reads_special_tokens_in_data_as_text() -> None:
    tokenizer = metaspace()
    [example] = tokenise_rows([PromptRow("the </s> is", "a</s>")], tokenizer, max_length=64, encoder=True).examples
    for tokens in (example.input_ids, example.labels):
        assert tokens[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in tokens[:-1]


def test_thinking_tags_stay_tokens() -> None:
    tokenizer = with_template(byte_level(), CHATML, *TOKENS[CHATML], "<think>", "</think>")
    row = MessagesRow((Message("user", "a"), Message("assistant", "<think>it</think>the answer <|im_end|>")))
    tokens = list(tokenise_rows([row], tokenizer, max_length=256).examples[0].input_ids)
    for token in ("<think>", "</think>"):
        assert tokens.count(tokenizer.get_vocab()[token]) == 1
    assert tokens.count(tokenizer.get_vocab()["<|im_end|>"]) == 2


def test_rows_without_special_tokens_are_encoded_unchanged() -> None:
    for kind in KINDS.values():
        tokenizer = kind()
        [example] = tokenise_rows([TextRow("the answer < 4 > s /s")], tokenizer, max_length=64).examples
        assert [*example.input_ids] == [*tokenizer("the answer < 4 > s /s")["input_ids"], tokenizer.eos_token_id]
