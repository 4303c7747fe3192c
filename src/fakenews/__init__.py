"""Text and tabular classification from a CSV file to a monitored service."""

__version__ = "0.1.0"
