"""Learned turns of random conversations: the tokens before each are those that inference sends.

`TEMPLATES=full` tests 1,000 conversations of every template, instead of 60.
"""

import os
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from greencore.dataset import Message, MessagesRow
from greencore.training.data.tokenisation import Example, UnusableRow, tokenise_rows
from tests.greencore.training.data.chat_templates import (
    CHATML_WITH_TOOLS,
    DEEPSEEK_R1,
    DEEPSEEK_V3,
    GEMMA,
    LLAMA_3,
    MISTRAL,
    MISTRAL_STRICT,
    PHI,
    PHI_4,
    QWEN_3_REWRITING,
    TOKENS,
)
from tests.greencore.training.data.tokenizers_of_kinds import byte_level, joining_lines, llama_2, with_template

NUMBER = 1000 if os.environ.get("TEMPLATES") == "full" else 60

TEMPLATES = {
    "ChatML": CHATML_WITH_TOOLS,
    "Llama 3": LLAMA_3,
    "Mistral": MISTRAL,
    "Mistral with a system message": MISTRAL_STRICT,
    "Gemma": GEMMA,
    "Qwen 3": QWEN_3_REWRITING,
    "DeepSeek": DEEPSEEK_V3,
    "DeepSeek R1": DEEPSEEK_R1,
    "Phi 3": PHI,
    "Phi 4": PHI_4,
}
ENDS = {
    **dict.fromkeys(("ChatML", "Qwen 3", "Phi 4"), "<|im_end|>"),
    **dict.fromkeys(("Mistral", "Mistral with a system message", "DeepSeek", "DeepSeek R1"), "</s>"),
    "Llama 3": "<|eot|>",
    "Gemma": "<end_of_turn>",
    "Phi 3": "<|end|>",
}
WITHOUT_SYSTEM = {"Mistral", "Gemma"}
WITH_STEPS = {"ChatML", "Qwen 3"}  # tools' messages between two turns of the assistant
# their rendering leaves out what their prompt has: an opened thought, the system message in the user's
INCOMPLETE = {"DeepSeek R1", "Mistral with a system message"}
REWRITING = {"Mistral with a system message", "Qwen 3", "DeepSeek R1"}

KINDS = {"byte-level": byte_level, "llama 2": llama_2, "joining lines": joining_lines}

# no text that spells out a token of a template: a server would take it for one, training takes it for text
words = st.text(st.sampled_from("the answer,.4é?\n |>/s]{}"), min_size=1, max_size=25).filter(
    lambda text: any(sign.isalnum() for sign in text)
)
weights = st.sampled_from([1, 1, 0])
thoughts = st.one_of(st.just(""), words.map(lambda text: f"<think>\n{text.strip()}\n</think>\n\n"))


@st.composite
def conversations(draw: st.DrawFn, name: str) -> tuple[Message, ...]:
    """Draw a conversation of up to five questions, of roles that the template knows."""
    messages = []
    if name not in WITHOUT_SYSTEM and draw(st.booleans()):
        messages.append(Message("system", draw(words)))
    for _ in range(draw(st.integers(1, 5))):
        messages.append(Message("user", draw(words)))
        for _ in range(draw(st.integers(0, 2)) if name in WITH_STEPS else 0):
            messages.append(Message("assistant", draw(thoughts) + draw(words), weight=draw(weights)))
            messages.append(Message("tool", draw(words)))
        messages.append(Message("assistant", draw(thoughts) + draw(words), weight=draw(weights)))
    return tuple(messages)


@cache
def tokenizer_of(name: str, kind: str = "byte-level") -> PreTrainedTokenizerBase:
    tokenizer = KINDS[kind]()
    return with_template(tokenizer, TEMPLATES[name], *TOKENS[TEMPLATES[name]])


def spans(example: Example) -> list[tuple[int, int]]:
    """Return the bounds of the example's learned spans."""
    learned = [label >= 0 for label in example.labels]
    edges = [
        at for at in range(len(learned) + 1) if (at > 0 and learned[at - 1]) != (at < len(learned) and learned[at])
    ]
    return list(zip(edges[::2], edges[1::2], strict=True))


