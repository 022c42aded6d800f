"""Previews of rows: text with the learned tokens marked, bounded, and the errors of single rows."""

import pytest

from greencore.dataset import Message, MessagesRow, PromptRow, TextRow
from greencore.training.data.preview import MAX_EXAMPLES, MAX_TOKENS, preview_rows
from tests.greencore.training.data.chat_templates import CHATML, GEMMA, QWEN_3_REWRITING, TOKENS
from tests.greencore.training.data.tokenizers_of_kinds import byte_level, llama_2, with_template

TURNS = (Message("user", "the source"), Message("assistant", "an answer é"))


@pytest.mark.parametrize("tokenizer_kind", [byte_level, llama_2])
def test_the_segments_of_a_conversation_are_its_rendered_text(tokenizer_kind: type) -> None:
    tokenizer = with_template(tokenizer_kind(), CHATML, *TOKENS[CHATML])
    [row] = preview_rows([MessagesRow((*TURNS, *TURNS), line=4)], tokenizer, max_length=999)
    [segments] = row.examples
    assert [segment.learned for segment in segments] == [False, True, False, True]
    assert "".join(segment.text for segment in segments).replace(" ", "") == (
        "<|im_start|>user\nthesource<|im_end|>\n<|im_start|>assistant\nananswer\u00e9<|im_end|>" * 2
    ).replace("<|im_end|><|im_start|>", "<|im_end|>\n<|im_start|>")
    assert segments[1].text.strip() == "an answer é<|im_end|>"
    assert row.tokens == sum(segment.tokens for segment in segments)
    assert row.learned_tokens == segments[1].tokens + segments[3].tokens
    assert (row.line, row.is_cut, row.error) == (4, False, None)


def test_each_example_of_a_rewritten_conversation_is_shown() -> None:
    tokenizer = with_template(byte_level(), QWEN_3_REWRITING, *TOKENS[QWEN_3_REWRITING])
    [row] = preview_rows([MessagesRow((*TURNS, *TURNS))], tokenizer, max_length=999)
    assert [[segment.learned for segment in example] for example in row.examples] == [[False, True]] * 2
    [last] = preview_rows([MessagesRow((*TURNS, *TURNS))], tokenizer, max_length=999, train_on="last")
    assert last.examples == row.examples[1:]


def test_a_row_that_cannot_be_used_has_an_error_and_the_others_are_shown() -> None:
    tokenizer = with_template(byte_level(), GEMMA, *TOKENS[GEMMA])
    unlearned = MessagesRow((TURNS[0], Message("assistant", "a", weight=0)), line=2)
    refused = MessagesRow((Message("system", "a"), *TURNS), line=1)
    first, second, third = preview_rows([refused, unlearned, PromptRow("a", "b", line=3)], tokenizer, max_length=999)
    assert first.error == "messages: the model's chat template refuses a conversation: System role not supported"
    assert (second.examples, second.error, second.is_cut) == ((), None, False)
    assert [segment.text for segment in third.examples[0]] == ["a", "b</s>"]


def test_a_preview_is_bounded() -> None:
    tokenizer = with_template(byte_level(), QWEN_3_REWRITING, *TOKENS[QWEN_3_REWRITING])
    [long] = preview_rows([TextRow("the " * 9000)], tokenizer, max_length=10**6)
    assert long.is_cut
    assert sum(segment.tokens for segment in long.examples[0]) == MAX_TOKENS < long.tokens
    [many] = preview_rows([MessagesRow(TURNS * 30)], tokenizer, max_length=10**6)
    assert many.is_cut
    assert len(many.examples) <= MAX_EXAMPLES
    assert many.learned_tokens == 30 * many.examples[0][1].tokens


def test_an_encoders_preview_has_what_it_reads_and_what_is_written() -> None:
    [row] = preview_rows([PromptRow("a", "b")], byte_level(), max_length=99, encoder=True)
    assert [(segment.text, segment.learned) for segment in row.examples[0]] == [("a</s>", False), ("b</s>", True)]
