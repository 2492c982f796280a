"""Kills the driver host again and again while 16 TCP connections fetch over it, and says how long it takes until another
one has received its first packet, and what that time is made of.

    restart.py [--kills N] [--exclusive] [--hang] [--device DEVICE --enter COMMAND] [--programs FOLDER]

Without --exclusive, three lwIP instances share the NIC; with it there is one, and the host hands it the device's own
buffers. Fails where a connection ends, a byte is wrong, or a segment is missing at the end. Needs no right but those of
`martlet run`.
"""
import argparse
import json
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time

FOLDER = pathlib.Path(__file__).resolve().parent


def until(condition, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.01)
    raise SystemExit(f"FAILED: {what() if callable(what) else what}")


class Run:
    """A `martlet run` with its instances and the far end's connections."""

    def __init__(self, options, work):
        self.work = work
        self.socket = f"{work}/socket"
        self.martlet = f"{options.programs}/martlet"
        self.processes = []
        try:
            self.begin(options)
        except BaseException:
            self.end()
            raise

    def begin(self, options):
        work = self.work
        self.log = open(f"{work}/run.log", "wb")
        command = [self.martlet, "run", "--seconds", "100000", "--failures", "1000000", "--fetch", "0",
                   "--mode", options.mode]
        command += ["--control", self.socket] if options.exclusive else ["--share", self.socket]
        if options.device:
            command += ["--device", options.device]
        self.run = self.start(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        until(lambda: "until Ctrl-C" in self.text() or self.run.poll() is not None, 30, "the run does not start")
        if self.run.poll() is not None:
            raise SystemExit(f"FAILED: the run does not start\n{self.text()}")
        self.enter = shlex.split(options.enter) if options.enter else self.namespace()
        addresses = ["10.0.0.2"] * 16
        if not options.exclusive:
            for number in (3, 4, 5):
                self.start([self.martlet, "attach", "--socket", self.socket, "--stack", "lwip",
                            "--address", f"10.0.0.{number}/24"], stdout=self.log, stderr=self.log)
            addresses = [f"10.0.0.{3 + number % 3}" for number in range(16)]
            until(lambda: self.stats().get("instances") == 3, 20, "the instances do not attach")
        with open(f"{work}/pattern", "wb") as file:
            subprocess.run([self.martlet, "pattern", str(4 << 20)], stdout=file, check=True)
        self.streams = self.start(
            [*self.enter, sys.executable, str(FOLDER / "streams.py"), f"{work}/pattern", str(options.rate), *addresses],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        os.set_blocking(self.streams.stdout.fileno(), False)
        self.heard = b""
        self.report = None
        until(lambda: self.look() and all(self.report["bytes"]), 30, "not all connections carry data")

    def start(self, command, **options):
        process = subprocess.Popen(command, **options)
        self.processes.append(process)
        return process

    def text(self):
        return pathlib.Path(f"{self.work}/run.log").read_text(errors="replace")

    def namespace(self):
        for line in self.text().splitlines():
            if "nsenter" in line:
                return shlex.split(line[line.index("nsenter"):].split(" ping ")[0])
        raise SystemExit("FAILED: the far end is not the kernel")

    def stats(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as own:
            own.settimeout(20)
            try:
                own.connect(self.socket)
                own.send(b"stats")
            except OSError as error:
                raise SystemExit(f"FAILED: the run cannot be asked: {error}\n{self.text()[-3000:]}")
            values = {}
            while True:
                word, *pairs = own.recv(1 << 16).decode().split(" ")
                if word != "stats":
                    return values
                values.update((name, int(value)) for name, value in (pair.split("=") for pair in pairs))

    def look(self):
        """The last that the far end has said."""
        try:
            self.heard += os.read(self.streams.stdout.fileno(), 1 << 20)
        except BlockingIOError:
            pass
        *lines, self.heard = self.heard.split(b"\n")
        if lines:
            self.report = json.loads(lines[-1])
        if self.report and self.report["wrong"]:
            raise SystemExit(f"FAILED: {self.report['wrong']}\n{self.text()[-3000:]}")
        return self.report

    def end(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def kill(run, options):
    """- Returns: the parts of the time until the next host's first packet, in ms."""
    values = until(lambda: (now := run.stats())["host_process"] and now, 10, "there is no driver host")
    before, host = values["host_restarts"], values["host_process"]
    at = time.monotonic_ns()
    os.kill(host, signal.SIGSTOP if options.hang else signal.SIGKILL)

    def first_packet():
        values = run.stats()
        return values["host_restarts"] > before and values.get("host_restart_first_packet_ns", 0) > at and values
    time.sleep(0.03)
    values = until(first_packet, 20, f"no packet comes after a kill\n{run.text()[-3000:]}")
    parts = {}
    last = at
    for step, name in [("detected", "detection"), ("reset", "device reset"), ("spawned", "memory"), ("begun", "process"),
                       ("confined", "confinement"), ("ready", "driver"), ("started", "start"),
                       ("first_packet", "first packet")]:
        now = values[f"host_restart_{step}_ns"]
        parts[name] = max(0, now - last) / 1e6
        last = max(last, now)
    parts["all"] = (values["host_restart_first_packet_ns"] - at) / 1e6
    return parts


def finish(run, options, restarts):
    # All connections carry data still.
    start = run.look()["bytes"]
    until(lambda: all(a > b for a, b in zip(run.look()["bytes"], start)), 90,
          lambda: f"a connection has stopped: {start}, then {run.report['bytes']}\n{run.stats()}\n{run.text()[-2000:]}")
    if options.cut:
        run.streams.terminate()
        run.streams.wait(10)
    else:
        run.streams.stdin.write(b"quiet\n")
        run.streams.stdin.flush()
        until(lambda: run.look()["done"], 60, "a response does not end")
    mark = "rx_q0" if options.exclusive else "rx_i"
    held = lambda: sum(value for name, value in run.stats().items() if name.startswith(mark) and "segments_instance" in name)
    until(lambda: held() == 0, 10, "segments are not given back")
    values = run.stats()
    counted = values["host_restarts"]
    if counted != restarts:
        reasons = {name: value for name, value in values.items() if name.startswith("host_restarts_")}
        lines = [line for line in run.text().splitlines() if "replaced" in line and "signal 9" not in line]
        said = f"{counted} restarts are counted, {restarts} were made: {reasons} {lines[-3:]}"
        # A guest that is emulated can be so slow that a host seems to hang.
        if counted < restarts or not options.cut:
            raise SystemExit(f"FAILED: {said}")
        print(said)
    return sum(run.look()["bytes"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--exclusive", action="store_true")
    parser.add_argument("--hang", action="store_true", help="stop the host in place of killing it")
    parser.add_argument("--mode", default="adaptive")
    parser.add_argument("--rate", type=int, default=2_000_000, help="bytes a second of each connection")
    parser.add_argument("--cut", action="store_true",
                        help="end the connections in the middle of their last responses: for slow guests")
    parser.add_argument("--pause", type=float, default=0.25, help="seconds between a first packet and the next kill")
    parser.add_argument("--device")
    parser.add_argument("--enter", help="what runs a program at the far end of the device's wire")
    parser.add_argument("--programs", default=str(FOLDER.parents[1] / ".build" / "release"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        run = None
        try:
            run = Run(options, work)
            times = []
            for _ in range(options.kills):
                times.append(kill(run, options))
                time.sleep(options.pause)
                run.look()
            total = finish(run, options, options.kills)
        finally:
            if run:
                run.end()
    times.sort(key=lambda parts: parts["all"])
    print(f"{options.kills} {'hangs' if options.hang else 'kills'}: 0 of 16 connections lost, 0 wrong of {total} bytes, 0 segments missing")
    print(f"{'from the kill to the first packet, ms':<40}{'p50':>8}{'p99':>8}")
    for name in [*times[0]]:
        values = sorted(parts[name] for parts in times)
        at = lambda share: values[min(len(values) - 1, int(share * len(values)))]
        print(f"  {name:<38}{at(0.5):>8.2f}{at(0.99):>8.2f}")


main()
