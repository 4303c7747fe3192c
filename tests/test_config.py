"""What a wrong configuration is told: all of it, before any work."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
from annotated_types import Gt
from omegaconf import DictConfig, OmegaConf, open_dict

from fakenews.config import (
    RUN_ID,
    check,
    closest,
    options_with,
    plain,
    register_resolvers,
    value_faults,
)
from fakenews.errors import ConfigError
from fakenews.rules import training_rules

CONF = Path(__file__).resolve().parents[1] / "conf"

Faults = Callable[..., list[str]]


@pytest.fixture
def faults(composed: Callable[..., DictConfig]) -> Faults:
    def find(*overrides: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            check(composed(*overrides), rules=training_rules)
        return list(caught.value.faults)

    return find


def test_the_default_has_no_fault(composed: Callable[..., DictConfig]) -> None:
    cfg = composed()
    check(cfg, rules=training_rules)
    assert plain(cfg)["features"]["numeric"] == []


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("+data.pth=x", "data.pth is not an option of fakenews.data.dataset.load: did you"),
        ("+model.network.hidden_sizes=3", "did you mean model.network.hidden_size?"),
        ("+encoder.zzz=1", "encoder.zzz is not an option of fakenews.models.encoder.packaged"),
        ("loader.batch_size=many", "loader.batch_size='many': it should be a valid integer"),
        ("trainer.max_epochs=true", "trainer.max_epochs=True: it should be a valid integer"),
        ("loader.batch_size='32'", "loader.batch_size='32': it should be a valid integer"),
        ("data.normalise=1.5", "data.normalise=1.5: it should be a valid boolean"),
        ("loader.batch_size=0", "loader.batch_size=0: it should be greater than or equal to 1"),
        ("data.val_size=1.0", "data.val_size=1.0: it should be less than 1"),
        ("data.near_duplicates=0", "data.near_duplicates=0: it should be greater than 0"),
        ("model.class_weights=some", "model.class_weights='some': it should be 'none',"),
        ("data=csv", "data.path is not set: give data.path=VALUE"),
        ("seed=-1", "seed=-1: it should be greater than or equal to 0"),
        ("seed=abc", "seed='abc': it should be a valid integer"),
        ("find_batch_size=-1", "find_batch_size=-1: it should be a valid boolean"),
        ("find_batch_size=big", "find_batch_size='big': it should be a valid boolean"),
        ("bootstrap=0", "bootstrap=0: it should be greater than or equal to 1"),
        ("test=perhaps", "test='perhaps': it should be a valid boolean"),
        ("mode=up", "mode='up': it should be 'min' or 'max'"),
        ("data.numeric=age", "data.numeric='age': "),
        ("optimizer.lr=fast", "optimizer.lr='fast': it should be a valid number"),
    ],
)  # fmt: skip
def test_wrong_option_is_one_fault_at_its_own_name(
    override: str, fault: str, faults: Faults
) -> None:
    (found,) = faults(override)
    assert fault in found
    assert "Tensor" not in found


def test_values_within_bounds_pass(composed: Callable[..., DictConfig]) -> None:
    cfg = composed(
        "optimizer.lr=1", "encoder.dropout=0.0", "data.path=[a.csv, b.csv]"
    )  # fmt: skip
    check(cfg)
    assert cfg.optimizer.lr == 1


def test_a_reference_to_what_is_gone_is_named(composed: Callable[..., DictConfig]) -> None:
    cfg = composed()
    with open_dict(cfg):
        del cfg.data["numeric"]
    with pytest.raises(ConfigError, match=r"features\.numeric: .*data\.numeric"):
        check(cfg)


def test_each_wrong_value_within_a_mapping_is_named() -> None:
    hints = {"margins": dict[str, Annotated[float, Gt(0)]] | None}
    given = {"margins": {"recall": 0.1, "f1": -1, "ap": []}}
    assert list(value_faults(given, hints, "policy.{}".format)) == [
        "policy.margins.f1=-1: it should be greater than 0",
        "policy.margins.ap=[]: it should be a valid number",
    ]
    (fault,) = value_faults({"margins": 3}, hints, "policy.{}".format)
    assert fault == "policy.margins=3: it should be a valid dictionary"


PREPARED = ("data=shards", "data.path=s3://bucket/data")


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ((*PREPARED, "model=tfidf"), "needs all training rows in memory: use data=csv"),
        ((*PREPARED, "loader=memory"), "data=shards is streamed: use loader=stream"),
        (("loader=stream",), "loader=stream reads a prepared dataset: use data=shards"),
        (
            (*PREPARED, "+data.storage_options={key: a, endpoint_url: b}"),
            "data.storage_options.key would be recorded: give credentials by the environment",
        ),
        (
            (*PREPARED, "data.verify=never"),
            "data.verify='never': it should be 'hash' or 'size'",
        ),
        ((*PREPARED, "loader.num_workers=0"), "loader.num_workers=0: it should be greater"),
        (
            (*PREPARED, "features=none", "data.numeric=[]", "data.categorical=[]"),
            "model=fusion reads tabular features and there are none",
        ),
    ],
)
def test_streaming_rules(overrides: tuple[str, ...], fault: str, faults: Faults) -> None:
    (found,) = faults(*overrides)
    assert fault in found


def test_columns_as_prepared_are_no_fault(composed: Callable[..., DictConfig]) -> None:
    check(composed(*PREPARED, "features=none"), rules=training_rules)


@pytest.mark.parametrize(
    "target", ["os.system", "subprocess.run", "fakenews.cli.os.system", "wave.open"]
)
def test_foreign_target_is_refused_without_importing_it(target: str, faults: Faults) -> None:
    sys.modules.pop("wave", None)
    (found,) = faults(f"data._target_={target}")
    assert found.startswith(f"data._target_={target} is not allowed")
    assert "wave" not in sys.modules


def test_target_that_does_not_exist_is_one_fault(faults: Faults) -> None:
    found = faults("model._target_=fakenews.models.classifier.Clasifier")
    assert len(found) == 1
    assert "cannot be imported" in found[0]
    assert "\n" not in found[0]


def test_target_in_a_list_is_checked(composed: Callable[..., DictConfig]) -> None:
    with pytest.raises(ConfigError, match=r"extra\[0\]\._target_=os.system is not allowed"):
        check(composed("+extra=[{_target_: os.system}]"))


def test_all_faults_of_nodes_are_reported_together(faults: Faults) -> None:
    found = faults("loader.batch_size=0", "+data.pth=x", "encoder=hub", "+model.network.sise=1")
    assert len(found) == 4
    assert "encoder.name is not set: give encoder.name=VALUE" in found


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["data.val_size=0.6", "data.test_size=0.5"], "leave nothing to train on"),
        (["data.folds=2", "data.val_size=0.5"], "data.folds=2 leave nothing to train on"),
        (["data.val_size=0"], "data.val_size=0: the best checkpoint"),
        (["data=csv", "data.path=x", "data.test_size=0"], "data.test_size=0 leaves no test"),
        (["data.folds=1"], "data.folds=1: at least 2 are needed"),
        (["data.folds=5", "data.fold=5"], "data.fold=5: it must be 0 to 4"),
        (["data.folds=5", "data.test_path=x.csv"], "exclude each other"),
        (["data.fold=2"], "data.fold=2 needs data.folds"),
        (["data.numeric=[text]"], "the column 'text' is used twice"),
        (["data=covid", "data.positive=yes_"], "data.positive=yes_ is not in data.label_names"),
        (["loader.batch_tokens=8"], "less than one text of encoder.max_length=128"),
        (["metric=val/macrof1"], "metric=val/macrof1 is unknown: choose val/macro_f1"),
        (["metric=accuracy"], "metric=accuracy is unknown: choose val/accuracy"),
        (["metric=val/log_loss"], "mode=max does not fit metric=val/log_loss"),
        (["mode=min"], "mode=min does not fit metric=val/average_precision"),
        (["features=none"], "model=fusion reads tabular features and there are none"),
        (["features=none", "model=seed"], "model=seed reads tabular features"),
        (["features=none", "model=tabular"], "model=tabular reads tabular features"),
        (["optimizer.lr=0"], "optimizer.lr=0: it must be above 0"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0: it must be at least 1"),
        (["trainer.max_epochs=null"], "trainer.max_epochs=None: it must be at least 1"),
        (["trainer.check_val_every_n_epoch=4"], "nothing would be validated"),
        (["trainer.limit_val_batches=0"], "trainer.limit_val_batches=0"),
        (["trainer.limit_train_batches=0"], "leaves nothing to train on"),
        (["+trainer.fast_dev_run=true"], "use debug=one_batch"),
        (["trainer.overfit_batches=2", "resume=auto"], "is for a new run: drop resume"),
        (["trainer.max_time=90m"], "trainer.max_time=90m: write DD:HH:MM:SS"),
        (["register=news", "logger=csv"], "register=news needs logger=mlflow"),
        (["find_batch_size=true", "model=tfidf"], "find_batch_size=true: a baseline has no"),
        (["find_batch_size=64", "loader.batch_tokens=4096"], "both say how large a batch may"),
        (["find_batch_size=64", "trainer=fsdp"], "does not go with trainer=fsdp, whose ranks"),
        (["find_batch_size=64", "trainer.devices=auto"], "needs trainer.devices=auto as a num"),
        (["name=a/b"], "name=a/b: use letters"),
        (["name=../up"], "name=../up: use letters"),
        (["~callbacks.best"], "callbacks.best is missing"),
        (["callbacks.stop=null"], "callbacks.stop is missing"),
        (["callbacks.early_stopping=null"], "remove a callback with ~callbacks.early_stopping"),
        (["callbacks.early_stopping.monitor=val/auc"], "monitor=val/auc is unknown"),
        (["callbacks.early_stopping.monitor=val/log_loss"], "does not fit its monitor"),
    ],
)  # fmt: skip
def test_contradiction_is_one_fault(overrides: list[str], fault: str, faults: Faults) -> None:
    (found,) = faults(*overrides)
    assert fault in found


def test_all_contradictions_are_reported_together(faults: Faults) -> None:
    found = faults(
        "data.val_size=0", "features=none", "mode=min", "name=a:b", "optimizer.lr=-1"
    )
    assert [fault.split("=")[0] for fault in found] == [
        "name", "mode", "data.val_size", "model", "optimizer.lr",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=tfidf", "features=none", "trainer.max_epochs=0", "loader.batch_tokens=8"],
        ["model=text", "features=none"],
        ["model=tabular", "loader.batch_tokens=8"],
        ["features=none", "data.categorical=[channel]"],
        ["metric=val/log_loss", "mode=min"],
        ["data.folds=5", "data.test_size=0", "data.fold=4"],
        ["data.val_size=0", "data.val_path=x.csv"],
        ["data.label_names={0: real, 1: fake}"],
        ["~callbacks.early_stopping", "logger=csv"],
        ["find_batch_size=true", "trainer=ddp", "trainer.devices=[1]"],
        ["find_batch_size=64", "model=tabular", "trainer=gpu"],
        ["trainer.max_time=00:00:10:00", "name=Überschrift-1.2"],
    ],
)
def test_what_fits_together_passes(
    overrides: list[str], composed: Callable[..., DictConfig]
) -> None:
    cfg = composed(*overrides)
    assert check(cfg, rules=training_rules) is None


def test_run_folder_has_the_name_and_is_shared_by_child_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(RUN_ID, raising=False)
    register_resolvers()
    cfg = OmegaConf.create({"dir": f"${{run_dir:{tmp_path},news,null}}"})
    folder = Path(cfg.dir)
    assert folder.parent == tmp_path / "news"
    monkeypatch.setenv(RUN_ID, "given")
    again = OmegaConf.create({"dir": f"${{run_dir:{tmp_path},news,null}}"})
    assert Path(again.dir) == tmp_path / "news" / "given"


def test_choices_that_have_an_option() -> None:
    assert options_with("logger.tracking_uri") == ["logger=mlflow"]
    assert options_with("data.evaluation_rows") == ["data=shards"]
    assert options_with("data.fetch.rows") == ["data=sample"]
    assert "data=covid" in options_with("data.near_duplicates")
    assert options_with("logger.nonsense") == options_with("nonsense") == []


def test_root_is_the_working_copy() -> None:
    register_resolvers()
    assert (Path(OmegaConf.create({"root": "${root:}"}).root) / "conf").samefile(CONF)


def test_closest_knows_a_slip_from_another_word() -> None:
    words = ["average_precision", "auroc"]
    assert closest("averge_precision", words) == "average_precision"
    assert closest("perplexity", words) is None
