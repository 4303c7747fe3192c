"""Of which checks people are told, and when."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fakenews.errors import ConfigError
from fakenews.monitoring.alerts import Notifier
from fakenews.monitoring.channels import Webhook
from fakenews.monitoring.verdict import State, Verdict

OK, WARNING, UNKNOWN, ALARM = State.OK, State.WARNING, State.UNKNOWN, State.ALARM

MakeVerdict = Callable[..., Verdict]


class Told:
    """The news of each message that a receiver has got."""

    def __init__(self, receiver: Any) -> None:
        self._receiver = receiver
        self._seen = 0

    def __call__(self) -> list[tuple[str, str]]:
        """Those since the last call; of one message at most."""
        new = self._receiver.got[self._seen :]
        self._seen += len(new)
        assert len(new) <= 1
        return [(news["what"], news["key"]) for message in new for news in message["news"]]


@pytest.fixture
def make(tmp_path: Path, receiver: Callable[[], Any]) -> Callable[..., Any]:
    """A notifier of webhooks, what is told by each, and the servers."""

    def made(*names: str, **options: Any) -> tuple[Notifier, list[Told], Mapping[str, Any]]:
        servers = {name: receiver() for name in names or ("webhook",)}
        notifier = Notifier(
            channels={
                name: Webhook(url=server.address, pause=0.01, timeout=2)
                for name, server in servers.items()
            },
            state=str(tmp_path / "alerts.json"),
            **options,
        )
        return notifier, [Told(server) for server in servers.values()], servers

    return made


def test_an_alarm_is_told_once_then_a_day_later_then_its_end(
    make: Callable[..., Any], make_verdict: MakeVerdict
) -> None:
    notifier, (told,), _ = make()
    timeline = [
        (0, OK, []),
        (1, WARNING, []),
        (2, ALARM, [("new", "a")]),
        (3, ALARM, []),
        (25, ALARM, []),
        (26, ALARM, [("still", "a")]),
        (27, WARNING, []),
        (28, ALARM, []),
        (29, OK, [("recovered", "a")]),
        (30, OK, []),
        (31, ALARM, [("new", "a")]),
    ]
    for hours, state, expected in timeline:
        assert notifier.notify(make_verdict(hours, a=state)) == []
        assert told() == expected, hours


def test_one_message_tells_all_that_is_new(
    make: Callable[..., Any], make_verdict: MakeVerdict
) -> None:
    notifier, (told,), servers = make()
    notifier.notify(make_verdict(0, a=ALARM, b=OK, c=ALARM))
    assert told() == [("new", "a"), ("new", "c")]
    notifier.notify(make_verdict(1, a=ALARM, b=ALARM, c=OK))
    assert told() == [("new", "b"), ("recovered", "c")]
    message = servers["webhook"].got[-1]
    assert message["others"] == ["a"]
    assert message["text"].startswith("fakenews: alarm: b; recovered: c\n")


def test_what_cannot_be_judged_is_told_when_it_lasts(
    make: Callable[..., Any], make_verdict: MakeVerdict
) -> None:
    notifier, (told,), _ = make(unknown_after=3)
    states = [UNKNOWN, UNKNOWN, OK, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, ALARM, UNKNOWN, OK]
    found = []
    for hours, state in enumerate(states):
        notifier.notify(make_verdict(hours, a=state))
        found.append([what for what, _ in told()])
    assert found == [[], [], [], [], [], ["new"], [], ["worse"], [], ["recovered"]]


def test_a_verdict_without_checks_is_no_silence(
    make: Callable[..., Any], make_verdict: MakeVerdict
) -> None:
    notifier, (told,), servers = make()
    notifier.notify(make_verdict(0, a=ALARM))
    assert told() == [("new", "a")]
    notifier.notify(make_verdict(1))
    assert told() == []
    notifier.notify(make_verdict(2))
    assert told() == [("new", "monitoring")]
    assert "cannot be judged: monitoring" in servers["webhook"].got[-1]["text"]
    # And nothing is known of what was wrong before.
    assert servers["webhook"].got[-1]["others"] == ["a"]
    notifier.notify(make_verdict(3, a=ALARM))
    assert told() == [("recovered", "monitoring")]


def test_a_check_that_is_no_more_is_told_once_and_forgotten(
    make: Callable[..., Any], make_verdict: MakeVerdict
) -> None:
    notifier, (told,), servers = make(repeat_hours=5)
    found = []
    for hours, states in enumerate([{"a": ALARM}, *[{"b": OK}] * 11]):
        notifier.notify(make_verdict(hours, **states))
        found += told()
    assert found == [("new", "a"), ("gone", "a")]
    assert servers["webhook"].got[-1]["news"][0]["state"] is None


def test_each_channel_fails_alone_and_gets_what_it_missed(
    make: Callable[..., Any], make_verdict: MakeVerdict
) -> None:
    notifier, (first, second), servers = make("first", "second")
    servers["first"].answers += [(400, {})] * 2
    (failure,) = notifier.notify(make_verdict(0, a=ALARM, b=ALARM))
    assert failure == "first: 127.0.0.1 answers with 400: check the address, and what it wants"
    assert second() == first() == [("new", "a"), ("new", "b")]
    # One has passed and was not told; that was told by the other.
    assert len(notifier.notify(make_verdict(1, a=ALARM, b=OK))) == 1
    assert second() == [("recovered", "b")]
    assert first() == [("new", "a"), ("recovered", "b")]
    assert notifier.notify(make_verdict(2, a=ALARM, b=OK)) == []
    assert second() == []
    assert first() == [("new", "a"), ("recovered", "b")]
    assert servers["first"].got[-1]["news"][0]["since"] == "2026-11-26T12:00:00+00:00"
    notifier.notify(make_verdict(3, a=ALARM, b=OK))
    assert first() == second() == []


def test_a_recovery_that_was_not_sent_is_sent_later(
    make: Callable[..., Any], make_verdict: MakeVerdict
) -> None:
    notifier, (told,), servers = make()
    notifier.notify(make_verdict(0, a=ALARM))
    told()
    servers["webhook"].answers.append((400, {}))
    assert len(notifier.notify(make_verdict(1, a=OK))) == 1
    assert told() == [("recovered", "a")]
    assert notifier.notify(make_verdict(2, a=OK)) == []
    assert told() == [("recovered", "a")]


def test_a_bug_in_one_channel_is_no_silence_of_the_others(
    make_verdict: MakeVerdict, tmp_path: Path, receiver: Callable[[], Any]
) -> None:
    server = receiver()
    channels = {"broken": object(), "webhook": Webhook(url=server.address)}
    notifier = Notifier(channels=channels, state=str(tmp_path / "x.json"))
    (failure,) = notifier.notify(make_verdict(0, a=ALARM))
    assert failure == "broken: AttributeError, a bug: its traceback is in the log"
    assert len(server.got) == 1


def test_the_memory_outlives_the_process(
    make: Callable[..., Any], make_verdict: MakeVerdict
) -> None:
    first, (told,), servers = make()
    first.notify(make_verdict(0, a=ALARM))
    again = Notifier(channels=first._channels, state=f"{first._folder.url}/alerts.json")
    again.notify(make_verdict(1, a=ALARM))
    assert told() == [("new", "a")]
    assert len(servers["webhook"].got) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is damaged"),
        ('{"format": 1, "model": "fakenews", "told": {"web', "is damaged"),
        ('{"format": 2, "model": "fakenews"}', "is damaged"),
        ('{"format": 1, "model": "other"}', "is of the model other"),
    ],
)
def test_a_lost_memory_begins_anew_and_says_so(
    content: str,
    reason: str,
    make: Callable[..., Any],
    make_verdict: MakeVerdict,
    tmp_path: Path,
) -> None:
    notifier, (told,), servers = make()
    path = tmp_path / "alerts.json"
    path.write_text(content)
    assert notifier.notify(make_verdict(0, a=ALARM)) == []
    assert told() == [("new", "a")]
    (notice,) = servers["webhook"].got[0]["notices"]
    assert reason in notice
    assert notice in servers["webhook"].got[0]["text"]
    assert json.loads(path.read_text())["told"]["webhook"]["a"]["state"] == "alarm"
    notifier.notify(make_verdict(1, a=ALARM, b=ALARM))
    assert servers["webhook"].got[-1]["notices"] == []


def test_a_memory_that_cannot_be_kept_is_told_and_so_are_alarms(
    make: Callable[..., Any], make_verdict: MakeVerdict, tmp_path: Path
) -> None:
    notifier, (told,), _ = make()
    (tmp_path / "alerts.json").mkdir()
    (failure,) = notifier.notify(make_verdict(0, a=ALARM))
    assert failure.startswith("the record of alerts cannot be kept, they will be told again: ")
    assert "\n" not in failure
    assert told() == [("new", "a")]
    assert [path.name for path in tmp_path.iterdir()] == ["alerts.json"]


def test_a_clock_that_was_wrong_does_not_silence_for_long(
    make: Callable[..., Any], make_verdict: MakeVerdict
) -> None:
    notifier, (told,), _ = make()
    notifier.notify(make_verdict(1000, a=ALARM))
    told()
    notifier.notify(make_verdict(0, a=ALARM))
    assert told() == [("still", "a")]
    notifier.notify(make_verdict(1, a=ALARM))
    assert told() == []


def test_nobody_to_tell_needs_no_memory(make_verdict: MakeVerdict, tmp_path: Path) -> None:
    notifier = Notifier(channels={}, state=str(tmp_path / "alerts.json"))
    assert notifier.notify(make_verdict(0, a=ALARM)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("state", ["", "folder/"])
def test_the_memory_is_a_file(state: str) -> None:
    with pytest.raises(ConfigError, match="give a file"):
        Notifier(channels={}, state=state)


def test_the_memory_may_be_in_an_object_store(
    make_verdict: MakeVerdict,
    s3_url: tuple[str, dict[str, Any]],
    receiver: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, options = s3_url
    monkeypatch.setenv("AWS_ENDPOINT_URL", options["endpoint_url"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    server = receiver()
    for hours in (0, 1):
        notifier = Notifier(
            channels={"webhook": Webhook(url=server.address)}, state=f"{url}/alerts.json"
        )
        assert notifier.notify(make_verdict(hours, a=ALARM)) == []
    assert len(server.got) == 1
