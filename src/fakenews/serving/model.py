"""A bundle that answers many requests at once, each as if it were alone."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd

from fakenews.bounds import PositiveCount, Probability
from fakenews.engines import EngineName, TfidfEngine, TorchEngine
from fakenews.errors import ServingError
from fakenews.predictor import Predictor
from fakenews.serving.columns import gaps
from fakenews.serving.items import ItemPredictor, Result, Row, describe
from fakenews.serving.protocol import Fault, Limits, Refused, Request, answer, encode, read
from fakenews.serving.threads import cores, set_threads

log = logging.getLogger(__name__)

Reply = tuple[HTTPStatus, bytes]
"""Status and body of an answer."""


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """A request as it came.

    Attributes:
        fields: See `protocol.read`.
        content_type: Of the body; None if it was not said.
        explain: Whether an explanation is wanted.
    """

    fields: Mapping[str, Any]
    content_type: str | None = None
    explain: bool = False


@dataclass(kw_only=True)
class Tally:
    """What was done for a batch of requests, and nothing of what they say.

    Attributes:
        items: Items of requests that were understood.
        errors: By code, of items and of requests.
        unsure: Predictions within the unsure band.
        truncated: Predictions of texts that were not read whole.
        predict_seconds: The model's part.
        explain_seconds: Of each explanation.
    """

    items: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    unsure: int = 0
    truncated: int = 0
    predict_seconds: float = 0.0
    explain_seconds: list[float] = field(default_factory=list)

    def count(self, results: Sequence[Result]) -> None:
        """Add the results of items."""
        self.items += len(results)
        for result in results:
            if isinstance(result, Fault):
                self.errors[result.code] += 1
            else:
                self.unsure += result["unsure"]
                self.truncated += result["truncated"]

    def add(self, other: "Tally") -> None:
        """Add what was done for other requests."""
        self.items += other.items
        self.errors += other.errors
        self.unsure += other.unsure
        self.truncated += other.truncated
        self.predict_seconds += other.predict_seconds
        self.explain_seconds += other.explain_seconds


class ServedModel:
    """Answers requests with a predictor; `load` makes one from a bundle.

    Args:
        predictor: Predicts.
        name: Of the model, as answers have it.
        version: Likewise.
        unsure: See `ItemPredictor`.
        limits: Of a request.
        explainer: Gives the predictor that explains, when one is first needed; None: nothing
            is explained.
        explain_steps: See `explain.explain`.
    """

    def __init__(
        self,
        *,
        predictor: Predictor,
        name: str,
        version: str,
        unsure: Probability = 0.1,
        limits: Limits | None = None,
        explainer: Callable[[], Predictor] | None = None,
        explain_steps: PositiveCount = 24,
    ) -> None:
        self.items = ItemPredictor(
            predictor=predictor, name=name, version=version, unsure=unsure
        )
        self.limits = limits or Limits()
        self.explain_steps = explain_steps
        self._explainer = explainer

    @classmethod
    def load(
        cls,
        bundle: str | Path,
        *,
        name: str,
        version: str,
        engine: EngineName | None = None,
        device: str = "cpu",
        threads: PositiveCount | None = None,
        workers: PositiveCount = 1,
        batch_size: PositiveCount = 64,
        batch_tokens: PositiveCount = 4096,
        unsure: Probability = 0.1,
        max_items: PositiveCount = 1000,
        max_characters: PositiveCount = 100_000,
        max_depth: PositiveCount = 20,
        explain: Literal["lazy", "warm", "off"] = "lazy",
        explain_steps: PositiveCount = 24,
        warm_up: bool = True,
    ) -> Self:
        """Read a bundle and make it ready to answer at once.

        Args:
            bundle: Its folder.
            name: See the class.
            version: See the class.
            engine: What runs the model; None: the best that the bundle has.
            device: As torch names it.
            threads: With which it computes; None: its share of the cores.
            workers: Processes that share the cores.
            batch_size: See `Predictor.load`.
            batch_tokens: See `Predictor.load`.
            unsure: See the class.
            max_items: See `protocol.Limits`.
            max_characters: See `protocol.Limits`.
            max_depth: See `protocol.Limits`.
            explain: `lazy` loads what explains at the first explanation, `warm` now; `off`
                refuses explanations.
            explain_steps: See the class.
            warm_up: Predict texts of all lengths first, so that no request waits for what is
                made at first need.

        Raises:
            BundleError: See `Predictor.load`.
            ConfigError: See `Predictor.load`.
            FeatureError: See `Predictor.load`.
        """
        threads = threads or max(cores() // workers, 1)
        set_threads(threads)
        predictor = Predictor.load(
            bundle,
            engine=engine,
            device=device,
            threads=threads,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
        )

        def explainer() -> Predictor:
            if isinstance(predictor.engine, TorchEngine | TfidfEngine):
                return predictor
            return Predictor.load(bundle, engine="torch", device=device, threads=threads)

        model = cls(
            predictor=predictor,
            name=name,
            version=version,
            unsure=unsure,
            limits=Limits(items=max_items, characters=max_characters, depth=max_depth),
            explainer=None if explain == "off" else explainer,
            explain_steps=explain_steps,
        )
        if warm_up:
            model.items.warm_up()
        if explain == "warm":
            columns = gaps(numeric=predictor.numeric, categorical=predictor.categorical)
            model.answer([Incoming(fields={"text": "Some news", **columns}, explain=True)])
        return model

    def answer(self, incoming: Sequence[Incoming]) -> tuple[list[Reply], Tally]:
        """Answer requests, all their items in one call of the model.

        Returns:
            A reply to each, in order, and what was done.
        """
        tally = Tally()
        try:
            return self._answer(incoming, tally), tally
        except Exception as error:  # noqa: BLE001 whatever it is, others must not suffer
            if len(incoming) == 1:
                return _failed(error)
        # One of them is to blame, and it is found by answering each alone.
        replies: list[Reply] = []
        tally = Tally()
        for given in incoming:
            part, done = self.answer([given])
            replies += part
            tally.add(done)
        return replies, tally

    def _answer(self, incoming: Sequence[Incoming], tally: Tally) -> list[Reply]:
        understood = [self._read(given, tally) for given in incoming]
        requests = [found for found in understood if isinstance(found, Request)]
        rows = [
            [self.items.row(item, found.details) for item in found.items] for found in requests
        ]
        started = time.perf_counter()
        results = self.items.predict([row for part in rows for row in part])
        tally.predict_seconds = time.perf_counter() - started
        tally.count(results)
        left, parts = iter(results), iter(rows)
        replies: list[Reply] = []
        for given, found in zip(incoming, understood, strict=True):
            if isinstance(found, Request):
                part = next(parts)
                own = [next(left) for _ in part]
                if given.explain and isinstance(part[0], Row) and isinstance(own[0], dict):
                    replies.append(self._explain(part[0], own[0], tally))
                else:
                    replies.append(self._reply(found, own))
            else:
                replies.append(found)
        return replies

    def _read(self, given: Incoming, tally: Tally) -> Request | Reply:
        try:
            request = read(given.fields, content_type=given.content_type, limits=self.limits)
        except Refused as error:
            return _refuse(error.fault, error.status, tally)
        if given.explain and len(request.items) != 1:
            fault = Fault("not_one_item", "an explanation is of one text: send it alone")
            return _refuse(fault, HTTPStatus.BAD_REQUEST, tally)
        return request

    def _reply(self, request: Request, results: Sequence[Result]) -> Reply:
        found = answer(
            request,
            results,
            model=self.items.name,
            version=self.items.version,
            classes=self.items.predictor.classes,
        )
        return found.status, encode(found.content)

    @cached_property
    def _explaining(self) -> Predictor:
        if self._explainer is None:
            raise ServingError("explanations are turned off on this server")
        return self._explainer()

    def _explain(self, row: Row, prediction: dict[str, Any], tally: Tally) -> Reply:
        from fakenews.serving.explain import explain

        started = time.perf_counter()
        try:
            predictor = self._explaining
            cleaned = predictor.cleaning([row.text]).texts
            frame = pd.DataFrame({"text": cleaned}, dtype=object).assign(**row.columns)
            found = explain(
                predictor, frame, target=prediction["label"], steps=self.explain_steps
            )
        except ServingError as error:
            fault = Fault("not_explainable", str(error))
            return _refuse(fault, HTTPStatus.BAD_REQUEST, tally)
        tally.explain_seconds.append(time.perf_counter() - started)
        return HTTPStatus.OK, encode({"prediction": prediction, **found.to_json()})


def _failed(error: Exception) -> tuple[list[Reply], Tally]:
    log.error("a request could not be answered: %s", describe(error))
    tally = Tally()
    fault = Fault("internal", "the server failed on this request")
    return [_refuse(fault, HTTPStatus.INTERNAL_SERVER_ERROR, tally)], tally


def _refuse(fault: Fault, status: HTTPStatus, tally: Tally) -> Reply:
    tally.errors[fault.code] += 1
    return status, encode(fault.to_json())
