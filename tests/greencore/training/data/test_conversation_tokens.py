"""Conversations with tools, developers and weights, those that are too long, and those of which nothing is learned."""

import json
from dataclasses import replace
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from greencore.dataset import Message, MessagesRow, PromptRow, Row
from greencore.training.data.chat_template import ConversationRefused, TemplateClock, render_conversation
from greencore.training.data.conversation_tokens import tokenise_turns
from greencore.training.data.learned_turns import Conversation
from greencore.training.data.tokenisation import (
    IGNORED_LABEL,
    Example,
    UnusableRow,
    get_reference_text,
    tokenise_prompt,
    tokenise_rows,
)
from greencore.training.models.loading import ModelError
from tests.greencore.training.data.chat_templates import (
    CHATML,
    CHATML_WITH_TOOLS,
    DEEPSEEK_V3,
    LLAMA_3,
    MISTRAL,
    PHI,
    PHI_4,
    QWEN_3_REWRITING,
    TOKENS,
)
from tests.greencore.training.data.tokenizers_of_kinds import byte_level, with_template

TOOLS = json.dumps([{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}])
CALL = json.dumps([{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}])
CALLING = (
    Message("user", "What is 2+2= ?"),
    Message("assistant", "", tool_calls=CALL),
    Message("tool", "4", tool_call_id="c1"),
    Message("assistant", "It is 4."),
)
# The function's name is a word of the text as well.
SAYING_ITS_NAME = Message("assistant", "I add them.", tool_calls=CALL)
ASKED_BY_NAME = Message("user", "Please add 2 and 2.")
LONG = (
    Message("system", "the summary is short"),
    Message("user", "the first source"),
    Message("assistant", "the first answer"),
    Message("user", "the second source"),
    Message("assistant", "the second answer"),
    Message("user", "the third source"),
    Message("assistant", "the third answer"),
)


def templated(template: str) -> PreTrainedTokenizerBase:
    return with_template(byte_level(), template, *TOKENS.get(template, ()))


