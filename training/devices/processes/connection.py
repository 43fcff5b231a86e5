"""A connection between two processes, for messages and the bytes that they announce."""

import contextlib
import json
import socket
import threading
from typing import Any

_LONGEST_MESSAGE = _PART = 2**20


class Connection:
    """Messages, which are JSON objects in lines, over a socket; several threads may send.

    Attributes:
        socket: Its timeout is the longest silence of the other end.
        closed: Set by who listens, when the other end is gone.
    """

    def __init__(self, sock: socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self.closed = threading.Event()
        self._file = sock.makefile("rb")
        self._sending = threading.Lock()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes = b"", **message: Any) -> None:
        """Sends, or does nothing where nobody is left to hear it; whoever receives tells that.

        Args:
            data: Sent after the message, in parts, each of which may take the socket's timeout.
            **message: JSON values.
        """
        with contextlib.suppress(OSError), self._sending:
            self.socket.sendall(json.dumps(message).encode() + b"\n")
            for start in range(0, len(data), _PART):
                self.socket.sendall(data[start : start + _PART])

    def receive(self) -> dict[str, Any]:
        """The next message.

        Raises:
            OSError: The other end is gone, or was silent for the socket's timeout.
            ValueError: What came is no message.
        """
        line = self._file.readline(_LONGEST_MESSAGE)
        if not line.endswith(b"\n"):
            raise ConnectionError("it closed its connection")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("no message")
        return message

    def receive_bytes(self, size: int) -> bytes:
        """The bytes after a message that announced them.

        Raises:
            OSError: As `receive`.
        """
        data = self._file.read(size)
        if len(data) < size:
            raise ConnectionError("it closed its connection")
        return data
