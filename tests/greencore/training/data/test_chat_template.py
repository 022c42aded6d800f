"""The learned turn of a conversation as its template renders it, in the styles of current models."""

from collections.abc import Sequence

import pytest
from tokenizers import normalizers
from transformers import PreTrainedTokenizerBase

from greencore.dataset import InvalidRow, Message, MessagesRow, PromptRow, Row, TextRow
from greencore.settings.value_types import TrainOn
from greencore.training.data.chat_template import ConversationRefused, render_conversation
from greencore.training.data.learned_turns import Conversation, render_turn
from greencore.training.data.prompt_formats import resolve_prompt_format
from greencore.training.data.tokenisation import UnusableRow, get_reference_text, tokenise_prompt, tokenise_rows
from greencore.training.models.loading import ModelError
from tests.greencore.training.data.chat_templates import (
    CHATML,
    DEEPSEEK_R1,
    ENDLESS,
    GEMMA,
    LLAMA_3,
    MISTRAL,
    PHI,
    QWEN_3,
    TOKENS,
    ZEPHYR_WITHOUT_PROMPT,
)
from tests.greencore.training.data.tokenizers_of_kinds import byte_level, llama_2, with_template

pytestmark = pytest.mark.fault(number=4)

ASKED = (Message("user", " the source "), Message("assistant", "the answer\n"))
LONGER = (
    Message("user", "the source"),
    Message("assistant", "a"),
    Message("user", "two"),
    Message("assistant", "the answer"),
)


def templated(template: str, *, sentencepiece: bool = False) -> PreTrainedTokenizerBase:
    tokenizer = llama_2() if sentencepiece else byte_level()
    return with_template(tokenizer, template, *TOKENS.get(template, ()))


