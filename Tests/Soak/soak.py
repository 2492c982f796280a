"""Many instances on one NIC while others come and go at random: see soak.sh. Ends with 0 where all was right.

Usage: soak.py MARTLET CANARY SECONDS SEED [faults | kills]: with faults of all kinds, with kills of the driver host too.
"""
import collections
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from administration import HOST_SEGMENTS, Footprint, account_problem, command_line, descendants, is_alive, memory, stats
from faults import SHORTAGES, Faults
from victims import EXPECTED_REFUSALS, Canary, Slot

SLOTS = 6
STREAMS = 4
STREAM_RATE = 6 << 20
STAGES = (("wall", "firewall", "default accept", "open"), ("slow", "shaper", "rate=10Gbit/s burst=1MB queue=500 way=both", "closed"))
HERE = os.path.dirname(os.path.abspath(__file__))


class Soak:
    shared_address = "10.0.0.41"

    def __init__(self, martlet, canary, seconds, seed, faults=None):
        self.martlet, self.canary, self.seconds, self.seed = martlet, canary, seconds, seed
        self.folder = tempfile.mkdtemp(prefix="martlet-soak-")
        self.socket = os.path.join(self.folder, "socket")
        self.log = open(os.path.join(self.folder, "log"), "w")
        # What is driven how.
        choose = random.Random(f"{seed}/device")
        self.queues = choose.choice([1, 2])
        self.options = ["--device", choose.choice(["emulated", "emulated:e1000e"]), "--queues", str(self.queues),
                        "--mode", choose.choice(["adaptive", "interrupt"])]
        self.secrets = random.Random(f"{seed}/secrets")
        self.counts = collections.Counter()
        self.sums = collections.Counter()
        self.complaints = []
        self.processes = []
        self.canaries = {}
        self.others = []
        self.number = 0
        self.far_end = None
        self.far_text = b""
        self.totals = {}
        self.faults = Faults(self, kills=faults == "kills") if faults else None
        self.expected_refusals = EXPECTED_REFUSALS + (SHORTAGES if faults else ())

    def complain(self, what):
        self.complaints.append(what)
        print(f"WRONG: {what}", flush=True)

    def next_number(self):
        self.number += 1
        return self.number

    # Processes

    def start(self, *words, **options):
        process = subprocess.Popen(words, stdin=options.pop("stdin", subprocess.DEVNULL), stderr=self.log, **options)
        self.processes.append(process)
        return process

    def until(self, what, seconds, body):
        """Waits for a condition while all else goes on."""
        end = time.monotonic() + seconds
        while True:
            self.hear_far_end()
            value = body()
            if value:
                return value
            if time.monotonic() > end:
                raise RuntimeError(f"not in {seconds} s: {what}")
            time.sleep(0.02)

    def run_text(self):
        with open(os.path.join(self.folder, "run.log")) as file:
            return file.read()

    def start_run(self):
        policy = os.path.join(self.folder, "policy.toml")
        with open(policy, "w") as file:
            file.write('[socket]\nconnections = 250\n[default]\nclaims = ["any"]\n'
                       '[[instance]]\nname = "canary"\nclaims = ["any"]\nmemory = 8\nmaximum-memory = 8\n')
            # What goes wrong goes wrong with stages too: what one holds or has to say is lost with it, and nothing else.
            for name, kind, configuration, fails in STAGES if self.faults else ():
                file.write(f'[[stage]]\nname = "{name}"\nkind = "{kind}"\nconfiguration = "{configuration}"\nfails = "{fails}"\n')
        with open(os.path.join(self.folder, "run.log"), "w") as log:
            self.run = subprocess.Popen(
                [self.martlet, "run", "--share", self.socket, "--policy", policy, "--stack", "kernel", "--seconds",
                 str(self.seconds + 600), "--failures", "1000000", *self.options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(self.run)
        self.until("the run starts", 30, lambda: "until Ctrl-C" in self.run_text())
        text = self.run_text()
        self.far_prefix = re.search(r"kernel's TCP/IP, .*?: (nsenter.*)", text).group(1).split()
        self.near_prefix = re.search(r"kernel stack, .*?: (nsenter.*)", text).group(1).split()
        self.until("the kernel's instance runs", 10, lambda: self.are_running(1))

    @property
    def host(self):
        """The driver host that runs now: there may be none for a moment."""
        for _ in range(500):
            for pid in descendants(self.run.pid):
                if any("martlet-host" in part for part in command_line(pid)[:1]):
                    return pid
            time.sleep(0.01)
        raise RuntimeError("there is no driver host")

    def are_running(self, count):
        instances, _ = memory(self.socket)
        return len(instances) == count and all(i["state"] == "running" for i in instances.values())

    def start_far_end(self):
        pattern = os.path.join(self.folder, "pattern")
        with open(pattern, "wb") as file:
            subprocess.run([self.martlet, "pattern", str(4 << 20)], stdout=file, check=True)
        python = [sys.executable, "-B"]
        echo = self.start(*self.near_prefix, *python, f"{HERE}/echo.py", stdout=subprocess.PIPE)
        if echo.stdout.readline() != b"ready\n":
            raise RuntimeError("the echo program does not start")
        self.far_end = self.start(*self.far_prefix, *python, f"{HERE}/far_end.py", pattern, str(STREAM_RATE),
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        os.set_blocking(self.far_end.stdout.fileno(), False)

    def tell_far_end(self, *words):
        self.far_end.stdin.write(json.dumps(words).encode() + b"\n")
        self.far_end.stdin.flush()

    def hear_far_end(self):
        if self.far_end is None:
            return
        while select.select([self.far_end.stdout], [], [], 0)[0]:
            data = os.read(self.far_end.stdout.fileno(), 65536)
            if not data:
                raise RuntimeError("the far end has ended")
            self.far_text += data
        *lines, self.far_text = self.far_text.split(b"\n")
        for line in lines:
            report = json.loads(line)
            if isinstance(report.get("wrong"), str):
                self.complain(f"far end: {report}")
            elif "other" in report:
                self.others.append(report)
            else:
                self.totals = report

    def start_survivors(self):
        self.tell_far_end("echo", "10.0.0.2")
        self.survivors = []
        stacks = ["lwip"] * STREAMS
        if os.path.exists(os.path.join(os.path.dirname(self.martlet), "libmartlet-gvisor.so")):
            stacks.append("gvisor")
        for index, stack in enumerate(stacks):
            self.survivors.append(self.start(
                self.martlet, "attach", "--socket", self.socket, "--stack", stack, "--name", f"{stack}{index}",
                "--address", f"10.0.0.{10 + index}/24", stdout=self.log))
        for address, mode in [("10.0.0.40", "flood"), (self.shared_address, "echo")]:
            canary = Canary(self, self.next_number(), address, f"ipv4:{address}", (0, 65535), mode)
            self.survivors.append(canary.process)
            self.processes.append(canary.process)
            self.canaries[canary.number] = canary
        self.until("survivors run", 60, lambda: self.are_running(1 + len(self.survivors)))
        for canary in self.canaries.values():
            self.until("a canary is attached", 5, canary.note_attached)
        for index in range(len(stacks)):
            self.tell_far_end("stream", f"10.0.0.{10 + index}")
        self.stacks = stacks
        print(f"{' '.join(self.options)}; survivors: the kernel's, {len(stacks)} stacks ({', '.join(stacks)}), {len(self.canaries)} canaries; "
              f"{SLOTS} that come and go", flush=True)

    # Verdicts

    def judge_canary(self, canary):
        values = canary.read()
        for name in ["packets", "bytes", "probes", "replies", "sent", "others", "wrong", "foreign", "corrupt"]:
            self.sums[name] += values[name]
        for name in ["wrong", "foreign", "corrupt"]:
            if values[name]:
                self.complain(f"canary {canary.number} ({canary.address}, {canary.ports}): {values[name]} {name}: "
                              f"{values['error']}")
        if values["state"] == "closed" and not canary.is_closed_by_us:
            self.complain(f"canary {canary.number} was closed: {values['reason']}")
        return values

    def judge_victim(self, victim):
        if isinstance(victim, Canary):
            values = self.judge_canary(victim)
            if victim.attached_at is None and values["state"] in ("attached", "ended"):
                self.counts["attaches"] += 1
            if values["state"] == "refused":
                self.counts["refused"] += 1
                if not values["error"].startswith(self.expected_refusals):
                    self.complain(f"canary {victim.number} could not attach: {values['error']}")
            victim.ended_at = victim.ended_at or time.monotonic()
            self.canaries[victim.number] = victim
        if victim.attached_at is not None:
            self.counts["attaches"] += 1
        victim.dispose()

    def judge_others(self):
        """An answer from another than the probe was for is wrong where that one was there from before until after."""
        for report in self.others:
            wanted = self.canaries.get(report["wanted"])
            if wanted is None or wanted.attached_at is None:
                continue
            if report["sent"] > wanted.attached_at and (wanted.ended_at is None or report["got"] < wanted.ended_at):
                self.complain(f"a probe of canary {wanted.number} was answered by {report['other']}")
        self.others.clear()
        # Late ones come within seconds.
        now = time.monotonic()
        for number in [n for n, c in self.canaries.items() if c.ended_at is not None and c.ended_at < now - 60]:
            del self.canaries[number]

    # Accounts

    def check_accounts(self):
        """Every segment is somebody's. While traffic runs, words are read one after the other: it is looked again."""
        for look in range(100):
            problem = account_problem(self.socket, self.queues)
            if problem is None:
                self.counts["most_looks"] = max(self.counts["most_looks"], look + 1)
                return
            time.sleep(0.01)
        self.complain(problem)

    def check_counters(self):
        counters = stats(self.socket)
        for name in ["device_violations", "device_iommu_faults", "iommu_faults",
                     "instances_closed_by_host", "instances_closed", "rx_dropped_malformed", "host_stale_messages",
                     "instances_closed_by_command_server"]:
            if counters.get(name, 0):
                self.complain(f"{name} is {counters[name]}")
        return counters

    def check(self):
        for process in self.survivors + [self.run]:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args[:8]} has ended with {process.returncode}")
        self.check_accounts()
        counters = self.check_counters()
        self.judge_others()
        for canary in self.canaries.values():
            if canary.process in self.survivors:
                values = canary.read()
                if values["wrong"] or values["foreign"] or values["corrupt"]:
                    self.complain(f"survivor {canary.number}: {values}")
        for connection in self.totals.get("connections", []):
            if connection["idle"] > 30:
                self.complain(f"nothing has come for {connection['idle']} s: {connection}")
        host, run = Footprint(self.host), Footprint(self.run.pid)
        moved = sum(c["bytes"] for c in self.totals.get("connections", []))
        print(f"{time.monotonic() - self.began:4.0f} s: {self.counts['kills']} kills "
              f"({self.counts['kills_attached']} attached), {counters['instances']} instances, "
              f"{self.totals.get('totals')}, {moved >> 20} MiB on {len(self.totals.get('connections', []))} "
              f"connections; resident {run.resident >> 10} and {host.resident >> 10} MiB", flush=True)

    # The parts of a run

    def warm_up(self):
        """Whatever a process keeps once it has served an instance is not growth."""
        for _ in range(3):
            group = [Canary(self, self.next_number(), f"10.0.0.{200 + i}", f"ipv4:10.0.0.{200 + i}", (0, 65535), "echo")
                     for i in range(4)]
            for canary in group:
                self.until("warm-up", 10, canary.note_attached)
            for canary in group:
                canary.leave()
                canary.process.kill()
                canary.process.wait()
                canary.dispose()
            self.until("all but the kernel's are gone", 10, lambda: self.are_running(1))
        time.sleep(1)
        self.first_host = self.host
        self.footprints = [Footprint(self.run.pid), Footprint(self.host)]

    def soak(self):
        self.began = time.monotonic()
        slots = [Slot(self, index) for index in range(SLOTS)]
        next_check = self.began + 10
        if self.faults:
            self.faults.start()
        while time.monotonic() < self.began + self.seconds:
            now = time.monotonic()
            for slot in slots:
                slot.step(now)
                if slot.stage == "detach":
                    slot.step_detaching(now)
            self.hear_far_end()
            if now >= next_check:
                next_check = now + 10
                self.check()
            time.sleep(0.004)
        if self.faults:
            self.faults.end()
        for slot in slots:
            if slot.victim:
                slot.kill(time.monotonic())

    def finish(self):
        self.until("victims are let go of", 10, lambda: self.are_running(1 + len(self.survivors)))
        self.tell_far_end("quiet")
        before = None

        def is_quiet():
            nonlocal before
            last, before = before, (self.totals.get("totals"), [c["bytes"] for c in self.totals["connections"]])
            time.sleep(1.5)
            return last == before
        for canary in self.canaries.values():
            if canary.process in self.survivors and canary.ended_at is None:
                canary.process.send_signal(signal.SIGTERM)
        self.until("the wire is quiet", 60, is_quiet)
        self.judge_others()
        wanted = 1 + len(self.stacks)
        for connection in self.totals["connections"]:
            if connection["error"] or connection["bytes"] == 0:
                self.complain(f"a survivor's connection: {connection}")
        if len(self.totals["connections"]) != wanted:
            self.complain("connections are missing")
        self.until("canaries detach", 10, lambda: self.are_running(wanted))
        for canary in list(self.canaries.values()):
            if canary.process in self.survivors:
                canary.process.wait()
                if self.judge_canary(canary)["state"] != "ended":
                    self.complain(f"survivor {canary.number} has not detached well")
        self.check_accounts()
        instances, _ = memory(self.socket)
        for id, fields in instances.items():
            if fields["segments-instance"] != "0" or fields["segments-sending"] != "0":
                self.complain(f"instance {id} is quiet and still holds segments: {fields}")
        for process in self.survivors[:len(self.stacks)]:
            process.send_signal(signal.SIGTERM)
        self.until("all but the kernel's are gone", 10, lambda: self.are_running(1))
        for process in self.survivors:
            process.wait(10)
        time.sleep(1.5)
        self.check_accounts()
        self.final = self.check_counters()
        self.check_footprints()
        self.stop_run()

    def check_footprints(self):
        late = self.final["detach_timeouts"]
        if late:
            print(f"{late} were let go of only after the time that the supervisor gives the host")
        for name, pid, before in [("supervisor", self.run.pid, self.footprints[0]),
                                  ("driver host", self.host, self.footprints[1])]:
            # The connection of the question before is closed soon.
            if pid == self.host and pid != self.first_host:
                continue
            after = Footprint(pid)
            end = time.monotonic() + 10
            while after.growth(before) and time.monotonic() < end:
                time.sleep(0.1)
                after = Footprint(pid)
            print(f"{name}: resident {before.resident} KiB before, {after.resident} after; descriptors "
                  f"{sum(before.descriptors.values())} and {sum(after.descriptors.values())}; mapped memory files "
                  f"{before.files} and {after.files}")
            growth = after.growth(before)
            if growth:
                self.complain(f"{name}: {growth}")

    def stop_run(self):
        children = descendants(self.run.pid)
        self.run.terminate()
        if self.run.wait(30) != 0:
            self.complain(f"the run ends with {self.run.returncode}")
        own = sum(map(int, re.findall(r"^  rx_q\d+_segments_host (\d+)", self.run_text(), re.MULTILINE)))
        if own != HOST_SEGMENTS:
            self.complain(f"at the end the host has {own} of {HOST_SEGMENTS} segments")
        end = time.monotonic() + 5
        while any(map(is_alive, children)) and time.monotonic() < end:
            time.sleep(0.05)
        left = [pid for pid in children if is_alive(pid)]
        if left:
            self.complain(f"processes are left: {left}")

    def run_all(self):
        try:
            self.start_run()
            self.start_far_end()
            self.warm_up()
            self.start_survivors()
            self.soak()
            self.finish()
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            self.complain(f"{type(error).__name__}: {error}")
        finally:
            for process in self.processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        self.report()
        return 1 if self.complaints else 0

    def report(self):
        print(f"seed {self.seed}: {dict(self.counts)}")
        if self.faults:
            print(f"faults: {dict(self.faults.counts)}")
        print(f"canaries: {dict(self.sums)}")
        print(f"far end: {self.totals}")
        if self.complaints:
            print(f"FAILED with seed {self.seed}, logs in {self.folder}:")
            for complaint in self.complaints[:20]:
                print(f"  {complaint}")
            print(self.run_text()[-2000:])
        else:
            shutil.rmtree(self.folder)


if __name__ == "__main__":
    martlet, canary, seconds, seed, *faults = sys.argv[1:]
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(Soak(martlet, canary, int(seconds), int(seed), *faults).run_all())
