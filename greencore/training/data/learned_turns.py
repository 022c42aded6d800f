"""The learned turns of a conversation: which they are, and each one's prompt and text as the template renders them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from greencore.dataset import Message
from greencore.settings.value_types import TrainOn
from greencore.training.data.chat_template import (
    ConversationRefused,
    Messages,
    TemplateClock,
    list_function_names,
    render_conversation,
    renders_calls,
    renders_tools,
)

THINKING_TAG = r"(?:\w+:)?(?:think|thinking|thought|reason|reasoning)"
OPEN_THINKING_TAG = re.compile(
    rf"(?P<left>[<\[◁])(?P<name>{THINKING_TAG})(?P<right>[>\]▷])(?P<gap>\s*)\Z", re.IGNORECASE
)
PASSAGE_SEPARATOR = re.compile(
    rf"\n|[<\[◁]/?{THINKING_TAG}[>\]▷]", re.IGNORECASE
)  # text between two of them is rendered unchanged
CHECKED_ROLES = ("system", "developer", "tool")  # a template may know only users and assistants
_ANSWER = "⟦answer⟧"


@dataclass(frozen=True)
class Conversation:
    """Messages and tools (JSON text) as they are given to a chat template."""

    messages: tuple[Message, ...]
    tools: str | None = None


@dataclass(frozen=True)
class RenderedTurn:
    """Rendered turn of a conversation.

    `prompt` ends where generation begins; `completion` is what the model has to write then, up to the token that ends
    the turn. `has_end_token` is False where the template ends a turn with no token, so that the end of text must
    follow.
    """

    prompt: str
    completion: str
    has_end_token: bool


def list_learned_turns(messages: Messages, train_on: TrainOn = "assistant") -> list[int]:
    """Return the places of the turns that are learned: those of the assistant of weight 1, or only its last turn.

    An assistant's message that opens the conversation is read but not learned, since it answers none. The list is empty
    where no turn has weight 1; where only the opening one has, it is listed, and `render_turn` refuses it.
    """
    answers = [place for place, each in enumerate(messages) if each.role == "assistant"]
    weighted = [place for place in (answers[-1:] if train_on == "last" else answers) if messages[place].weight]
    return [place for place in weighted if place > 0] or weighted


def render_turn(
    conversation: Conversation,
    place: int,
    tokenizer: PreTrainedTokenizerBase,
    *,
    clock: TemplateClock | None = None,
    turn_end: str | None = None,
) -> RenderedTurn:
    """Return the rendered text of the message at `place` after its generation prompt.

    The learned text is the rendered conversation up to this message less the rendered earlier messages with the
    generation prompt. It ends with `turn_end`, the token that ends a turn (see `find_turn_end`), or with the last token
    of the turn: generation stops there, so whitespace and tokens after it are not written by the model. Where the
    template ends turns with no token of the tokenizer, trailing whitespace is removed, since the end of text replaces
    it. Where the generation prompt opens a thought that the rendered turn does not have, the learned text begins with
    the message's thought, or an empty one, and closes it. Where the template renders the message before the turn
    differently in a prompt (Mistral's puts the system message into it), what follows on that message is learned.

    Raises `ConversationRefused` for the first message, which answers none, for a template whose rendering of the turn
    does not begin with the generation prompt, or omits the assistant's message, its tool calls, the tools or a message
    of another role; and the errors of `render_conversation`.
    """
    if place == 0:
        raise ConversationRefused("there is no message before the assistant's, so it answers none")
    messages, message = conversation.messages[: place + 1], conversation.messages[place]
    clock = clock or TemplateClock()
    given = render_conversation(messages[:-1], tokenizer, clock, tools=conversation.tools)
    whole = render_conversation(messages, tokenizer, clock, tools=conversation.tools, generation_prompt=False)
    learned = whole[len(given) :] if whole.startswith(given) else _close_thought(given, whole, message.content)
    if learned is None:
        learned = _find_after_rewritten_prompt(given, whole, messages[-2].content, message.content)
    if learned is None:
        raise ConversationRefused(
            "the model's chat template renders the conversation without its generation prompt, "
            "so there is no turn after that prompt that could be learned"
        )
    passages = [passage.strip() for passage in PASSAGE_SEPARATOR.split(message.content) if passage.strip()]
    if passages and not any(passage in learned for passage in passages):
        raise ConversationRefused("the model's chat template leaves out the assistant's message, or changes it")
    called = all(name in learned for name in list_function_names(message.tool_calls))
    if not called or not renders_calls(messages, tokenizer, clock, tools=conversation.tools):
        raise ConversationRefused("the model's chat template leaves out the assistant's tool calls, or changes them")
    _check_context(conversation, place, given, tokenizer, clock)
    if not _ends_turn(learned, message.content, tokenizer):
        return RenderedTurn(given, learned.rstrip(), has_end_token=False)
    return RenderedTurn(given, _cut_after_end(learned, turn_end, tokenizer), has_end_token=True)


def find_turn_end(
    conversation: Conversation,
    place: int,
    tokenizer: PreTrainedTokenizerBase,
    *,
    clock: TemplateClock | None = None,
) -> str | None:
    """Return the first token that the template puts after the turn at `place`, as text; None without an added token.

    Generation of a model trained on turns of this template stops there.
    """
    answer = replace(conversation.messages[place], content=_ANSWER, tool_calls=None)
    asked = replace(conversation, messages=(*conversation.messages[:place], answer))
    try:
        learned = render_turn(asked, place, tokenizer, clock=clock).completion
    except ConversationRefused:  # a template that accepts only messages in a special form
        return None
    after = learned.rpartition(_ANSWER)[2]
    ends = _list_added_tokens(tokenizer)
    found = [(after.index(end), -len(end), end) for end in ends if end in after]
    return min(found)[2] if found else None


def _check_context(
    conversation: Conversation, place: int, given: str, tokenizer: PreTrainedTokenizerBase, clock: TemplateClock
) -> None:
    """Raise `ConversationRefused` where a template drops a message of a role that it does not know, or the tools."""
    for message in conversation.messages[:place]:
        words = re.findall(r"\w+", message.content) if message.role in CHECKED_ROLES else []
        if words and max(words, key=len) not in given:
            raise ConversationRefused(f"the model's chat template leaves out messages of the role {message.role!r}")
    if not renders_tools(conversation.messages[:place], tokenizer, clock, tools=conversation.tools):
        raise ConversationRefused("the model's chat template leaves out the tools that the assistant may call")


def _close_thought(given: str, whole: str, content: str) -> str | None:
    """Return the text after a prompt that ends with an opened thought; None where it cannot be determined."""
    opened = OPEN_THINKING_TAG.search(given)
    if opened is None or not whole.startswith(given[: opened.start()]):
        return None
    gap = opened["gap"]
    opening = f"{opened['left']}{opened['name']}{opened['right']}"
    closing = f"{opened['left']}/{opened['name']}{opened['right']}"
    rest = whole[opened.start() :]
    if closing in rest:
        rest = rest.lstrip().removeprefix(opening)
        return rest.lstrip("\n") if gap else rest
    thought = content.partition(closing)[0].strip().removeprefix(opening).strip() if closing in content else ""
    answer = rest.lstrip("\n") if gap else rest
    return f"{thought}{gap}{closing}{gap * 2}{answer}"


def _find_after_rewritten_prompt(given: str, whole: str, asked: str, answer: str) -> str | None:
    """Return the text after the last place, in the rendered conversation, of the prompt's end from `asked`'s last word.

    `asked` is the text before the turn. A longer end may be that of an earlier turn, where the prompt puts other text
    before this one's. None where the end is not in the conversation, or is in the answer too.
    """
    words = re.findall(r"\w+", asked)
    if not words or words[-1] not in given:
        return None
    end = given[given.rindex(words[-1]) :]
    return whole.rpartition(end)[2] if end in whole and end not in answer else None


def _ends_turn(learned: str, content: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a turn ends with an added token of the tokenizer, ignoring whitespace."""
    turn, said, ends = learned.rstrip(), content.rstrip(), tuple(_list_added_tokens(tokenizer))
    return turn.endswith(ends) and not (said.endswith(ends) and turn.endswith(said))


def _cut_after_end(learned: str, turn_end: str | None, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a turn's text up to `turn_end` and the tokens directly after it, or up to the last token without it.

    `turn_end` is searched in the tokens and whitespace that the turn ends with. What whitespace separates from it is
    not of the turn: Phi's template puts the end of text on the next line, at a conversation's end only.
    """
    ends = sorted(_list_added_tokens(tokenizer), key=len, reverse=True)
    stem = learned.rstrip()
    last = joined = len(stem)
    while token := next((end for end in ends if stem.endswith(end)), None):
        if token == turn_end:
            last = joined
        before = stem[: -len(token)]
        stem = before.rstrip()
        joined = joined if stem == before else len(stem)
    return learned[:last]


def _list_added_tokens(tokenizer: PreTrainedTokenizerBase) -> Sequence[str]:
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()]
