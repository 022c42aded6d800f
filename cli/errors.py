"""What can go wrong in a way that a user can mend; shown as one message, never as a traceback."""


class CommandError(Exception):
    """The command cannot do what was asked; its text says why and what to do."""

    exit_code = 1


class SettingError(CommandError):
    """A setting or argument is to blame, and the text names it."""

    exit_code = 2


class ServiceFailed(CommandError):
    """A process of the stack does not start or does not stay up; the text ends with its log."""
