"""Errors that a user can correct, and the exit codes; each is shown as one message, never as a traceback."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the commands."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CANCELLED = 3
    NOT_FOUND = 4
    CONFLICT = 5
    NOT_ALLOWED = 6
    UNREACHABLE = 7
    INTERRUPTED = 130


EXIT_CODE_DESCRIPTIONS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "it could not be done, or the job that was watched has failed",
    ExitCode.USAGE: "an option, an argument or a setting is wrong",
    ExitCode.CANCELLED: "the job that was watched was cancelled",
    ExitCode.NOT_FOUND: "there is none of that name",
    ExitCode.CONFLICT: "it cannot be done as things stand",
    ExitCode.NOT_ALLOWED: "the key is missing, not known, or not an operator's",
    ExitCode.UNREACHABLE: "the service does not answer",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
}


class CommandError(Exception):
    """A command failed; its text gives the reason and what to do."""

    def __init__(self, text: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class SettingError(CommandError):
    """A setting or argument is not valid; the text names it."""

    def __init__(self, text: str) -> None:
        super().__init__(text, ExitCode.USAGE)


class ProcessFailed(CommandError):
    """A process of the stack does not start or does not stay up; the text ends with its log."""
