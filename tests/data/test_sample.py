import ast
import os
import resource
import subprocess
import sys
from itertools import islice

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import Pipeline, make_pipeline

from fakenews.data import sample
from fakenews.data.sample import Drift, fetch, generate, write
from fakenews.errors import ConfigError, DataError

PACKAGED = sample.PACKAGED_ARGUMENTS
SMALL = {"rows": 50, "seed": 3, "positive_rate": 0.3, "label_noise": 0.03}


def frame(rows: int, **arguments) -> pd.DataFrame:
    return pd.concat(generate(rows, **arguments), ignore_index=True)


def is_fake(made: pd.DataFrame) -> np.ndarray:
    return (made["label"] == "fake").to_numpy()


def precision(model: Pipeline, made: pd.DataFrame) -> float:
    return average_precision_score(is_fake(made), model.predict_proba(made["text"])[:, 1])


@pytest.fixture(scope="module")
def packaged() -> pd.DataFrame:
    return pd.read_csv(sample.PACKAGED)


@pytest.fixture(scope="module")
def tfidf(packaged: pd.DataFrame) -> Pipeline:
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=4, class_weight="balanced", max_iter=1000),
    )
    return model.fit(packaged["text"], is_fake(packaged))


def test_packaged_file_is_what_the_generator_writes(tmp_path):
    made = write(tmp_path / "sample.csv", **PACKAGED)
    assert made.read_bytes() == sample.PACKAGED.read_bytes()


def test_chunks_do_not_change_the_rows():
    whole = frame(9000)
    for chunk_rows in (1000, 4096, 9000):
        chunks = list(generate(9000, chunk_rows=chunk_rows))
        assert [len(chunk) for chunk in chunks[:-1]] == [chunk_rows] * (len(chunks) - 1)
        pd.testing.assert_frame_equal(pd.concat(chunks, ignore_index=True), whole)


def test_larger_sample_begins_with_the_smaller():
    pd.testing.assert_frame_equal(frame(9000).head(5000), frame(5000))


def test_one_row():
    made = frame(1, chunk_rows=1)
    assert made.columns.tolist() == ["text", "label"]
    assert made["text"].str.len().tolist() > [10]


def test_seeds_differ():
    assert set(frame(500, seed=1)["text"]).isdisjoint(frame(500, seed=2)["text"])
    assert len(frame(5, seed=2**64 - 1)) == 5


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.95])
def test_class_rate_holds_with_and_without_noise(rate):
    for label_noise in (0.0, 0.03):
        fake = is_fake(frame(20_000, positive_rate=rate, label_noise=label_noise))
        # Repeated headlines share a label, which widens the binomial spread a little.
        assert abs(fake.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / 20_000)


def test_noise_flips_that_share_and_leaves_the_texts():
    clean, noisy = frame(20_000, label_noise=0.0), frame(20_000, label_noise=0.1)
    assert clean["text"].equals(noisy["text"])
    flipped = is_fake(clean) != is_fake(noisy)
    assert abs(flipped.mean() - 0.1) < 0.01
    assert abs((flipped & is_fake(clean)).mean() - 0.05) < 0.007


def test_difficulty_is_realistic(tfidf):
    """Text tells much but not all, format tells something, and they add up."""
    test = frame(4000, seed=1)
    text_only = precision(tfidf, test)
    train = pd.read_csv(sample.PACKAGED)
    scale = style(train).std()
    tabular = LogisticRegression(max_iter=1000).fit(style(train) / scale, is_fake(train))
    style_score = tabular.decision_function(style(test) / scale)
    style_only = average_precision_score(is_fake(test), style_score)
    both = style_score + tfidf.decision_function(test["text"])
    assert 0.72 < text_only < 0.85
    assert 0.42 < style_only < 0.65
    assert text_only + 0.03 < average_precision_score(is_fake(test), both) < 0.93


def style(made: pd.DataFrame) -> pd.DataFrame:
    text = made["text"]
    patterns = {"digit": r"\d", "capital": "[A-Z]", "shout": r"\b[A-Z]{3,}\b", "bang": "!"}
    patterns |= {"question": r"\?", "stop": r"\.", "word": r"\w+", "comma": ","}
    return pd.DataFrame({name: text.str.count(rule) for name, rule in patterns.items()})


