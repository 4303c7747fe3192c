"""Where work runs."""

import os
from collections.abc import Iterator

import pytest

from fakenews.errors import ConfigError, DataError
from fakenews.preparation.engines import LocalEngine, Settings, alone

# Workers are given functions of installed modules: they cannot import a test.


def _three(part: int) -> Iterator[int]:
    yield from range(part, part + 3)


def test_one_worker_is_this_process() -> None:
    engine = Settings(workers=1).start()
    assert list(engine.run([0, 10], _three, lambda task: task + os.getpid())) == [
        task + os.getpid() for task in (0, 1, 2, 10, 11, 12)
    ]


def test_several_workers_do_every_task_once() -> None:
    done = LocalEngine(workers=2).run(map(str, range(20)), alone, int)
    assert sorted(done) == list(range(20))


def test_an_error_of_a_task_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(LocalEngine(workers=2).run(["1", "x", "2"], alone, int))


def test_a_worker_that_dies_is_told() -> None:
    with pytest.raises(DataError, match=r"worker process died.*prepare\.workers=2"):
        list(LocalEngine(workers=2).run([3, 4], alone, os._exit))


def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    assert list(LocalEngine(workers=2).run(["1"], alone, int)) == [1]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "RAYON_NUM_THREADS" not in os.environ


@pytest.mark.slow
def test_no_ray_cluster_at_an_address() -> None:
    with pytest.raises(ConfigError, match=r"prepare\.address=127\.0\.0\.1:1: no Ray cluster"):
        Settings(engine="ray", address="127.0.0.1:1").start()
