"""Token ids of texts: computed once, kept flat, padded batch by batch.

A million headlines are two arrays here, not a million lists: that is what makes
sorting by length, cutting batches and caching cheap.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from fakenews.errors import BundleError, FeatureError
from fakenews.features.cache import read_arrays, write_arrays

# N texts, B texts of a batch, T tokens of the longest

# Encodings are large Python objects; this many at a time is fast and stays small.
_TEXTS_PER_CALL = 2048


@dataclass(frozen=True, eq=False, kw_only=True)
class Tokens:
    """The token ids of N texts, laid end to end.

    Attributes:
        input_ids: int32 [total], special tokens included.
        offsets: int64 [N + 1]; text i is `input_ids[offsets[i]:offsets[i + 1]]`.
        truncated: bool [N], True where the text did not fit.
    """

    input_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    truncated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.truncated)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 [N]."""
        return np.diff(self.offsets)

    def take(self, indices: NDArray[np.int64] | Sequence[int]) -> "Tokens":
        """The texts at these indices, in that order; indices may repeat.

        Raises:
            IndexError: An index is not one of a text.
        """
        rows = np.asarray(indices, dtype=np.int64)
        lengths = self.lengths[rows]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        # Every token's place in the source: its text's start there, less its start here.
        shift = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Tokens(
            input_ids=self.input_ids[shift + np.arange(offsets[-1])],
            offsets=offsets,
            truncated=self.truncated[rows],
        )


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.json` file.

    Raises:
        FeatureError: The file is missing, unreadable or no tokenizer.
    """
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises bare Exception
        raise FeatureError(
            f"{path}: not a readable tokenizer file ({error}); "
            "fetch the encoder's tokenizer.json again"
        ) from error


def bundled_tokenizer(content: str | None) -> Tokenizer | None:
    """The tokenizer of a bundle, which truncates.

    Args:
        content: Of its `tokenizer.json`; None where it has none.

    Raises:
        BundleError: It is no tokenizer, or truncates nothing.
    """
    if content is None:
        return None
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # tokenizers raises bare Exception
        raise BundleError(f"tokenizer.json is not a readable tokenizer ({error})") from error
    if tokenizer.truncation is None:
        raise BundleError("tokenizer.json sets no truncation, so no longest text")
    return tokenizer


def tokenize(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    cache_dir: Path | None = None,
    progress: bool = False,
) -> Tokens:
    """Token ids of each text, cut to `max_length` with the special tokens kept.

    Args:
        texts: Any strings, none included; lone surrogates count as question marks.
        tokenizer: Its truncation and padding are set to what this needs, and stay so.
        max_length: Most tokens of a text, special tokens included.
        cache_dir: Where the result is kept, under the hash of texts and tokenizer; a
            damaged file is made anew, an unwritable folder is only logged.
        progress: Show a bar when it takes longer than a second.

    Raises:
        FeatureError: `max_length` leaves no room beside the special tokens.
    """
    _configure(tokenizer, max_length)
    if cache_dir is None:
        return _encode(texts, tokenizer, progress=progress)
    path = cache_dir / f"tokens-{_content_hash(texts, tokenizer)}.npz"
    arrays = read_arrays(path, ("input_ids", "offsets", "truncated"))
    if arrays is not None:
        tokens = Tokens(**arrays)
        if _is_sound(tokens, len(texts)):
            return tokens
    tokens = _encode(texts, tokenizer, progress=progress)
    write_arrays(path, vars(tokens))
    return tokens


def pad(
    tokens: Tokens,
    rows: NDArray[np.int64] | Sequence[int],
    pad_id: int,
    multiple_of: int = 1,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One batch, padded on the right to its own longest text.

    Args:
        tokens: All texts.
        rows: Those of the batch, [B].
        pad_id: Token id of the padding.
        multiple_of: T is rounded up to a multiple of this.

    Returns:
        `input_ids` and `attention_mask` (1 token, 0 padding), both [B, T], T at least 1.
    """
    batch = tokens.take(rows)
    lengths = batch.lengths
    longest = max(int(lengths.max(initial=0)), 1)
    width = -(-longest // multiple_of) * multiple_of
    mask = np.arange(width) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_id, dtype=np.int64)
    # A mask assigns in row order, which is the order of the flat ids.
    input_ids[mask] = batch.input_ids
    return input_ids, mask.astype(np.int64)


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """The token id of what a tokenizer does not know; None if it knows everything."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:  # Unigram
        return int(model["unk_id"])
    token = model.get("unk_token")
    return None if token is None else tokenizer.token_to_id(token)


def unknown_counts(tokens: Tokens, unknown: int | None) -> NDArray[np.int64]:
    """Unknown tokens of each text, int64 [N].

    Args:
        tokens: All texts.
        unknown: See `unknown_id`.
    """
    # Differences of a running sum: a text may be empty, which `reduceat` does not know.
    found = np.concatenate(([0], np.cumsum(tokens.input_ids == unknown)))
    counts: NDArray[np.int64] = np.diff(found[tokens.offsets])
    return counts


def without_surrogates(text: str) -> str:
    """The text, lone surrogates (which UTF-8 cannot express) replaced by `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _configure(tokenizer: Tokenizer, max_length: int) -> None:
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    if max_length <= special:
        raise FeatureError(
            f"max_length={max_length} leaves no room for text beside the tokenizer's "
            f"{special} special tokens; set at least {special + 1}"
        )
    # Set only when it differs: a serving process tokenises from several threads.
    if tokenizer.padding is not None:
        tokenizer.no_padding()
    truncation = {
        "max_length": max_length,
        "stride": 0,
        "strategy": "longest_first",
        "direction": "right",
    }
    if tokenizer.truncation != truncation:
        tokenizer.enable_truncation(max_length)


