"""Instances that come and go at random: attached, killed, hung, detached. All that is random comes from the seed."""
import mmap
import os
import random
import signal
import socket
import struct
import subprocess
import time

from administration import ask

STATES = ["started", "attached", "ended", "refused", "closed"]
FIELDS = ["state", "id", "packets", "bytes", "probes", "replies", "sent", "others", "held", "wrong", "foreign",
          "corrupt"]
# Reasons for which an attach may be refused: another victim has the address, or a busy machine has not taken it from one yet.
EXPECTED_REFUSALS = ("claim:", "timeout: another instance")


class Canary:
    """A checking instance (canary.c) and its counters, which outlive it."""

    def __init__(self, soak, number, address, claim, ports, mode):
        self.soak, self.number, self.address, self.ports = soak, number, address, ports
        self.secret = soak.secrets.getrandbits(32)
        self.path = os.path.join(soak.folder, f"canary-{number}")
        self.attached_at = self.ended_at = None
        self.is_closed_by_us = False
        with open(self.path, "wb") as file:
            file.truncate(8 * len(FIELDS) + 640)
        with open(self.path, "r+b") as file:
            self.counters = mmap.mmap(file.fileno(), 0)
        soak.tell_far_end("known", number, self.secret)
        self.process = subprocess.Popen(
            [soak.canary, soak.socket, str(number), f"{self.secret:08x}", self.path, address, claim,
             str(ports[0]), str(ports[1]), mode], stdin=subprocess.DEVNULL, stdout=soak.log, stderr=soak.log)

    def read(self):
        values = dict(zip(FIELDS, struct.unpack_from(f"<{len(FIELDS)}Q", self.counters)))
        values["state"] = STATES[values["state"]]
        for name, start, size in [("reason", 8 * len(FIELDS), 128), ("error", 8 * len(FIELDS) + 128, 512)]:
            values[name] = self.counters[start:start + size].split(b"\0")[0].decode(errors="replace")
        return values

    def note_attached(self):
        """Whether it has its welcome; tells the far end to send to it."""
        if self.attached_at is None and self.ended_at is None and self.read()["state"] == "attached":
            self.attached_at = time.monotonic()
            port = self.soak.secrets.randint(max(self.ports[0], 1), min(self.ports[1], 6900))
            self.soak.tell_far_end("probe", self.address, port, self.number, self.secret)
        return self.attached_at is not None

    def leave(self):
        """Before it is ended: nothing more is sent to it."""
        self.soak.tell_far_end("forget", self.number)
        self.ended_at = time.monotonic()

    def dispose(self):
        self.counters.close()
        os.unlink(self.path)


class LwIP:
    """A protocol stack, with a connection that carries data."""

    def __init__(self, soak, address):
        self.soak, self.address = soak, address
        self.began = time.monotonic()
        self.attached_at = None
        self.process = subprocess.Popen(
            [soak.martlet, "attach", "--socket", soak.socket, "--stack", "lwip", "--name", "victim", "--address",
             f"{address}/24"], stdin=subprocess.DEVNULL, stdout=soak.log, stderr=soak.log)

    def note_attached(self):
        # It begins to serve at some time after it has attached.
        if self.attached_at is None and time.monotonic() > self.began + 0.2:
            self.attached_at = time.monotonic()
            self.soak.tell_far_end("passing", self.address)
        return self.attached_at is not None

    def leave(self):
        self.soak.tell_far_end("passed", self.address)

    def dispose(self):
        pass


class Silent:
    """Asks to be an instance and goes away before, while or after it is answered."""
    process = None

    def __init__(self, soak, address):
        self.attached_at = None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(5)
        self.socket.connect(soak.socket)
        self.socket.send(f"attach version=2 name=silent claims=ipv4:{address}".encode())

    def note_attached(self):
        return False

    def leave(self):
        pass

    def dispose(self):
        self.socket.close()


