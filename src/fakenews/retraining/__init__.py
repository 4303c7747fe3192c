"""A served model is replaced: when, with which data, and only by one that is no worse."""

from fakenews.retraining.decision import decide

__all__ = ["decide"]
