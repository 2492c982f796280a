"""Asks the supervisor of a shared NIC, as an administrator does, and reads what a process has open and mapped."""
import os
import re
import socket


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
            if word == "end":
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
