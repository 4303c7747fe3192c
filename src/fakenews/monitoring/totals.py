"""What is counted over all rows of a window, not over the sample that is compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from fakenews.monitoring.windows import Counts


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Counts of one window.

    Attributes:
        rows: Predictions.
        unique: Different texts among them; None where they cannot be told apart.
        errors: Requests that were refused or failed, by kind, none of which is a prediction;
            None where the log does not say.
        latency_ms: `p50`, `p95` and `p99`; None where the log does not say.
        truncated: Share of texts that were longer than the model reads; None likewise.
        unsure: Share of predictions that were called unsure; None likewise.
        decided: Predictions by the decided class.
        versions: Predictions by the version of the model.
        hourly: Beginning of each hour, or of parts as long as each other that suit the window
            better, oldest first; its predictions, and its errors.
    """

    rows: int
    unique: int | None = None
    errors: Mapping[str, int] | None = None
    latency_ms: Mapping[str, float] | None = None
    truncated: float | None = None
    unsure: float | None = None
    decided: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    hourly: Sequence[tuple[datetime, int, int]] = ()

    @classmethod
    def of(cls, counts: Counts) -> Self:
        """Those of a window of a log.

        Args:
            counts: Of it.
        """
        return cls(
            rows=counts.rows,
            unique=counts.unique_texts,
            errors=counts.errors,
            latency_ms={f"p{round(100 * at)}": value for at, value in counts.latency_ms.items()}
            or None,
            truncated=counts.truncated,
            unsure=counts.unsure,
            decided=counts.classes,
            versions=counts.versions,
            hourly=[(part.start, part.rows, part.errors or 0) for part in counts.trend],
        )

    @property
    def error_rate(self) -> float | None:
        """Share of all requests that were refused or failed; None where it is not known."""
        if self.errors is None:
            return None
        failed = sum(self.errors.values())
        return failed / max(self.rows + failed, 1)