def rendered(tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...], *, prompt: bool) -> str:
    """Render with transformers itself, as an inference server does."""
    turns: list[dict[str, Any]] = [{"role": each.role, "content": each.content} for each in messages]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt))


def encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_learned_turn_follows_on_what_inference_sends(name: str, kind: str) -> None:
    tokenizer = tokenizer_of(name, kind)
    seen = {"examples": 0, "turns": 0}

    @settings(max_examples=NUMBER, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(conversations(name))
    def check(messages: tuple[Message, ...]) -> None:
        turns = [place for place, each in enumerate(messages) if each.role == "assistant" and each.weight]
        tokens = tokenise_rows([MessagesRow(messages)], tokenizer, max_length=100_000)
        if not turns:
            assert tokens.examples == ()
            assert tokens.dropped_lines == (0,)
            return
        found = [(example, bounds) for example in tokens.examples for bounds in spans(example)]
        assert len(found) == len(turns)
        if name not in REWRITING and kind != "joining lines":
            assert len(tokens.examples) == 1
        seen["examples"] += len(tokens.examples)
        seen["turns"] += len(turns)
        for place, (example, (start, end)) in zip(turns, found, strict=True):
            before = rendered(tokenizer, messages[:place], prompt=True)
            assert list(example.input_ids[:start]) == encoded(tokenizer, before)
            learned = example.input_ids[start:end]
            assert learned == example.labels[start:end]
            assert learned.index(tokenizer.convert_tokens_to_ids(ENDS[name])) == len(learned) - 1
            whole = rendered(tokenizer, messages[: place + 1], prompt=False)
            if name not in INCOMPLETE:
                text = str(tokenizer.decode(encoded(tokenizer, whole)))
                assert text.startswith(str(tokenizer.decode(list(example.input_ids[:end]))))

    check()
    assert seen["turns"] > NUMBER / 2
    assert (seen["examples"] < seen["turns"]) == (name != "DeepSeek R1")


def test_a_turn_is_learned_alone_where_an_earlier_one_ends_more_like_its_prompt() -> None:
    """The template puts the system message and a blank line before the last question: its end is the first one's."""
    tokenizer = tokenizer_of("Mistral with a system message")
    roles, texts = ("system", "user", "assistant", "user", "assistant"), ("a", "\na", "first", "a", "second")
    messages = tuple(Message(role, text) for role, text in zip(roles, texts, strict=True))
    learned = [
        tokenizer.decode(list(example.input_ids[start:end]))
        for example in tokenise_rows([MessagesRow(messages)], tokenizer, max_length=999).examples
        for start, end in spans(example)
    ]
    assert learned == [" first</s>", " second</s>"]


def test_an_answer_that_joins_its_prompt_in_later_prompts_begins_another_example() -> None:
    tokenizer = tokenizer_of("ChatML", "joining lines")
    turns = [(Message("user", "the source"), Message("assistant", text)) for text in ("\nthe answer", "a")]
    messages = turns[0] + turns[1]
    tokens = tokenise_rows([MessagesRow(messages)], tokenizer, max_length=999)
    for place, example in zip((1, 3), tokens.examples, strict=True):
        [(start, _)] = spans(example)
        assert list(example.input_ids[:start]) == encoded(tokenizer, rendered(tokenizer, messages[:place], prompt=True))


def test_a_role_that_the_template_does_not_know_is_the_rows_error() -> None:
    asked = (Message("user", "the source"), Message("assistant", "the answer"), Message("tool", "42"))
    row = MessagesRow((*asked, Message("assistant", "it is 4")), line=7)
    with pytest.raises(UnusableRow, match=r"^line 7: messages: .*leaves out messages of the role 'tool'"):
        tokenise_rows([row], tokenizer_of("Phi 4"), max_length=99)
    with pytest.raises(UnusableRow, match=r"^line 7: messages: .*refuses a conversation: roles must alternate"):
        tokenise_rows([row], tokenizer_of("Mistral"), max_length=99)
