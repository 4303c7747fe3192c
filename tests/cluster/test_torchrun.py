"""Commands of torchrun."""

import pytest

from fakenews.cluster.job import Job
from fakenews.cluster.torchrun import Torchrun
from fakenews.errors import ConfigError

JOB = Job(name="news", run_id="mine", overrides=("seed=1",))


def test_several_machines_meet_under_the_name_of_the_run() -> None:
    plan = Torchrun(nodes=4, processes=2, endpoint="head:29400", id="mine").plan(JOB)
    assert "--nnodes=4 " in plan
    assert "--rdzv-backend=c10d " in plan
    assert "--rdzv-endpoint=head:29400 " in plan
    assert "--rdzv-id=mine " in plan
    assert "FAKENEWS_RUN_ID=mine " in plan


def test_machines_may_come_and_go() -> None:
    plan = Torchrun(nodes=4, min_nodes=2, endpoint="head:29400", id="mine").plan(JOB)
    assert "--nnodes=2:4 " in plan


@pytest.mark.parametrize(("address", "is_host"), [("10.0.0.1", 1), ("10.0.0.2", 0)])
def test_the_machine_that_keeps_the_rendezvous_knows_it(address: str, is_host: int) -> None:
    plan = Torchrun(nodes=2, endpoint="10.0.0.1:29400", id="a", local_address=address).plan(JOB)
    assert f"is_host={is_host} " in plan


def test_an_address_names_the_interface_that_ranks_use() -> None:
    plan = Torchrun(nodes=2, endpoint="h:1", id="a", local_address="127.0.0.1").plan(JOB)
    assert "GLOO_SOCKET_IFNAME=lo " in plan


def test_faults_are_said_together() -> None:
    with pytest.raises(ConfigError) as caught:
        Torchrun(nodes=2, min_nodes=3)
    assert len(caught.value.faults) == 3


def test_a_sweep_starts_its_own_processes() -> None:
    with pytest.raises(ConfigError, match=r"sweep\.workers=N"):
        Torchrun().plan(Job(name="news", run_id="a", overrides=(), sweep=True))
