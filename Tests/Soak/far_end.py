"""The far end of the soak's wire: sends traffic to all instances and checks what comes back, byte by byte.

Usage: far_end.py PATTERN-FILE BYTES-PER-SECOND. Commands come on standard input, a JSON array a line:

  ["stream", address]              a connection to port 80 that fetches the pattern again and again, and never ends
  ["passing", address]             the same with one that may end at any time; ["passed", address]
  ["echo", address]                a TCP connection to port 7001 and datagrams to port 7002, which both echo
  ["probe", address, port, n, secret]   datagrams that a checking instance answers; ["forget", n]; ["known", n, secret]
  ["quiet"]                        sends no more, and waits for what is under way
Reports go to standard output, a JSON object a line: totals once a second, and what was wrong at once.
"""
import json
import os
import random
import selectors
import socket
import struct
import sys
import time

from far_end_streams import Echo, PassingStream, Stream

PROBE_PORT, FLOOD_PORT, ECHO_DATAGRAM_PORT = 7000, 7009, 7002
PATTERN_WORDS = 8192


class FarEnd:
    def __init__(self, pattern, rate):
        self.pattern = pattern
        self.rate = rate
        self.random = random.Random(1)
        self.selector = selectors.DefaultSelector()
        self.connections = []
        self.passing = {}
        self.probes = {}
        self.secrets = {}
        self.canaries = {}
        self.echoes = []
        self.sequence = 0
        self.sent = {}
        self.is_quiet = False
        self.totals = dict.fromkeys(
            ["probes", "replies", "floods", "reply_bytes", "echo_datagrams", "echo_answers"], 0)
        self.wrong = 0
        self.probe_socket = self.datagrams(PROBE_PORT, self.take_reply)
        self.flood_socket = self.datagrams(FLOOD_PORT, self.take_flood)
        self.echo_socket = self.datagrams(7003, self.take_echo)
        os.set_blocking(0, False)
        self.commands = b""
        self.selector.register(0, selectors.EVENT_READ, self.read_commands)

    def datagrams(self, port, body):
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        own.bind(("0.0.0.0", port))
        own.setblocking(False)
        self.selector.register(own, selectors.EVENT_READ, lambda _: body(own))
        return own

    def say(self, **report):
        print(json.dumps(report), flush=True)

    def complain(self, what, **facts):
        self.wrong += 1
        if self.wrong < 200:
            self.say(wrong=what, at=time.monotonic(), **facts)

    # Commands

    def read_commands(self, _):
        try:
            data = os.read(0, 65536)
        except BlockingIOError:
            return
        if not data:
            sys.exit(0)
        self.commands += data
        *lines, self.commands = self.commands.split(b"\n")
        for line in lines:
            self.obey(json.loads(line))

    def obey(self, command):
        word, *rest = command
        if word == "stream":
            self.connections.append(Stream(self, rest[0], 80))
        elif word == "passing":
            self.obey(["passed", rest[0]])
            self.passing[rest[0]] = PassingStream(self, rest[0], 80)
        elif word == "passed":
            if rest[0] in self.passing:
                self.passing.pop(rest[0]).socket.close()
        elif word == "echo":
            self.connections.append(Echo(self, rest[0], 7001))
            self.echoes.append(rest[0])
        elif word == "probe":
            address, port, number, secret = rest
            self.obey(["known", number, secret])
            self.probes[number] = (address, port)
        elif word == "known":
            self.secrets[rest[0]] = rest[1]
        elif word == "forget":
            self.probes.pop(rest[0], None)
        elif word == "quiet":
            self.is_quiet = True

    def canary(self, number):
        """What an instance fills its memory with, from a multiple of 8 on."""
        if number not in self.secrets:
            # What is known of it was said before it was started.
            self.read_commands(None)
        if number not in self.canaries and number in self.secrets:
            word = bytes([0xCA, 0x9A, 0x7F, 0xB1]) + struct.pack("<I", self.secrets[number])
            self.canaries[number] = word * 192
            if len(self.canaries) > 64:
                self.canaries.pop(next(iter(self.canaries)))
        return self.canaries.get(number)

    # Datagrams

    def send_probe(self, number, count):
        address, port = self.probes[number]
        packed = socket.inet_aton(address)
        for _ in range(count):
            self.sequence = (self.sequence + 1) & 0xFFFFFFFF
            size = self.random.randrange(0, 1440)
            place = self.random.randrange(0, PATTERN_WORDS) * 8
            data = b"MSKQ" + packed + struct.pack(">HH", port, 0)
            data += struct.pack("<IQ", self.sequence, place) + self.pattern[place:place + size]
            self.sent[self.sequence] = (number, address, port, len(data), time.monotonic())
            if not self.send(self.probe_socket, data, (address, port)):
                return
            self.totals["probes"] += 1
        while len(self.sent) > 100000:
            self.sent.pop(next(iter(self.sent)))

    def send(self, own, data, to):
        try:
            own.sendto(data, to)
            return True
        except OSError:
            # No room, or nobody has the address.
            return False

    def take_reply(self, own):
        for _ in range(200):
            try:
                data, (address, port) = own.recvfrom(2048)
            except (BlockingIOError, ConnectionError):
                return
            sequence = struct.unpack_from("<I", data, 12)[0] if len(data) >= 24 else -1
            probe = self.sent.pop(sequence, None)
            number = struct.unpack_from("<I", data, 4)[0] if len(data) >= 24 else -1
            if probe is None:
                self.complain("an answer to nothing", number=number, address=address, bytes=data[:32].hex())
                continue
            self.totals["replies"] += 1
            self.totals["reply_bytes"] += len(data)
            if number != probe[0]:
                # Right where the other was gone or not there yet: who started them knows.
                self.say(other=number, wanted=probe[0], sent=probe[4], got=time.monotonic())
            canary = self.canary(number)
            if (data[:4] != b"MSKR" or (address, port) != probe[1:3] or len(data) != probe[3]
                    or canary is None or data[24:] != canary[:len(data) - 24]):
                self.complain("an answer that is not right", number=number, wanted=probe[0], address=address,
                              port=port, length=len(data), bytes=data[:64].hex())

    def take_flood(self, own):
        for _ in range(200):
            try:
                data, (address, _) = own.recvfrom(2048)
            except BlockingIOError:
                return
            self.totals["floods"] += 1
            self.totals["reply_bytes"] += len(data)
            number = struct.unpack_from("<I", data, 4)[0] if len(data) >= 24 else -1
            canary = self.canary(number)
            # The canary lies at multiples of 8 of the frame; this part begins at its byte 66.
            if data[:4] != b"MSKF" or canary is None or data[24:] != canary[2:2 + len(data) - 24]:
                right = canary[2:] if canary else b""
                first = next((i for i in range(24, len(data)) if data[i] != right[i - 24:i - 23][0]), -1) if right else -1
                self.complain("a flood that is not right", number=number, address=address, length=len(data),
                              bytes=data[:64].hex(), first=first, there=data[first:first + 32].hex())

    def send_echoes(self):
        for address in self.echoes:
            self.sequence = (self.sequence + 1) & 0xFFFFFFFF
            place = self.sequence % PATTERN_WORDS * 8
            data = struct.pack("<Q", place) + self.pattern[place:place + self.sequence % 1400]
            if self.send(self.echo_socket, data, (address, ECHO_DATAGRAM_PORT)):
                self.totals["echo_datagrams"] += 1

    def take_echo(self, own):
        for _ in range(200):
            try:
                data, (address, _) = own.recvfrom(2048)
            except (BlockingIOError, ConnectionError):
                return
            self.totals["echo_answers"] += 1
            self.totals["reply_bytes"] += len(data)
            place = struct.unpack_from("<Q", data)[0] if len(data) >= 8 else 1 << 20
            if place > 8 * PATTERN_WORDS or data[8:] != self.pattern[place:place + len(data) - 8]:
                self.complain("an echo that is not right", address=address, bytes=data[:64].hex())

    # The loop

    def run(self):
        next_burst = next_report = time.monotonic()
        while True:
            for key, events in self.selector.select(0.002):
                key.data(events)
            now = time.monotonic()
            for connection in [*self.connections, *self.passing.values()]:
                connection.step(now)
            if now >= next_burst and not self.is_quiet:
                next_burst = now + 0.003
                for number in list(self.probes):
                    # Now and then at full rate.
                    self.send_probe(number, 64 if self.random.random() < 0.02 else 1)
                self.send_echoes()
            if now >= next_report:
                next_report = now + 1
                self.say(totals=self.totals, connections=[c.report(now) for c in self.connections],
                         wrong_count=self.wrong)


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        FarEnd(file.read(), int(sys.argv[2])).run()
