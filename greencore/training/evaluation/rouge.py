"""ROUGE for texts in any script: by words where the script separates them, else by characters."""

import unicodedata
from collections.abc import Sequence

import regex
from nltk.stem.porter import PorterStemmer
from rouge_score import tokenize
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

ROUGE_METRICS = ("rouge1", "rouge2", "rougeL")

# Scripts whose words are written without spaces. The prolonged sound mark of Japanese has no script property.
UNSPACED = "".join(
    rf"\p{{Script={script}}}"
    for script in (
        *("Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Nushu", "Tangut", "Khitan_Small_Script"),
        *("Thai", "Lao", "Khmer", "Myanmar", "Tai_Tham", "Tai_Le", "New_Tai_Lue", "Tai_Viet"),
        *("Balinese", "Javanese"),
    )
)
IN_A_WORD = r"\p{L}\p{Nd}\p{Nl}"
TOKEN_PATTERN = regex.compile(
    rf"[{IN_A_WORD}&&[{UNSPACED}ー]]\p{{M}}*|(?:[{IN_A_WORD}--[{UNSPACED}ー]]\p{{M}}*)+", regex.V1
)
# Soft hyphens, joiners, variation selectors and enclosing marks only affect display; U+200B separates words.
INVISIBLE = regex.compile(r"[[\p{Default_Ignorable_Code_Point}\p{Me}]--[\u200B]]", regex.V1)


class UnicodeTokenizer(Tokenizer):  # type: ignore[misc]  # the package has no types
    """Tokenizer of text into words of Unicode letters and digits, with their combining marks.

    A script that puts no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese and others) is split into
    characters. Text is normalised to NFC and case-folded. ASCII text gives exactly the tokens of `rouge_score`'s
    default tokenizer with its Porter stemmer, which also stems words of other text.
    """

    def __init__(self) -> None:
        self._stemmer = PorterStemmer()

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text in order; none for a text without letters and digits."""
        if text.isascii():
            return list(tokenize.tokenize(text, self._stemmer))
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
        words = TOKEN_PATTERN.findall(INVISIBLE.sub("", folded))
        return [self._stemmer.stem(word) if len(word) > 3 else word for word in words]


def compute_rouge(references: Sequence[str | Sequence[str]], candidates: Sequence[str]) -> dict[str, float]:
    """Return the mean ROUGE-1, -2 and -L F1 in per cent, with stemming as in the paper's evaluation; no bootstrap.

    A row with several references counts with its best one for each metric, as is usual for SciTLDR (Cachola et al.,
    2020). A text without a token, or for ROUGE-2 with only one, scores 0, as in `rouge_score`. Raises ValueError for
    no rows, for a row without a reference, and for unequal numbers.
    """
    if not candidates:
        raise ValueError("there is no candidate to score: expected at least one row")
    scorer = RougeScorer(list(ROUGE_METRICS), tokenizer=UnicodeTokenizer())
    totals = dict.fromkeys(ROUGE_METRICS, 0.0)
    for given, text in zip(references, candidates, strict=True):
        scores = [scorer.score(reference, text) for reference in ([given] if isinstance(given, str) else given)]
        if not scores:
            raise ValueError("a row has no reference to compare its candidate with")
        for name in ROUGE_METRICS:
            totals[name] += max(score[name].fmeasure for score in scores)
    return {name: 100 * total / len(candidates) for name, total in totals.items()}
