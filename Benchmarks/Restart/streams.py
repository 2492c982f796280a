"""TCP connections that live from the beginning to the end, and fetch a pattern again and again: each byte is compared. A
datagram each millisecond beside them, which nobody answers: what a TCP has lost it sends again only after some time.

Usage: streams.py PATTERN-FILE BYTES-PER-SECOND ADDRESS... (one connection for each). Reads `quiet` and the end of input; says
how many bytes have come over each connection, and what is wrong, once a tenth of a second, a JSON object a line.
"""
import json
import os
import pathlib
import selectors
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "Tests" / "Soak"))
from far_end_streams import Stream


class FarEnd:
    def __init__(self, pattern, rate):
        self.pattern = pattern
        self.rate = rate
        self.is_quiet = False
        self.wrong = []

    def complain(self, what, **_):
        self.wrong.append(what)


def main():
    path, rate, *addresses = sys.argv[1:]
    with open(path, "rb") as file:
        far_end = FarEnd(file.read(), int(rate))
    streams = [Stream(far_end, address, 80) for address in addresses]
    os.set_blocking(0, False)
    selector = selectors.DefaultSelector()
    for stream in streams:
        selector.register(stream.socket, selectors.EVENT_READ)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.setblocking(False)
    report = 0.0
    while True:
        selector.select(0.002)
        time.sleep(0.001)
        try:
            word = os.read(0, 100)
            if not word:
                return
            far_end.is_quiet = b"quiet" in word
        except BlockingIOError:
            pass
        try:
            datagrams.sendto(b"x", (addresses[0], 9))
        except OSError:
            pass
        now = time.monotonic()
        for stream in streams:
            stream.step(now)
        if now >= report:
            report = now + 0.1
            done = all(stream.has_all for stream in streams)
            print(json.dumps({"bytes": [s.bytes for s in streams], "wrong": far_end.wrong, "done": done}), flush=True)


main()
