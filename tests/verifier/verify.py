#!/usr/bin/env python3
"""An independent verifier of Lockgate's audit trail, written from FORMAT.md alone.

    verify.py DATA_DIR          one line a break (file, frame or line, kind, separated by tabs), totals on standard error
    --still                     the trail is not being written: it is read once
    --key HEX                   a public key that is vouched for (again for more); else the first one met is believed
    --checkpoints FILE          checkpoints that were kept elsewhere (again for more, in their order)
    verify.py --package FILE    an evidence package instead (--key as above)
    verify.py --batch           folders come on standard input, one a line (behind tabs: checkpoints kept elsewhere); each is answered by
                                a line of JSON ({"status": 0, "breaks": [[file, frame, kind], ...]}), as if given with --still

Exit status: 0 the trail is whole, 1 it is broken, 2 wrong usage, 3 it could not be read or there is none.
Needs the packages blake3, google-crc32c and cryptography.
"""

import argparse
import json
import os
import re
import stat
import struct
import sys
import time
from datetime import datetime, timezone
from functools import lru_cache

from blake3 import blake3
from google_crc32c import extend
from google_crc32c import value as crc32c

from archive import Manifest, Promises
from package import package_breaks

HEADER, FRAME, FOOTER = 128, 96, 48
PAYLOAD_MAX = 16 << 20
SEGMENT_MAGIC, FRAME_MAGIC = b"LGSEGMT\x01", b"LGFR"
LOOKS, PAUSE = 4, 0.2  # how often, and how much later, a trail with breaks is read again

RING_NAME = re.compile(r"(\d{10,20})\.seg")
SEALED_NAME = re.compile(r"shard-(0|[1-9]\d*)-(\d{10,20})-\d{8}T\d{6}Z-\d{8}T\d{6}Z-[0-9a-f]{64}\.seg")
DAMAGED_NAME = re.compile(r"shard-(0|[1-9]\d*)-(\d{10,20})-damaged\.seg")
SHARD_NAME = re.compile(r"shard-(0|[1-9]\d*)")


class Gone(Exception):
    """A file is not where it was listed: moved to the archive, or removed."""


# --- elements -------------------------------------------------------------------------------------------------------


def checksum_holds(element):
    (stored,) = struct.unpack_from("<I", element, 12)
    return extend(crc32c(element[:12] + bytes(4)), element[16:]) == stored


class Header:
    def __init__(self, raw):
        (version, size) = struct.unpack_from("<HH", raw, 8)
        (self.shard, self.flags, self.number, self.segment_bytes) = struct.unpack_from("<IIQQ", raw, 16)
        (_, self.first_frame, self.first_record) = struct.unpack_from("<qQQ", raw, 40)
        self.previous = raw[96:128]
        fields = raw[:8] == SEGMENT_MAGIC and version == 1 and size == HEADER
        self.holds = fields and self.flags <= 1 and not any(raw[80:96]) and checksum_holds(raw)


class Frame:
    def __init__(self, raw):
        (self.version, self.kind, self.payload_bytes) = struct.unpack_from("<HHI", raw, 4)
        (self.shard, self.records, self.number, self.first_record, self.time_us, self.segment) = struct.unpack_from(
            "<IIQQqQ", raw, 16
        )
        self.previous = raw[64:96]


def frame_at(data, at):
    """The frame that holds there, or None."""
    raw = data[at : at + FRAME]
    if len(raw) < FRAME or raw[:4] != FRAME_MAGIC:
        return None
    frame = Frame(raw)
    length = frame.payload_bytes
    if frame.version != 1 or frame.kind not in (1, 2) or length > PAYLOAD_MAX or length % 8 or any(raw[56:64]):
        return None
    element = data[at : at + FRAME + length]
    if len(element) < FRAME + length or not checksum_holds(element):
        return None
    frame.payload, frame.hash, frame.end = element[FRAME:], blake3(element).digest(), at + len(element)
    return frame


# --- records: looked at only in frames whose checksum holds -----------------------------------------------------------


