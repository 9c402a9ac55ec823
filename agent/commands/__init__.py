"""What `gospan COMMAND` does, one module each, and what they have in common: how they end.

A command's `run(arguments)` gives its exit status, or raises CommandError.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
"""It can't be done: the program can't be traced, the kernel refuses."""
EXIT_USAGE = 2
"""A mistake in the command line or in the configuration, which trying again doesn't mend."""
EXIT_NOT_RUNNING = 3
"""There is no agent to ask: "program is not running" of the LSB's status actions."""
EXIT_NOT_KNOWN = 4
"""The agent may not be asked, or does not answer: "status is unknown", likewise."""
EXIT_BUG = 70
"""A bug in gospan: EX_SOFTWARE of sysexits.h."""
EXIT_INTERRUPTED = 130
"""Ended by SIGINT, as a shell writes it."""
EXIT_PIPE = 141
"""Ended because nobody reads the output, as SIGPIPE does."""


class CommandError(Exception):
    """A command can't go on, and the user can do something about it: sentences for standard error, a line each."""

    def __init__(self, *messages: str, status: int = EXIT_FAILED) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages
        self.status = status
