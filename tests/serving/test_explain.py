"""Attributions: complete, at the right words, and exact where the model is linear."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fakenews.data.cleaning import Cleaning, clean
from fakenews.engines import TfidfEngine, TorchEngine
from fakenews.errors import ServingError
from fakenews.evaluation.calibration import Calibration
from fakenews.models.tfidf import TfidfClassifier
from fakenews.predictor import Predictor
from fakenews.serving.explain import Explanation, Word, explain

TEXT = "Minister confirms 3 new hospitals by 2030 🎉 in Zürich, naturally!"


@pytest.fixture(scope="module")
def predictor(fusion_bundle: Path) -> Predictor:
    return Predictor.load(fusion_bundle)


def explained(
    predictor: Predictor, text: str, target: str = "fake", steps: int = 24
) -> Explanation:
    frame = pd.DataFrame({"text": [text]}, dtype=object)
    return explain(predictor, frame, target=target, steps=steps)


def total(words: Sequence[Word]) -> float:
    return math.fsum(word.attribution for word in words)


def logit(predictor: Predictor, ids: Sequence[int], text: str, target: str) -> float:
    """Of the target, from the mean of all, with the tabular features of the text."""
    engine, features = predictor.engine, predictor.features
    assert isinstance(engine, TorchEngine)
    assert features is not None
    tabular = torch.from_numpy(features.transform(pd.DataFrame({"text": [text]})))
    ids_1T = torch.tensor([ids])
    with torch.no_grad():
        logits_C = engine.network(ids_1T, torch.ones_like(ids_1T), tabular)[0]
    return float(logits_C[predictor.classes.index(target)] - logits_C.mean())


@pytest.mark.parametrize("target", ["fake", "real"])
@pytest.mark.parametrize("text", [TEXT, "a", "word " * 60])
def test_attributions_sum_to_what_the_words_change(
    predictor: Predictor, text: str, target: str
) -> None:
    text = text.strip()
    found = explained(predictor, text, target)
    assert predictor.tokenizer is not None
    encoding = predictor.tokenizer.encode(text)
    padded = [
        token if special else predictor.pad_id
        for token, special in zip(encoding.ids, encoding.special_tokens_mask, strict=True)
    ]
    difference = logit(predictor, encoding.ids, text, target) - logit(
        predictor, padded, text, target
    )
    assert total(found.words) == pytest.approx(difference, abs=1e-4)
    assert found.completeness_error == pytest.approx(
        abs(total(found.words) - difference), abs=1e-5
    )


def test_more_steps_are_more_exact(predictor: Predictor) -> None:
    errors = [explained(predictor, TEXT, steps=steps).completeness_error for steps in (1, 50)]
    assert errors[1] < errors[0]


def test_of_two_classes_one_loses_what_the_other_wins(predictor: Predictor) -> None:
    fake, real = (explained(predictor, TEXT, target) for target in ("fake", "real"))
    for one, other in zip(fake.words, real.words, strict=True):
        assert one.attribution == pytest.approx(-other.attribution, abs=1e-5)


def test_explaining_changes_no_prediction(predictor: Predictor) -> None:
    before = predictor.predict([TEXT])
    explained(predictor, TEXT)
    assert predictor.predict([TEXT]) == before


def test_words_are_those_of_the_text(predictor: Predictor) -> None:
    found = explained(predictor, TEXT)
    assert [word.text for word in found.words] == TEXT.split()
    assert all(TEXT[word.start : word.end] == word.text for word in found.words)
    assert all(word.attribution != 0 for word in found.words)
    content = found.to_json()
    assert content["text"] == TEXT
    assert content["words"][0] == {
        "text": "Minister",
        "start": 0,
        "end": 8,
        "attribution": found.words[0].attribution,
    }


def test_words_that_were_cut_off_add_nothing(predictor: Predictor) -> None:
    found = explained(predictor, " ".join(str(number) for number in range(100)))
    read = [word.attribution != 0 for word in found.words]
    assert len(read) == 100
    assert read == sorted(read, reverse=True)
    assert 0 < sum(read) <= 30


def test_scripts_without_spaces_have_a_word_for_each_character(predictor: Predictor) -> None:
    found = explained(predictor, "新冠疫苗 COVIDワクチン ok")
    assert [word.text for word in found.words] == [*"新冠疫苗", "COVID", *"ワクチン", "ok"]


@settings(max_examples=50)
@given(text=st.text(min_size=1).map(clean).filter(bool))
def test_any_clean_text_is_covered(predictor: Predictor, text: str) -> None:
    found = explained(predictor, text, steps=1)
    covered = "".join(word.text for word in found.words)
    assert covered == "".join(found.text.split())
    assert all(found.text[word.start : word.end] == word.text for word in found.words)
    assert all(math.isfinite(word.attribution) for word in found.words)


def test_a_model_that_reads_no_words(columns_bundle: Path) -> None:
    predictor = Predictor.load(columns_bundle)
    frame = pd.DataFrame({"text": ["Rain"], "age": [1.0], "lang": ["a"]})
    with pytest.raises(ServingError, match="reads features of the text and not its words"):
        explain(predictor, frame, target="yes", steps=4)


def test_an_engine_without_gradients(fusion_bundle: Path) -> None:
    other = Predictor.load(fusion_bundle)
    other.engine = object()  # type: ignore[assignment]
    with pytest.raises(ServingError, match="only the engine torch"):
        explained(other, TEXT)


# --- TF-IDF ----------------------------------------------------------------------------

CORPUS = ["good day in Oslo", "bad night here", "İstanbul rain again", "Straße und Haus"]
CLASSES = {2: [0, 1] * 8, 3: [0, 1, 2, 1] * 4}


def linear(classes: int) -> Predictor:
    codes = np.array(CLASSES[classes])
    model = TfidfClassifier(min_rows=1, ngrams=2).fit(CORPUS * 4, codes)
    names = ["a", "b", "c"][:classes]
    return Predictor(
        engine=TfidfEngine(model),
        tokenizer=None,
        pad_id=0,
        features=None,
        cleaning=Cleaning(),
        classes=names,
        calibration=Calibration(positive="a"),
    )


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "text",
    [*CORPUS, "a good day, good day! bad", "İİ İstanbul rain", "nothing known", "§", "STRASSE"],
)
def test_linear_attributions_are_exact(classes: int, text: str) -> None:
    predictor = linear(classes)
    assert isinstance(predictor.engine, TfidfEngine)
    logits = predictor.engine.classifier.logits([text, ""])
    centred = logits - logits.mean(axis=1, keepdims=True)
    for code, name in enumerate(predictor.classes):
        found = explained(predictor, text, name)
        difference = centred[0, code] - centred[1, code]
        assert total(found.words) == pytest.approx(difference, abs=1e-12)
        assert found.completeness_error < 1e-12


def test_linear_attributions_are_at_their_words() -> None:
    found = explained(linear(2), "İ said: bad, BAD day?", "b")
    added = {word.text: word.attribution for word in found.words}
    assert list(added) == ["İ", "said:", "bad,", "BAD", "day?"]
    assert added["İ"] == added["said:"] == 0
    assert added["bad,"] > 0 > added["day?"]
    assert added["bad,"] == added["BAD"]