@lru_cache(maxsize=4096)
def record_times(payload, count):
    """The times of the records, and whether there are exactly as many as the header says and all can be read."""
    times, at = [], 0
    while at < len(payload):
        if len(payload) - at < 8:
            return times, False
        (size, kind, version, zeros) = struct.unpack_from("<IBBH", payload, at)
        whole = 8 + (size + 7) // 8 * 8
        if not size or zeros or version != 1 or at + whole > len(payload):
            return times, False
        row = payload[at + 8 : at + 8 + size]
        try:
            times.append(read_row(row, kind))
        except (ValueError, struct.error):
            return times, False
        at += whole
    return times, len(times) == count


ROW_BYTES = {1: 152, 2: 136, 3: 136, 4: 136, 5: 136, 6: 136, 7: 136}


def read_row(row, kind):
    """Checks that every text and list of a row lies in it; returns its time."""
    root = len(row) - ROW_BYTES[kind] if kind in ROW_BYTES else -1
    if root < 0 or root % 8:
        raise ValueError("no such row")
    who, low = root + (48 if kind == 2 else 32), 0
    fields = [(who, "text"), (who + 8, "text"), (who + 16, 8), (who + 24, 8)]
    fields += [(who + at, "text") for at in (32, 40, 48, 56)]
    if kind == 1:
        fields += [(root + 96, "raw"), (root + 104, 12), (root + 112, 8)]
        fields += [(root + at, "text") for at in (120, 128, 136)]
    elif kind == 2:
        fields += [(root + 112, "text"), (root + 120, "raw")]
    else:
        fields += [(root + at, "text") for at in (96, 104, 112, 120)]
    for at, what in fields:
        low = check_field(row, at, what, low, root)
    return struct.unpack_from("<q", row, root)[0]


def check_field(row, at, what, low, high):
    """Where it ends: what a field points at lies behind what the field before it pointed at, and before the row."""
    size = what if isinstance(what, int) else 1
    (offset, count) = struct.unpack_from("<iI", row, at)
    start, end = at + offset, at + offset + count * size
    if start < low or end > high:
        raise ValueError("outside of its place")
    if what == "text":
        row[start:end].decode("utf-8")
    elif what != "raw":
        if start % 4:
            raise ValueError("a list that is not aligned")
        for item in range(start, end, size):
            low = check_field(row, item + size - 8, "text", low, start)
    return end


# --- one segment ------------------------------------------------------------------------------------------------------


class Expected:
    def __init__(self, previous=None, frame=None, record=None):
        self.previous, self.frame, self.record = previous, frame, record


NOTHING = Expected()
GENESIS = Expected(bytes(32), 1, 1)