def _encode(texts: Sequence[str], tokenizer: Tokenizer, *, progress: bool) -> Tokens:
    ids: list[NDArray[np.int32]] = [np.zeros(0, dtype=np.int32)]
    lengths = np.zeros(len(texts), dtype=np.int64)
    truncated = np.zeros(len(texts), dtype=np.bool_)
    with tqdm(
        total=len(texts), desc="Tokenising", unit="text", disable=not progress, delay=1
    ) as bar:
        for start in range(0, len(texts), _TEXTS_PER_CALL):
            part = [without_surrogates(t) for t in texts[start : start + _TEXTS_PER_CALL]]
            encodings = tokenizer.encode_batch_fast(part)
            rows = slice(start, start + len(part))
            lengths[rows] = [len(encoding) for encoding in encodings]
            truncated[rows] = [bool(encoding.overflowing) for encoding in encodings]
            ids.append(
                np.fromiter(
                    chain.from_iterable(encoding.ids for encoding in encodings),
                    dtype=np.int32,
                    count=int(lengths[rows].sum()),
                )
            )
            bar.update(len(part))
    return Tokens(
        input_ids=np.concatenate(ids),
        offsets=np.concatenate(([0], np.cumsum(lengths))),
        truncated=truncated,
    )


def _content_hash(texts: Iterable[str], tokenizer: Tokenizer) -> str:
    # The tokenizer's JSON holds its truncation, hence max_length.
    digest = hashlib.blake2b(tokenizer.to_str().encode(), digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def _is_sound(tokens: Tokens, count: int) -> bool:
    """Whether arrays of a cache file fit each other and the number of texts."""
    return (
        tokens.input_ids.dtype == np.int32
        and tokens.offsets.dtype == np.int64
        and tokens.truncated.dtype == np.bool_
        and tokens.truncated.shape == (count,)
        and tokens.offsets.shape == (count + 1,)
        and tokens.offsets[0] == 0
        and bool((np.diff(tokens.offsets) >= 0).all())
        and tokens.input_ids.shape == (int(tokens.offsets[-1]),)
    )
