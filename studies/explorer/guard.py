"""What the page may reach: run folders below one root, and nothing outside this machine.

Knows nothing of models, of run contents or of the views.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from probes.inputs import InputError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""Content-Security-Policy of every answer: the browser itself refuses anything from elsewhere."""

_OUTSIDE = re.compile(r"/(?:file=|file/|proxy=)\s*https?:", re.IGNORECASE)
_OWN_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
_PORT = re.compile(r":\d*$")
_DEPTH = 3


class LocalOnly:
    """ASGI middleware: adds the content policy, and refuses what does not come from a page of this machine.

    Requests to a foreign host name are refused, because a page of that name whose address was changed to this machine
    would otherwise read everything here; so are those that would have addresses fetched on behalf of a client.

    Args:
        app: The application behind.
        bound: The host that the server listens on, beside the names of this machine.
    """

    def __init__(self, app: Application, bound: str = "127.0.0.1") -> None:
        self._app = app
        self._hosts = {*_OWN_HOSTS, bound.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if _host(scope) not in self._hosts:
            await _refuse(scope, send, b"This server answers at localhost only.")
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        if _OUTSIDE.search(unquote(unquote(str(scope.get("path", ""))))):
            await _refuse(scope, send, b"Nothing outside this machine is fetched.")
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def _host(scope: Scope) -> str:
    """The host that a request is for, in lower case and without its port; empty if it names none or several."""
    named = [value for name, value in scope.get("headers", ()) if name.lower() == b"host"]
    if len(named) != 1:
        return ""
    return _PORT.sub("", named[0].decode("latin-1").strip().lower())


async def _refuse(scope: Scope, send: Send, reason: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": reason})


def run_names(root: Path) -> list[str]:
    """Name the run folders below a root, newest first, at most three levels down.

    A run folder is one with a `manifest.json`. Links that lead out of the root are left out.

    Args:
        root: Folder to look below. One that does not exist has no runs.

    Returns:
        Paths relative to the root.
    """
    home = root.resolve()
    found: list[tuple[float, str]] = []
    for depth in range(1, _DEPTH + 1):
        for manifest in home.glob("/".join(["*"] * depth + ["manifest.json"])):
            folder = manifest.parent
            if folder.resolve().is_relative_to(home) and manifest.is_file():
                found.append((manifest.stat().st_mtime, folder.relative_to(home).as_posix()))
    return [name for _, name in sorted(found, key=lambda item: (-item[0], item[1]))]


def run_path(root: Path, name: str | None) -> Path:
    """Resolve a run's name below a root.

    Args:
        root: Folder that holds the runs.
        name: Relative name, as `run_names` gives it.

    Raises:
        InputError: If no name is given, the name leads out of the root, or no run folder is there.
    """
    if not name:
        raise InputError(f"no run chosen: make one with `sightcheck audit --out {root}/NAME`, then refresh the list")
    home = root.resolve()
    folder = (home / name).resolve() if "\0" not in name else home.parent
    if folder == home or not folder.is_relative_to(home):
        raise InputError(f"run {name!r} is not below the folder of runs: only folders below {root} are opened")
    if not (folder / "manifest.json").is_file():
        raise InputError(f"run {name!r} has no manifest.json: choose a run folder that `sightcheck audit` wrote")
    return folder
