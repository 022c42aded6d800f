"""`greentune doctor`: what this machine lacks to run the service, and how to mend it."""

from typing import Annotated

import typer

from cli.options import AsJson, DataDir, Key, Url

app = typer.Typer()


@app.command()
def doctor(
    online: Annotated[bool, typer.Option("--online", help="Ask each zone's carbon source once, too.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Check what the service needs on this machine, and say how to mend what is missing.

    Ends with 1 where a check has failed. Secrets are never shown.
    """
    from cli.configuration import read_settings
    from cli.doctor.run import run_doctor

    run_doctor(read_settings(data_dir=data_dir), url=url, key=key, online=online, as_json=as_json)
