"""Learning-rate schedules."""

import pytest
import torch

from fakenews.models.schedules import Shape, warmup_then


def rates(shape: Shape, *, total: int, warmup: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = warmup_then(optimizer, total_steps=total, warmup=warmup, shape=shape)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_it_rises_to_the_peak_and_the_first_step_is_not_lost():
    found = rates("linear", total=20, warmup=0.2)
    assert found[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert max(found) == found[4]


def test_linear_falls_evenly_and_the_last_step_still_counts():
    found = rates("linear", total=10, warmup=0.0)
    assert found == pytest.approx([2 * (1 - step / 10) for step in range(10)])


def test_cosine_is_half_way_down_in_the_middle():
    found = rates("cosine", total=10, warmup=0.0)
    assert found[5] == pytest.approx(1.0)
    assert found == sorted(found, reverse=True)


def test_constant_stays():
    assert rates("constant", total=6, warmup=0.5)[3:] == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("shape", ["linear", "cosine", "constant"])
def test_a_single_step_has_a_finite_rate(shape: Shape):
    assert rates(shape, total=1, warmup=0.9) == pytest.approx([1.0])


def test_its_position_comes_back_from_a_checkpoint():
    def make() -> tuple[torch.optim.SGD, torch.optim.lr_scheduler.LambdaLR]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return optimizer, warmup_then(optimizer, total_steps=10, warmup=0.3)

    first, schedule = make()
    for _ in range(6):
        first.step()
        schedule.step()
    second, resumed = make()
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    for optimizer, scheduler in ((first, schedule), (second, resumed)):
        optimizer.step()
        scheduler.step()
    assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"] == pytest.approx(3 / 7)
