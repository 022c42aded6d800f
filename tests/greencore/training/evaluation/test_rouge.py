"""ROUGE: rouge_score's results for English, and words or characters of every other script."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from greencore.training.evaluation.rouge import ROUGE_METRICS, compute_rouge

FULL = dict.fromkeys(ROUGE_METRICS, 100.0)
TEXTS = {
    "Russian": "Быстрая лиса, перепрыгнувшая через ёлку, спит.",
    "Greek": "Η γρήγορη αλεπού πηδάει πάνω από τον σκύλο.",
    "Arabic": "الثَّعلب البُنِّيّ السريع يقفز فوق الكلب.",
    "Persian": "می‌خواهم کتاب‌های تازه بخوانم",
    "Hebrew": "הַשׁוּעָל החום המהיר קופץ מעל הכלב",
    "Hindi": "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है।",
    "Bengali": "দ্রুত বাদামী শিয়াল কুকুরের উপর লাফায়",
    "Tamil": "விரைவான பழுப்பு நரி நாயின் மேல் குதிக்கிறது",
    "Thai": "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัข",
    "Lao": "ໝາຈອກສີນ້ຳຕານໂດດຂ້າມໝາ",
    "Khmer": "កញ្ជ្រោងពណ៌ត្នោតលោតពីលើឆ្កែ",
    "Burmese": "မြေခွေးညိုသည်ခွေးကိုခုန်ကျော်သည်",
    "Tibetan": "ཝ་མོ་སྨུག་པོ་ཁྱི་ལས་མཆོངས།",
    "Chinese": "敏捷的棕色狐狸跳过了懒狗。",
    "Japanese": "素早い茶色のキツネがのろまな犬を飛び越える。コーヒー々",
    "Korean": "빠른 갈색 여우가 게으른 개를 뛰어넘는다",
    "German": "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich",
    "Vietnamese": "Con cáo nâu nhanh nhẹn nhảy qua con chó lười",
    "Georgian": "სწრაფი ყავისფერი მელა ძაღლს ახტება",
    "Amharic": "ፈጣን ቡናማ ቀበሮ ሰነፍ ውሻ ላይ ይዘላል",
}
ENGLISH = [
    "The quick brown fox jumped over 2 lazy dogs, didn't it?",
    "State-of-the-art models (e.g. GPT-2, T5-3B) are well-known; their users' summaries aren't.",
    "snake_case and __dunder__ names: foo_bar2 + x_1 = 3.14159e-10",
    "It's the 1990s' best-selling e-mail client: 25% of 1,000,000 users/day.",
    "Running runners ran; the runner's running was run-of-the-mill.",
    "A\ttab\nand a new line -- generalisations, relational, conditional.",
    "don't-stop_believing 007 O'Brien's rock'n'roll",
    "... --- !!!",
    "",
]


def test_rouge_of_a_known_pair() -> None:
    scores = compute_rouge(["the cat sat on the mat"], ["the cats sat"])
    precision, recall = 3 / 3, 3 / 6  # "cats" and "cat" have one stem
    assert scores["rouge1"] == pytest.approx(100 * 2 * precision * recall / (precision + recall))
    assert scores["rouge2"] == pytest.approx(100 * 2 * (2 / 2) * (2 / 5) / (2 / 2 + 2 / 5))
    assert scores["rougeL"] == scores["rouge1"]


def test_a_row_counts_with_its_best_reference_for_each_metric() -> None:
    near, far = "one two three four", "four three two one"
    candidate = "four two one three"
    single = [compute_rouge([reference], [candidate]) for reference in (near, far)]
    both = compute_rouge([[near, far]], [candidate])
    assert both == {name: max(score[name] for score in single) for name in single[0]}
    assert compute_rouge([[near, far], "one"], [near, "two"]) == dict.fromkeys(both, 50.0)
    with pytest.raises(ValueError, match="no reference"):
        compute_rouge([[]], [candidate])
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        compute_rouge([near, far], [candidate])


@pytest.mark.fault(number=10)
@pytest.mark.parametrize("language", TEXTS)
def test_equal_texts_score_full_marks_in_every_script(language: str) -> None:
    text = TEXTS[language]
    assert compute_rouge([text], [text]) == FULL
    assert compute_rouge([unicodedata.normalize("NFD", text)], [unicodedata.normalize("NFC", text)]) == FULL
    assert compute_rouge([text], [text.upper()]) == FULL


@pytest.mark.fault(number=10)
def test_different_texts_of_one_script_score_only_common_tokens() -> None:
    assert compute_rouge(["собака спит"], ["кошка ест"])["rouge1"] == 0
    assert compute_rouge(["собака спит"], ["собака ест"])["rouge1"] == pytest.approx(50)
    assert compute_rouge(["今天天气好"], ["明天天气好"])["rouge1"] == pytest.approx(80)
    assert compute_rouge(["今天天气好"], ["今天"])["rouge2"] == pytest.approx(100 * 2 * (1 / 4) / (1 + 1 / 4))
    assert compute_rouge(["कमल"], ["कुमल"])["rouge1"] == 0  # a vowel sign makes another word
    assert compute_rouge(["กา"], ["ก้า"])["rouge1"] == pytest.approx(50)  # a tone mark makes another character


@pytest.mark.fault(number=10)
def test_letters_with_marks_do_not_split_a_word() -> None:
    assert compute_rouge(["für"], ["f r"]) == dict.fromkeys(ROUGE_METRICS, 0.0)
    assert compute_rouge(["naïve café"], ["na ve caf"])["rouge1"] == 0
    assert compute_rouge(["Straße"], ["STRASSE"])["rouge1"] == 100


@pytest.mark.fault(number=10)
def test_a_script_with_spaces_beside_one_without_is_split_into_its_words() -> None:
    assert compute_rouge(["GPT-2モデル"], ["gpt 2 モデル"]) == FULL
    assert compute_rouge(["東京tower2"], ["東 京 tower2"]) == FULL


@pytest.mark.fault(number=10)
def test_english_scores_equal_those_of_the_default_tokenizer() -> None:
    default = RougeScorer(list(ROUGE_METRICS), use_stemmer=True)
    for reference in ENGLISH:
        for candidate in ENGLISH:
            expected = {name: 100 * score.fmeasure for name, score in default.score(reference, candidate).items()}
            assert compute_rouge([reference], [candidate]) == expected


@pytest.mark.fault(number=10)
@given(
    st.lists(
        st.sampled_from(["The", "dogs'", "e-mail,", "isn't_it", "3.5%", "running–’“", "…", "½", "m²", "™", "1️⃣", "♥"]),
        max_size=12,
    )
)
def test_typographic_signs_do_not_change_english_scores(words: list[str]) -> None:
    reference, candidate = " ".join(words), " ".join(reversed(words))
    expected = RougeScorer(list(ROUGE_METRICS), use_stemmer=True).score(reference, candidate)
    assert compute_rouge([reference], [candidate]) == {name: 100 * score.fmeasure for name, score in expected.items()}


@pytest.mark.fault(number=10)
def test_a_text_without_words_scores_0() -> None:
    nothing = dict.fromkeys(ROUGE_METRICS, 0.0)
    for empty in ("", " ", "…！？", "\u200b"):
        for other in ("", "слово", "the word", "字"):
            assert compute_rouge([empty], [other]) == compute_rouge([other], [empty]) == nothing
    assert compute_rouge(["да", "yes"], ["да", ""])["rouge1"] == 50
    with pytest.raises(ValueError, match="no candidate"):
        compute_rouge([], [])
