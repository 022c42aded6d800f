"""What can go wrong in a way that a user can mend; shown as one message, never as a traceback."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's end tells the shell."""

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
    """The command cannot do what was asked; its text says why and what to do."""

    exit_code: int = ExitCode.FAILED


class SettingError(CommandError):
    """A setting or argument is to blame, and the text names it."""

    exit_code = ExitCode.USAGE


class ProcessFailed(CommandError):
    """A process of the stack does not start or does not stay up; the text ends with its log."""


class JobCancelled(CommandError):
    """The watched job was cancelled and has no result."""

    exit_code = ExitCode.CANCELLED


class WatchInterrupted(CommandError):
    """Ctrl-C while a job was watched; the job goes on."""

    exit_code = ExitCode.INTERRUPTED


class NotFound(CommandError):
    """There is nothing of the name that was given."""

    exit_code = ExitCode.NOT_FOUND


class Conflict(CommandError):
    """The state of what was named does not allow it."""

    exit_code = ExitCode.CONFLICT


class NotAllowed(CommandError):
    """The key that was sent does not open this."""

    exit_code = ExitCode.NOT_ALLOWED


class ServiceUnavailable(CommandError):
    """No service answers at the address."""

    exit_code = ExitCode.UNREACHABLE