def learned_texts(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[str]:
    """Return the text of each learned span."""
    spans: list[list[int]] = []
    for before, label in zip((IGNORED_LABEL, *example.labels), example.labels, strict=False):
        if label != IGNORED_LABEL:
            if before == IGNORED_LABEL:
                spans.append([])
            spans[-1].append(label)
    return [str(tokenizer.decode(span)) for span in spans]


def test_tools_and_tool_calls_are_given_to_the_template_as_transformers_does() -> None:
    tokenizer = templated(CHATML_WITH_TOOLS)
    [example] = tokenise_rows([MessagesRow(CALLING, TOOLS)], tokenizer, max_length=999).examples
    asked = {"role": "user", "content": "What is 2+2= ?"}
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    called: list[dict[str, Any]] = [asked, turn, {"role": "tool", "content": "4"}]
    sent = tokenizer.apply_chat_template(called, tools=json.loads(TOOLS), tokenize=False, add_generation_prompt=True)
    text = str(tokenizer.decode(list(example.input_ids)))
    assert text.startswith(str(sent))
    assert learned_texts(tokenizer, example) == [
        '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 2}}\n</tool_call><|im_end|>',
        "It is 4.<|im_end|>",
    ]


def test_of_several_templates_the_one_for_tools_is_taken_where_tools_are_given() -> None:
    tokenizer = templated(CHATML_WITH_TOOLS)
    tokenizer.chat_template = {"default": PHI_4, "tool_use": CHATML_WITH_TOOLS}
    messages = (Message("developer", "be short"), LONG[1])
    asked = [{"role": each.role, "content": each.content} for each in messages]
    sent = tokenizer.apply_chat_template(asked, tools=json.loads(TOOLS), tokenize=False, add_generation_prompt=True)
    for _ in range(2):
        assert render_conversation(messages, tokenizer, tools=TOOLS) == sent
        assert "<|im_start|>system<|im_sep|>be short<|im_end|>" in render_conversation(messages, tokenizer)
    tokenizer.chat_template = {"tool_use": CHATML_WITH_TOOLS}
    assert render_conversation(messages, tokenizer, tools=TOOLS) == sent
    with pytest.raises(ModelError, match="none is named default"):
        render_conversation(messages, tokenizer)


def test_special_tokens_spelled_out_in_names_and_call_ids_are_text() -> None:
    tokenizer = templated(CHATML)
    tokenizer.chat_template = CHATML.replace("{{ m.content }}", "{{ m.name }}{{ m.tool_call_id }}{{ m.content }}")
    messages = (
        replace(LONG[1], name="ann<|im_end|>"),
        LONG[2],
        Message("tool", "4", tool_call_id="c<|im_end|>"),
        LONG[4],
    )
    [example] = tokenise_rows([MessagesRow(messages)], tokenizer, max_length=999).examples
    assert example.input_ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == len(messages)
    assert str(tokenizer.decode(list(example.input_ids))).count("<|im_end|>") == len(messages) + 2


def test_arguments_are_json_text_for_a_template_that_joins_them() -> None:
    tokenizer = templated(CHATML)
    tokenizer.chat_template = CHATML.replace(
        "{{ m.content }}", "{{ m.content + (m.tool_calls[0].function.arguments if m.tool_calls else '') }}"
    ).replace("<|im_end|>", "{{ m.tool_calls[0].function.name if m.tool_calls }}<|im_end|>")
    [example] = tokenise_rows([MessagesRow(CALLING)], tokenizer, max_length=999).examples
    assert learned_texts(tokenizer, example)[0] == '{"a": 2, "b": 2}add<|im_end|>'


def test_a_turn_without_content_is_null_for_a_template_that_shows_calls_only_then() -> None:
    tokenizer = templated(CHATML)
    shown = "{{ m.tool_calls[0].function.name if m.content is none else m.content }}"
    tokenizer.chat_template = CHATML.replace("{{ m.content }}", shown)
    [example] = tokenise_rows([MessagesRow(CALLING)], tokenizer, max_length=999).examples
    assert learned_texts(tokenizer, example)[0] == "add<|im_end|>"
    tokenizer.chat_template = CHATML.replace(
        "{{ m.content }}", "{{ m.content }}{{ m.tool_calls[0].function.name if m.tool_calls }}"
    )
    [example] = tokenise_rows([MessagesRow(CALLING)], tokenizer, max_length=999).examples
    assert learned_texts(tokenizer, example)[0] == "add<|im_end|>"  # not "None" and then the call


@pytest.mark.parametrize("asked", ["What is 2+2= ?", "Please add 2 and 2", "called_function_"])
def test_calls_are_not_taken_as_rendered_where_only_a_message_has_the_functions_name(asked: str) -> None:
    tokenizer = templated(CHATML)
    shown = "{{ m.tool_calls[0].function.name if m.content is none else m.content }}"
    tokenizer.chat_template = CHATML.replace("{{ m.content }}", shown)
    messages = (Message("user", asked), *CALLING[1:])
    [example] = tokenise_rows([MessagesRow(messages)], tokenizer, max_length=999).examples
    assert learned_texts(tokenizer, example)[0] == "add<|im_end|>"


def test_all_tokens_that_end_a_turn_are_learned_but_not_those_of_the_texts_end() -> None:
    tokenizer = templated(PHI)
    assert tokenizer.convert_tokens_to_ids("<|end|>") != tokenizer.eos_token_id
    [example] = tokenise_rows([MessagesRow(LONG[1:])], tokenizer, max_length=999).examples
    assert learned_texts(tokenizer, example)[-1] == "the third answer<|end|>"
    tokenizer.chat_template = PHI.replace("<|end|>", "<|end|><|system|>")
    [example] = tokenise_rows([MessagesRow(LONG[1:])], tokenizer, max_length=999).examples
    assert learned_texts(tokenizer, example)[-1] == "the third answer<|end|><|system|>"


@pytest.mark.parametrize(
    ("template", "row", "reason"),
    [
        (CHATML, MessagesRow(CALLING, line=3), "leaves out the assistant's tool calls"),
        (CHATML, MessagesRow((*CALLING[:1], SAYING_ITS_NAME), line=3), "leaves out the assistant's tool calls"),
        (LLAMA_3, MessagesRow(LONG, TOOLS, line=3), "leaves out the tools"),
        (LLAMA_3, MessagesRow((ASKED_BY_NAME, *CALLING[3:]), TOOLS, line=3), "leaves out the tools"),
        (DEEPSEEK_V3, MessagesRow(CALLING[:1] + CALLING[2:], line=3), "leaves out messages of the role 'tool'"),
        (MISTRAL, MessagesRow(LONG, line=3), "refuses a conversation: roles must alternate"),
        (MISTRAL, MessagesRow((Message("developer", "a"), *LONG[1:]), line=3), "roles must alternate"),
    ],
)
def test_what_a_template_would_leave_out_is_the_rows_error(template: str, row: MessagesRow, reason: str) -> None:
    with pytest.raises(UnusableRow, match=f"^line 3: messages: .*{reason}"):
        tokenise_rows([row], templated(template), max_length=999)


@pytest.mark.parametrize(
    ("template", "rendered"),
    [(CHATML, "<|im_start|>developer\nthe"), (PHI_4, "<|im_start|>system<|im_sep|>the"), (DEEPSEEK_V3, "<s>the")],
)
def test_a_developer_is_a_system_only_where_the_template_knows_none(template: str, rendered: str) -> None:
    tokenizer = templated(template)
    row = MessagesRow((Message("developer", "the summary is short"), *LONG[1:]))
    [example] = tokenise_rows([row], tokenizer, max_length=999).examples
    assert str(tokenizer.decode(list(example.input_ids))).startswith(rendered)
    if template != CHATML:
        assert [example] == list(tokenise_rows([MessagesRow(LONG)], tokenizer, max_length=999).examples)


def test_only_turns_of_weight_1_are_learned_and_the_last_alone_on_request() -> None:
    tokenizer = templated(CHATML)
    messages = (*LONG[:4], Message("assistant", "the second answer", weight=0), *LONG[5:])
    [example] = tokenise_rows([MessagesRow(messages)], tokenizer, max_length=999).examples
    assert learned_texts(tokenizer, example) == ["the first answer<|im_end|>", "the third answer<|im_end|>"]
    [last] = tokenise_rows([MessagesRow(messages)], tokenizer, max_length=999, train_on="last").examples
    assert last.input_ids == example.input_ids
    assert learned_texts(tokenizer, last) == ["the third answer<|im_end|>"]
    asked_again = MessagesRow((*messages, Message("user", "a")))
    assert list(tokenise_rows([asked_again], tokenizer, max_length=999, train_on="last").examples) == [last]


def test_what_follows_the_last_learned_turn_is_not_read() -> None:
    tokenizer = templated(CHATML)
    unread = MessagesRow((*LONG[:5], Message("user", "a"), Message("assistant", "b", weight=0)))
    assert tokenise_rows([unread], tokenizer, max_length=999) == tokenise_rows(
        [MessagesRow(LONG[:5])], tokenizer, max_length=999
    )
    assert get_reference_text(unread, tokenizer) == "the second answer"
    prompt, _ = tokenise_prompt(unread, tokenizer, max_length=999)
    assert prompt == tokenise_prompt(MessagesRow(LONG[:5]), tokenizer, max_length=999)[0]


def test_an_opening_turn_of_the_assistant_is_read_but_not_learned() -> None:
    tokenizer = templated(CHATML)
    [example] = tokenise_rows([MessagesRow((LONG[2], *LONG[3:5]))], tokenizer, max_length=999).examples
    assert learned_texts(tokenizer, example) == ["the second answer<|im_end|>"]
    assert str(tokenizer.decode(list(example.input_ids))).startswith("<|im_start|>assistant\nthe first answer")


def test_a_row_of_which_nothing_is_learned_is_dropped_and_named() -> None:
    tokenizer = templated(CHATML)
    unlearned = MessagesRow((LONG[1], Message("assistant", "a", weight=0)), line=2)
    rows: list[Row] = [MessagesRow(LONG, line=1), unlearned, PromptRow("a", "b", line=3)]
    for encoder in (False, True):
        tokens = tokenise_rows(rows, tokenizer, max_length=999, encoder=encoder)
        assert tokens.dropped_lines == (2,)
        assert tokens.rows == (rows[0], rows[2])
        assert len(tokens.examples) == (4 if encoder else 2)
    with pytest.raises(UnusableRow, match=r"^line 2: messages: nothing of it is learned"):
        tokenise_rows([unlearned], tokenizer, max_length=999).refuse_empty()
    tokenise_rows([], tokenizer, max_length=999).refuse_empty()


def test_a_conversation_of_too_many_learned_turns_is_refused() -> None:
    row = MessagesRow((*LONG[1:3] * 1001,), line=5)
    with pytest.raises(UnusableRow, match=r"^line 5: messages: given 1001 turns to be learned, and at most 1000"):
        tokenise_rows([row], templated(CHATML), max_length=99)
    assert len(tokenise_rows([row], templated(CHATML), max_length=99, train_on="last").examples) == 1


def test_an_encoder_reads_the_prompt_of_each_learned_turn() -> None:
    tokenizer = templated(CHATML)
    tokens = tokenise_rows([MessagesRow(LONG)], tokenizer, max_length=999, encoder=True)
    [whole] = tokenise_rows([MessagesRow(LONG)], tokenizer, max_length=999).examples
    assert [str(tokenizer.decode(list(each.labels))) for each in tokens.examples] == [
        f"{text}</s>" for text in learned_texts(tokenizer, whole)
    ]
    for example in tokens.examples:
        assert whole.input_ids[: len(example.input_ids) - 1] == example.input_ids[:-1]


@pytest.mark.parametrize("template", [CHATML, LLAMA_3, PHI_4, QWEN_3_REWRITING])
def test_a_long_conversation_loses_its_earliest_messages_and_keeps_the_systems(template: str) -> None:
    tokenizer = templated(template)

    def texts(length: int) -> tuple[str, list[str]]:
        tokens = tokenise_rows([MessagesRow(LONG)], tokenizer, max_length=length)
        assert all(len(example.input_ids) <= length for example in tokens.examples)
        last = tokens.examples[-1]
        return str(tokenizer.decode(list(last.input_ids))), learned_texts(tokenizer, last)

    whole, learned = texts(999)
    for kept in (1, 2):
        wanted = MessagesRow((LONG[0], *LONG[-2 * kept :]))
        shorter = tokenise_rows([wanted], tokenizer, max_length=999).examples[-1]
        text, left = texts(len(shorter.input_ids))
        assert text == str(tokenizer.decode(list(shorter.input_ids)))
        assert left == learned[-len(left) :]
        assert len(text) < len(whole)
    [alone] = tokenise_rows([MessagesRow((LONG[0], *LONG[-2:]))], tokenizer, max_length=999).examples
    text, left = texts(len(alone.input_ids) - 2)  # the system's message fits, with less of the question
    assert "the summary is short" in text
    assert "the thir" in text
    assert "source" not in text
    assert left == learned[-1:]


def test_the_system_message_gives_way_where_it_does_not_fit() -> None:
    tokenizer = templated(CHATML)
    row = MessagesRow((Message("system", "the summary of the source " * 9), *LONG[-2:]))
    alone = tokenise_rows([MessagesRow(LONG[-2:])], tokenizer, max_length=999).examples
    tokens = tokenise_rows([row], tokenizer, max_length=len(alone[0].input_ids))
    assert tokens.examples == alone
    assert (tokens.shortened_prompts, tokens.shortened_completions) == (1, 0)


def test_a_turn_that_alone_is_too_long_is_cut_at_its_end_and_counted() -> None:
    tokenizer = templated(CHATML)
    row = MessagesRow((LONG[1], Message("assistant", "the answer of the source, " * 20)))
    tokens = tokenise_rows([row], tokenizer, max_length=16)
    assert tokens.shortened_completions == 1
    assert len(tokens.examples[0].input_ids) == 16
    assert learned_texts(tokenizer, tokens.examples[0])[0].startswith("the answer of the source")


def test_an_example_is_complete_before_the_next_but_one_is_tokenised() -> None:
    tokenizer = templated(QWEN_3_REWRITING)
    tokenizer.chat_template = QWEN_3_REWRITING.replace(
        "{% set ns", "{% if messages | length > 5 %}{{ raise_exception('too long') }}{% endif %}{% set ns", 1
    )
    thought = [replace(each, content=f"<think>\na\n</think>\n\n{each.content}") for each in LONG[2::2]]
    messages = tuple(message for pair in zip(LONG[1::2], thought, strict=True) for message in pair)
    found = tokenise_turns(Conversation(messages), [1, 3, 5], tokenizer, clock=TemplateClock())
    assert next(found).turns == [1]
    with pytest.raises(ConversationRefused, match="too long"):
        next(found)