class Segment:
    """Reads one file from its beginning. `breaks`: (frame, kind). `footer`: reached one. `expected`: of what follows."""

    def __init__(self, data, shard, number, expected):
        self.data, self.shard, self.number, self.expected = data, shard, number, expected
        self.breaks, self.accepted, self.footer, self.blank = [], [], None, False
        self.damaged = False  # by anything but the content of a record
        self.frames, self.records, self.highest = 0, 0, 1
        self.held = None  # what the frames told, as the footer should
        at = self.read_header()
        while at is not None:
            at = self.read_frame(at)

    def named(self, kind, frame=None):
        self.breaks.append((frame, kind))
        self.damaged |= kind != "record"

    def read_header(self):
        raw = self.data[:HEADER]
        if len(raw) < HEADER:
            self.named("header")
            self.expected = NOTHING
            return None
        if not any(raw):
            self.blank = True
            return self.behind_the_end(0)
        header, due = Header(raw), self.expected
        if not header.holds:
            self.named("header")
            self.expected = NOTHING
            return HEADER
        self.expected = Expected(blake3(raw).digest(), header.first_frame, header.first_record)
        self.highest = max(header.first_frame, 1)
        if (header.shard, header.number) != (self.shard, self.number):
            self.named("foreign")
        elif differs(due.previous, header.previous) or differs(due.frame, header.first_frame):
            self.named("chain")
        elif differs(due.record, header.first_record):
            self.named("sequence")
        elif header.segment_bytes != len(self.data):
            self.named("size")
        return HEADER

    def read_frame(self, at):
        """Where to go on; None: the segment's reading has ended."""
        raw = self.data[at : at + FRAME]
        if not any(raw):
            return self.behind_the_end(at)
        frame = frame_at(self.data, at)
        if frame is None:
            due, found = self.expected.frame, self.next_good(at)
            self.named("tail" if found is None else "frame", due)
            self.expected = NOTHING if found is not None else self.expected
            return found
        self.blank = False
        self.judge(frame)
        self.expected = Expected(frame.hash, frame.number + 1, frame.first_record + frame.records)
        self.highest = max(self.highest, frame.number + 1)
        self.accepted.append((frame.number, frame.hash))
        if frame.kind == 1:
            self.read_records(frame)
        elif frame.records or len(frame.payload) != FOOTER:
            self.named("footer", frame.number)
        else:
            self.read_footer(frame)
            return None
        return frame.end

    def judge(self, frame):
        due = self.expected
        if (frame.shard, frame.segment) != (self.shard, self.number):
            self.named("foreign", frame.number)
        elif due.frame is not None and frame.number > due.frame:
            self.named("missing_frames", frame.number)
        elif due.frame is not None and frame.number < due.frame:
            self.named("repeated_frame", frame.number)
        elif differs(due.previous, frame.previous):
            self.named("chain", frame.number)
        elif differs(due.record, frame.first_record):
            self.named("sequence", frame.number)

    def read_records(self, frame):
        times, whole = record_times(frame.payload, frame.records)
        if frame.records:
            low, high = min([frame.time_us, *times]), max([frame.time_us, *times])
            last = frame.first_record + frame.records - 1
            if self.held is None:
                self.held = [0, 0, low, high, frame.first_record, last]
            held = self.held
            self.held = [held[0] + 1, held[1] + frame.records, min(held[2], low), max(held[3], high), held[4], last]
        self.frames += 1
        self.records += len(times)
        if not whole:
            self.named("record", frame.number)

    def read_footer(self, frame):
        self.footer = struct.unpack("<QQqqQQ", frame.payload)
        self.footer_hash = frame.hash
        behind = any_byte(self.data, frame.end) is not None
        if behind:
            self.named("after_end", self.expected.frame)
        elif not self.damaged and list(self.footer) != (self.held or [0] * 6):
            self.named("footer", frame.number)
            behind = True
        self.name_counts = not behind

    def behind_the_end(self, at):
        found = any_byte(self.data, at)
        if found is None:
            return None
        self.named("after_end", self.expected.frame)
        start = found // 8 * 8
        good = start if self.candidate(start) else self.next_good(start)
        if good is not None:
            self.expected = NOTHING
        return good

    def next_good(self, at):
        if at + FRAME <= len(self.data):
            (length,) = struct.unpack_from("<I", self.data, at + 8)
            behind = at + (FRAME + length + 7) // 8 * 8
            if self.candidate(behind):
                return behind
        while (at := self.data.find(FRAME_MAGIC, at + 1)) >= 0:
            if at % 8 == 0 and self.candidate(at):
                return at
        return None

    def candidate(self, at):
        frame = frame_at(self.data, at)
        ours = frame and (frame.shard, frame.segment) == (self.shard, self.number)
        return bool(ours and frame.number >= self.highest)


def differs(expected, found):
    return expected is not None and expected != found


def any_byte(data, at):
    """The first byte from there on that is not zero."""
    rest = data[at:].lstrip(b"\0")
    return len(data) - len(rest) if rest else None


# --- files ------------------------------------------------------------------------------------------------------------


