import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from fakenews.errors import FeatureError
from fakenews.features.text import (
    Tokens,
    load_tokenizer,
    pad,
    tokenize,
    unknown_counts,
    unknown_id,
    without_surrogates,
)

TEXTS = ["Masks work.", "", "5G towers spread the virus 😷", "ماسكات تعمل", "x " * 50]
CLS, SEP, PAD = 101, 102, 0


def test_golden_ids(tokenizer):
    tokens = tokenize(["Masks work.", ""], tokenizer, max_length=16)
    assert tokens.input_ids.tolist() == [CLS, 15806, 2147, 1012, SEP, CLS, SEP]
    assert tokens.offsets.tolist() == [0, 5, 7]
    assert tokens.truncated.tolist() == [False, False]
    assert tokens.input_ids.dtype == np.int32
    assert tokens.offsets.dtype == np.int64


def test_truncation_keeps_the_special_tokens(tokenizer):
    tokens = tokenize(["word " * 50, "short"], tokenizer, max_length=8)
    assert tokens.lengths.tolist() == [8, 3]
    assert tokens.truncated.tolist() == [True, False]
    assert tokens.input_ids[[0, 7]].tolist() == [CLS, SEP]


def test_no_texts(tokenizer, tmp_path):
    for _ in range(2):  # computed, then from the cache
        tokens = tokenize([], tokenizer, max_length=8, cache_dir=tmp_path)
        assert len(tokens) == 0
        assert tokens.offsets.tolist() == [0]
        input_ids, mask = pad(tokens, [], PAD)
        assert input_ids.shape == mask.shape == (0, 1)


def test_more_texts_than_one_call_takes(tokenizer):
    texts = [f"headline {number}" for number in range(5000)]
    tokens = tokenize(texts, tokenizer, max_length=8)
    assert len(tokens) == 5000
    last = tokenize(texts[-1:], tokenizer, max_length=8)
    assert np.array_equal(tokens.take([4999]).input_ids, last.input_ids)


def test_huge_text(tokenizer):
    tokens = tokenize(["a b" * 33_334, "z" * 100_000], tokenizer, max_length=32)
    assert tokens.lengths.tolist() == [32, 3]  # one endless word is one unknown token
    assert tokens.truncated.tolist() == [True, False]


def test_max_length_without_room_for_text(tokenizer):
    with pytest.raises(FeatureError, match=r"max_length=2 .* at least 3"):
        tokenize(["a"], tokenizer, max_length=2)


def test_pad(tokenizer):
    tokens = tokenize(TEXTS, tokenizer, max_length=12)
    input_ids, mask = pad(tokens, [0, 1], PAD, multiple_of=4)
    assert input_ids.tolist() == [
        [CLS, 15806, 2147, 1012, SEP, PAD, PAD, PAD],
        [CLS, SEP, PAD, PAD, PAD, PAD, PAD, PAD],
    ]
    assert mask.tolist() == [[1] * 5 + [0] * 3, [1] * 2 + [0] * 6]
    assert input_ids.dtype == mask.dtype == np.int64
    assert pad(tokens, [1], PAD)[0].shape == (1, 2)


@given(st.lists(st.text(st.characters(), max_size=40), max_size=6), st.data())
def test_pad_gives_back_the_tokens_of_its_rows(tokenizer, texts, data):
    tokens = tokenize(texts, tokenizer, max_length=10)
    chosen = st.lists(st.integers(0, len(texts) - 1)) if texts else st.just([])
    rows = data.draw(chosen)
    input_ids, mask = pad(tokens, rows, PAD)
    taken = tokens.take(rows)
    for position, row in enumerate(rows):
        expected = tokens.input_ids[tokens.offsets[row] : tokens.offsets[row + 1]]
        assert np.array_equal(input_ids[position][mask[position] == 1], expected)
        assert (input_ids[position][mask[position] == 0] == PAD).all()
        span = slice(taken.offsets[position], taken.offsets[position + 1])
        assert np.array_equal(taken.input_ids[span], expected)


def test_take_refuses_a_row_that_is_not_there(tokenizer):
    with pytest.raises(IndexError):
        tokenize(["a"], tokenizer, max_length=4).take([1])


def equal(a: Tokens, b: Tokens) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_cache_is_read_and_keyed_by_content(tokenizer, tmp_path):
    first = tokenize(TEXTS, tokenizer, max_length=8, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    # A mark in the file shows that it, not the tokenizer, gave the second answer.
    np.savez(path, **{**vars(first), "truncated": ~first.truncated})
    again = tokenize(TEXTS, tokenizer, max_length=8, cache_dir=tmp_path)
    assert np.array_equal(again.truncated, ~first.truncated)
    tokenize(TEXTS, tokenizer, max_length=9, cache_dir=tmp_path)
    tokenize([*TEXTS[1:], TEXTS[0]], tokenizer, max_length=8, cache_dir=tmp_path)
    tokenize(["".join(TEXTS)], tokenizer, max_length=8, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "pickled", "misfit"])
def test_damaged_cache_is_noticed_and_remade(tokenizer, tmp_path, damage):
    first = tokenize(TEXTS, tokenizer, max_length=8, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        place = data.index(first.input_ids.tobytes()) + 4
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "pickled":
        np.savez(path, **{**vars(first), "input_ids": np.array([{}], dtype=object)})
    else:
        np.savez(path, **{**vars(first), "offsets": first.offsets[::-1]})
    assert equal(tokenize(TEXTS, tokenizer, max_length=8, cache_dir=tmp_path), first)
    with np.load(path, allow_pickle=False) as archive:
        assert np.array_equal(archive["offsets"], first.offsets)
        assert np.array_equal(archive["input_ids"], first.input_ids)


def test_unwritable_cache_folder_is_logged_only(tokenizer, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    tokens = tokenize(TEXTS, tokenizer, max_length=8, cache_dir=tmp_path / "file" / "cache")
    assert equal(tokens, tokenize(TEXTS, tokenizer, max_length=8))
    assert "cache not written" in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"version": "1.0"', b"\xff\xfe"])
def test_bad_tokenizer_file(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FeatureError, match=r"tokenizer\.json: not a readable tokenizer"):
        load_tokenizer(path)


def test_load_tokenizer_from_a_saved_one(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    loaded = tokenize(TEXTS, load_tokenizer(path), max_length=8)
    assert equal(loaded, tokenize(TEXTS, tokenizer, max_length=8))


def test_lone_surrogates_are_question_marks():
    assert without_surrogates("a\ud800é") == "a?é"
    assert without_surrogates("é😷") == "é😷"


def test_unknown_tokens_are_counted(tokenizer):
    unknown = unknown_id(tokenizer)
    assert unknown == tokenizer.token_to_id("[UNK]")
    tokens = tokenize(["rain", "🎉 rain 🎉", "", "🎉" * 3], tokenizer, max_length=16)
    assert unknown_counts(tokens, unknown).tolist() == [0, 2, 0, 1]
    assert unknown_counts(tokens, None).tolist() == [0] * 4
    assert unknown_counts(tokens.take([]), unknown).tolist() == []


def test_what_each_kind_of_tokenizer_does_not_know():
    known = {"b": 0, "a": 1}
    for model, expected in (
        (models.WordLevel(known, unk_token="a"), 1),  # noqa: S106 no password
        (models.Unigram([("a", -1.0), ("<unk>", -2.0)], unk_id=1), 1),
        (models.Unigram([("a", -1.0)]), None),
        (models.BPE({"a": 0}, []), None),
    ):
        assert unknown_id(Tokenizer(model)) == expected
