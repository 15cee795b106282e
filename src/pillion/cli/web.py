"""`pillion web`: serve the dashboard by itself, with uvicorn.

It listens on the loopback interface and lets everybody who reaches that do everything. Another address needs `--auth`
(passwords and tokens in a file) or `--insecure`, or it does not start. It never runs jobs and never stops workers
unless somebody presses the button.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pillion.cli import say
from pillion.cli.exits import Exit
from pillion.cli.settings import ENVIRONMENT, FILE, use

if TYPE_CHECKING:
    import socket

    from uvicorn import Server

    from pillion.setup import Setup
    from pillion.web.access import Auth
    from pillion.web.app import Dashboard

LOOPBACK = ("127.0.0.1", "::1", "localhost")
PORT = 9300
BACKLOG = 128
TRIES = 20
LAST_WORDS = 2


@click.command("web")
@click.option("-b", "--bind", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("-p", "--port", metavar="PORT", default=PORT, show_default=True, type=click.IntRange(0, 65535))
@click.option("--auth", "keys", metavar="FILE", type=click.Path(path_type=Path), help="Lines of name:role:secret.")
@click.option("--insecure", is_flag=True, help="Let everybody who reaches ADDRESS do everything.")
@click.option("--host-name", "hosts", metavar="NAME", multiple=True, help="A name it is asked for under; repeat.")
@click.option("--root-path", metavar="PATH", default="", help="Where a proxy mounts it: /jobs.")
@click.option("--trust-proxy", metavar="ADDRESS", default="", help="Believe X-Forwarded-* from there.")
@click.option("-r", "--redis", "address", metavar="URL", help="Which Redis; otherwise as configured.")
@ENVIRONMENT
@FILE
def command(environment: str | None, file: Path | None, address: str | None, **options: Any) -> int:
    """Serve the dashboard.

    \b
    pillion web                                 http://127.0.0.1:9300, for you alone
    pillion web --bind 0.0.0.0 --auth keys      for others; a line of `keys`: anna:operator:a-long-secret
    """
    from pillion.client import Client
    from pillion.web.app import dashboard

    auth, challenge = _auth(options["bind"], options["keys"], options["insecure"])
    setup = use(file=file, environment=environment)
    if address is not None:
        setup.configure(address)
    app = dashboard(Client(setup=setup), auth=auth, hosts=options["hosts"], challenge=challenge)
    return serve(app, options)


def _auth(bind: str, keys: Path | None, insecure: bool) -> tuple[Auth, str]:
    """Who is let in; refuses to open the door to everybody unless that was asked for."""
    from pillion.errors import ConfigError
    from pillion.web.access import ANYONE_I_KNOW, Keys

    if keys is not None:
        try:
            return Keys.read(keys.read_text()), Keys.challenge
        except OSError as error:
            raise ConfigError(f"expected a file of `name:role:secret` lines, got {keys} ({error.strerror})") from None
    if bind not in LOOPBACK and not insecure:
        raise ConfigError(
            f"expected --auth FILE with --bind {bind}, got none: everybody who reaches that address could delete jobs; "
            "write a file of `name:role:secret` lines, or say --insecure"
        )
    return ANYONE_I_KNOW, ""


def serve(app: Dashboard, options: dict[str, Any]) -> int:
    """Serve until a signal."""
    proxy, root, bind = options["trust_proxy"], options["root_path"].rstrip("/"), options["bind"]
    listening = listen(bind, options["port"])
    if listening is None:
        say.error(f"port {options['port']} of {bind} is taken, or no address of this machine", ["--port 0 takes any"])
        return Exit.REFUSED
    behind: dict[str, Any] = {"root_path": root, "proxy_headers": bool(proxy), "forwarded_allow_ips": proxy or None}
    say.note(f"pillion web: {address(listening)}{root}/")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _heard)  # uvicorn stops at a signal and then sends it once more, to whoever was there
    server(app, **behind).run([listening])
    app.close()
    return Exit.DONE


def _heard(*_: object) -> None:
    """Being told to stop is a good end."""


def server(app: Dashboard, **options: Any) -> Server:
    """A uvicorn that says nothing of itself."""
    import uvicorn

    quiet: dict[str, Any] = {"server_header": False, "log_level": "warning", "access_log": False}
    own: dict[str, Any] = {"ws": "none", "lifespan": "off", "timeout_graceful_shutdown": LAST_WORDS}
    return uvicorn.Server(uvicorn.Config(app, **quiet, **own, **options))


def listen(bind: str, port: int) -> socket.socket | None:
    """A socket there, or None where that cannot be."""
    import socket

    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((bind, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        return None
    return listening


def address(listening: socket.socket) -> str:
    """Where that is, for a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Beside:
    """The dashboard in a thread beside `pillion dev`, on the first free port from 9300 on."""

    def __init__(self, app: Dashboard, listening: socket.socket) -> None:
        import threading

        self._app = app
        self._server = server(app)
        self._thread = threading.Thread(target=self._server.run, args=([listening],), name="pillion-web", daemon=True)
        self._thread.start()

    @classmethod
    def start(cls, setup: Setup) -> Beside | None:
        """Begin, and say where it is; None, and why, where that cannot be."""
        from pillion.client import Client

        try:
            from pillion.web import ANYONE_I_KNOW, dashboard
        except ImportError:
            say.note("pillion: no dashboard without starlette, jinja2 and uvicorn; pip install 'pillion[web]'")
            return None
        listening = next(filter(None, (listen(LOOPBACK[0], port) for port in (*range(PORT, PORT + TRIES), 0))))
        say.note(f"pillion: the dashboard is at {address(listening)}/")
        return cls(dashboard(Client(setup=setup), auth=ANYONE_I_KNOW), listening)

    def stop(self) -> None:
        """End it, with the streams that are open."""
        self._server.should_exit = True
        self._thread.join(LAST_WORDS + 1)
        self._app.close()