class Slot:
    """One victim after another. Its plan depends on the seed and its number only."""

    def __init__(self, soak, index):
        self.soak, self.index = soak, index
        self.random = random.Random(f"{soak.seed}/{index}")
        self.victim = None
        self.stage = "pause"
        self.due = time.monotonic() + self.random.uniform(0, 1)

    def step(self, now):
        if self.victim:
            self.victim.note_attached()
        if now < self.due:
            return
        {"pause": self.begin, "live": self.hurt, "hang": self.go_on, "detach": self.give_up}[self.stage](now)

    def begin(self, now):
        choose = self.random
        kind = choose.choices(["echo", "flood", "ports", "shared-ports", "lwip", "silent"], [28, 15, 14, 14, 9, 20])[0]
        address = f"10.0.0.{100 + choose.randrange(8)}"
        first = 5000 + 50 * choose.randrange(8)
        last = first + choose.choice([0, 9, 49])
        life = choose.choices([choose.uniform(0, 0.03), choose.uniform(0.05, 0.6), choose.uniform(0.6, 2.5)],
                              [25, 35, 40])[0]
        self.end = choose.choices(["kill", "hang", "resume", "close", "detach"], [60, 14, 6, 8, 12])[0]
        self.hang = choose.uniform(0.1, 2)
        self.pause = choose.uniform(0, 0.25)
        soak = self.soak
        if kind == "silent":
            self.victim = Silent(soak, address)
            self.end, life = "kill", choose.uniform(0, 0.02)
        elif kind == "lwip":
            self.victim = LwIP(soak, address)
        elif kind in ("ports", "shared-ports"):
            # Of an address that nobody has, and of one that a survivor has as a whole.
            address = "10.0.0.60" if kind == "ports" else soak.shared_address
            self.victim = Canary(soak, soak.next_number(), address, f"ipv4:{address}/udp/{first}-{last}",
                                 (first, last), choose.choice(["echo", "flood"]))
        else:
            self.victim = Canary(soak, soak.next_number(), address, f"ipv4:{address}", (0, 65535), kind)
        soak.counts["begun"] += 1
        self.stage, self.due = "live", now + life

    def hurt(self, now):
        if self.end == "kill":
            return self.kill(now)
        process = self.victim.process
        if self.end == "close":
            return self.close(now)
        if self.end in ("hang", "resume"):
            process.send_signal(signal.SIGSTOP)
            self.soak.counts["hangs"] += 1
            self.stage, self.due = "hang", now + self.hang
        elif process.poll() is not None:
            self.kill(now)
        else:
            self.victim.leave()
            process.send_signal(signal.SIGTERM)
            self.stage, self.due = "detach", now + 20

    def step_detaching(self, now):
        if self.stage == "detach" and self.victim.process.poll() is not None:
            self.finish(now)

    def go_on(self, now):
        """A hung one is killed, or gets some more time and finds what has come meanwhile."""
        if self.end == "hang":
            return self.kill(now)
        self.victim.process.send_signal(signal.SIGCONT)
        self.end = "kill"
        self.stage, self.due = "live", now + 0.3

    def close(self, now):
        """An administrator closes it, where it is attached: it hears why and ends."""
        if not isinstance(self.victim, Canary) or self.victim.attached_at is None:
            return self.kill(now)
        self.victim.leave()
        self.victim.is_closed_by_us = True
        ask(self.soak.socket, f"close id={self.victim.read()['id']}")
        self.soak.counts["closes"] += 1
        self.stage, self.due = "detach", now + 20

    def kill(self, now):
        self.victim.leave()
        process = self.victim.process
        if process is None:
            self.soak.counts["abandoned"] += 1
        elif process.poll() is None:
            process.kill()
            process.wait()
            self.soak.counts["kills"] += 1
            if self.victim.attached_at is not None:
                self.soak.counts["kills_attached"] += 1
        self.finish(now)

    def give_up(self, now):
        self.soak.complain(f"victim {self.index} does not detach")
        self.kill(now)

    def finish(self, now):
        self.soak.judge_victim(self.victim)
        self.victim = None
        self.stage, self.due = "pause", now + self.pause
