"""Two processes as one run."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient

from fakenews.bundle import sha256
from fakenews.predictor import Predictor
from fixtures.commands import Commands

pytestmark = [
    pytest.mark.slow,
    # MLflow's own use of its database library.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]

ROOT = Path(__file__).resolve().parents[2]


def launch(
    command: Commands, root: Path, *overrides: str, ranks: int = 2
) -> subprocess.CompletedProcess[str]:
    """Run `train.py` under torchrun."""
    return subprocess.run(
        [
            command.python,
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
    command: Commands, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    root = tmp_path_factory.mktemp("ddp")
    found = launch(command, root)
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


def test_a_run_is_resumed_by_all_ranks_to_the_same_weights(
    command: Commands, done: Done, tmp_path: Path
):
    stopped = launch(command, tmp_path, "trainer.max_time=00:00:00:00")
    assert stopped.returncode != 0
    assert "trainer.max_time is over: saved step 1" in stopped.stderr
    assert json.loads((only_run(tmp_path) / "run.json").read_text())["state"] == "interrupted"
    resumed = launch(command, tmp_path, "resume=auto")
    assert resumed.returncode == 0, resumed.stderr
    weights = [
        sha256(only_run(root) / "bundle/weights.safetensors") for root in (done[0], tmp_path)
    ]
    assert weights[0] == weights[1]


def test_the_ranks_agree_on_the_largest_batch(command: Commands, tmp_path: Path):
    found = launch(command, tmp_path, "find_batch_size=24", "logger=none", "register=null")
    assert found.returncode == 0, found.stderr
    assert (found.stdout + found.stderr).count("loader.batch_size=24") == 1
    checkpoint = torch.load(only_run(tmp_path) / "checkpoints/last.ckpt", weights_only=True)
    # 240 training rows in batches of 24, two at a time.
    assert checkpoint["global_step"] == 2 * 5


def test_what_one_rank_cannot_hold_is_too_large_for_all(command: Commands):
    settings = {"limit": 400, "limited_rank": 1, "guarded": False}
    script = ROOT / "tests" / "training" / "batch_size_search.py"
    found = subprocess.run(
        [
            *(command.python, "-m", "torch.distributed.run", "--standalone"),
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


def test_a_mistake_ends_all_ranks(command: Commands, tmp_path: Path):
    found = launch(command, tmp_path, "loader.batch_size=5000", "logger=none", "register=null")
    assert found.returncode != 0
    assert "loader.batch_size=5000 is more than" in found.stderr


# Two ranks have a batch each of other weights, or one has none left; the step is that of one
# process on all rows.
WEIGHTED = """
import sys
from functools import partial

import lightning as L
import torch
from torch.utils.data import DataLoader

from fakenews.models.classifier import Batch, Classifier
from fakenews.models.networks import TabularNet
from fakenews.models.schedules import warmup_then


def batch(rows, weights):
    generator = torch.Generator().manual_seed(rows)
    empty = torch.zeros(rows, 0, dtype=torch.long)
    return Batch(
        rows=torch.arange(rows),
        input_ids=empty,
        attention_mask=empty,
        tabular=torch.randn(rows, 4, generator=generator),
        labels=torch.arange(rows) % 2,
        weights=torch.tensor(weights, dtype=torch.float64),
    )


def main(ranks, out):
    parts = [batch(3, [1, 0, 5]), batch(5, [0.1, 0.2, 0.3, 0.4, 9])]
    last = batch(2, [2, 3])
    blank = batch(1, [0])._replace(rows=torch.tensor([-1]))
    whole = Batch(*(torch.cat(pair) for pair in zip(*parts, strict=True)))
    content = [*parts, last, blank] if ranks == 2 else [whole, last]
    torch.manual_seed(0)
    model = Classifier(
        network=partial(TabularNet, dropout=0.0),
        encoder=None,
        tabular_dim=4,
        classes=["fake", "real"],
        positive="fake",
        class_counts={"fake": 10, "real": 10},
        optimizer=partial(torch.optim.SGD, lr=0.5),
        scheduler=warmup_then,
    )
    sampler = range(L.fabric.utilities.rank_zero.rank_zero_only.rank or 0, len(content), ranks)
    L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(model, DataLoader([content[n] for n in sampler], batch_size=None))
    if L.fabric.utilities.rank_zero.rank_zero_only.rank == 0:
        torch.save(model.network.state_dict(), out)


main(int(sys.argv[1]), sys.argv[2])
"""


def test_weights_are_relative_to_those_of_all_ranks(command: Commands, tmp_path: Path):
    script = tmp_path / "weighted.py"
    script.write_text(WEIGHTED)
    found = []
    for ranks in (1, 2):
        out = tmp_path / f"{ranks}.pt"
        start = [command.python, "-m", "torch.distributed.run", "--standalone"]
        subprocess.run(
            [*start, f"--nproc-per-node={ranks}", str(script), str(ranks), str(out)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=True,
            timeout=300,
        )
        found.append(torch.load(out, weights_only=True))
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, rtol=1e-5, atol=1e-6, msg=name)
