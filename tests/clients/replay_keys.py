"""Plays a recorded session in a pseudo-terminal and presses keys. Usage: replay_keys.py CASE LOCKGATE ARGUMENTS..."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

DEADLINE_S = 20


class Player:
    def __init__(self, command):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.text = b""
        self.process = subprocess.Popen(command, stdin=self.slave, stdout=self.slave, stderr=subprocess.PIPE)

    def read(self, seconds):
        if select.select([self.master], [], [], seconds)[0]:
            self.text += os.read(self.master, 65536)

    def expect(self, wanted, why):
        """Waits for a text behind everything expected before."""
        until = time.monotonic() + DEADLINE_S
        while wanted not in self.text:
            left = until - time.monotonic()
            assert left > 0 and self.process.poll() is None, f"{why}: no {wanted!r} in {self.text[-2000:]!r}"
            self.read(left)
        seen, self.text = self.text.split(wanted, 1)
        return seen

    def press(self, keys):
        os.write(self.master, keys)

    def ends(self, status):
        until = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            assert time.monotonic() < until, "it does not end"
            self.read(0.05)
        assert self.process.returncode == status, (self.process.returncode, self.process.stderr.read())
        assert termios.tcgetattr(self.slave) == self.before, "the terminal is not as it was"

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON


def keys(player):
    player.expect(b"/3", "the status line counts statements")
    assert player.is_raw()
    player.press(b" ")
    player.expect(b"|| ", "space pauses")
    player.press(b"pppppp")
    player.expect(b"|| 0/3", "back to the beginning, and still held there")
    player.press(b"\x1b[C")
    player.expect(b"SELECT 'first'", "right shows the first statement")
    player.expect(b"|| 1/3", "and counts it")
    player.press(b"n")
    seen = player.expect(b"SELECT 'second'", "n shows the second")
    assert b"(1 row)" in seen, "the first one's answer comes before the second"
    player.press(b"\x1b[D")
    player.expect(b"\x1b[2J", "left clears the screen")
    player.expect(b"SELECT 'first'", "and shows the first again")
    player.expect(b"|| 1/3", "which is where it stands")
    player.press(b"+")
    player.expect(b"0.02x", "+ doubles the speed")
    player.press(b"--")
    player.expect(b"0.01x", "- halves it, down to a bound")
    player.press(b" ")
    player.expect(b">  1/3", "space again goes on")
    player.press(b"nnn")
    player.expect(b"SELECT 'third'", "the third follows")
    player.expect(b"closed after 3 statements", "behind the last one is the end")
    player.ends(0)


def quits(player):
    player.expect(b"/3", "it plays")
    player.press(b"q")
    player.ends(0)


def interrupted(player):
    player.expect(b"/3", "it plays")
    player.press(b"\x03")
    player.ends(0)


def terminated(player):
    player.expect(b"/3", "it plays")
    assert player.is_raw()
    player.process.send_signal(signal.SIGTERM)
    player.ends(128 + signal.SIGTERM)


case = {"keys": keys, "quits": quits, "interrupted": interrupted, "terminated": terminated}[sys.argv[1]]
player = Player(sys.argv[2:])
try:
    case(player)
finally:
    if player.process.poll() is None:
        player.process.kill()
