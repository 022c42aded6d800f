"""Tokenisation of a completion after its prompt, at the boundary where tokens of both could merge."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from greencore.training.data.special_text import encode_marked, remove_marks

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


def _decode(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))
