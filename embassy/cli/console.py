"""``embassy console``: the operators' web page."""

from __future__ import annotations

import os
from pathlib import Path

import click
import structlog

from embassy.cli.console_looks import Looks
from embassy.cli.observing import Observer
from embassy.cli.options import Options, pass_options
from embassy.cli.stream_options import stream_options
from embassy.model.errors import ConfigurationError
from embassy.runtime.exit_codes import ExitCode
from embassy.runtime.health import written_address
from embassy.runtime.systemd import Systemd

_EXTRA = ("jinja2", "markupsafe", "starlette", "uvicorn", "anyio", "h11")


@click.group()
def console() -> None:
    """Show operators what status shows, as a web page."""


@console.command()
@click.option(
    "--address-file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="EMBASSY_ADDRESS_FILE",
    show_envvar=True,
    help="Write host:port of the page to this file; it goes when the console ends.",
)
@pass_options
@stream_options
def run(options: Options, *, address_file: Path | None) -> ExitCode:
    """Serve one page about all streams until told to stop: it only reads.

    What status shows, with each registry's promotion gate, the last hour, open operations and the newest audit entries.
    Databases and topics are looked at every console.interval_seconds, however many browsers there are. What is older
    than 10 s is stamped STALE. Nothing can be changed there, and no key of keys.* is read: approvals and every change
    stay with the other commands.

    At / the page, at /api/status what status --json prints, at /events each look as it comes, at /livez whether looks
    go on, at /readyz whether the page is fresh. It listens at console.listen, on loopback unless console.certificate,
    key and client_ca are set: then whoever asks must have a certificate of client_ca.

    Reads site, console, kafka, keys.operators, audit.file and streams. Needs pip install 'data-embassy[console]'.

    \b
    embassy -c embassy-admin.toml console run
    ssh -L 8470:127.0.0.1:8470 HOST        then, in a browser: http://localhost:8470/
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    try:
        # The other roles' processes load none of this, and an installation need not have it.
        from console.app import Console  # noqa: PLC0415
        from console.feed import Feed  # noqa: PLC0415
        from console.page import Renderer  # noqa: PLC0415
        from console.server import Door  # noqa: PLC0415
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        raise ConfigurationError(
            f"the console needs {package}, which is not installed", hint="pip install 'data-embassy[console]'"
        ) from error
    section = options.settings().console
    log = structlog.get_logger(component="console")
    with Observer(options) as observer:
        looks = Looks(options, observer)
        renderer = Renderer()
        feed = Feed(looks.look, renderer.page, interval_seconds=section.interval_seconds)
        app = Console(feed, renderer, site=looks.site).app(section.known_hosts())
        door = Door(section.address(), section.tls())
        systemd = Systemd()

        def tick() -> None:
            if feed.live().passed:
                systemd.alive()

        try:
            with written_address(address_file, door.address):
                log.info("started", url=door.url, config=options.place, pid=os.getpid())
                feed.start()
                systemd.ready()
                door.serve(app, feed, tick)
                systemd.stopping()
        finally:
            feed.stop()
            door.close()
            systemd.close()
        if feed.failure is not None:
            raise feed.failure
    log.info("ended", exit_code=0)
    return ExitCode.OK
