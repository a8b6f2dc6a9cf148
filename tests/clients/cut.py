"""A way to the gateway that breaks: the request arrives, and its answer does not."""

from __future__ import annotations

import json
import socket
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

_RESET = struct.pack("ii", 1, 0)  # linger for no time at all: closing sends a reset instead of an orderly end


@dataclass
class Cut:
    """Listens at `url`; `answers` are the bodies of the server's answers, those that were cut off too."""

    listener: socket.socket
    server: tuple[str, int]
    cuts: int
    answers: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        """One connection after the other, as one client opens them; one request each."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:  # closed: the test is over
                return
            with connection, socket.create_connection(self.server) as onward:
                connection.settimeout(20)
                onward.settimeout(20)
                request = _request(connection)
                if not request:
                    continue
                onward.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                answer = b"".join(iter(lambda: onward.recv(65536), b""))
                self.answers.append(json.loads(answer.partition(b"\r\n\r\n")[2]))
                if len(self.answers) <= self.cuts:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                else:
                    connection.sendall(answer)


@contextmanager
def cutting(url: str, cuts: int = 1) -> Iterator[Cut]:
    """A way to the server at `url` on which the first answers are lost: the client sees a reset."""
    address = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cut = Cut(listener=listener, server=(str(address.hostname), int(address.port or 80)), cuts=cuts)
        thread = threading.Thread(target=cut.serve, daemon=True)
        thread.start()
        try:
            yield cut
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(20)


def _request(connection: socket.socket) -> bytes:
    """Its head and as much of a body as the head says; nothing where the client has left."""
    received = b""
    while b"\r\n\r\n" not in received:
        if not (more := connection.recv(65536)):
            return b""
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
