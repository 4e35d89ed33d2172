"""Large statements of bench/large.sh, and what they make a neighbour wait.

    python3 bench/large.py sample LABEL PORT KIND MEGABYTES    one line: label, seconds it took, neighbour's longest, quiet longest, refused
    python3 bench/large.py table SAMPLES ORDER                 medians over rounds

The token is in PGPASSWORD. Messages: manual, section 55.7.
"""

import collections, os, socket, struct, sys, threading, time

from rounds import in_order, median

QUIET_S, PAUSE_S = 0.5, 0.002


def rows_of(count):
    return b",".join(b"(%d, 'abc def %d')" % (row, row) for row in range(count))


KINDS = {
    "values": lambda size: b"SELECT count(*) FROM (VALUES " + rows_of(size // 26) + b") AS v (a, b)",
    "literal": lambda size: b"SELECT length('" + b"x" * size + b"')",
    "statements": lambda size: b"; ".join(b"SELECT %d" % number for number in range(size // 15)),
}


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")
        startup = struct.pack(">I", 196608) + b"user\0postgres\0database\0postgres\0\0"
        self.socket.sendall(struct.pack(">I", len(startup) + 4) + startup)
        if self.until_ready():
            sys.exit("the login was refused")

    def send(self, kind, body):
        self.socket.sendall(kind + struct.pack(">I", len(body) + 4) + body)

    def until_ready(self):
        """Was there an error?"""
        failed = False
        while True:
            kind, length = struct.unpack(">cI", self.file.read(5))
            body = self.file.read(length - 4)
            if kind == b"R" and body[:4] == b"\0\0\0\3":
                self.send(b"p", os.environ["PGPASSWORD"].encode() + b"\0")
            failed |= kind == b"E"
            if kind == b"Z":
                return failed

    def took(self, text):
        began = time.monotonic()
        self.send(b"Q", text + b"\0")
        failed = self.until_ready()
        return time.monotonic() - began, failed


def sample(label, port, kind, megabytes):
    text = KINDS[kind](int(float(megabytes) * 1e6))
    large, neighbour = Client(int(port)), Client(int(port))
    waits, over = [], threading.Event()

    def ask():
        while not over.is_set():
            waits.append(neighbour.took(b"SELECT 1")[0])
            time.sleep(PAUSE_S)

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(QUIET_S)
    quiet = max(waits)
    waits.clear()
    took, refused = large.took(text)
    over.set()
    asking.join()
    print(label, took, max(waits), quiet, int(refused), sep="\t")


def table(samples, order):
    taken = collections.defaultdict(list)
    for line in open(samples):
        label, *numbers = line.rstrip("\n").split("\t")
        taken[label].append([float(number) for number in numbers])
    print("| text | MB | proxy | it took, ms | neighbour's longest, ms | before, ms |\n|" + "---|" * 6)
    for label in in_order(taken, order):
        took, longest, quiet, refused = zip(*taken[label])
        ms = [median(1000 * number for number in column) for column in (took, longest, quiet)]
        print(f"| {label} | {ms[0]}{' (refused)' if any(refused) else ''} | {ms[1]} | {ms[2]} |")


if __name__ == "__main__":
    {"sample": sample, "table": table}[sys.argv[1]](*sys.argv[2:])
