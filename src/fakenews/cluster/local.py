"""The job in this process, or in those that a launcher has started."""


class Local:
    """Starts nothing: the job runs where its command was started."""
