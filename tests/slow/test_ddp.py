"""Two processes as one run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient

from fakenews.bundle import sha256
from fakenews.predictor import Predictor

pytestmark = [
    pytest.mark.slow,
    # MLflow's own use of its database library.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]

ROOT = Path(__file__).resolve().parents[2]


def launch(root: Path, *overrides: str, ranks: int = 2) -> subprocess.CompletedProcess[str]:
    """Run `train.py` under torchrun."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={ranks}",
            str(ROOT / "train.py"),
            "name=run",
            "trainer=ddp",
            "trainer.accelerator=cpu",
            "data.fetch.rows=300",
            "encoder=tiny",
            "features=headline",
            "loader.batch_size=16",
            "trainer.max_epochs=2",
            "trainer.log_every_n_steps=1",
            "bootstrap=10",
            "register=run",
            f"paths.root={root}",
            f"paths.cache={root}/cache",
            *overrides,
        ],
        cwd=root,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def only_run(root: Path) -> Path:
    (folder,) = (root / "runs" / "run").iterdir()
    return folder


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    root = tmp_path_factory.mktemp("ddp")
    found = launch(root)
    assert found.returncode == 0, found.stderr
    return root, found


Done = tuple[Path, "subprocess.CompletedProcess[str]"]


def test_one_folder_one_record_one_voice(done: Done):
    root, output = done
    folder = only_run(root)
    assert json.loads((folder / "run.json").read_text())["state"] == "finished"
    assert output.stdout.count("exact duplicates") == 1
    assert (output.stdout + output.stderr).count("start with report.html") == 1
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'run'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    steps = [metric.step for metric in history]
    assert steps == sorted(set(steps))
    assert len(client.search_model_versions("name='run'")) == 1


def test_the_ranks_share_the_rows(done: Done):
    folder = only_run(done[0])
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    # 240 training rows in batches of 16, two at a time.
    assert checkpoint["global_step"] == 2 * 8
    assert Predictor.load(folder / "bundle").predict(["Some headline"])[0].error is None


def test_validation_is_that_of_one_process_with_the_same_weights(done: Done):
    folder = only_run(done[0])
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    (history,) = (v for k, v in checkpoint["callbacks"].items() if k.startswith("History"))
    best = max(row["val/average_precision"] for row in history["rows"])
    result = json.loads((folder / "result.json").read_text())
    assert result["metrics"]["val"]["average_precision"] == pytest.approx(best, abs=1e-4)


def test_a_run_is_resumed_by_all_ranks_to_the_same_weights(done: Done, tmp_path: Path):
    stopped = launch(tmp_path, "trainer.max_time=00:00:00:00")
    assert stopped.returncode != 0
    assert "trainer.max_time is over: saved step 1" in stopped.stderr
    assert json.loads((only_run(tmp_path) / "run.json").read_text())["state"] == "interrupted"
    resumed = launch(tmp_path, "resume=auto")
    assert resumed.returncode == 0, resumed.stderr
    weights = [
        sha256(only_run(root) / "bundle/weights.safetensors") for root in (done[0], tmp_path)
    ]
    assert weights[0] == weights[1]


def test_the_ranks_agree_on_the_largest_batch(tmp_path: Path):
    found = launch(tmp_path, "find_batch_size=24", "logger=none", "register=null")
    assert found.returncode == 0, found.stderr
    assert (found.stdout + found.stderr).count("loader.batch_size=24") == 1
    checkpoint = torch.load(only_run(tmp_path) / "checkpoints/last.ckpt", weights_only=True)
    # 240 training rows in batches of 24, two at a time.
    assert checkpoint["global_step"] == 2 * 5


def test_what_one_rank_cannot_hold_is_too_large_for_all():
    settings = {"limit": 400, "limited_rank": 1, "guarded": False}
    script = ROOT / "tests" / "training" / "batch_size_search.py"
    found = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node=2", str(script), json.dumps(settings)),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    lines = [line for line in found.stdout.splitlines() if line.startswith("{")]
    one, other = (json.loads(line)["found"] for line in lines)
    assert 1 <= one == other <= 40


def test_a_mistake_ends_all_ranks(tmp_path: Path):
    found = launch(tmp_path, "loader.batch_size=5000", "logger=none", "register=null")
    assert found.returncode != 0
    assert "loader.batch_size=5000 is more than" in found.stderr
