"""Tokens at the ends of a text: its opening, a completion after its prompt, and the end of text."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from greencore.training.data.special_text import encode_marked, find_last_special_token, remove_marks

NO_TOKENS = "gives no tokens with this model's tokenizer, so there is nothing to learn from it"
# Texts to encode a completion after where it merges with its prompt: it does not merge with one of them.
ANCHORS = ("\n", ".", "a", "0", ":", "é", "字")


def tokenise_continuation(prompt: str, completion: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of `completion` that follow the unchanged tokens of `prompt`.

    Both are encoded as one text, so that a SentencePiece tokenizer adds no space before the completion, and the tokens
    after the prompt's are returned. Where a token spans the boundary ("a " and "b" as "a", " b"), generation after the
    prompt could not produce it: then the completion is encoded after another text that it does not merge with. Decoded
    together, the prompt's tokens and these give prompt and completion; only where the tokenizer's decoding does not
    restore text, as with whole words, is the completion encoded by itself.
    """
    prompt = prompt[find_last_special_token(prompt, tokenizer) :]
    before, joint = encode_marked(prompt, tokenizer), encode_marked(prompt + completion, tokenizer)
    after = joint[len(before) :]
    # an unknown word absorbs adjacent text, so its end is not a boundary
    if joint[: len(before)] == before and after and (not before or before[-1] != tokenizer.unk_token_id):
        return after
    expected = {_decode(joint, tokenizer), _decode(before, tokenizer) + remove_marks(completion)}
    for anchor in ANCHORS:
        front, both = encode_marked(anchor, tokenizer), encode_marked(anchor + completion, tokenizer)
        after = both[len(front) :]
        if after and both[: len(front)] == front and _decode([*before, *after], tokenizer) in expected:
            return after
    return encode_marked(completion, tokenizer)


def append_end_token(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Append the end of text to the tokens, unless the tokenizer has already."""
    end = tokenizer.eos_token_id
    return [*tokens] if tokens and tokens[-1] == end else [*tokens, end]


def cut_completion(
    tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase, *, max_length: int, encoder: bool = False
) -> list[int]:
    """Return learned tokens cut at their end to `max_length`; with an encoder their language code stays last."""
    if len(tokens) <= max_length:
        return list(tokens)
    code = tokens[-1:] if encoder and tokens[-1] != tokenizer.eos_token_id else []
    return [*tokens[: max_length - len(code)], *code]


def get_opening_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that the tokenizer puts before every text: Llama's and Gemma's `<s>`, OPT's `</s>`."""
    text, plain = (list(tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (True, False))
    front = next((place for place in range(len(text)) if text[place : place + len(plain)] == plain), 0)
    return text[:front] if set(text[:front]) <= set(tokenizer.all_special_ids) else []


def find_opening_tokens(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the opening tokens of a tokenised prompt, added by the tokenizer or the chat template."""
    opening = get_opening_tokens(tokenizer) or [tokenizer.bos_token_id]
    return opening if list(tokens[: len(opening)]) == opening else []


def _decode(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))