def learned(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """Return the labels of the conversation's last turn, decoded."""
    [example] = tokenise_rows([MessagesRow(tuple(messages))], tokenizer, max_length=500, train_on="last").examples
    given, _ = tokenise_prompt(MessagesRow(tuple(messages)), tokenizer, max_length=500)
    assert list(example.input_ids[: len(given)]) == given
    assert given == tokenizer(render_conversation(messages[:-1], tokenizer), add_special_tokens=False)["input_ids"]
    return str(tokenizer.decode([label for label in example.labels if label >= 0]))


def difference(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """Return transformers' rendering of the conversation, less that of its prompt and what follows the turn's end."""
    turns = [{"role": message.role, "content": message.content} for message in messages]
    whole, given = (
        str(tokenizer.apply_chat_template(part, tokenize=False, add_generation_prompt=prompted))
        for part, prompted in ((turns, False), (turns[:-1], True))
    )
    assert whole.startswith(given)
    turn = whole.removeprefix(given).rstrip()
    return turn.removesuffix("\n</s>") if "<|end|>" in turn else turn


@pytest.mark.parametrize("messages", [ASKED, LONGER, (Message("user", "2"), Message("assistant", ">"))])
@pytest.mark.parametrize("template", [CHATML, LLAMA_3, MISTRAL, GEMMA, PHI, QWEN_3, ZEPHYR_WITHOUT_PROMPT])
def test_the_learned_text_is_rendered_after_the_generation_prompt(template: str, messages: Sequence[Message]) -> None:
    tokenizer = templated(template)
    assert learned(tokenizer, messages) == difference(tokenizer, messages)


@pytest.mark.parametrize(
    ("template", "end"),
    [(CHATML, "<|im_end|>"), (LLAMA_3, "<|eot|>"), (MISTRAL, "</s>"), (GEMMA, "<end_of_turn>"), (PHI, "<|end|>")],
)
@pytest.mark.parametrize("sentencepiece", [False, True])
def test_the_token_that_ends_a_turn_is_learned(template: str, end: str, sentencepiece: bool) -> None:
    tokenizer = templated(template, sentencepiece=sentencepiece)
    [example] = tokenise_rows([MessagesRow(ASKED)], tokenizer, max_length=99).examples
    assert tokenizer.convert_tokens_to_ids(end) in example.labels
    assert learned(tokenizer, ASKED).strip().startswith("the answer")
    if template == MISTRAL:
        assert example.labels.count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize("template", [CHATML, LLAMA_3, MISTRAL, GEMMA, PHI, QWEN_3, DEEPSEEK_R1, ZEPHYR_WITHOUT_PROMPT])
@pytest.mark.parametrize("length", [99, 30])
def test_the_chat_format_gives_the_tokens_of_the_same_row_as_messages(template: str, length: int) -> None:
    tokenizer = templated(template)
    prompt = " the source of the summary of the source, and the answer of the source "
    form = resolve_prompt_format("chat", tokenizer)
    rows: list[Row] = [
        PromptRow(prompt, " the answer "),
        MessagesRow((Message("user", prompt), Message("assistant", " the answer "))),
    ]
    one, other = (tokenise_rows([row], tokenizer, max_length=length, prompt_format=form) for row in rows)
    assert one == other
    assert get_reference_text(rows[0], tokenizer, form) == get_reference_text(rows[1], tokenizer, form)


def test_a_template_without_an_end_of_turn_is_followed_by_the_end_of_text() -> None:
    tokenizer = templated(ENDLESS)
    assert learned(tokenizer, LONGER) == "the answer</s>"
    without_tokens = byte_level()
    without_tokens.chat_template = CHATML  # whose <|im_end|> is plain text to this tokenizer
    assert learned(without_tokens, LONGER) == "the answer<|im_end|></s>"


@pytest.mark.parametrize(
    ("opened", "content", "expected"),
    [
        ("<think>\n", "the answer", "\n</think>\n\nthe answer</s>"),
        ("<think>", "the answer", "</think>the answer</s>"),
        ("<think>\n", "<think>\ntwo and two\n</think>\n\nthe answer", "two and two\n</think>\n\nthe answer</s>"),
        ("<think>\n", "two and two</think>the answer", "two and two\n</think>\n\nthe answer</s>"),
        ("[THINK]", "the answer", "[/THINK]the answer</s>"),
        ("<seed:think>", "the answer", "</seed:think>the answer</s>"),
    ],
)
def test_a_thought_that_the_generation_prompt_opens_is_closed(opened: str, content: str, expected: str) -> None:
    tokenizer = templated(DEEPSEEK_R1)
    tokenizer.chat_template = DEEPSEEK_R1.replace("<think>\n", opened)
    assert learned(tokenizer, [Message("user", "the source"), Message("assistant", content)]) == expected


def test_a_thought_rendered_by_the_template_is_learned_unchanged() -> None:
    tokenizer = templated(QWEN_3)
    tokenizer.chat_template = QWEN_3.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    asked = Message("user", "the source")
    assert learned(tokenizer, [asked, Message("assistant", "a")]) == "\n</think>\n\na<|im_end|>"
    assert learned(tokenizer, [asked, Message("assistant", "<think>two</think>a")]) == "two\n</think>\n\na<|im_end|>"


@pytest.mark.parametrize(
    ("template", "messages", "reason"),
    [
        (GEMMA, (Message("system", "a"), *ASKED), "refuses a conversation: System role not supported"),
        (MISTRAL, (Message("user", "a"), *ASKED), "refuses a conversation: roles must alternate"),
        (CHATML, (Message("assistant", "a"),), "no message before the assistant's"),
        (
            "{{ messages | length }}: {{ messages[-1].content }}",
            ASKED,
            "without its generation prompt",
        ),
        (
            "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
            ASKED,
            "leaves out the assistant's message",
        ),
        ("{{ messages[0].content + 1 }}", ASKED, "refuses a conversation: can only concatenate str"),
        ("{{ messages[7].content.strip() }}", ASKED, "refuses a conversation: "),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ASKED, "refuses a conversation: maximum recursion depth"),
    ],
)
def test_a_conversation_without_a_learnable_turn_is_refused_with_its_line(
    template: str, messages: tuple[Message, ...], reason: str
) -> None:
    tokenizer = templated(template)
    with pytest.raises(ConversationRefused, match=reason):
        render_turn(Conversation(messages), len(messages) - 1, tokenizer)
    with pytest.raises(UnusableRow, match=f"^line 7: messages: .*{reason}") as refused:
        tokenise_rows([MessagesRow(ASKED), MessagesRow(messages, line=7)][1:], tokenizer, max_length=99)
    assert refused.value.line == 7
    assert isinstance(refused.value, InvalidRow)


@pytest.mark.fault(number=9)
def test_a_dictionary_of_templates_needs_a_default() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = {"tool_use": CHATML, "rag": CHATML}
    with pytest.raises(ModelError, match=r"several chat templates \(rag, tool_use\) and none is named default"):
        tokenise_rows([MessagesRow(ASKED)], tokenizer, max_length=99)
    with pytest.raises(ModelError, match="none is named default"):
        resolve_prompt_format("chat", tokenizer)
    tokenizer.chat_template = {"tool_use": "no", "default": CHATML}
    assert (
        render_conversation([Message("user", "a")], tokenizer)
        == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_invalid_template_raises_a_model_error() -> None:
    tokenizer = templated("{% for %}")
    with pytest.raises(ModelError, match="cannot be read") as unreadable:
        tokenise_rows([MessagesRow(ASKED)], tokenizer, max_length=99)
    assert not isinstance(unreadable.value, InvalidRow)


@pytest.mark.fault(number=9)
@pytest.mark.parametrize("train_on", ["assistant", "last"])
@pytest.mark.parametrize("template", [LLAMA_3, MISTRAL, GEMMA])
def test_a_shortened_conversation_keeps_its_opening_token(template: str, train_on: TrainOn) -> None:
    tokenizer = templated(template)
    for messages in (ASKED, LONGER, (*LONGER, *LONGER)):
        [whole] = tokenise_rows([MessagesRow(messages)], tokenizer, max_length=500, train_on=train_on).examples
        tokens = tokenise_rows(
            [MessagesRow(messages)], tokenizer, max_length=len(whole.input_ids) - 3, train_on=train_on
        )
        assert tokens.shortened_prompts == 1
        assert tokens.examples[0].input_ids[0] == tokenizer.bos_token_id
        assert tokens.examples[0].input_ids.count(tokenizer.bos_token_id) == 1
        left, all_learned = ([x for x in each.labels if x >= 0] for each in (tokens.examples[0], whole))
        assert left == all_learned[-len(left) :]
        assert (len(left) < len(all_learned)) == tokens.shortened_completions
        assert tokens.shortened_completions == (train_on == "assistant" and messages != ASKED)


@pytest.mark.fault(number=9)
def test_a_text_of_no_tokens_is_refused_with_its_line() -> None:
    tokenizer = byte_level(opening=True)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    rows: list[tuple[Row, str]] = [
        (TextRow("\u200b", line=3), "text"),
        (PromptRow("the", "\u200b\u200b", line=3), "completion"),
        (PromptRow("", "\u200b", line=3), "completion"),
    ]
    for row, field in rows:
        for encoder in (False, True):
            if not (encoder and isinstance(row, TextRow)):
                with pytest.raises(UnusableRow, match=f"^line 3: {field}: gives no tokens"):
                    tokenise_rows([row], tokenizer, max_length=99, encoder=encoder)
    assert tokenise_rows([PromptRow("\u200b", "the")], tokenizer, max_length=99).examples[0].input_ids[0] == 1
