"""Connections of the soak that live from its beginning to its end: a second attempt is never made."""
import socket

# Bytes of one response, or of one round of echoes.
BODY_BYTES = 4 << 20


class Connection:
    may_end = False

    def __init__(self, far_end, address, port):
        self.far_end = far_end
        self.address = address
        self.bytes = 0
        self.error = None
        self.budget = 0
        self.time = self.moved = None
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.buffer = bytearray(1 << 16)
        self.expected = memoryview(far_end.pattern)
        # Until it is connected, it can neither send nor receive.
        self.socket.connect_ex((address, port))

    def fail(self, why, is_loss=True):
        """Whether data is wrong counts for all; the end of a connection only for those that may not end."""
        if self.error is None:
            self.error = why
            if not is_loss or not self.may_end:
                self.far_end.complain(f"the connection to {self.address} after {self.bytes} bytes: {why}")

    def report(self, now):
        idle = 0 if self.moved is None else now - self.moved
        return {"address": self.address, "bytes": self.bytes, "idle": round(idle, 2), "error": self.error}

    def step(self, now):
        """Moves as many bytes as the rate lets it."""
        if self.error is not None:
            return
        if self.time is None:
            self.time = self.moved = now
        self.budget = min(self.budget + (now - self.time) * self.far_end.rate, 1 << 18)
        self.time = now
        try:
            while self.budget > 0 and self.move(now):
                pass
        except BlockingIOError:
            pass
        except OSError as error:
            self.fail(str(error))

    def take(self, count, now, expected):
        """Bytes have come: compares them."""
        if count == 0:
            self.fail("closed by its peer")
            return False
        if memoryview(self.buffer)[:count] != expected:
            self.fail("bytes that are not right", is_loss=False)
            return False
        self.bytes += count
        self.budget -= count
        self.moved = now
        return True


class Stream(Connection):
    """Asks an HTTP server for the pattern, again and again on one connection."""

    def __init__(self, far_end, address, port):
        self.left = 0
        self.head = None
        super().__init__(far_end, address, port)

    @property
    def has_all(self):
        return self.left == 0 and self.head is None

    def move(self, now):
        if self.has_all:
            if self.far_end.is_quiet:
                self.moved = now
                return False
            self.socket.send(f"GET /bytes/{BODY_BYTES} HTTP/1.1\r\nHost: soak\r\n\r\n".encode())
            self.head = b""
            self.left = BODY_BYTES
        if self.head is not None:
            byte = self.socket.recv(1)
            if not byte:
                self.fail("closed by its peer")
                return False
            self.head += byte
            if self.head.endswith(b"\r\n\r\n"):
                if not self.head.startswith(b"HTTP/1.1 200 OK\r\n") or f"length: {BODY_BYTES}\r\n" not in (
                        self.head.decode().lower()):
                    self.fail(f"a header that is not right: {self.head}")
                    return False
                self.head = None
            return True
        wanted = min(self.left, len(self.buffer))
        count = self.socket.recv_into(self.buffer, wanted)
        start = BODY_BYTES - self.left
        self.left -= count
        return self.take(count, now, self.expected[start:start + count])


class PassingStream(Stream):
    """The same with an instance that is going to be killed."""
    may_end = True


class Echo(Connection):
    """Sends the pattern and reads it back."""

    def __init__(self, far_end, address, port):
        self.sent = self.received = 0
        super().__init__(far_end, address, port)

    @property
    def has_all(self):
        return self.sent == self.received

    def move(self, now):
        moved = False
        if self.sent - self.received < 1 << 17 and not self.far_end.is_quiet:
            place = self.sent % BODY_BYTES
            try:
                self.sent += self.socket.send(self.expected[place:min(place + 16384, BODY_BYTES)])
                moved = True
            except BlockingIOError:
                pass
        if self.has_all:
            self.moved = now
            return False
        place = self.received % BODY_BYTES
        try:
            count = self.socket.recv_into(self.buffer, min(len(self.buffer), BODY_BYTES - place))
        except BlockingIOError:
            return moved
        self.received += count
        return self.take(count, now, self.expected[place:place + count])