def test_no_word_gives_the_class_away(packaged):
    vectors = TfidfVectorizer(binary=True, use_idf=False, norm=None)
    present = vectors.fit_transform(packaged["text"])
    count = np.asarray(present.sum(axis=0)).ravel()
    fake = np.asarray(present[is_fake(packaged)].sum(axis=0)).ravel()
    common = count >= 40
    assert common.sum() > 200
    assert (fake / count)[common].max() < 0.85


def test_same_words_in_both_classes():
    made = frame(20_000)
    vectors = TfidfVectorizer(min_df=20).fit(made["text"])
    for label in ("fake", "real"):
        present = vectors.transform(made["text"][made["label"] == label]).sum(axis=0)
        assert (np.asarray(present) > 0).mean() > 0.99


def test_audits_have_something_to_find_in_both_classes():
    made = frame(40_000)
    for found, low, high in (
        (made["text"].duplicated(keep=False), 0.02, 0.06),
        (made["text"].str.contains("â€|Ã|Â"), 0.01, 0.03),
        (made["text"].str.contains("\n"), 0.005, 0.015),
        (made["text"].str.contains("  |\u00a0|\t"), 0.01, 0.03),
        (made["text"].str.contains(r"\(video\)|- latest|- live"), 0.01, 0.04),
    ):
        share = found.groupby(made["label"]).mean()
        assert low < share["fake"] < high
        assert low < share["real"] < high
        assert abs(share["fake"] - share["real"]) < 0.3 * share.mean()
    labels = made.groupby("text")["label"].nunique()
    assert (labels == 2).any()


def test_new_topics_change_the_words():
    usual, drifted = frame(4000), frame(4000, drift=Drift(topics=0.5))
    topic = "mars rover|lander|meteorite|tractor|esports|shipwreck|mosaic|orchard blight"
    assert not usual["text"].str.contains(topic, case=False).any()
    assert drifted["text"].str.contains(topic, case=False).mean() > 0.04
    changed = frame(4000, drift=Drift(topics=1.0))["text"]
    heads = "vaccine|parliament|inflation|playground|marathon|museum|monsoon"
    assert usual["text"].str.contains(heads, case=False).any()
    assert not changed.str.contains(heads, case=False).any()


def test_rate_drift_moves_the_rate_and_no_class():
    usual, drifted = frame(20_000), frame(20_000, drift=Drift(positive_rate=0.6))
    assert abs(is_fake(drifted).mean() - 0.6) < 0.02
    for label in ("fake", "real"):
        shares = [
            made["text"][made["label"] == label].str.contains("!").mean()
            for made in (usual, drifted)
        ]
        assert abs(shares[0] - shares[1]) < 0.03


def test_rule_drift_moves_labels_only_and_hurts_a_fitted_model(tfidf):
    usual = frame(4000, seed=5)
    scores = [precision(tfidf, usual)]
    for rule in (0.25, 0.5, 1.0):
        drifted = frame(4000, seed=5, drift=Drift(rule=rule))
        assert drifted["text"].equals(usual["text"])
        assert abs(is_fake(drifted).mean() - is_fake(usual).mean()) < 0.02
        scores.append(precision(tfidf, drifted))
    assert scores[0] - scores[1] > 0.05
    assert scores[1] - scores[2] > 0.05
    assert scores[3] < 0.25


def test_all_bad_arguments_are_named_at_the_call():
    with pytest.raises(ConfigError) as caught:
        generate(
            0,
            seed=-1,
            positive_rate=1.0,
            label_noise=0.03,
            drift=Drift(topics=1.5, positive_rate=float("nan"), rule=-0.1),
            chunk_rows=0,
        )
    faults = caught.value.faults
    for name in ("rows", "chunk_rows", "seed", "positive_rate", "drift positive_rate"):
        assert sum(fault.startswith(f"{name} is") for fault in faults) == 1
    assert [fault.split(" is")[0] for fault in faults[-2:]] == ["drift topics", "drift rule"]
    assert len(faults) == 7


@pytest.mark.parametrize("rows", [True, 10.0, "10", None])
def test_rows_must_be_a_whole_number(rows):
    with pytest.raises(ConfigError, match="rows is"):
        generate(rows)