class File:
    def __init__(self, path, archived):
        self.path, self.name, self.archived = path, os.path.basename(path), archived

    def read(self):
        try:
            with open(self.path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            raise Gone from None


def entries(folder):
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def listing(data_dir):
    """shard -> number -> File, and shard -> [(number, path)] of what is there besides. The ring is listed first: a segment moved
    meanwhile is then found in the archive."""
    chains, surplus = {}, {}

    def take(shard, number, entry, archived):
        chain, files = surplus.setdefault(shard, []), chains.setdefault(shard, {})
        try:
            regular = stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return
        if not regular:
            chain.append((number, entry.path))
        elif number in files and files[number].archived:
            chain.append((number, entry.path))
        else:
            before = files.get(number)
            files[number] = File(entry.path, archived)
            if before and os.path.lexists(before.path):
                chain.append((number, before.path))

    def numbered(text):
        number = int(text)
        return number if text == f"{number:010}" else None

    for folder in entries(os.path.join(data_dir, "segments")):
        if shard := SHARD_NAME.fullmatch(folder.name):
            chains.setdefault(int(shard[1]), {})
            for entry in entries(folder.path):
                name = RING_NAME.fullmatch(entry.name)
                if name and (number := numbered(name[1])) is not None:
                    take(int(shard[1]), number, entry, False)
    for entry in entries(os.path.join(data_dir, "archive")):
        name = SEALED_NAME.fullmatch(entry.name) or DAMAGED_NAME.fullmatch(entry.name)
        if name and (number := numbered(name[2])) is not None:
            take(int(name[1]), number, entry, True)
    return chains, surplus


def archived_name(shard, number, footer, hash):
    def stamp(seconds):
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y%m%dT%H%M%SZ")

    since, until = stamp(footer[2] // 1_000_000), stamp(footer[3] // 1_000_000 + 1)
    return f"shard-{shard}-{number:010}-{since}-{until}-{hash.hex()}.seg"


# --- the chain of one shard, and all of it -----------------------------------------------------------------------------


class Verifier:
    def __init__(self, data_dir, keys=(), elsewhere=()):
        self.data_dir, self.keys, self.elsewhere = data_dir, set(keys), list(elsewhere)
        self.breaks, self.totals = [], {}

    def run(self):
        """False: there is no trail."""
        archive = os.path.join(self.data_dir, "archive")
        self.manifest = Manifest(archive, self.named)
        self.promises = Promises(self.data_dir, self.manifest, self.keys, self.elsewhere, self.named)
        self.manifest.settle(self.promises.entry)
        self.manifest.check_files(archive)
        chains, _ = listing(self.data_dir)
        if not any(chains.values()) and not os.path.exists(self.manifest.path) and not self.promises.count:
            return False
        for shard in sorted({*chains, *self.manifest.positions, *self.promises.greatest}):
            self.totals[shard] = [0, 0, 0]
            self.verify_shard(shard)
        return True

    def named(self, path, frame, kind):
        inside = path.startswith(self.data_dir.rstrip("/") + "/")
        self.breaks.append((os.path.relpath(path, self.data_dir) if inside else path, frame, kind))

    def ring_path(self, shard, number):
        return os.path.join(self.data_dir, "segments", f"shard-{shard}", f"{number:010}.seg")

    def list_again(self, shard):
        chains, surplus = listing(self.data_dir)
        self.files, self.surplus = chains.get(shard, {}), surplus.get(shard, [])

    def verify_shard(self, shard):
        self.list_again(shard)
        position = self.manifest.positions.get(shard)
        # What precedes the position is proved by the manifest: its segments may be there, or not.
        self.gaps_below = position["segment"] if position else 0
        self.proven = {**self.promises.frames.get(shard, {}), **self.manifest.ends.get(shard, {})}
        first = max(1, min([position["segment"], *self.files])) if position else 1
        segment, frame = self.walk(shard, first, GENESIS if first == 1 else NOTHING)
        end, promised = max(frame, position["frame"] if position else 0), self.promises.greatest.get(shard, 0)
        if promised > end:
            self.named(self.ring_path(shard, max(segment, self.gaps_below, 1)), end + 1, "promised")

    def walk(self, shard, number, expected):
        """Segment and number of the last frame read."""
        last = (0, 0)
        while True:
            if number not in self.files:
                self.list_again(shard)
            if number not in self.files:
                later = min((other for other in self.files if other > number), default=None)
                if (later or number > 1 or self.gaps_below) and not (later and later <= self.gaps_below):
                    self.named(self.ring_path(shard, number), expected.frame, "missing_segment")
                if not later:
                    self.ends_there(shard, number, True)
                    return last
                number, expected = later, NOTHING
                continue
            try:
                # Whether there is a successor is asked first: by then its predecessor was complete.
                begun = self.later_begun(shard, number)
                file = self.files[number]
                segment = Segment(file.read(), shard, number, expected)
            except Gone:
                self.list_again(shard)
                continue
            last = self.take(shard, file, segment) or last
            if segment.footer:
                due = archived_name(shard, number, segment.footer, segment.footer_hash)
                if segment.name_counts and file.archived and file.name != due:
                    self.named(file.path, None, "name")
                expected = segment.expected
            elif file.archived or begun:
                if not segment.damaged:
                    self.named(file.path, segment.expected.frame, "unsealed")
                expected = NOTHING
            elif self.ends_there(shard, number if segment.blank else number + 1, segment.blank):
                return last
            number += 1

    def take(self, shard, file, segment):
        for frame, kind in segment.breaks:
            self.named(file.path, frame, kind)
        for frame, hash in segment.accepted:
            if self.proven.get(frame, hash.hex()) != hash.hex():
                self.named(file.path, frame, "proven")
        totals = self.totals[shard]
        totals[0], totals[1], totals[2] = totals[0] + 1, totals[1] + segment.frames, totals[2] + segment.records
        return (segment.number, segment.accepted[-1][0]) if segment.accepted else None

    def later_begun(self, shard, number):
        known = [(file, other) for other, file in sorted(self.files.items()) if other > number]
        path = self.ring_path(shard, number + 1)
        if number + 1 not in self.files and os.path.isfile(path) and not os.path.islink(path):
            known.append((File(path, False), number + 1))
        return any(self.begun(file, shard, other) for file, other in known)

    def begun(self, file, shard, number):
        try:
            with open(file.path, "rb") as opened:
                raw = opened.read(HEADER)
        except FileNotFoundError:
            return False
        header = Header(raw) if len(raw) == HEADER else None
        return bool(header and header.holds and (header.shard, header.number) == (shard, number))

    def ends_there(self, shard, prepared, read):
        """The chain ends before `prepared`, the number that may be a file of zeros. False: it has been begun meanwhile."""
        self.list_again(shard)
        file = self.files.get(prepared)
        try:
            filled = file and not read and any_byte(file.read(), 0) is not None
        except Gone:
            return False
        if file and self.begun(file, shard, prepared):
            return False
        if filled:
            self.named(file.path, None, "after_end")
        behind = [(number, file.path) for number, file in self.files.items() if number > prepared or not number]
        for _, path in sorted(behind + self.surplus):
            self.named(path, None, "surplus")
        return True


# --- command line -----------------------------------------------------------------------------------------------------


def batch():
    for line in sys.stdin:
        folder, *elsewhere = line.rstrip("\n").split("\t")
        verifier = Verifier(folder, elsewhere=elsewhere)
        try:
            status = 3 if not verifier.run() else 1 if verifier.breaks else 0
            print(json.dumps({"status": status, "breaks": verifier.breaks}), flush=True)
        except OSError as error:
            print(json.dumps({"status": 3, "breaks": [], "error": str(error)}), flush=True)
    return 0


def settled(arguments):
    """A trail may be written meanwhile: breaks count that are still there when it is read again. None: no trail."""
    breaks = None
    for _ in range(1 if arguments.still else LOOKS):
        verifier = Verifier(arguments.data_dir, arguments.key, arguments.checkpoints)
        if not os.path.isdir(arguments.data_dir) or not verifier.run():
            return None
        breaks = verifier.breaks if breaks is None else [found for found in breaks if found in verifier.breaks]
        if not breaks:
            break
        time.sleep(0 if arguments.still else PAUSE)
    verifier.breaks = breaks
    return verifier


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", nargs="?")
    parser.add_argument("--still", action="store_true")
    parser.add_argument("--batch", action="store_true")
    parser.add_argument("--key", action="append", default=[])
    parser.add_argument("--checkpoints", action="append", default=[])
    parser.add_argument("--package")
    arguments = parser.parse_args()
    if arguments.batch:
        return batch()
    if not arguments.data_dir and not arguments.package:
        parser.error("a data directory or a package is needed")
    try:
        if arguments.package:
            return print_breaks(package_breaks(arguments.package, arguments.key))
        verifier = settled(arguments)
    except OSError as error:
        print(f"verify.py: the trail cannot be read: {error}", file=sys.stderr)
        return 3
    if not verifier:
        print(f"verify.py: {arguments.data_dir}: there is no audit trail", file=sys.stderr)
        return 3
    for shard, (segments, frames, records) in verifier.totals.items():
        print(f"shard {shard}: {segments} segments, {frames} frames, {records} records", file=sys.stderr)
    return print_breaks(verifier.breaks)


def print_breaks(breaks):
    for path, frame, kind in breaks:
        print(f"{path.encode('unicode_escape').decode()}\t{'-' if frame is None else frame}\t{kind}")
    return 1 if breaks else 0


if __name__ == "__main__":
    sys.exit(main())
