"""Tokens of conversations: learned turns after the prompts that inference sends, and shortening from the left."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from greencore.dataset import Message
from greencore.training.data.chat_template import ConversationRefused, Messages, TemplateClock, render_conversation
from greencore.training.data.continuations import (
    NO_TOKENS,
    append_end_token,
    cut_completion,
    find_opening_tokens,
    tokenise_continuation,
)
from greencore.training.data.learned_turns import Conversation, find_turn_end, render_turn
from greencore.training.data.special_text import encode_marked, find_last_special_token

INSTRUCTING_ROLES = ("system", "developer")


@dataclass
class ConversationTokens:
    """Tokens of one example of a conversation, which of them are learned, and its learned turns in order.

    `last_length` is the number of learned tokens of the last turn. An example is shortened in its prompt where earlier
    messages are left out or cut, and in its learned part where a learned token is.
    """

    tokens: list[int]
    learned: list[bool]
    turns: list[int] = field(default_factory=list)
    last_length: int = 0
    shortened_prompt: bool = False
    shortened_completion: bool = False

    def append_turn(self, place: int, completion: Sequence[int]) -> None:
        """Append the learned tokens of the turn at `place`."""
        self.tokens += completion
        self.learned += [True] * len(completion)
        self.turns.append(place)
        self.last_length = len(completion)

    def append_context(self, tokens: Sequence[int]) -> None:
        """Append tokens that are only read."""
        self.tokens += tokens
        self.learned += [False] * len(tokens)


def tokenise_conversation(
    conversation: Conversation,
    turns: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    clock: TemplateClock | None = None,
) -> list[ConversationTokens]:
    """Tokenise the learned `turns` of a conversation to examples of at most `max_length` tokens.

    An example that is too long keeps its last turn and what fits before it: its prompt is shortened from the left (see
    `shorten_prompt`), and the earlier learned turns that are left are still learned. A last turn that alone is too long
    is cut at its end. Raises the errors of `render_turn`.
    """
    clock = clock or TemplateClock()
    return [
        each
        if len(each.tokens) <= max_length
        else _shorten_example(each, conversation, tokenizer, max_length=max_length, clock=clock)
        for each in tokenise_turns(conversation, turns, tokenizer, clock=clock)
    ]


def tokenise_conversation_for_encoder(
    conversation: Conversation,
    turns: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    clock: TemplateClock | None = None,
) -> list[tuple[list[int], list[int], bool, bool]]:
    """Tokenise each learned turn to what an encoder reads and its decoder writes, at most `max_length` tokens each.

    The last two values are whether the first and the second were shortened. Raises the errors of `render_turn`.
    """
    clock, found = clock or TemplateClock(), []
    end = find_turn_end(conversation, turns[0], tokenizer, clock=clock)
    for place in turns:
        completion = render_turn(conversation, place, tokenizer, clock=clock, turn_end=end).completion
        if not encode_marked(completion, tokenizer, decoder=True):
            raise ConversationRefused(NO_TOKENS)
        written = append_end_token(
            encode_marked(completion, tokenizer, add_special_tokens=True, decoder=True), tokenizer
        )
        cut = cut_completion(written, tokenizer, max_length=max_length, encoder=True)
        read, shortened = tokenise_turn_prompt(
            conversation, place, tokenizer, max_length=max_length, clock=clock, encoder=True
        )
        found.append((read, cut, shortened, len(cut) < len(written)))
    return found


def tokenise_turn_prompt(
    conversation: Conversation,
    place: int,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    clock: TemplateClock | None = None,
    encoder: bool = False,
) -> tuple[list[int], bool]:
    """Return the tokens of the prompt of the turn at `place`, at most `max_length`, and whether they were shortened."""
    clock = clock or TemplateClock()

    def encode(messages: Messages) -> list[int]:
        text = render_conversation(messages, tokenizer, clock, tools=conversation.tools)
        tokens = encode_marked(text, tokenizer)
        return append_end_token(tokens, tokenizer) if encoder else tokens

    earlier = conversation.messages[:place]
    return shorten_prompt(earlier, encode, max_length=max_length, tokenizer=tokenizer, keep_opening=not encoder)


def tokenise_turns(
    conversation: Conversation,
    turns: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    *,
    clock: TemplateClock,
) -> Iterator[ConversationTokens]:
    """Yield the examples of a conversation, as few as its template allows, without a limit on their length.

    Each is yielded when the next one begins: the caller can shorten it before there are more.

    The tokens before a learned turn are those that inference sends: its rendered prompt, tokenised. A turn shares an
    example with the earlier ones where its prompt begins with the tokens of that example; where the template rewrites
    them in its prompt (it drops earlier thoughts), or ends turns with no token, it begins an example of its own. So no
    turn is learned twice. Raises the errors of `render_turn`.
    """
    end = find_turn_end(conversation, turns[0], tokenizer, clock=clock)
    example: ConversationTokens | None = None
    text: str | None = None  # of `example`, where it is encoded as in a prompt and what follows independently
    for place in turns:
        turn = render_turn(conversation, place, tokenizer, clock=clock, turn_end=end)
        if example is not None and text is not None and turn.prompt.startswith(text):
            token = text[find_last_special_token(text, tokenizer) :]
            joint = encode_marked(token + turn.prompt[len(text) :], tokenizer)
            example.append_context(joint[len(encode_marked(token, tokenizer)) :])
        else:
            prompt = encode_marked(turn.prompt, tokenizer)
            if example is not None and prompt[: len(example.tokens)] == example.tokens:
                example.append_context(prompt[len(example.tokens) :])
            else:
                if example is not None:
                    yield example
                example = ConversationTokens(prompt, [False] * len(prompt))
        completion = tokenise_continuation(turn.prompt, turn.completion, tokenizer)
        if not completion:
            raise ConversationRefused(NO_TOKENS)
        example.append_turn(place, completion if turn.has_end_token else append_end_token(completion, tokenizer))
        text = turn.prompt + turn.completion
        joined = _is_encoded_jointly(turn.prompt, turn.completion, completion, tokenizer)
        if not turn.has_end_token or not joined or not _ends_with_special_token(text, tokenizer):
            text = None
    if example is not None:
        yield example


def shorten_prompt(
    messages: Messages,
    encode: Callable[[Messages], list[int]],
    *,
    max_length: int,
    tokenizer: PreTrainedTokenizerBase,
    keep_opening: bool = True,
) -> tuple[list[int], bool]:
    """Return the tokens of the messages before a turn, at most `max_length`, and whether they were shortened.

    The earliest messages after the system's are left out, up to a user's message each time, so that what is kept is a
    whole conversation. Where the last user's message alone is too long, its text is shortened at its end, as a
    prompt's in a format is; the system's message is kept where that fits. Only where that is not enough is the start of
    the tokens cut, after the opening token of the text (with `keep_opening`).
    """
    tokens = encode(messages)
    if len(tokens) <= max_length:
        return tokens, False

    def fits(kept: Messages) -> bool:
        return len(encode(kept)) <= max_length

    kept = find_fitting_messages(messages, fits)
    if kept is not None:
        return encode(kept), True
    leading, latest = messages[: _count_leading(messages)], messages[_find_starts(messages)[-1] :]
    if len(latest) == 1:
        for instructions in (leading, ()) if leading else ((),):
            if fitting := _shorten_source(instructions, latest[0], fits):
                return encode(fitting), True
        tokens = encode([replace(latest[0], content="")])
    elif leading and _is_accepted(fits, latest):
        return encode(latest), True
    opening = find_opening_tokens(tokens, tokenizer)[:max_length] if keep_opening else []
    return [*opening, *tokens[max(len(opening), len(tokens) - max_length + len(opening)) :]], True


def find_fitting_messages(messages: Messages, fits: Callable[[Messages], bool]) -> Messages | None:
    """Return the messages without as few of the earliest after the system's as `fits` needs; None where none fit."""
    leading, starts = messages[: _count_leading(messages)], _find_starts(messages)
    first = bisect_left(starts, True, key=lambda start: _is_accepted(fits, (*leading, *messages[start:])))
    return (*leading, *messages[starts[first] :]) if first < len(starts) else None