def test_rates_must_be_numbers():
    with pytest.raises(ConfigError) as caught:
        generate(5, positive_rate="0.3", drift=Drift(topics="much"))
    assert [fault.split(" is")[0] for fault in caught.value.faults] == [
        "positive_rate",
        "drift topics",
    ]


@pytest.mark.parametrize("label_noise", [-0.1, 0.5, float("nan")])
def test_noise_has_a_limit(label_noise):
    with pytest.raises(ConfigError, match=r"with a share of 0\.3 fake it must be 0 to 0\.42"):
        generate(10, label_noise=label_noise)


def test_write_streams_the_same_rows_to_both_formats(tmp_path):
    csv = write(tmp_path / "new" / "folder" / "a.csv", rows=5000, seed=7)
    parquet = write(tmp_path / "a.parquet", rows=5000, seed=7)
    expected = frame(5000, seed=7)
    pd.testing.assert_frame_equal(pd.read_csv(csv), expected, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), expected, check_dtype=False)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.parquet"]


def test_write_keeps_to_the_umask(tmp_path):
    path = write(tmp_path / "a.csv", rows=1)
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_write_refuses_other_endings(tmp_path):
    with pytest.raises(ConfigError, match=r"a\.txt: a sample is written as \.csv or"):
        write(tmp_path / "a.txt", rows=5)
    assert not list(tmp_path.iterdir())


def test_write_under_a_file_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(DataError, match=r"a\.csv: the sample cannot be written"):
        write(tmp_path / "file" / "a.csv", rows=5)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_write_to_a_locked_folder_is_a_data_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="cannot be written"):
        write(tmp_path / "a.csv", rows=5)


def test_full_disk_leaves_nothing(tmp_path):
    """A limit on the file size stands in for the disk: the system refuses the bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(DataError, match="cannot be written"):
            write(tmp_path / "a.csv", rows=5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_interrupted_write_leaves_nothing_and_keeps_the_old_file(tmp_path):
    old = tmp_path / "a.csv"
    old.write_text("old")
    code = f"""
import signal
from pathlib import Path
from fakenews.data.sample import write
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.5)
try:
    write(Path({str(old)!r}), rows=50_000_000)
except KeyboardInterrupt:
    print([path.name for path in Path({str(tmp_path)!r}).iterdir()])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert ast.literal_eval(done.stdout) == ["a.csv"]
    assert old.read_text() == "old"


def test_generation_streams():
    chunks = list(islice(generate(10_000_000, chunk_rows=2000), 3))
    assert [len(chunk) for chunk in chunks] == [2000] * 3


def test_fetch_returns_the_packaged_file_for_its_arguments(tmp_path):
    arguments = {name: value for name, value in PACKAGED.items() if name != "drift"}
    assert fetch(**arguments, cache_dir=tmp_path / "cache") == [sample.PACKAGED]
    assert not list(tmp_path.iterdir())


def test_fetch_makes_a_file_once(tmp_path):
    (first,) = fetch(**SMALL, cache_dir=tmp_path)
    before = first.stat().st_mtime_ns
    assert fetch(**SMALL, cache_dir=tmp_path) == [first]
    assert first.stat().st_mtime_ns == before
    expected = frame(50, seed=3)
    pd.testing.assert_frame_equal(pd.read_parquet(first), expected, check_dtype=False)


def test_fetch_makes_a_damaged_file_again(tmp_path):
    (path,) = fetch(**SMALL, cache_dir=tmp_path)
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        assert fetch(**SMALL, cache_dir=tmp_path) == [path]
        assert path.read_bytes() == whole


def test_fetch_names_a_file_for_every_argument(tmp_path):
    changes = [{}, {"rows": 51}, {"seed": 4}, {"positive_rate": 0.4}, {"label_noise": 0.0}]
    changes += [{"drift_topics": 0.5}, {"drift_positive_rate": 0.5}, {"drift_rule": 0.5}]
    paths = [fetch(**SMALL | change, cache_dir=tmp_path)[0] for change in changes]
    assert len(set(paths)) == len(changes)
    assert pd.read_parquet(paths[1]).shape == (51, 2)


def test_fetch_reports_bad_arguments_before_any_work(tmp_path):
    with pytest.raises(ConfigError) as caught:
        fetch(**SMALL | {"rows": 0}, drift_rule=2, cache_dir=tmp_path / "cache")
    assert len(caught.value.faults) == 2
    assert not list(tmp_path.iterdir())
