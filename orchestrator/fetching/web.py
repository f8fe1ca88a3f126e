"""How does roadtest ask other machines over HTTP? With patience, and with the hub's token for the hub alone."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import tenacity

from orchestrator.errors import OrchestratorError

#: Attempts in a row that bring nothing new, before upstream counts as out of reach.
TRIES = 6
#: Between attempts, in seconds.
WAIT: Any = tenacity.wait_random_exponential(multiplier=0.5, max=30)
#: Longest wait in seconds that a server may ask for.
LONGEST_WAIT = 120
#: Seconds to connect, and between two bytes.
TIMEOUT = (10, 60)
#: Bytes read at a time, which a connection that ends takes with it.
CHUNK = 1 << 16
LONGEST_LISTING = 64 << 20
_MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
T = TypeVar("T")


class FetchError(OrchestratorError):
    """A download failed; what is here is kept, running the same command goes on."""

    exit_code = 4


class OfflineError(FetchError):
    """Upstream cannot be reached."""


class AnswerError(FetchError):
    """Upstream answers, but not with what was asked for."""

    def __init__(self, message: str, *, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


class PassingError(Exception):
    """May go well the next time; `wait` are the seconds that the server asks for."""

    def __init__(self, message: str, *, wait: float = 0) -> None:
        super().__init__(message)
        self.wait = wait


class StoppedError(Exception):
    """Whoever asked wants it no more."""


def endpoint(variable: str, default: str) -> str:
    """An address that an environment variable may replace.

    Raises:
        FetchError: It is no http address.
    """
    found = (os.environ.get(variable) or default).rstrip("/")
    if not re.match(r"https?://[^/@]+(/|$)", found):
        raise FetchError(f"{variable} is no http address; set it like {default}, or leave it out.")
    return found


@dataclass(kw_only=True)
class Client:
    """HTTP with retries.

    Attributes:
        hub: Address of the hub, the only one that the token is sent to.
        token: Token of the hub.
        wait: Seconds between attempts, of tenacity; default `WAIT`.
        stopped: Set it, and every request ends with `StoppedError`.
    """

    hub: str = ""
    token: str | None = field(default=None, repr=False)
    wait: Any = None
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if self.token is not None and not re.fullmatch(r"[!-~]+", self.token):
            raise FetchError("HF_TOKEN has characters that no token has, such as blanks or line ends; set it anew.")
        self._local = threading.local()

    def json(self, url: str) -> tuple[Any, Mapping[str, str]]:
        """A JSON answer and its headers.

        Raises:
            FetchError: It cannot be had, is no JSON, or is longer than a listing is.
            StoppedError: `stopped` is set.
        """
        return self.retried(url, lambda: self._json(url))

    def retried(self, url: str, attempt: Callable[[], T], held: Callable[[], int] = lambda: 0) -> T:
        """Try until it goes well, or brought nothing new `TRIES` times in a row.

        Args:
            url: What is asked, for messages.
            attempt: Raises `PassingError` where another attempt is worth it.
            held: What attempts brought so far, such as bytes.

        Raises:
            OfflineError: No attempt went well.
        """
        before, fruitless = held(), 0

        def give_up(_: tenacity.RetryCallState) -> bool:
            nonlocal before, fruitless
            now = held()
            before, fruitless = max(now, before), 0 if now > before else fruitless + 1
            return fruitless >= TRIES

        def pause(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = min(error.wait, LONGEST_WAIT) if isinstance(error, PassingError) else 0
            return max(float((self.wait or WAIT)(state)), asked)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(PassingError),
            wait=pause,
            stop=give_up,
            sleep=tenacity.sleep_using_event(self.stopped),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except PassingError as error:
            raise OfflineError(f"{url}: {error} ({TRIES} attempts).") from None

    @contextmanager
    def open(self, url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        """A streamed 2xx answer.

        Raises:
            PassingError: Another attempt may go well.
            FetchError: None will.
            StoppedError: `stopped` is set.
        """
        if self.stopped.is_set():
            raise StoppedError
        try:
            with self._follow(url, headers) as response:
                if not response.ok:
                    raise _refusal(url, response)
                yield response
        except requests.exceptions.SSLError as error:
            raise OfflineError(f"{url}: no trusted connection ({_reason(error)}).") from None
        except requests.exceptions.ChunkedEncodingError:
            raise PassingError("the connection ended early") from None
        except (requests.ConnectionError, requests.Timeout) as error:
            raise PassingError(_reason(error)) from None
        except requests.RequestException as error:
            raise FetchError(f"{url}: {_reason(error)}.") from None

    def _json(self, url: str) -> tuple[Any, Mapping[str, str]]:
        content = bytearray()
        with self.open(url, {}) as response:
            for chunk in response.iter_content(CHUNK):
                content += chunk
                if len(content) > LONGEST_LISTING:
                    raise FetchError(f"{url}: the answer is above {LONGEST_LISTING >> 20} MB, which is no listing.")
            headers = response.headers
        try:
            return json.loads(content), headers
        except (ValueError, RecursionError):
            raise FetchError(f"{url}: the answer is no JSON; is a proxy or log-in page in between?") from None

    def _follow(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        """The answer where redirections end; each hop gets the token only if it is the hub itself."""
        at = url
        for _ in range(10):
            sent = {"Accept-Encoding": "identity", "User-Agent": "roadtest", **headers}
            if self.token and _origin(at) == _origin(self.hub):
                sent["Authorization"] = f"Bearer {self.token}"
            response = self._session().get(at, headers=sent, stream=True, timeout=TIMEOUT, allow_redirects=False)
            if response.status_code not in _REDIRECTS or "location" not in response.headers:
                return response
            response.close()
            to = urljoin(at, response.headers["location"])
            if not to.startswith(("https://", "http://") if at.startswith("http://") else "https://"):
                raise FetchError(f"{url}: redirected to {to.split('?')[0]}, which is no https address.")
            at = to
        raise FetchError(f"{url}: redirected in circles.")

    def _session(self) -> requests.Session:
        """One per thread: requests promises no more."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.auth = _no_netrc
        found: requests.Session = self._local.session
        return found


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _refusal(url: str, response: requests.Response) -> Exception:
    status, headers = response.status_code, response.headers
    if status in _MAY_PASS:
        asked = headers.get("retry-after", "")
        wait = int(asked) if asked.isdecimal() else 0
        return PassingError(f"the server answers {status} {response.reason}", wait=wait)
    message = f"{url}: the server answers {status} {response.reason}."
    if headers.get("x-ratelimit-remaining") == "0":
        reset = headers.get("x-ratelimit-reset", "")
        until = time.strftime(" until %H:%M", time.localtime(int(reset))) if reset.isdecimal() else ""
        message = f"{url}: too many requests from this address{until}; run the same command again then."
    return AnswerError(message, status=status, headers=headers)


def _reason(error: BaseException) -> str:
    """The innermost reason of an error of requests, which names neither query strings nor objects."""
    while True:
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
        if not isinstance(inner, BaseException):
            break
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return re.sub(r"<[^>]*>[:,]? ?", "", str(error)).strip("(). ") or type(error).__name__