def _shorten_example(
    example: ConversationTokens,
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    clock: TemplateClock,
) -> ConversationTokens:
    """Return an example with at most `max_length` tokens, of its last turn and of what fits before it."""
    place, whole = example.turns[-1], example.tokens[len(example.tokens) - example.last_length :]
    completion = cut_completion(whole, tokenizer, max_length=max_length)
    room, earlier = max_length - len(completion), conversation.messages[:place]

    def fits(messages: Messages) -> bool:
        text = render_conversation(messages, tokenizer, clock, tools=conversation.tools)
        return len(encode_marked(text, tokenizer)) <= room

    kept = find_fitting_messages(earlier, fits)
    if kept is not None:
        removed = len(earlier) - len(kept)
        shorter = replace(conversation, messages=(*kept, conversation.messages[place]))
        turns = [turn - removed for turn in example.turns if turn - removed > _count_leading(earlier)]
        last = deque(tokenise_turns(shorter, turns, tokenizer, clock=clock), maxlen=1).pop()
        if len(last.tokens) <= max_length:
            return replace(last, shortened_prompt=True, shortened_completion=len(last.turns) < len(example.turns))
    prompt, shortened = tokenise_turn_prompt(conversation, place, tokenizer, max_length=room, clock=clock)
    found = ConversationTokens(prompt, [False] * len(prompt), shortened_prompt=shortened)
    found.append_turn(place, completion)
    found.shortened_completion = len(completion) < len(whole) or len(example.turns) > 1
    return found


def _shorten_source(instructions: Messages, last: Message, fits: Callable[[Messages], bool]) -> Messages | None:
    """Return the messages with the last one's text shortened at its end; None where not even a character fits."""

    def shorten(length: int) -> Messages:
        return (*instructions, replace(last, content=last.content[:length].rstrip()))

    if _is_accepted(fits, (*instructions, last)):
        return (*instructions, last)
    length = bisect_right(
        range(len(last.content) + 1), False, key=lambda length: not _is_accepted(fits, shorten(length))
    )
    return shorten(length - 1) if length > 1 else None


def _is_accepted(fits: Callable[[Messages], bool], messages: Messages) -> bool:
    try:
        return fits(messages)
    except ConversationRefused:  # a template that needs what was left out
        return False


def _count_leading(messages: Messages) -> int:
    """Return the number of system and developer messages that the conversation begins with."""
    places = (place for place, each in enumerate(messages) if each.role not in INSTRUCTING_ROLES)
    return next(places, len(messages))


def _find_starts(messages: Messages) -> list[int]:
    """Return the places where a conversation may begin: after the system's messages, and at each later user's."""
    first = _count_leading(messages)
    return [first, *(place for place, each in enumerate(messages) if each.role == "user" and place > first)]


def _ends_with_special_token(text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    boundary = find_last_special_token(text, tokenizer)
    return boundary > 0 and len(encode_marked(text[boundary:], tokenizer)) == 1


def _is_encoded_jointly(
    prompt: str, completion: str, tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> bool:
    """Return whether a learned text has these tokens in later prompts too, where no token spans its start."""
    prompt = prompt[find_last_special_token(prompt, tokenizer) :]
    return encode_marked(prompt + completion, tokenizer) == [*encode_marked(prompt, tokenizer), *tokens]
