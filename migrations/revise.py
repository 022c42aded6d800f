"""Command `python -m migrations.revise "why"`: write the migration for a change of `store.tables`."""

import sys

from migrations.upgrade import revise, upgrade
from runtime.settings import get_settings

if __name__ == "__main__":
    url = get_settings().database_url
    upgrade(url)
    revise(url, " ".join(sys.argv[1:]))
