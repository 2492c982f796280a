"""Echoes TCP on port 7001 and datagrams on port 7002: the program that uses the kernel's stack."""
import selectors
import socket
import sys

selector = selectors.DefaultSelector()
pending = {}


def echo_datagrams(own, _):
    for _ in range(64):
        try:
            data, peer = own.recvfrom(2048)
            own.sendto(data, peer)
        except OSError:
            return


def accept(listener, _):
    peer, _ = listener.accept()
    peer.setblocking(False)
    pending[peer] = bytearray()
    selector.register(peer, selectors.EVENT_READ, echo_bytes)


def echo_bytes(peer, _):
    waiting = pending[peer]
    try:
        if len(waiting) < 1 << 20:
            data = peer.recv(65536)
            if not data:
                selector.unregister(peer)
                peer.close()
                return
            waiting += data
    except BlockingIOError:
        pass
    try:
        del waiting[:peer.send(waiting)]
    except BlockingIOError:
        pass
    selector.modify(peer, selectors.EVENT_READ | (selectors.EVENT_WRITE if waiting else 0), echo_bytes)


def main():
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("0.0.0.0", 7002))
    datagrams.setblocking(False)
    selector.register(datagrams, selectors.EVENT_READ, echo_datagrams)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", 7001))
    listener.listen(16)
    selector.register(listener, selectors.EVENT_READ, accept)
    print("ready", flush=True)
    while True:
        for key, events in selector.select():
            key.data(key.fileobj, events)


if __name__ == "__main__":
    sys.exit(main())
