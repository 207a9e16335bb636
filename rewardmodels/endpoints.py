"""An OpenAI-compatible endpoint for chat completions: one POST a question, with retries, a deadline and few at a time.

Sends what it is given to the one address that it is given, and nothing anywhere else: redirects are not followed. The
API key is read from the environment when it is needed, and is kept out of messages. Knows nothing of judging. No torch.
"""

import json
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from probes.inputs import InputError

Messages = Sequence[Mapping[str, Any]]

MAX_BYTES = 4 * 2**20
"""Largest reply that is read."""
LONGEST_WAIT = 60.0
"""Most seconds between two attempts, whatever the endpoint asks for."""
_PATH = "/chat/completions"
_WORTH_RETRYING = frozenset({408, 425, 429, 500, 502, 503, 504})
_CHUNK = 65536


class EndpointError(InputError):
    """An endpoint that does not answer, or not as such endpoints do."""


class Reply(NamedTuple):
    """What an endpoint wrote.

    Attributes:
        text: The first choice's text.
        cut: Whether it was cut off at the allowed number of tokens.
        error: Why there is no text.
    """

    text: str
    cut: bool = False
    error: str = ""


@dataclass(frozen=True)
class Endpoint:
    """Where chat completions are asked for, and how patiently.

    Raises:
        InputError: The address is no http address or holds a password, or a number is out of range.
    """

    url: str
    """Base address such as ``http://127.0.0.1:8000/v1``; ``/chat/completions`` is added where it is missing."""
    model: str
    """The model's name there."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the API key; without it no key is sent."""
    timeout: float = 60.0
    """Seconds that one attempt may take."""
    retries: int = 4
    """Further attempts after a failure that may pass."""
    backoff: float = 1.0
    """Seconds before the second attempt; doubled for each further one. A longer ``Retry-After`` is kept to."""
    concurrency: int = 4
    """Questions under way at a time."""
    max_tokens: int = 512
    """Most tokens of a reply."""
    temperature: float = 0.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"the endpoint {self.url!r} is no http or https address: give one such as http://host/v1")
        if parts.username is not None or parts.password is not None:
            raise InputError(f"the endpoint's address holds a password: put the key into {self.key_variable} instead")
        limits = {"timeout": self.timeout > 0, "retries": self.retries >= 0, "backoff": self.backoff >= 0}
        limits |= {"concurrency": self.concurrency >= 1, "max_tokens": self.max_tokens >= 1}
        for name, fine in limits.items():
            if not fine:
                raise InputError(f"{name} of an endpoint is {getattr(self, name)}, which is out of range")

    @property
    def address(self) -> str:
        """Where questions are posted."""
        base = self.url.rstrip("/")
        return base if base.endswith(_PATH) else base + _PATH

    def ask(self, messages: Messages) -> Reply:
        """Ask one question.

        Raises:
            EndpointError: It fails for good: refused, or failing still at the last attempt.
        """
        body = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        request = Request(self.address, json.dumps(body).encode(), self._headers(), method="POST")
        for attempt in range(self.retries + 1):
            try:
                return _reply(self._send(request))
            except _PassingError as failure:
                if attempt == self.retries:
                    tried = f"after {attempt + 1} attempts" if attempt else "at the only attempt"
                    raise EndpointError(f"{self.address} fails {tried}: {failure}") from None
                wait = self.backoff * 2**attempt * random.uniform(1.0, 1.25)
                time.sleep(min(LONGEST_WAIT, max(wait, failure.wait)))
        raise AssertionError("unreachable")

    def ask_all(self, questions: Sequence[Messages], skip: bool) -> list[Reply]:
        """Ask several questions, some at a time; replies come in the questions' order.

        Args:
            questions: Each its messages.
            skip: Whether a failure is a reply with its reason; else no further question is asked and it is raised.

        Raises:
            EndpointError: A question fails and is not skipped.
        """

        failed = threading.Event()

        def attempt(messages: Messages) -> Reply:
            # Questions start in order, so the failure that is raised comes before those that are then not asked.
            if failed.is_set():
                raise EndpointError("not asked, as an earlier question failed")
            try:
                return self.ask(messages)
            except EndpointError as error:
                if skip:
                    return Reply("", error=str(error))
                failed.set()
                raise

        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="endpoint") as pool:
            under_way = [pool.submit(attempt, messages) for messages in questions]
            try:
                return [future.result() for future in under_way]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = os.environ.get(self.key_variable, "").strip()
        if not (key.isascii() and (key.isprintable() or not key)):
            raise EndpointError(f"the key in {self.key_variable} holds characters that no header may have: set it anew")
        return headers | {"Authorization": f"Bearer {key}"} if key else headers

    def _send(self, request: Request) -> bytes:
        deadline = time.monotonic() + self.timeout
        try:
            with _opener().open(request, timeout=self.timeout) as response:
                return b"".join(_chunks(response, deadline, self.timeout))
        except HTTPError as error:
            with error:
                self._refuse(error, deadline)
        except (OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            if isinstance(reason, TimeoutError):
                raise _PassingError(f"no reply within {self.timeout:g} s") from None
            raise _PassingError(f"{type(reason).__name__}: {reason}".rstrip(": ")) from None
        raise AssertionError("unreachable")

    def _refuse(self, error: HTTPError, deadline: float) -> None:
        try:
            said = b"".join(_chunks(error, deadline, self.timeout)).decode("utf-8", "replace")
        except (OSError, HTTPException, _PassingError, EndpointError):
            said = ""
        line = f"status {error.code}" + (f" ({self._shown(said)})" if said.strip() else "")
        if error.code in _WORTH_RETRYING:
            raise _PassingError(line, _asked_wait(error.headers))
        hint = ": redirects are not followed, give the final address" if 300 <= error.code < 400 else ""
        hint = f": set the key in {self.key_variable}" if error.code in (401, 403) else hint
        raise EndpointError(f"{self.address} refuses with {line}{hint}")

    def _shown(self, said: str) -> str:
        key = os.environ.get(self.key_variable, "").strip()
        line = " ".join((said.replace(key, "[key]") if key else said).split())
        return line if len(line) <= 160 else line[:159] + "…"


class _PassingError(Exception):
    """A failure that may not come again."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none: a question, and a key, go to the given address only."""


def _opener() -> OpenerDirector:
    return build_opener(_NoRedirects)


def _chunks(response: Any, deadline: float, timeout: float) -> Iterator[bytes]:
    """Parts of a reply; a socket's own timeout starts anew with every byte, the deadline does not."""
    total = 0
    while chunk := response.read1(_CHUNK):
        total += len(chunk)
        if total > MAX_BYTES:
            raise EndpointError(f"the endpoint's reply is longer than {MAX_BYTES:,} bytes")
        if time.monotonic() > deadline:
            raise _PassingError(f"no whole reply within {timeout:g} s")
        yield chunk


def _asked_wait(headers: Message) -> float:
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return 0.0


def _reply(content: bytes) -> Reply:
    """The first choice.

    Raises:
        _PassingError: It is no JSON, as where a reply is cut short.
        EndpointError: It is JSON of another form.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _PassingError(f"its reply is not JSON ({' '.join(str(error).split())[:80]})") from None
    try:
        choice = found["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise EndpointError("the endpoint's reply has no choices[0].message.content: is it for chat?") from None
    if isinstance(text, list):
        text = "".join(str(part.get("text", "")) for part in text if isinstance(part, Mapping))
    return Reply(text if isinstance(text, str) else "", choice.get("finish_reason") == "length")
