"""Faults at random, from the seed: processes are stopped for a while, stutter, run out of descriptors or of memory, and are
killed. Nothing in the programs knows of it: signals and limits come from outside, and so it runs on what is released.

A process that is stopped and goes on finds its waits interrupted (EINTR: signal(7)); one that is stopped for long is a delay,
a device that stalls or a host that hangs.
"""
import collections
import os
import random
import resource
import signal
import threading
import time

from administration import command_line, descendants

# What a process may still allocate while it is short of memory: enough to go on, and less than any arena or channel needs.
SPARE_BYTES = 3 << 20
# Refusals that a process short of something may give.
SHORTAGES = ("host", "memory", "resources", "timeout")


class Faults:
    def __init__(self, soak, kills):
        self.soak = soak
        self.random = random.Random(f"{soak.seed}/faults")
        self.kinds = ["stop", "stop", "stutter", "descriptors", "memory"] + (["kill"] if kills else [])
        self.counts = collections.Counter()
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self):
        self.thread.start()

    def end(self):
        """Returns when the last one is over and undone."""
        self.ending.set()
        self.thread.join()

    def run(self):
        while not self.ending.wait(self.random.uniform(0.05, 0.8)):
            # All is drawn whether or not it can be done, so that what follows depends on the seed only.
            kind = self.random.choice(self.kinds)
            who = self.random.choice(["supervisor", "host", "device", "instance", "stage"])
            seconds, share = self.random.uniform(0.002, 0.4), self.random.random()
            if kind == "kill" and who != "stage":
                # Of the others, survivors have to survive, and the end of the supervisor or of the device is the end of the run.
                who = "host"
            pid = self.find(who, share)
            if pid is None:
                continue
            try:
                getattr(self, kind)(pid, who, seconds)
                self.counts[f"{kind} {who}"] += 1
            except (ProcessLookupError, FileNotFoundError):
                # It has ended meanwhile.
                self.counts["too late"] += 1

    def find(self, who, share):
        run = self.soak.run.pid
        if who == "supervisor":
            return run
        if who == "instance":
            alive = [p.pid for p in self.soak.survivors if p.poll() is None]
            return alive[int(share * len(alive))] if alive else None
        word = {"host": "martlet-host", "device": "serve", "stage": "martlet-stage"}[who]
        found = [pid for pid in descendants(run) if any(word in part for part in command_line(pid)[:2])]
        return found[int(share * len(found))] if found else None

    def stop(self, pid, who, seconds):
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    def stutter(self, pid, who, seconds):
        for _ in range(40):
            self.stop(pid, who, 0.0003)
            time.sleep(0.0005)

    def limit(self, pid, which, value, seconds):
        _, hard = old = resource.prlimit(pid, which)
        resource.prlimit(pid, which, (min(value, hard) if hard >= 0 else value, hard))
        try:
            time.sleep(seconds)
        finally:
            resource.prlimit(pid, which, old)

    def descriptors(self, pid, who, seconds):
        numbers = [int(name) for name in os.listdir(f"/proc/{pid}/fd")]
        self.limit(pid, resource.RLIMIT_NOFILE, max(numbers, default=0) + 1, seconds)

    def memory(self, pid, who, seconds):
        with open(f"/proc/{pid}/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        self.limit(pid, resource.RLIMIT_AS, mapped + SPARE_BYTES, seconds)

    def kill(self, pid, who, seconds):
        os.kill(pid, signal.SIGKILL)
