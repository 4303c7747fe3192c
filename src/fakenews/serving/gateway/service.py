"""The gateway without HTTP: what the API and the page both call.

texts -> checked -> routed -> remembered? -> batched -> TorchServe -> logged -> answers
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fakenews.serving import protocol
from fakenews.serving.gateway.asking import Versions
from fakenews.serving.gateway.feedback import Feedback, RecentIds, Verdict
from fakenews.serving.gateway.ids import new_id
from fakenews.serving.gateway.metrics import Metrics
from fakenews.serving.gateway.prediction_log import PredictionLog, Record
from fakenews.serving.gateway.problems import Problem, overloaded, too_late
from fakenews.serving.gateway.requests import Answer, Item, public, requested, sendable
from fakenews.serving.gateway.routing import Route, Router
from fakenews.serving.gateway.settings import Settings
from fakenews.serving.gateway.shadow import Shadow
from fakenews.serving.gateway.upstream import Upstream
from fakenews.serving.protocol import Fault

Failure = tuple[Item | None, Route | None, str, float | None]
"""An item without a prediction: it, by whom it was refused, why, and after how many seconds."""

# Of feedback at once: what is older is looked up in files.
_LOOKUPS = 4


class Gateway:
    """Answers questions about texts. Its methods are for one event loop.

    Args:
        settings: Of the gateway.
        router: Chooses versions.
        upstream: Asks TorchServe.
        log: Of predictions; None writes none.
        metrics: Counts.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        router: Router,
        upstream: Upstream,
        log: PredictionLog | None,
        metrics: Metrics,
    ) -> None:
        self.settings = settings
        self.router = router
        self.metrics = metrics
        self.log = log
        self.recent = RecentIds(settings.log.recent)
        self.versions = Versions(
            settings=settings, router=router, upstream=upstream, metrics=metrics
        )
        self._upstream = upstream
        self._shadow = Shadow(
            ask=self.versions.copy,
            in_flight=settings.shadow_in_flight,
            log=log,
            metrics=metrics,
        )
        folder = Path(settings.dir)
        self._feedback = Feedback(
            folder=folder / "feedback", predictions=folder / "predictions", recent=self.recent
        )
        self._lookups = asyncio.Semaphore(_LOOKUPS)
        self._explaining = 0
        self._explanations = asyncio.Semaphore(settings.upstream.explain_in_flight)

    def start(self) -> None:
        """Begin to log."""
        if self.log is not None:
            self.log.start()

    async def close(self) -> None:
        """End what is under way, and write down what was predicted."""
        await self._shadow.close()
        await self.versions.close()
        self._upstream.close()
        if self.log is not None:
            await asyncio.to_thread(self.log.close)

    async def predict(
        self, items: Sequence[Any], *, route: Route | None = None
    ) -> list[Answer]:
        """The predictions of some texts.

        Args:
            items: Texts, or objects of a `text` and columns.
            route: Who answers; None leaves it to the deployment.

        Returns:
            For each, in order, a prediction with its `id`, or an `error`. A prediction that
            could not be logged has `logged` false.

        Raises:
            Problem: Nothing could be answered: too much is asked or waits, the model server
                does not answer, or the time is over.
        """
        asked = requested({"inputs": list(items)}, self.settings.bounds)
        return await self.answer(asked.items, route=route)

    async def answer(
        self, items: Sequence[protocol.Item | Fault], *, route: Route | None = None
    ) -> list[Answer]:
        """As `predict`, of items that were read from a request."""
        loop = asyncio.get_running_loop()
        # The loop's own clock is read once a turn, and in whole milliseconds by uvloop: it does
        # for deadlines, not for latencies.
        arrived = time.perf_counter()
        deadline = loop.time() + self.settings.deadline
        sound, faults = sendable(items, self.settings.bounds)
        self._note_faults(list(faults.values()))
        answers = [faults[n].to_json() if n in faults else {} for n in range(len(items))]
        if not sound:
            return answers
        try:
            async with asyncio.timeout_at(deadline):
                given = await self.versions.answers(list(sound.values()), deadline, route)
        except (Problem, TimeoutError) as error:
            problem = error if isinstance(error, Problem) else too_late()
            seconds = time.perf_counter() - arrived
            failed = [(item, None, problem.code, seconds) for item in sound.values()]
            self._note_failures(failed)
            raise problem from None
        records: list[Record] = []
        failures: list[Failure] = []
        seconds = time.perf_counter() - arrived
        milliseconds = time.time_ns() // 1_000_000
        for (place, item), (answer, taken) in zip(sound.items(), given, strict=True):
            if "error" in answer:
                code = _code(answer)
                self.metrics.item_errors.labels(code).inc()
                failures.append((item, taken, code, seconds))
                answers[place] = answer
                continue
            record = Record(
                id=new_id(milliseconds),
                milliseconds=milliseconds,
                route=taken,
                item=item,
                answer=answer,
                seconds=seconds,
            )
            records.append(record)
            answers[place] = {"id": record.id, **public(answer)}
        self._note_failures(failures)
        if not await self._note(records, deadline - loop.time()):
            for answer in answers:
                if "id" in answer:
                    answer["logged"] = False
        shadow = self.router.routes.shadow
        if shadow is not None and records:
            self._shadow.copy(shadow, [r for r in records if r.route == "champion"])
        return answers

    def many(self, answers: Sequence[Answer]) -> Answer:
        """Answers of one request together, as the API gives them."""
        versions = {answer["model_version"] for answer in answers if "id" in answer}
        routes = self.router.routes
        return {
            "predictions": answers,
            "model": routes.name,
            # Of several, as where a canary has failed, each answer names its own.
            "model_version": versions.pop() if len(versions) == 1 else routes.champion,
        }

    async def explain(self, item: Any, *, predicted: bool = False) -> Answer:
        """Why a text is predicted as it is: what each word adds.

        Args:
            item: A text, or an object of a `text` and columns.
            predicted: It was predicted just now, and is not to be logged and counted twice.

        Returns:
            As the handler explains, with the prediction's `id` unless it was `predicted`.

        Raises:
            Problem: It cannot be answered, or the item cannot.
        """
        asked = requested({"inputs": [item]}, self.settings.bounds)
        return await self.explain_item(asked.items[0], predicted=predicted)

    async def explain_item(
        self, item: protocol.Item | Fault, *, predicted: bool = False
    ) -> Answer:
        """As `explain`, of an item that was read from a request."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.deadline
        found_sound, faults = sendable([item], self.settings.bounds)
        for fault in faults.values():
            self._note_faults([fault])
            raise refused(fault.to_json())
        sound = found_sound[0]
        most = self.settings.upstream.explain_in_flight + self.settings.upstream.explain_queue
        if self._explaining >= most:
            raise overloaded(1)
        self._explaining += 1
        try:
            async with asyncio.timeout_at(deadline), self._explanations:
                found = await self.versions.explain(sound, deadline)
        except TimeoutError:
            raise too_late() from None
        finally:
            self._explaining -= 1
        if "error" in found:
            if not predicted:
                self._note_failures([(sound, "champion", _code(found), None)])
            raise refused(found)
        if predicted:
            return {**found, "prediction": public(found["prediction"])}
        milliseconds = time.time_ns() // 1_000_000
        prediction = found["prediction"]
        record = Record(
            id=new_id(milliseconds),
            milliseconds=milliseconds,
            route="champion",
            item=sound,
            answer=prediction,
        )
        logged = await self._note([record], deadline - loop.time())
        shown = public(prediction) | ({} if logged else {"logged": False})
        return {**found, "prediction": {"id": record.id, **shown}}

    async def feedback(
        self, identifier: str, verdict: Verdict, label: str | None = None
    ) -> None:
        """Store what someone says of a prediction.

        Args:
            identifier: The `id` of the prediction.
            verdict: Whether it was right.
            label: The class it should have been, if they say so.

        Raises:
            Problem: The prediction is not known, the label is no class of its model, or it
                cannot be stored.
        """
        async with self._lookups:
            await asyncio.to_thread(self._feedback.store, identifier, verdict, label)
        self.metrics.feedback.labels(verdict).inc()

    def _note_faults(self, faults: Sequence[Fault]) -> None:
        """Count and log items that were refused as they came."""
        for fault in faults:
            self.metrics.item_errors.labels(fault.code).inc()
        self._note_failures([(None, None, fault.code, None) for fault in faults])

    def _note_failures(self, failures: Sequence[Failure]) -> None:
        """Log items that have no prediction; nobody waits for it."""
        if self.log is None or not failures:
            return
        routes = self.router.routes
        versions = {"champion": routes.champion, "canary": routes.canary}
        milliseconds = time.time_ns() // 1_000_000
        self.log.note(
            [
                Record(
                    id=new_id(milliseconds),
                    milliseconds=milliseconds,
                    route=route,
                    item=item,
                    answer={
                        "model": routes.name,
                        "model_version": versions.get(route or ""),
                        "error": {"code": code},
                    },
                    seconds=seconds,
                )
                for item, route, code, seconds in failures
            ]
        )

    async def _note(self, records: Sequence[Record], seconds: float) -> bool:
        """Log and count predictions; returns whether they are logged, or need not be."""
        for record in records:
            answer = record.answer
            version, label = answer["model_version"], answer["label"]
            probabilities = answer["probabilities"]
            unsure = "true" if answer.get("unsure") else "false"
            self.metrics.predictions.labels(record.route, version, label, unsure).inc()
            score = probabilities.get(answer.get("positive"), None)
            self.metrics.score.labels(version).observe(
                max(probabilities.values(), default=0) if score is None else score
            )
            self.recent.add(record.id, version, label, probabilities)
        if self.log is None or not records:
            return True
        try:
            # A disk that hangs must hold up nobody for long.
            async with asyncio.timeout(min(self.settings.log.wait, max(seconds, 0.05))):
                return await self.log.write(records)
        except TimeoutError:
            self.metrics.not_logged.inc(len(records))
            return False


def refused(answer: Answer) -> Problem:
    """The problem of a single item whose answer is an error."""
    error = answer["error"]
    code = str(error.get("code"))
    status = {"text_too_long": 413, "internal": 503}.get(code, 422)
    return Problem(
        status, code, str(error.get("message")), retry_after=1 if status == 503 else None
    )


def _code(answer: Answer) -> str:
    """Of an item's error, for the metrics: one of a few, whatever the handler sends."""
    code = answer["error"].get("code")
    return code if code in _CODES else "other"


_CODES = {
    "empty_text",
    "missing_text",
    "wrong_type",
    "text_too_long",
    "missing_column",
    "bad_column",
    "internal",
}
