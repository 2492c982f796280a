"""Asks the supervisor of a shared NIC, as an administrator does, and reads what a process has open and mapped."""
import glob
import os
import re
import socket

# Received segments of 2 KiB: the host's own.
HOST_SEGMENTS = (32 << 20) // 2048


def ask(path, request):
    """The answer's messages, each a word and its fields."""
    own = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own.settimeout(10)
    with own:
        own.connect(path)
        own.send(request.encode())
        answer = []
        while True:
            word, *fields = own.recv(1 << 16).decode().split()
            # What is asked for can be gone meanwhile.
            if word in ("end", "unknown"):
                return answer
            answer.append((word, dict(field.split("=", 1) for field in fields if "=" in field)))


def stats(path):
    counters = {}
    for _, fields in ask(path, "stats"):
        counters.update((name, int(value)) for name, value in fields.items())
    return counters


def memory(path):
    """Instances by id, and what the host has."""
    answer = ask(path, "memory")
    return ({int(fields["id"]): fields for word, fields in answer if word == "instance"},
            next(fields for word, fields in answer if word == "host"))


def account_problem(path, queues):
    """What of the ownership record does not add up; None where every segment is somebody's."""
    counters = stats(path)
    own = sum(counters[f"rx_q{queue}_segments_{who}"] for queue in range(queues) for who in ("host", "device"))
    if own != HOST_SEGMENTS:
        return f"the host's own segments are {own} of {HOST_SEGMENTS}"
    instances, _ = memory(path)
    for id, fields in instances.items():
        parts = [int(fields[f"segments-{who}"]) for who in ("host", "instance", "sending")]
        if fields["state"] == "running" and sum(parts) != int(fields["receive"]) // 2048:
            return f"instance {id} ({fields['name']}) has {parts} of {int(fields['receive']) // 2048} segments"
    return None


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid):
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with open(path) as file:
            for child in file.read().split():
                found += [int(child)] + descendants(int(child))
    return found


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().split("\0")
    except OSError:
        return []


class Footprint:
    """What a process holds: descriptors by what they are, mapped memory files, resident memory."""

    def __init__(self, pid):
        self.descriptors = {}
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                kind = re.sub(r"[\d]+", "N", os.readlink(f"/proc/{pid}/fd/{name}"))
            except OSError:
                continue
            self.descriptors[kind] = self.descriptors.get(kind, 0) + 1
        # The process that keeps huge pages is started when the first ones are added, and stays.
        for child in descendants(pid):
            if "keep-hugepages" in command_line(child):
                self.descriptors["socket:[N]"] -= 1
                self.descriptors["anon_inode:[pidfd]"] -= 1
        with open(f"/proc/{pid}/maps") as file:
            self.files = sum("memfd:" in line for line in file)
        with open(f"/proc/{pid}/smaps_rollup") as file:
            self.resident = sum(int(line.split()[1]) for line in file
                                if re.match(r"(Rss|Shared_Hugetlb|Private_Hugetlb):", line))

    def growth(self, since):
        """What is more than before, for people; None where nothing is."""
        found = []
        for kind, count in self.descriptors.items():
            if count > since.descriptors.get(kind, 0):
                found.append(f"{count - since.descriptors.get(kind, 0)} more descriptors of {kind}")
        if self.files > since.files:
            found.append(f"{self.files - since.files} more mapped memory files")
        if self.resident > since.resident + 4096:
            found.append(f"{self.resident - since.resident} KiB more resident")
        return "; ".join(found) or None
