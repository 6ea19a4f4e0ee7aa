"""The labelling page's server: this machine only, nothing without the token in the address."""

import hmac
import json
import secrets
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from experiments.label_journal import CHOICES, Journal
from experiments.label_page import page
from experiments.label_pictures import Pictures
from prefs.feedback import PreferenceData

_HOST = "127.0.0.1"
_LARGEST_BODY = 4096


class Session:
    """What is asked and what was answered; safe to use from several threads.

    Attributes:
      journal: keeps the answers.
      pictures: of the segments.
    """

    def __init__(self, data: PreferenceData, about: dict[str, Any], journal: Journal):
        """Ask `data`'s pairs; `about` may have a `view` for the pictures."""
        self.journal = journal
        self.pictures = Pictures(data.segments, about.get("view"))
        self._segments = np.stack([data.pairs.first, data.pairs.second], -1).tolist()
        self._lock = threading.Lock()

    def state(self) -> dict[str, Any]:
        """What the page shows: the pair to compare now, what comes next, and how far it is."""
        with self._lock:
            coming = self.journal.next_pairs(2)
            return {
                "pair": coming[0] if coming else None,
                "segments": self._segments[coming[0]] if coming else [],
                "next": self._segments[coming[1]] if len(coming) > 1 else [],
                "answered": len(self.journal.answers),
                "total": len(self.journal.pairs),
            }

    def answer(self, pair: Any, choice: Any) -> HTTPStatus:
        """Keep an answer to the present question; CONFLICT where another is asked by now."""
        if choice not in CHOICES or type(pair) is not int:
            return HTTPStatus.BAD_REQUEST
        with self._lock:
            if [pair] != self.journal.next_pairs(1):
                return HTTPStatus.CONFLICT
            self.journal.record(pair, choice)
        return HTTPStatus.OK

    def undo(self) -> HTTPStatus:
        """Take the last answer back; CONFLICT where there is none."""
        with self._lock:
            return HTTPStatus.CONFLICT if self.journal.undo() is None else HTTPStatus.OK


class LabelServer(ThreadingHTTPServer):
    """Serves one session under one token.

    Attributes:
      address: of the page, token included.
    """

    daemon_threads = True

    def __init__(self, session: Session, port: int = 0):
        """Listen on the loopback interface; port 0 takes any that is free.

        Raises:
          OSError: the port is taken.
        """
        super().__init__((_HOST, port), _Handler)
        self.session = session
        self.token = secrets.token_urlsafe(32)
        self.address = f"http://{_HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error in a request, unless it is a browser that did not wait for its answer."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """End `serve_forever` once the present answer is out."""
        threading.Thread(target=self.shutdown, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: LabelServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:  # noqa: N802  (the base class's name)
        path = self._allowed()
        if path is None:
            return
        session = self.server.session
        if path == "":
            nonce = secrets.token_urlsafe(16)
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", page(nonce).encode(), nonce)
        elif path == "state":
            self._send_state(HTTPStatus.OK)
        elif path.startswith("segment/") and path.endswith(".png"):
            number = path[len("segment/") : -len(".png")]
            if number.isascii() and number.isdecimal() and int(number) < len(session.pictures):
                self._send(HTTPStatus.OK, "image/png", session.pictures.png(int(number)))
            else:
                self._refuse(HTTPStatus.NOT_FOUND)
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:  # noqa: N802  (the base class's name)
        path = self._allowed()
        if path is None:
            return
        body = self._body()
        if body is None:
            self._refuse(HTTPStatus.BAD_REQUEST)
        elif path == "answer":
            self._try(lambda: self.server.session.answer(body.get("pair"), body.get("choice")))
        elif path == "undo":
            self._try(self.server.session.undo)
        elif path == "stop":
            self._send_state(HTTPStatus.OK)
            self.server.stop()
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def _try(self, change) -> None:
        try:
            self._send_state(change())
        except OSError as error:  # such as a full disk: the answer was not taken
            text = f"the answer could not be written: {error.strerror or error}"
            self._send(HTTPStatus.INSUFFICIENT_STORAGE, "text/plain", text.encode())

    def _allowed(self) -> str | None:
        """The path after the token; None, and 403 sent, for whoever does not have it."""
        token, slash, rest = self.path.removeprefix("/").partition("/")
        known = hmac.compare_digest(token.encode(), self.server.token.encode())
        # another name for this machine would come from a page that has rebound its own
        hosts = {f"{name}:{self.server.server_port}" for name in (_HOST, "localhost")}
        if known and slash and self.headers.get("Host") in hosts:
            return rest
        self._refuse(HTTPStatus.FORBIDDEN)
        return None

    def _body(self) -> dict[str, Any] | None:
        try:
            length = int(self.headers.get("Content-Length", ""))
            if not 0 <= length <= _LARGEST_BODY:
                return None
            body = json.loads(self.rfile.read(length))
        except ValueError:
            return None
        return body if isinstance(body, dict) else None

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True  # a body that was not read is no next request
        self._send(status, "text/plain", status.phrase.encode())

    def _send_state(self, status: HTTPStatus) -> None:
        if status == HTTPStatus.BAD_REQUEST:
            self._refuse(status)
            return
        body = json.dumps(self.server.session.state()).encode()
        self._send(status, "application/json", body)

    def _send(self, status: HTTPStatus, kind: str, body: bytes, nonce: str = "") -> None:
        inline = f"'nonce-{nonce}'" if nonce else "'none'"
        policy = (
            f"default-src 'none'; img-src 'self'; connect-src 'self'; script-src {inline}; "
            f"style-src {inline}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", policy)
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the terminal would show the token again and again."""
