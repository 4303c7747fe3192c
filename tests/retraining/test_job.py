"""The command, as far as no training is needed: decisions, what is told, what is refused."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from fakenews.errors import ConfigError, RetrainingError, TrackingError
from fakenews.monitoring.channels import Webhook
from fakenews.retraining.cycle import Cycle, Outcome
from fakenews.retraining.decision import Policy
from fakenews.retraining.job import retrain
from fakenews.retraining.setting import Commands, Trial
from fakenews.retraining.source import DataSource

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader")

Retrain = Callable[..., Outcome]


@pytest.fixture(scope="module")
def store(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with `news`, whose version 1 is of a finished run, and the champion."""
    folder = tmp_path_factory.mktemp("store")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("e", artifact_location=str(folder / "artifacts"))
    run = client.create_run(experiment).info
    for name in ("config.yaml", "data.json"):
        client.log_artifact(run.run_id, str(tiny_run / name))
    client.log_artifacts(run.run_id, str(tiny_run / "bundle"), "bundle")
    client.create_registered_model("news")
    client.create_model_version("news", f"{run.artifact_uri}/bundle", run.run_id)
    client.set_registered_model_alias("news", "champion", "1")
    return folder / "mlflow.db"


@pytest.fixture
def uri(store: Path, tmp_path: Path) -> str:
    """A copy of the store."""
    shutil.copy(store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def again(uri: str, tmp_path: Path) -> Retrain:
    def call(**changed: Any) -> Outcome:
        values: dict[str, Any] = {
            "name": "news",
            "cycles": str(tmp_path / "retraining"),
            "tracking_uri": uri,
            "report": str(tmp_path / "verdict.json"),
            "datasets": str(tmp_path / "datasets"),
            "deployment": None,
            "policy": Policy(),
            "data": DataSource(),
            "commands": Commands(),
            "trial": Trial(),
            "root": str(tmp_path),
            "data_root": str(tmp_path),
            "cache": str(tmp_path / "cache"),
        }
        return retrain(**values | changed)

    return call


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a server that takes messages, and what it was sent."""
    told: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", told
    server.shutdown()
    server.server_close()
    thread.join()


def verdict(path: Path, state: str) -> None:
    check = {"key": "drift.text.tokens", "kind": "drift", "state": state, "message": "moved"}
    content = {
        "format": 1,
        "state": state,
        "checked_at": datetime.now(UTC).isoformat(),
        "checks": [check],
    }
    path.write_text(json.dumps(content))


def test_without_a_reason_the_cycle_ends_and_is_told_once(
    again: Retrain, webhook: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    address, told = webhook
    channels = {"webhook": Webhook(url=address)}
    assert again(cycle="one", alerts=channels) is Outcome.END
    assert again(cycle="one", alerts=channels) is Outcome.END
    (message,) = told
    assert message["model"] == "news"
    assert message["state"] == "ended"
    assert message["step"] == "decide"
    assert message["text"].startswith("news: do not retrain: there is no reason to")
    folder = tmp_path / "retraining" / "one"
    # The champion was copied, so that the cycle compares with it, whoever is champion later.
    assert (folder / "champion" / "bundle" / "manifest.json").is_file()
    assert json.loads((folder / "decide.json").read_text())["facts"]["champion"] == 1
    # The next is another one.
    assert again() is Outcome.END
    assert len(list((tmp_path / "retraining").iterdir())) == 2


def test_an_alarm_is_a_reason(again: Retrain, tmp_path: Path) -> None:
    verdict(tmp_path / "verdict.json", "alarm")
    assert again(step="alarm") is Outcome.NEXT
    policy = Policy(least_labels=0)
    assert again(step="decide", cycle="one", policy=policy) is Outcome.NEXT
    # A step that is done is not done again, whatever has changed since.
    verdict(tmp_path / "verdict.json", "ok")
    assert again(step="alarm") is Outcome.END
    assert again(step="decide", cycle="one", policy=policy) is Outcome.NEXT
    assert again(step="decide", cycle="two", policy=policy) is Outcome.END
    # What comes after an end is nothing.
    assert again(step="train", cycle="two", policy=policy) is Outcome.END


def test_a_step_whose_turn_it_is_not_is_named(again: Retrain, tmp_path: Path) -> None:
    with pytest.raises(
        RetrainingError, match=r"there is no cycle .*one: begin one by step=dec"
    ):
        again(step="gate", cycle="one")
    with pytest.raises(RetrainingError, match=r"no cycle of \S+ is open: begin one by"):
        again(step="gate")
    assert not (tmp_path / "retraining").exists()
    policy = Policy(least_labels=0)
    assert again(step="decide", cycle="one", policy=policy, reason="why not") is Outcome.NEXT
    with pytest.raises(RetrainingError, match="has not done step="):
        again(step="gate", cycle="one")


def test_who_asks_is_heard_by_a_cycle_that_was_begun_without_a_reason(
    again: Retrain, tmp_path: Path
) -> None:
    policy = Policy(least_labels=0)
    (tmp_path / "verdict.json").write_text("damaged")
    with pytest.raises(RetrainingError, match="is no verdict of the monitor"):
        again(step="all", policy=policy)
    (tmp_path / "verdict.json").unlink()
    assert again(step="decide", reason="I want it", policy=policy) is Outcome.NEXT
    (folder,) = (tmp_path / "retraining").iterdir()
    assert json.loads((folder / "cycle.json").read_text())["reason"] == "I want it"


def test_who_asks_gets_another_cycle_than_one_that_ended(
    again: Retrain, tmp_path: Path
) -> None:
    policy = Policy(least_labels=0)
    assert again(step="decide", cycle="one", policy=policy) is Outcome.END
    assert again(step="decide", reason="I want it", policy=policy) is Outcome.NEXT
    assert len(list((tmp_path / "retraining").iterdir())) == 2


def test_a_bundle_that_is_damaged_in_the_store_is_told_and_mended_there(
    again: Retrain, store: Path, tmp_path: Path
) -> None:
    (weights,) = store.parent.glob("artifacts/*/artifacts/bundle/weights.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    said = r"champion, run \w+, is damaged in the MLflow store .*weights.*: restore it there"
    with pytest.raises(RetrainingError, match=said):
        again(cycle="one")
    folder = tmp_path / "retraining" / "one"
    assert not (folder / "champion").exists()
    assert not (folder / ".champion").exists()
    weights.write_bytes(whole)
    assert again(cycle="one") is Outcome.END


def test_a_failure_is_told_and_the_cycle_goes_on_later(
    again: Retrain, webhook: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    address, told = webhook
    channels = {"webhook": Webhook(url=address)}
    with pytest.raises(RetrainingError, match="there are no labelled rows"):
        again(reason="a try", alerts=channels)
    (message,) = told
    assert message["state"] == "failed"
    assert message["step"] == "prepare"
    assert "prepare: there are no labelled rows" in message["text"]
    (folder,) = (tmp_path / "retraining").iterdir()
    cycle = Cycle.begin(folder, name="news")
    assert "decide" in cycle
    assert "notify" not in cycle
    # Asked to tell how it has ended, it says that it has not.
    with pytest.raises(RetrainingError, match="has not ended: step=prepare failed"):
        again(step="notify", alerts=channels)
    assert told[-1]["state"] == "failed"


def test_who_cannot_be_told_is_an_error_and_told_again(again: Retrain, tmp_path: Path) -> None:
    nobody = {"webhook": Webhook(url="http://127.0.0.1:9/", pause=0.01)}
    with pytest.raises(RetrainingError, match="webhook: "):
        again(cycle="one", alerts=nobody)
    assert again(cycle="one") is Outcome.END
    assert (tmp_path / "retraining" / "one" / "notify.json").is_file()


def test_what_is_missing_is_named(again: Retrain, uri: str, tmp_path: Path) -> None:
    with pytest.raises(RetrainingError, match="name=other is not registered"):
        again(name="other")
    MlflowClient(uri).delete_registered_model_alias("news", "champion")
    with pytest.raises(RetrainingError, match=r"news has no champion .* promote a version"):
        again(cycle="none")
    with pytest.raises(TrackingError, match="there is no such file"):
        again(cycle="gone", tracking_uri=f"sqlite:///{tmp_path}/no.db")
    with pytest.raises(ConfigError, match="is no name"):
        again(cycle="../up")


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1', "\xff"])
def test_a_damaged_verdict_is_named(content: str, again: Retrain, tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text(content, encoding="latin-1")
    with pytest.raises(RetrainingError, match="is no verdict of the monitor"):
        again(cycle="one")
    with pytest.raises(RetrainingError, match="is no verdict of the monitor"):
        again(step="alarm")
