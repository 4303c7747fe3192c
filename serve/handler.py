"""TorchServe's way to a served model: requests in, answers out.

TorchServe makes one of these in each worker process, from an archive that has it beside
`bundle/` and `model-config.yaml`, whose node `handler` holds the arguments of
`ServedModel.load`.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ts.context import Context

from fakenews.serving.model import Incoming, ServedModel, Tally


class Handler:
    """What TorchServe calls; see its documentation of custom handlers."""

    def initialize(self, context: Context) -> None:
        """Load the bundle of the archive, and warm it up.

        Args:
            context: Of the worker.
        """
        # Else it decodes JSON itself, knows no bounds, and logs what it could not decode.
        os.environ["TS_DECODE_INPUT_REQUEST"] = "false"
        # It tells of every batch that there was one. Metrics are information, too.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("ts.metrics").setLevel(logging.INFO)
        config = context.model_yaml_config or {}
        folder = Path(context.system_properties["model_dir"])
        gpu = context.system_properties.get("gpu_id")
        settings = {
            "device": "cpu" if gpu is None else f"cuda:{gpu}",
            "workers": config.get("maxWorkers", 1),
            **config.get("handler", {}),
        }
        self.model = ServedModel.load(
            folder / "bundle",
            name=context.model_name,
            version=str(context.manifest["model"]["modelVersion"]),
            **settings,
        )
        self.metrics: dict[str, Any] = {}
        for known in context.metrics.cache.values():
            self.metrics |= known

    def handle(self, data: Sequence[Mapping[str, Any]], context: Context) -> list[bytes]:
        """Answer a batch of requests, each with a status of its own.

        Args:
            data: The fields of each request.
            context: Of the batch.
        """
        replies, tally = self.model.answer(
            [
                _incoming(fields, context.get_all_request_header(number))
                for number, fields in enumerate(data)
            ]
        )
        for number, (status, _) in enumerate(replies):
            context.set_response_status(int(status), status.phrase, number)
            context.set_response_content_type(number, "application/json")
        self._measure(tally)
        return [body for _, body in replies]

    def _measure(self, tally: Tally) -> None:
        self._add("batch_items", tally.items)
        if tally.items:
            self._add("predict_seconds", round(tally.predict_seconds, 6))
        for name, count in (("unsure", tally.unsure), ("truncated", tally.truncated)):
            if count:
                self._add(f"{name}_total", count)
        for code, count in tally.errors.items():
            self._add("errors_total", count, code)
        for seconds in tally.explain_seconds:
            self._add("explain_seconds", round(seconds, 6))

    def _add(self, name: str, value: float, *labels: str) -> None:
        metric = self.metrics.get(f"fakenews_{name}")
        # Without our metrics.yaml TorchServe knows none of them.
        if metric is not None:
            metric.add_or_update(
                value, [self.model.items.name, self.model.items.version, *labels]
            )


def _incoming(fields: Mapping[str, Any], headers: Mapping[str, Any]) -> Incoming:
    # TorchServe lays the parts of a request and its HTTP headers into one mapping.
    part = headers.get("body", headers.get("data"))
    content_type = part.get("content-type") if isinstance(part, Mapping) else None
    return Incoming(
        fields=fields,
        content_type=content_type,
        explain=str(headers.get("explain", "")).lower() == "true",
    )
