"""A chat-completions endpoint on 127.0.0.1 that behaves as a test says: well, badly, or not at all."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Act = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    """Runs the test's act for each question, and keeps what was asked."""

    server: "JudgeServer"
    under_way = 0
    """1 while its question has no reply."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append({"path": self.path, "key": self.headers.get("Authorization"), "body": body})
            self.under_way = 1
            self.server.under_way += 1
            self.server.most_under_way = max(self.server.most_under_way, self.server.under_way)
        try:
            self.server.act(self, body)
        except (BrokenPipeError, ConnectionResetError):
            # The client gave up, as some tests have it.
            pass
        finally:
            self._leave()

    def _leave(self) -> None:
        """Be under way no more; before a reply goes out, as the client may ask again as soon as it has it."""
        with self.server.lock:
            self.server.under_way -= self.under_way
            self.under_way = 0

    def send(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self._leave()
        self.end_headers()
        self.wfile.write(content)

    def say(self, text: Any, finish_reason: str = "stop") -> None:
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
        self.send(200, json.dumps({"choices": [choice]}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


class JudgeServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, act: Act) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.act = act
        self.asked: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.under_way = self.most_under_way = 0
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def serving(act: Act) -> Iterator[JudgeServer]:
    server = JudgeServer(act)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def texts_of(body: dict[str, Any]) -> str:
    """Everything that a question says, in one string."""
    content = body["messages"][-1]["content"]
    return "\n".join(part["text"] for part in content if part["type"] == "text")
