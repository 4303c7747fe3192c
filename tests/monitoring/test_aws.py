"""SNS and CloudWatch, before a moto server, and without one that answers."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import boto3
import pytest

from fakenews.errors import ConfigError, MonitoringError
from fakenews.monitoring.aws import CloudWatch, Sns
from fakenews.monitoring.messages import Message
from fakenews.monitoring.verdict import Check, Kind, State, Verdict

MESSAGE = Message(subject="fakenews: \N{GREEK SMALL LETTER SIGMA}", text="ALARM", content={})
TOPIC = "arn:aws:sns:eu-central-1:123456789012:alerts"


@pytest.fixture
def verdict(make_verdict: Callable[..., Verdict]) -> Verdict:
    return make_verdict(0, a=State.ALARM, b=State.OK)


@pytest.fixture
def aws(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Clients of a moto server, which boto3 finds by the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    clients = []

    def client(service: str) -> Any:
        clients.append(boto3.client(service, region_name="eu-central-1"))
        return clients[-1]

    yield client
    for one in clients:
        one.close()


def test_a_message_reaches_who_subscribed(aws: Callable[[str], Any], verdict: Verdict) -> None:
    sns, sqs = aws("sns"), aws("sqs")
    topic = sns.create_topic(Name=f"alerts-{uuid4()}")["TopicArn"]
    queue = sqs.create_queue(QueueName=f"alerts-{uuid4()}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn["QueueArn"])
    channel = Sns(topic_arn=topic)
    channel.tell(verdict, None)
    channel.tell(verdict, MESSAGE)
    (found,) = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    content = json.loads(found["Body"])
    assert (content["Subject"], content["Message"]) == ("fakenews: ?", "ALARM")
    assert content["TopicArn"] == topic


def test_a_long_message_is_cut_to_what_sns_takes(
    aws: Callable[[str], Any], verdict: Verdict
) -> None:
    topic = aws("sns").create_topic(Name=f"alerts-{uuid4()}")["TopicArn"]
    text = 200_000 * "\N{GREEK SMALL LETTER SIGMA}"
    Sns(topic_arn=topic).tell(verdict, Message(subject=300 * "x", text=text, content={}))


def test_numbers_of_every_verdict_are_kept(aws: Callable[[str], Any], verdict: Verdict) -> None:
    namespace = f"Test/{uuid4()}"
    channel = CloudWatch(namespace=namespace, region="eu-central-1")
    channel.tell(verdict, None)
    client = aws("cloudwatch")

    def latest(name: str, **dimensions: str) -> float:
        (point,) = client.get_metric_statistics(
            Namespace=namespace,
            MetricName=name,
            Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
            StartTime=verdict.checked_at - timedelta(minutes=1),
            EndTime=verdict.checked_at + timedelta(minutes=1),
            Period=60,
            Statistics=["Maximum"],
        )["Datapoints"]
        value: float = point["Maximum"]
        return value

    assert latest("State", Model="fakenews") == 3
    assert latest("WindowRows", Model="fakenews") == 1200
    assert latest("WindowLabelled", Model="fakenews") == 30
    assert latest("State", Model="fakenews", Check="a") == 3
    assert latest("State", Model="fakenews", Check="b") == 0
    assert latest("Value", Model="fakenews", Check="a") == 0.25
    assert latest("Threshold", Model="fakenews", Check="a") == 0.1
    assert latest("PValue", Model="fakenews", Check="a") == 0.001
    assert latest("Effect", Model="fakenews", Check="a") == 1.5


def test_numbers_that_are_none_are_left_out_and_many_are_sent_in_parts(
    aws: Callable[[str], Any], verdict: Verdict
) -> None:
    namespace = f"Test/{uuid4()}"
    checks = [
        Check(key=f"c{n}", kind=Kind.DRIFT, state=State.OK, message="", value=value)
        for n, value in enumerate([float("nan"), float("inf"), None, *range(600)])
    ]
    many = replace(verdict, checks=tuple(checks), window=None)
    CloudWatch(namespace=namespace, region="eu-central-1").tell(many, None)
    pages = aws("cloudwatch").get_paginator("list_metrics").paginate(Namespace=namespace)
    found = [metric for page in pages for metric in page["Metrics"]]
    assert len([one for one in found if one["MetricName"] == "State"]) == 604
    assert len([one for one in found if one["MetricName"] == "Value"]) == 600
    assert not [one for one in found if one["MetricName"].startswith("Window")]


@pytest.mark.usefixtures("aws")
def test_a_topic_that_is_not_there(verdict: Verdict) -> None:
    with pytest.raises(MonitoringError, match=r"^sns refuses \(NotFound\): .*not exist"):
        Sns(topic_arn=TOPIC).tell(verdict, MESSAGE)


@pytest.mark.usefixtures("aws")
def test_no_region(verdict: Verdict, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(MonitoringError, match=r"^cloudwatch: .*region"):
        CloudWatch().tell(verdict, None)


def test_no_credentials(
    verdict: Verdict, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, s3_server: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(MonitoringError, match=r"^sns: .*credentials"):
        Sns(topic_arn=TOPIC).tell(verdict, MESSAGE)


@pytest.mark.usefixtures("aws")
def test_nobody_answers(verdict: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(MonitoringError, match=r"^sns: Could not connect to the endpoint"):
        Sns(topic_arn=TOPIC).tell(verdict, MESSAGE)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no address")
    with pytest.raises(MonitoringError, match=r"^sns: Invalid endpoint"):
        Sns(topic_arn=TOPIC).tell(verdict, MESSAGE)


@pytest.mark.parametrize(
    "topic", ["alerts", f"{TOPIC}.fifo", f"{TOPIC}\n", "arn:aws:sqs:x:1:y"]
)
def test_what_is_no_topic(topic: str) -> None:
    with pytest.raises(ConfigError, match="names no standard topic"):
        Sns(topic_arn=topic)


@pytest.mark.parametrize("namespace", ["", "AWS/Lambda", "a b", 256 * "x"])
def test_what_is_no_namespace(namespace: str) -> None:
    with pytest.raises(ConfigError, match="cannot be one of CloudWatch"):
        CloudWatch(namespace=namespace)
