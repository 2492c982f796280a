"""`martlet top` in a real pseudo-terminal, its screen by a terminal emulator: at three sizes, resized, without colours, ended
in each way; the terminal must be as before. With a folder as the second argument, pictures of the screens go there."""
import fcntl
import html
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

import pyte

MARTLET, SOCKET = sys.argv[1:3]
PICTURES = sys.argv[3] if len(sys.argv) > 3 else None


class Top:
    def __init__(self, columns, rows, **environment):
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.written = b""
        self.master, self.slave = pty.openpty()
        self.size(columns, rows)
        self.before = termios.tcgetattr(self.slave)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
            for number in range(3):
                os.dup2(self.slave, number)
            os.closerange(3, 256)
            values = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"} | environment
            os.execve(MARTLET, [MARTLET, "top", "--socket", SOCKET, "--interval", "250"], values)

    def size(self, columns, rows):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns, rows):
        self.screen.resize(rows, columns)
        self.size(columns, rows)

    def read(self, seconds):
        end = time.time() + seconds
        while time.time() < end:
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    data = os.read(self.master, 65536)
                except OSError:
                    return
                self.written += data
                self.stream.feed(data)

    def until(self, text, seconds=5):
        end = time.time() + seconds
        while time.time() < end:
            self.read(0.1)
            if text in self.text():
                return
        raise AssertionError(f"no `{text}` on the screen:\n{self.text()}")

    def text(self):
        return "\n".join(self.screen.display)

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self, how=None):
        """Ends it by a key or a signal; the terminal must be as it was."""
        if how is None:
            self.type("q")
        else:
            os.kill(self.pid, how)
        status = None
        for _ in range(100):
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
        else:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"does not end by {how}")
        self.read(0.1)
        assert termios.tcgetattr(self.slave) == self.before, f"the terminal is not as before after {how}"
        assert self.written.rstrip().endswith(b"\x1b[?1049l"), f"still on its own screen after {how}: {self.written[-40:]}"
        assert b"\x1b[?25h" in self.written[-40:], f"no cursor after {how}"
        os.close(self.master)
        os.close(self.slave)
        return status


COLOURS = {"default": "#d8dee9", "red": "#e06c75", "green": "#98c379", "cyan": "#56b6c2"}


def picture(screen, path):
    """The screen as SVG: text, so that it is sharp at every size."""
    across, down = 8.43, 18
    width, height = screen.columns * across + 20, screen.lines * down + 20
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}">',
        f'<rect width="100%" height="100%" rx="6" fill="#20242c"/>',
        '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">',
    ]
    for row in range(screen.lines):
        cells = [screen.buffer[row][column] for column in range(screen.columns)]
        start = 0
        while start < len(cells):
            end = start
            look = (cells[start].fg, cells[start].bold, cells[start].reverse)
            while end < len(cells) and (cells[end].fg, cells[end].bold, cells[end].reverse) == look:
                end += 1
            text = "".join(cell.data for cell in cells[start:end])
            colour = COLOURS.get(look[0], COLOURS["default"])
            x, y = 10 + start * across, 10 + row * down
            if look[2]:
                out.append(f'<rect x="{x:.1f}" y="{y}" width="{(end - start) * across:.1f}" height="{down}" fill="{colour}"/>')
                colour = "#20242c"
            if text.strip():
                weight = ' font-weight="bold"' if look[1] else ""
                # Browsers join ordinary spaces.
                shown = html.escape(text.rstrip()).replace(" ", "\u00a0")
                length = len(text.rstrip()) * across
                out.append(f'<text x="{x:.1f}" y="{y + 14}" textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs" fill="{colour}"{weight}>{shown}</text>')
            start = end
    out.append("</g></svg>")
    open(path, "w").write("\n".join(out) + "\n")


for columns, rows in [(80, 24), (120, 40), (200, 60)]:
    top = Top(columns, rows)
    top.until("instances, by received")
    top.read(4 if PICTURES else 0.6)
    for part in ["martlet top", "packets/s", "queues", "one", "two", "rules", "pings", "q quit"]:
        assert part in top.text(), f"no {part} at {columns}x{rows}:\n{top.text()}"
    assert any(mark in top.text() for mark in "▁▂▃▄▅▆▇█"), "no sparkline"
    assert len(top.screen.display[-1].strip()) > 10 and top.screen.display[-1].strip().startswith("q quit"), top.text()
    if PICTURES:
        picture(top.screen, os.path.join(PICTURES, f"top-{columns}x{rows}.svg"))
    top.end()

top = Top(80, 24)
top.until("instances, by received")
top.type("s")
top.until("instances, by sent")
top.type("p")
top.until("paused")
before = len(top.written)
top.read(0.6)
assert len(top.written) == before, "paused, and it draws"
top.type(" ")
top.type("h")
top.until("this page, and back")
top.type("\x1b")
top.until("instances, by sent")
# Another size in the middle of it.
top.resize(120, 40)
top.read(0.6)
assert top.screen.display[39].strip().startswith("q quit"), top.text()
top.resize(60, 10)
top.read(0.6)
assert top.screen.display[9].strip().startswith("q quit"), top.text()
# Ctrl-Z gives the terminal back until it goes on.
os.write(top.master, b"\x1a")
for _ in range(100):
    top.read(0.05)
    if open(f"/proc/{top.pid}/stat").read().rsplit(")", 1)[1].split()[0] == "T":
        break
else:
    raise AssertionError("Ctrl-Z does not stop it")
assert termios.tcgetattr(top.slave) == top.before, "stopped, and the terminal is not as before"
os.kill(top.pid, signal.SIGCONT)
top.until("martlet top")
top.read(0.4)
assert os.WIFEXITED(top.end(signal.SIGTERM))

top = Top(80, 24, NO_COLOR="1")
top.until("instances, by received")
top.type("\x03")
top.read(0.3)
assert set(re.findall(rb"\x1b\[([0-9;]*)m", top.written)) <= {b"0"}, "colours in spite of NO_COLOR"
os.waitpid(top.pid, 0)
assert termios.tcgetattr(top.slave) == top.before, "the terminal is not as before after Ctrl-C"

top = Top(80, 24, LANG="C")
top.until("instances, by received")
top.read(0.6)
assert top.text().isascii(), "block elements where the terminal may have none"
# A crash.
assert os.WTERMSIG(top.end(signal.SIGSEGV)) == signal.SIGSEGV
print("three sizes, keys, another size, no colours, ended in five ways: the terminal is as before")
