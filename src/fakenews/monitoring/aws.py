"""Alerts by SNS, and the numbers of every verdict in CloudWatch.

Credentials come from where boto3 looks for them: environment, profile, role.
"""

import logging
import math
import re
from collections.abc import Iterator
from typing import Any

from fakenews.errors import ConfigError, MonitoringError
from fakenews.monitoring.messages import Message
from fakenews.monitoring.metrics import LEVELS
from fakenews.monitoring.verdict import Verdict

# Seconds; with its second attempt, a service that says nothing is given up after 30.
_CONFIG = {
    "connect_timeout": 5,
    "read_timeout": 10,
    "retries": {"total_max_attempts": 2, "mode": "standard"},
}
# What SNS takes: characters, all of ASCII, and bytes.
_SUBJECT = 100
_BYTES = 250_000
# What CloudWatch takes at once, and its largest number.
_METRICS = 1000
_LARGEST = 2.0**360

_TOPIC = re.compile(r"arn:aws[\w-]*:sns:([a-z0-9-]+):\d{12}:[\w-]{1,256}")
_NAMESPACE = re.compile(r"(?!AWS/)[\w./#:-]{1,255}")


class Sns:
    """Sends a message to a topic of SNS.

    Args:
        topic_arn: Of a standard topic.
        region: None for that of the topic.

    Raises:
        ConfigError: The topic's name is none, or boto3 is not installed.
    """

    def __init__(self, *, topic_arn: str, region: str | None = None) -> None:
        found = _TOPIC.fullmatch(topic_arn)
        if found is None:
            raise ConfigError(
                f"topic_arn={topic_arn!r} names no standard topic: write "
                "arn:aws:sns:REGION:ACCOUNT:NAME"
            )
        self._topic, self._region = topic_arn, region or found[1]
        _require_boto3()

    def tell(self, verdict: Verdict, message: Message | None) -> None:
        """Send what is new, if anything is.

        Raises:
            MonitoringError: SNS does not take it.
        """
        del verdict
        if message is None:
            return
        subject = message.subject.encode("ascii", "replace").decode()[:_SUBJECT]
        text = message.text.encode()[:_BYTES].decode(errors="ignore")
        _call(
            "sns",
            self._region,
            "publish",
            TopicArn=self._topic,
            Subject=subject,
            Message=text,
        )


class CloudWatch:
    """Puts the numbers of every verdict into CloudWatch, whatever they are.

    `State` (0 ok, 1 warning, 2 could not be judged, 3 alarm) of the model, and `State`,
    `Value`, `Threshold`, `PValue` and `Effect` of each check; `WindowRows` and
    `WindowLabelled`. Dimensions are `Model`, and `Check`.

    Args:
        namespace: Of the metrics.
        region: None for that of the environment.

    Raises:
        ConfigError: The namespace cannot be one, or boto3 is not installed.
    """

    def __init__(self, *, namespace: str = "Fakenews", region: str | None = None) -> None:
        if _NAMESPACE.fullmatch(namespace) is None:
            raise ConfigError(
                f"namespace={namespace!r} cannot be one of CloudWatch: use letters, digits and "
                "./-_#:, and begin otherwise than with AWS/"
            )
        self._namespace, self._region = namespace, region
        _require_boto3()

    def tell(self, verdict: Verdict, message: Message | None) -> None:
        """Put the numbers of a verdict.

        Raises:
            MonitoringError: CloudWatch does not take them.
        """
        del message
        data = list(_data(verdict))
        for start in range(0, len(data), _METRICS):
            _call(
                "cloudwatch",
                self._region,
                "put_metric_data",
                Namespace=self._namespace,
                MetricData=data[start : start + _METRICS],
            )


def _data(verdict: Verdict) -> Iterator[dict[str, Any]]:
    """The metrics of a verdict, as CloudWatch takes them."""
    model = {"Model": verdict.model}
    window = verdict.window
    rows: list[tuple[str, float | None, dict[str, str]]] = [
        ("State", LEVELS[verdict.state], model),
    ]
    if window is not None:
        rows += [("WindowRows", window.rows, model), ("WindowLabelled", window.labelled, model)]
    for check in verdict.checks:
        both = {**model, "Check": check.key}
        rows += [
            ("State", LEVELS[check.state], both),
            ("Value", check.value, both),
            ("Threshold", check.threshold, both),
            ("PValue", check.p_value, both),
            ("Effect", check.effect, both),
        ]
    for name, number, dimensions in rows:
        if number is None or not math.isfinite(number) or abs(number) > _LARGEST:
            continue
        yield {
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
            "Timestamp": verdict.checked_at,
            "Value": float(number),
        }


def _require_boto3() -> None:
    try:
        import boto3  # type: ignore[import-untyped]  # noqa: F401 only whether it is there
    except ImportError:
        raise ConfigError(
            "alerts by AWS need the package boto3: pip install 'fakenews[monitor]'"
        ) from None


def _call(service: str, region: str | None, action: str, **arguments: Any) -> None:
    import boto3
    from botocore.config import Config  # type: ignore[import-untyped]
    from botocore.exceptions import (  # type: ignore[import-untyped]
        BotoCoreError,
        ClientError,
    )

    # Where it finds credentials, it says at each start.
    logging.getLogger("botocore.credentials").setLevel(logging.WARNING)
    try:
        # A session of its own: credentials may have changed since the last run.
        client = boto3.Session(region_name=region).client(service, config=Config(**_CONFIG))
        try:
            getattr(client, action)(**arguments)
        finally:
            client.close()
    except ClientError as error:
        answer = error.response.get("Error", {})
        code, reason = answer.get("Code"), " ".join(str(answer.get("Message")).split())
        raise MonitoringError(f"{service} refuses ({code}): {reason[:300]}") from None
    # Faults of credentials, regions and networks; the value error is of an address.
    except (BotoCoreError, ValueError) as error:
        raise MonitoringError(f"{service}: {' '.join(str(error).split())[:300]}") from None
