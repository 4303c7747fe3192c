"""What commands show to people, on standard output."""

from rich.console import Console, RenderableType

from fakenews.launch import without_reader


class Terminal(Console):
    """Standard output, without which the work goes on when nobody reads it any more.

    As after `| head`, or when the terminal was closed: rich itself would end the process there,
    a training before its bundle or a check before anyone is told.
    """

    def on_broken_pipe(self) -> None:
        """Say nothing any more."""
        self.quiet = True
        without_reader()


def show(*shown: RenderableType) -> None:
    """Print texts and tables."""
    Terminal().print(*shown)
