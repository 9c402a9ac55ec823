"""What can be wrong with an executable file, in words for the person who has to act on it."""


class ExecutableError(Exception):
    """A file can't be used: the message says what is wrong with it and what to do.

    `path` is filled in by whoever opened the file, so that functions from bytes to values need not know it.
    """

    def __init__(self, what: str, *, path: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.what}" if self.path else self.what


class NotGoError(ExecutableError):
    """The file is no Go program, or one without build info. Nothing is wrong with it; there is nothing to trace."""


class UnsupportedError(ExecutableError):
    """The file is a program this agent doesn't read: another architecture, or a Go release before 1.19."""


class CorruptError(ExecutableError):
    """The file contradicts itself: truncated, damaged, or made to mislead."""


class LimitError(ExecutableError):
    """Reading the file would take more time or memory than any real program needs; it was given up."""


class NoPlaceError(ExecutableError):
    """A function has no instruction that can carry the probe asked for."""
