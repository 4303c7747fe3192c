"""Answers what is asked on the page, with what the page then shows."""

import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from cachetools import LRUCache

from fakenews.serving.gateway import page_view as view
from fakenews.serving.gateway.ids import new_id
from fakenews.serving.gateway.page_tables import Scored, Shelf, score, text_column
from fakenews.serving.gateway.problems import Problem
from fakenews.serving.gateway.service import Gateway, refused
from fakenews.serving.gateway.tables import TableScorer

_VISITS = 10_000

log = logging.getLogger(__name__)

Shown = tuple[Any, ...]
"""New values of what the page shows, in the order of an event's outputs."""

VERDICTS: dict[str, Literal["correct", "wrong", "unsure"]] = {
    "Correct": "correct",
    "Wrong": "wrong",
    "Unsure": "unsure",
}
"""What people may say of an answer, by the names of the buttons."""


class Desk:
    """Answers the page's events. No answer raises: the page shows what went wrong.

    Args:
        gateway: Answers.
        scorer: Predicts tables.
        shelf: For predicted tables.
    """

    def __init__(self, *, gateway: Gateway, scorer: TableScorer, shelf: Shelf) -> None:
        self._gateway = gateway
        self._scorer = scorer
        self._shelf = shelf
        self._columns = gateway.settings.tables.columns
        # By visit, the id of the last answer.
        self._last: LRUCache[Any, Any] = LRUCache(_VISITS)

    async def judge(self, request: gr.Request, text: str, *values: str) -> Shown:
        """The verdict on a text.

        Args:
            request: Of the visitor.
            text: What they typed.
            values: Of the columns beside it.

        Returns:
            The verdict, the words (none yet), what was asked, whether feedback is asked for,
            thanks (none yet), and the buttons of the feedback.
        """
        # Whatever explains an earlier text comes too late from now on.
        self._last[request.session_hash] = ""
        item: dict[str, Any] = {"text": text or ""}
        item |= {
            name: value for name, value in zip(self._columns, values, strict=True) if value
        }
        try:
            answer = (await self._gateway.predict([item]))[0]
            shown = view.verdict(answer) if "error" not in answer else ""
        except Exception as error:  # noqa: BLE001 whatever it is, people are told
            return _no_verdict(error)
        if "error" in answer:
            return _no_verdict(refused(answer))
        asked = {"item": item, "id": answer["id"], "version": answer["model_version"]}
        self._last[request.session_hash] = answer["id"]
        words = view.waiting("Looking at the words …")
        return _new(shown), words, asked, gr.update(visible=True), "", *_buttons(enabled=True)

    async def explain(self, request: gr.Request, asked: Any) -> Any:
        """The words that led to a verdict.

        Args:
            request: Of the visitor.
            asked: As `judge` returns it.

        Returns:
            The words; nothing new if the visitor has asked about another text meanwhile.
        """
        if not isinstance(asked, dict):
            return ""
        try:
            found = await self._gateway.explain(asked["item"], predicted=True)
            shown = view.words(found, str(asked["version"]))
        except Problem as problem:
            shown = view.quiet(f"The words are not explained: {problem.message}.")
        except Exception as error:  # noqa: BLE001 as above
            shown = _fault(error)
        mine = asked.get("id")
        return shown if self._last.get(request.session_hash, mine) == mine else gr.skip()

    async def tell(self, asked: Any, said: str) -> Shown:
        """Store what a visitor says of a verdict.

        Args:
            asked: As `judge` returns it.
            said: Name of the button.

        Returns:
            Thanks, and the buttons.
        """
        try:
            await self._gateway.feedback(str(asked["id"]), VERDICTS[said])
        except Exception as error:  # noqa: BLE001 as above
            return _fault(error), *_buttons(enabled=True)
        return view.thanks(said.lower()), *_buttons(enabled=False)

    async def table(self, upload: str | None, column: str) -> AsyncIterator[Shown]:
        """Predict a table, piece by piece.

        Args:
            upload: The file, which is deleted.
            column: Of the text, if they named one.

        Returns:
            The place for uploads (back in the end), the progress, the result, and whether it
            can be stopped.
        """
        if upload is None:
            return
        path = Path(upload)
        try:
            place = gr.update(value=None, visible=False)
            yield place, view.progress(path.name, 0, None), "", gr.update(visible=True)
            named = (column or "").strip() or None
            state = None
            async with aclosing(
                score(self._scorer.score, self._shelf, path, text=named)
            ) as states:
                async for state in states:
                    bar = view.progress(path.name, state.done, state.total)
                    yield gr.skip(), bar, gr.skip(), gr.skip()
            yield _free(), "", self._scored(state, named), _hidden()
        except Exception as error:  # noqa: BLE001 as above
            yield _free(), "", _fault(error), _hidden()
        finally:
            path.unlink(missing_ok=True)  # noqa: ASYNC240 it is one name on the local disk

    async def stopped(self) -> Shown:
        """After a table was given up: the same places as of `table`."""
        return _free(), "", view.quiet("Stopped."), _hidden()

    def _scored(self, state: Scored | None, named: str | None) -> str:
        if state is None or state.name is None:
            return view.quiet("The table has no rows.")
        text = text_column(state.columns, named, self._gateway.settings.tables.text)
        return view.scored(state, text=text, keep=self._shelf.seconds)


def _no_verdict(error: Exception) -> Shown:
    return _new(_fault(error)), "", None, _hidden(), "", *_buttons(enabled=True)


def _new(shown: str) -> str:
    """Another than before even if it says the same, so that the page sees that it came."""
    return f'<div data-answer="{new_id()}">{shown}</div>'


def _fault(error: Exception) -> str:
    if isinstance(error, Problem):
        return view.problem(error)
    identifier = new_id()
    frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    # Its message may quote what was typed.
    log.error("internal error %s: %s\n%s", identifier, type(error).__name__, frames)
    return view.fault(f"Something went wrong here. It is logged as {identifier}.")


def _free() -> Any:
    return gr.update(value=None, visible=True)


def _hidden() -> Any:
    return gr.update(visible=False)


def _buttons(*, enabled: bool) -> list[Any]:
    return [gr.update(interactive=enabled) for _ in VERDICTS]
