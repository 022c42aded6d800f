"""Encoding of special tokens spelled out in data as plain text: `</s>` in an HTML page does not end it."""

import re
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

# A Unicode noncharacter, absent from text, inserted into each special token spelled out in data.
MARK = "\U0010fffe"
# Data may contain the tokens that delimit a model's thoughts.
THINKING_TAG = re.compile(r"[<\[◁|]+/?(?:\w+:)?(?:think|thinking|thought|reason|reasoning)[>\]▷|]+", re.IGNORECASE)
SEARCHED_CHARACTERS = 4000

_patterns: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, re.Pattern[str] | None]] = WeakKeyDictionary()


def mark_special_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return text with a mark in every spelled-out special token of the tokenizer (see `encode_marked`).

    Thinking tags are not marked.
    """
    pattern = _pattern(tokenizer)
    if pattern is None:
        return text
    return pattern.sub(
        lambda found: found[0] if THINKING_TAG.fullmatch(found[0]) else found[0][0] + MARK + found[0][1:], text
    )


def remove_marks(text: str) -> str:
    """Return the text without the marks."""
    return text.replace(MARK, "")


def encode_marked(
    text: str, tokenizer: PreTrainedTokenizerBase, *, add_special_tokens: bool = False, decoder: bool = False
) -> list[int]:
    """Encode text with a template's special tokens; marked ones are encoded as plain text.

    With `add_special_tokens` also the tokens that the tokenizer puts before and after a text; with `decoder` the tokens
    of a decoder's output, including the target language's code.
    """

    def tokens(text: str, **settings: bool) -> Any:
        given: Any = {"text_target" if decoder else "text": text}
        return tokenizer(**given, **settings)

    if MARK not in text:
        return list(tokens(text, add_special_tokens=add_special_tokens)["input_ids"])
    if (pattern := _pattern(tokenizer)) is None or not pattern.search(text):
        plain = list(tokens(remove_marks(text), add_special_tokens=False, split_special_tokens=True)["input_ids"])
        # a word or piece tokenizer may still find them
        if not special_token_ids(tokenizer).intersection(plain) - {tokenizer.unk_token_id}:
            if not add_special_tokens:
                return plain
            return list(tokens(remove_marks(text), add_special_tokens=True, split_special_tokens=True)["input_ids"])
    found = tokens(text, add_special_tokens=add_special_tokens, return_offsets_mapping=tokenizer.is_fast)
    if not tokenizer.is_fast:  # slow tokenizers return no offsets; the mark has its own tokens
        marks = set(tokenizer(MARK, add_special_tokens=False)["input_ids"]) - {tokenizer.unk_token_id}
        return [token for token in found["input_ids"] if token not in marks]
    places = zip(found["input_ids"], found["offset_mapping"], strict=True)
    return [token for token, (start, end) in places if start == end or text[start:end].strip(MARK)]


def find_last_special_token(text: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the place from which `text` is encoded independently of what is before it; 0 where none is found.

    That is the last special token that a fast tokenizer finds in the text as it is: it encodes the parts between such
    tokens separately. Only the last characters are searched, so that the time does not grow with the text.
    """
    pattern = _pattern(tokenizer) if tokenizer.is_fast else None
    if pattern is None:
        return 0
    start = max(len(text) - SEARCHED_CHARACTERS, 0)
    separating = _separating_tokens(tokenizer)
    return max((each.start() for each in pattern.finditer(text, start) if each[0] in separating), default=0)


def special_token_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids of all special tokens."""
    added = {token for token, content in tokenizer.added_tokens_decoder.items() if content.special}
    return added | set(tokenizer.all_special_ids)


def _separating_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Return the special tokens that are found before a text is normalised, wherever they are."""
    added = tokenizer.added_tokens_decoder.values()
    return {each.content for each in added if each.special and not (each.normalized or each.single_word or each.lstrip)}


def _pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """Return the pattern of the special tokens, longest first; None where none has two characters or more."""
    known = _patterns.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        names = {name for name in added | set(tokenizer.all_special_tokens) if len(name) > 1 and not name.isspace()}
        longest_first = sorted(names, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest_first))) if names else None
        _patterns[tokenizer] = known = (len(tokenizer), pattern)
    return known[1]
