"""A verdict as metrics, in a file and at an address."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fakenews.errors import MonitoringError
from fakenews.monitoring.metrics import LEVELS, TEXTFILE, Metrics
from fakenews.monitoring.verdict import Check, Kind, State, Verdict

MakeVerdict = Callable[..., Verdict]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name.removeprefix("fakenews_monitor_"), frozenset(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset({"model": "fakenews", **labels}.items())


def test_every_state_has_a_level_from_good_to_bad() -> None:
    assert list(LEVELS) == list(State)
    assert list(LEVELS.values()) == sorted(LEVELS.values())


def test_a_verdict_in_numbers(make_verdict: MakeVerdict) -> None:
    metrics = Metrics(model="fakenews")
    verdict = make_verdict(0, a=State.ALARM)
    added = Check(
        key="b", kind=Kind.DECAY, state=State.UNKNOWN, message="", value=math.nan, effect=0.5
    )
    metrics.judged(replace(verdict, checks=(*verdict.checks, added)))
    time = verdict.checked_at.timestamp()
    assert samples(metrics.render().decode()) == {
        of("last_run_timestamp_seconds"): time,
        of("last_success_timestamp_seconds"): time,
        of("info", model_version="1a2b"): 1,
        of("window_rows"): 1200,
        of("window_labelled"): 30,
        of("state", check="a", kind="drift"): 3,
        of("state", check="b", kind="decay"): 2,
        of("value", check="a", kind="drift"): 0.25,
        of("threshold", check="a", kind="drift"): 0.1,
        of("p_value", check="a", kind="drift"): 0.001,
        of("effect", check="a", kind="drift"): 1.5,
        of("effect", check="b", kind="decay"): 0.5,
    }


def test_what_was_judged_before_is_not_shown_any_more(make_verdict: MakeVerdict) -> None:
    metrics = Metrics(model="fakenews")
    metrics.judged(make_verdict(0, a=State.ALARM))
    metrics.judged(replace(make_verdict(1, b=State.OK), window=None))
    found = samples(metrics.render().decode())
    assert of("state", check="b", kind="drift") in found
    assert not [name for name, labels in found if ("check", "a") in labels]
    assert of("window_rows") not in found


def test_a_run_that_failed_leaves_the_verdict_and_says_when(make_verdict: MakeVerdict) -> None:
    metrics = Metrics(model="fakenews")
    assert samples(metrics.render().decode()) == {}
    verdict = make_verdict(0, a=State.ALARM)
    later = verdict.checked_at + timedelta(hours=1)
    metrics.failed(verdict.checked_at)
    assert list(samples(metrics.render().decode())) == [of("last_run_timestamp_seconds")]
    metrics.judged(verdict)
    metrics.failed(later)
    found = samples(metrics.render().decode())
    assert found[of("last_run_timestamp_seconds")] == later.timestamp()
    assert found[of("last_success_timestamp_seconds")] == verdict.checked_at.timestamp()
    assert found[of("state", check="a", kind="drift")] == 3


def test_the_file_of_node_exporter_keeps_the_verdict_over_failed_runs(
    make_verdict: MakeVerdict, tmp_path: Path
) -> None:
    path = tmp_path / "text" / TEXTFILE
    verdict = make_verdict(0, a=State.ALARM)
    later = verdict.checked_at + timedelta(hours=1)
    metrics = Metrics(model="fakenews")
    metrics.failed(verdict.checked_at)
    metrics.write(path.parent)
    assert list(samples(path.read_text())) == [of("last_run_timestamp_seconds")]
    metrics.judged(verdict)
    metrics.write(path.parent)
    whole = samples(path.read_text())
    # Another process, as each run of cron is one.
    metrics = Metrics(model="fakenews")
    metrics.failed(later)
    metrics.write(path.parent)
    found = samples(path.read_text())
    assert found == {**whole, of("last_run_timestamp_seconds"): later.timestamp()}
    assert [file.name for file in path.parent.iterdir()] == [TEXTFILE]
    assert path.stat().st_mode & 0o444 == 0o444, "another user reads it"


def test_a_file_that_cannot_be_written(make_verdict: MakeVerdict, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    metrics = Metrics(model="fakenews")
    metrics.judged(make_verdict(0, a=State.OK))
    with pytest.raises(
        MonitoringError, match=r"^the metrics cannot be written: .*not a folder"
    ):
        metrics.write(tmp_path / "file")


def test_prometheus_is_answered_as_long_as_the_block_runs(make_verdict: MakeVerdict) -> None:
    metrics = Metrics(model="fakenews")
    with metrics.serve("127.0.0.1", 0) as address:
        assert httpx.get(address).text == ""
        metrics.judged(make_verdict(0, a=State.OK))
        answer = httpx.get(address)
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert samples(answer.text)[of("state", check="a", kind="drift")] == 0
        port = int(address.rpartition(":")[2].partition("/")[0])
        with (
            pytest.raises(
                MonitoringError, match=f"at 127.0.0.1:{port}: Address already in use"
            ),
            metrics.serve("127.0.0.1", port),
        ):
            pass
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid"])
def test_an_address_that_is_none_of_this_machine(host: str) -> None:
    with (
        pytest.raises(MonitoringError, match=f"cannot be served at {host}:0: "),
        Metrics(model="fakenews").serve(host, 0),
    ):
        pass
