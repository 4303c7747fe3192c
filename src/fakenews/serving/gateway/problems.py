"""What a request can be answered with instead of a prediction.

{"error": {"code": "empty_text", "message": "the text is empty"}}
"""

from typing import Any


class Problem(Exception):
    """A request cannot be answered as asked.

    Args:
        status: HTTP status.
        code: Stable name of the kind.
        message: One line for the person who asked; holds nothing huge.
        retry_after: Seconds after which to ask again, if that may help.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry_after: float | None = None
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        super().__init__(f"{status} {code}: {message}")

    @property
    def body(self) -> dict[str, Any]:
        """The answer."""
        return error_body(self.code, self.message)


def error_body(code: str, message: str, **more: Any) -> dict[str, Any]:
    """The shape of every error, of a request and of an item."""
    return {"error": {"code": code, "message": message, **more}}


class UpstreamProblem(Problem):
    """TorchServe gave no answer in time, whoever is at fault.

    Args:
        kind: For the metrics: unreachable, overloaded, unknown_model, refused, failed, timeout.
        message: One line for the person who asked.
        retry_after: Seconds after which to ask again.
    """

    def __init__(self, kind: str, message: str, *, retry_after: float = 1) -> None:
        self.kind = kind
        super().__init__(503, "unavailable", message, retry_after=retry_after)


def overloaded(retry_after: float) -> Problem:
    """Too much waits already."""
    return Problem(
        503, "overloaded", "too many requests wait: ask again later", retry_after=retry_after
    )


def too_late() -> Problem:
    """A request ran out of its time."""
    return Problem(504, "deadline", "there was no answer in time")
