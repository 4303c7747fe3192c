"""Streaming from a bucket whose server dies in the middle of an epoch."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakenews.data.prepared import PreparedDataset, load
from fakenews.data.storage import Storage
from fakenews.errors import DataError
from fakenews.training.streaming import StreamingDataModule
from fixtures.s3 import make_bucket

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of an S3 server, and its process."""
    log = tmp_path / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield found[0], process
    finally:
        process.kill()
        process.wait()


def test_an_epoch_ends_with_one_line_and_no_thread(
    write_prepared: Callable[..., PreparedDataset],
    server: tuple[str, subprocess.Popen[bytes]],
    tmp_path: Path,
):
    address, process = server
    options: dict[str, Any] = {"endpoint_url": address, "key": "test", "secret": "hidden-one"}
    make_bucket(address, "news")
    bucket = Storage("s3://news/prepared", options=options)
    local = write_prepared(tmp_path / "data", shard_groups=[(20,)] * 60)
    for path in local.storage.list():
        bucket.publish(tmp_path / "data" / path, path)
    module = StreamingDataModule(
        dataset=load(path="s3://news/prepared", storage_options=options),
        features=None,
        pretrained=None,
        batch_size=4,
        window_rows=40,
        num_workers=2,
    )
    module.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=0, world_size=1, overfit_batches=0
    )
    batches = iter(module.train_dataloader())
    next(batches)
    process.kill()
    process.wait()
    with pytest.raises(DataError) as raised:
        list(batches)
    message = str(raised.value)
    assert re.search(r"s3://news/prepared/train/\d+\.parquet: .*resume=auto continues", message)
    assert "\n" not in message
    assert "hidden-one" not in message
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("stream", "read_"))]
