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
import struct
import sys
import time
from collections import namedtuple
from datetime import datetime, timezone
from functools import lru_cache, partial
from itertools import chain

from archive import Archive, first, listed, opened
from blake3 import blake3
from google_crc32c import extend
from google_crc32c import value as crc32c
from package import package_breaks

HEADER, FRAME, FOOTER = struct.Struct("<12sIIIQQqQQ16s16s32s"), struct.Struct("<6sHIIIIQQqQQ32s"), struct.Struct("<QQqqQQ")
Header = namedtuple("Header", "opening crc shard flags number bytes time first_frame first_record boot unused previous")
Frame = namedtuple("Frame", "opening kind length crc shard records number first_record time segment unused previous payload hash end")
Expected = namedtuple("Expected", "previous frame record")
NOTHING = Expected(None, None, None)
LOOKS, PAUSE = 8, 0.2  # how often, and how much later, a trail with breaks is read again
NAME = re.compile(r"segments/shard-(0|[1-9]\d*)/(\d{10}|[1-9]\d{10,})\.seg|archive/shard-(0|[1-9]\d*)-(\d{10}|[1-9]\d{10,})-"
                  r"(?:\d{8}T\d{6}Z-\d{8}T\d{6}Z-[0-9a-f]{64}|damaged)\.seg")

# --- headers and frames -------------------------------------------------------------------------------------------------

def checksum_holds(element):
    return extend(crc32c(element[:12] + bytes(4)), element[16:]) == int.from_bytes(element[12:16], "little")

def header_of(data):
    """The segment header, or None if it does not hold."""
    raw = data[: HEADER.size].ljust(HEADER.size, b"\0")
    header = Header._make(HEADER.unpack(raw))
    drawn = header.opening == b"LGSEGMT\x01\x01\0\x80\0" and header.flags <= 1 and not any(header.unused)
    return header if drawn and checksum_holds(raw) else None

def frame_at(data, at):
    """The frame that holds there, or None."""
    if not data.startswith(b"LGFR\x01\0", at) or at + FRAME.size > len(data):
        return None
    fields = FRAME.unpack_from(data, at)
    element = data[at : at + FRAME.size + fields[2]]
    frame = Frame(*fields, element[FRAME.size :], blake3(element).digest(), at + len(element))
    drawn = frame.kind in (1, 2) and frame.length <= 16 << 20 and frame.length % 8 == 0 and not frame.unused
    return frame if drawn and len(frame.payload) == frame.length and checksum_holds(element) else None

def nonzero(data, at):
    """The first byte from there on that is not zero."""
    rest = data[at:].lstrip(b"\0")
    return len(data) - len(rest) if rest else None

# --- records ------------------------------------------------------------------------------------------------------------

RAW, TEXT, LIST, BINDS = 0, 1, 8, 12  # of the lists: bytes of an item
WHO = {0: TEXT, 8: TEXT, 16: LIST, 24: LIST, 32: TEXT, 40: TEXT, 48: TEXT, 56: TEXT}
# By kind: bytes of the fixed part, where Who is in it, and what else.
ROWS = dict.fromkeys(range(3, 8), (136, 32, {96: TEXT, 104: TEXT, 112: TEXT, 120: TEXT}))
ROWS[1] = (152, 32, {96: RAW, 104: BINDS, 112: LIST, 120: TEXT, 128: TEXT, 136: TEXT})
ROWS[2] = (136, 48, {112: TEXT, 120: RAW})

@lru_cache(maxsize=4096)
def record_times(payload, count):
    """The times of the records, and whether there are exactly as many as the header says and all can be read."""
    times, at = [], 0
    try:
        while at < len(payload):
            (size, kind, version, unused) = struct.unpack_from("<IBBH", payload, at)
            row, at = payload[at + 8 : at + 8 + size], at + 8 + (size + 7) // 8 * 8
            if unused or version != 1 or at > len(payload):
                return times, False
            times.append(read_row(row, *ROWS[kind]))
    except (KeyError, ValueError, struct.error):
        return times, False
    return times, len(times) == count

def read_row(row, fixed, who, others):
    """The time; ValueError unless what the fields point at lies in their order, and before the fixed part."""
    root, end = len(row) - fixed, 0
    if root < 0 or root % 8:
        raise ValueError("no such row")
    for at, what in [*((who + at, what) for at, what in WHO.items()), *others.items()]:
        end = field_end(row, root + at, what, end, root)
    return struct.unpack_from("<q", row, root)[0]

def field_end(row, at, what, low, high):
    (offset, count) = struct.unpack_from("<iI", row, at)
    start, end = at + offset, at + offset + count * max(what, 1)
    if start < low or end > high or (what >= LIST and start % 4):
        raise ValueError("outside of its place")
    if what == TEXT:
        row[start:end].decode()
    for item in range(start, end, what) if what >= LIST else ():
        low = field_end(row, item + what - 8, TEXT, low, start)
    return end

# --- one segment --------------------------------------------------------------------------------------------------------

class Segment:
    """Reads a file from its beginning. `expected`: of what follows. `last`: number of the last frame. `name`: what the footer makes it."""

    def __init__(self, data, place, expected, report, proven):
        self.data, self.place, self.expected, self.report, self.proven = data, place, expected, report, proven
        self.footer, self.name, self.last, self.highest, self.damaged = None, None, None, 1, False
        self.told, self.records = [], 0  # of each frame of records: how many, earliest, latest, first, last
        blank = len(data) >= HEADER.size and not any(data[: HEADER.size])
        at = 0 if blank else self.read_header()
        while at is not None:
            at = self.read_frame(at)
        self.blank = blank and self.last is None

    def named(self, frame, kind):
        self.report(frame, kind)
        self.damaged = self.damaged or kind not in (None, "record")

    def read_header(self):
        header = header_of(self.data)
        if header is None:
            self.named(None, "header")
            self.expected = NOTHING
            return HEADER.size
        said = Expected(header.previous, header.first_frame, header.first_record)
        due = said if self.expected == NOTHING else self.expected
        self.named(None, first({
            "foreign": (header.shard, header.number) != self.place, "chain": said[:2] != due[:2],
            "sequence": said.record != due.record, "size": header.bytes != len(self.data)}))
        self.expected, self.highest = said._replace(previous=blake3(self.data[: HEADER.size]).digest()), max(said.frame, 1)
        return HEADER.size

    def read_frame(self, at):
        """Where to go on; None: the segment's reading has ended."""
        frame = frame_at(self.data, at)
        if frame is None:
            ended = not any(self.data[at : at + FRAME.size])
            at = nonzero(self.data, at) if ended else at
            return None if at is None else self.next_good(at // 8 * 8, ended)
        said = Expected(frame.previous, frame.number, frame.first_record)
        due = said if self.expected == NOTHING else self.expected
        foreign = (frame.shard, frame.segment) != self.place
        if foreign or said != due:
            self.named(frame.number, first({
                "foreign": foreign, "missing_frames": said.frame > due.frame, "repeated_frame": said.frame < due.frame,
                "chain": said.previous != due.previous, "sequence": said.record != due.record}))
        if self.proven.get((self.place[0], frame.number), frame.hash.hex()) != frame.hash.hex():
            self.report(frame.number, "proven")
        self.expected = Expected(frame.hash, frame.number + 1, frame.first_record + frame.records)
        self.last, self.highest = frame.number, max(self.highest, frame.number + 1)
        if frame.kind == 1:
            times, whole = record_times(frame.payload, frame.records)
            times, self.records = [*times, frame.time], self.records + len(times)
            told = (frame.records, min(times), max(times), frame.first_record, self.expected.record - 1)
            self.told += [told] if frame.records else []
            if not whole:
                self.named(frame.number, "record")
        elif frame.records or frame.length != FOOTER.size:
            self.named(frame.number, "footer")
        else:
            return self.read_footer(frame)
        return frame.end

    def read_footer(self, frame):
        self.footer = FOOTER.unpack(frame.payload)
        counts, earliest, latest, begin, end = zip(*self.told) if self.told else [[0]] * 5
        held = (len(self.told), sum(counts), min(earliest), max(latest), begin[0], end[-1])
        behind = nonzero(self.data, frame.end) is not None
        wrong = self.footer != held and not behind and not self.damaged
        self.named(self.expected.frame if behind else frame.number, "after_end" if behind else "footer" if wrong else None)
        if not behind and not wrong:
            stamps = f"{stamp(self.footer[2] // 10**6)}-{stamp(self.footer[3] // 10**6 + 1)}"
            self.name = f"shard-{self.place[0]}-{self.place[1]:010}-{stamps}-{frame.hash.hex()}.seg"

    def next_good(self, at, ended):
        """Looked for here, where the length that stands here says, and at every multiple of 8 behind it."""
        behind = at + (FRAME.size + int.from_bytes(self.data[at + 8 : at + 12], "little") + 7) // 8 * 8
        for place in chain((at, behind), (magic.start() for magic in re.compile(b"LGFR").finditer(self.data, at + 1))):
            frame = frame_at(self.data, place) if place % 8 == 0 else None
            if frame and (frame.shard, frame.segment) == self.place and frame.number >= self.highest:
                self.named(self.expected.frame, "after_end" if ended else "frame")
                self.expected = NOTHING
                return place
        self.named(self.expected.frame, "after_end" if ended else "tail")

def stamp(second):
    try:
        return f"{datetime.fromtimestamp(second, timezone.utc):%Y%m%dT%H%M%SZ}"
    except (OverflowError, ValueError):
        return "beyond all years"  # so that no name is right

# --- the chain of one shard, and all of it ------------------------------------------------------------------------------

class Verifier:
    def __init__(self, data_dir, keys=(), elsewhere=(), still=True):
        self.data_dir, self.breaks, self.totals, self.still = data_dir, [], {}, still
        self.read_archive = partial(Archive, os.path.join(data_dir, "archive"), keys, elsewhere)
        self.archive = self.read_archive(self.named)
        shards = {*self.listing(), *self.archive.positions, *self.archive.greatest}
        self.there = bool(shards) or os.path.exists(self.archive.manifest) or self.archive.checkpoints > 0
        for shard in sorted(shards):
            self.verify_shard(shard)

    def named(self, path, frame, kind):
        if kind:
            inside = path.startswith(self.data_dir.rstrip("/") + "/")
            self.breaks.append((os.path.relpath(path, self.data_dir) if inside else path, frame, kind))

    def ring_path(self, shard, number):
        return os.path.join(self.data_dir, "segments", f"shard-{shard}", f"{number:010}.seg")

    def listing(self):
        """shard -> number -> paths, the one that counts first. The ring is listed first: what is moved meanwhile is in the archive."""
        ring = [entry for folder in listed(os.path.join(self.data_dir, "segments")) for entry in listed(folder.path)]
        shards = {}
        for entry in listed(os.path.join(self.data_dir, "archive")) + ring:
            name = NAME.fullmatch(os.path.relpath(entry.path, self.data_dir))
            if name and int(name[2] or name[4]) < 1 << 53:
                paths = shards.setdefault(int(name[1] or name[3]), {}).setdefault(int(name[2] or name[4]), [None])
                counts = paths[0] is None and entry.is_file(follow_symlinks=False)
                paths[0 if counts else len(paths) :] = [entry.path]
        return shards

    def list_again(self, shard):
        numbers = self.listing().get(shard, {})
        self.files = {number: paths[0] for number, paths in numbers.items() if paths[0]}
        self.surplus = [(number, path) for number, paths in numbers.items() for path in paths[1:]]

    def verify_shard(self, shard):
        self.list_again(shard)
        # What precedes the position is proved by the manifest: its segments may be there, or not.
        position = self.archive.positions.get(shard, {"segment": 0, "frame": 0})
        self.proved, self.last, self.totals[shard] = position["segment"], (0, 0), [0, 0, 0]
        number = max(1, min([self.proved, *self.files])) if self.proved else 1
        prepared = self.walk(shard, number, Expected(bytes(32), 1, 1) if number == 1 else NOTHING)
        behind = [(number, path) for number, path in self.files.items() if number > prepared or not number]
        for _, path in sorted(behind + self.surplus):
            self.named(path, None, "surplus")
        segment, end = max(self.last[0], self.proved, 1), max(self.last[1], position["frame"])
        self.named(self.ring_path(shard, segment), end + 1, "promised" if self.archive.greatest.get(shard, 0) > end else None)

    def walk(self, shard, number, expected):
        """The number behind the end: that of the file that may be prepared."""
        while True:
            if number not in self.files:
                self.list_again(shard)
            if number not in self.files:
                later = min((other for other in self.files if other > number), default=0)
                self.proved = max(self.proved, self.proved_by_now(shard) if later > self.proved else 0)
                missing = later > self.proved or (not later and (number > 1 or self.proved))
                self.named(self.ring_path(shard, number), expected.frame, "missing_segment" if missing else None)
                if not later:
                    return number
                number, expected = later, NOTHING
            path = self.files[number]
            archived = os.path.basename(path).startswith("shard")
            try:
                # Whether there is a successor is asked first: by then its predecessor was complete.
                begun = archived or any(self.begun(shard, other) for other in sorted(self.files) if other > number)
                segment = Segment(contents(path), (shard, number), expected, partial(self.named, path), self.archive.proven)
            except FileNotFoundError:
                self.list_again(shard)
                continue
            self.last = self.last if segment.last is None else (number, segment.last)
            self.totals[shard] = [sum(pair) for pair in zip(self.totals[shard], (1, len(segment.told), segment.records))]
            if segment.footer:
                self.named(path, None, "name" if archived and segment.name not in (None, os.path.basename(path)) else None)
            elif begun:
                self.named(path, segment.expected.frame, None if segment.damaged else "unsealed")
            elif segment.blank:
                return number
            else:
                path = self.files.get(number + 1)
                self.named(path, None, "after_end" if path and nonzero(contents(path), 0) is not None else None)
                return number + 1
            number, expected = number + 1, segment.expected if segment.footer else NOTHING

    def proved_by_now(self, shard):
        """The position's segment in a trail that is written meanwhile, where all holds that says so."""
        found = []
        archive = self.archive if self.still else self.read_archive(lambda *broken: found.append(broken) if broken[2] else None)
        return 0 if found else archive.positions.get(shard, {"segment": 0})["segment"]

    def begun(self, shard, number):
        header = header_of(contents(self.files[number], HEADER.size))
        return header is not None and (header.shard, header.number) == (shard, number)

def contents(path, size=-1):
    with opened(path) as file:
        if size < 0 and os.fstat(file.fileno()).st_size > 4 << 30:
            raise OSError(f"{path} is larger than any segment")
        return file.read(size)

# --- command line -------------------------------------------------------------------------------------------------------

def batch():
    for line in sys.stdin:
        folder, *elsewhere = line.rstrip("\n").split("\t")
        try:
            verifier = Verifier(folder, elsewhere=elsewhere)
            answer = {"status": int(bool(verifier.breaks)) if verifier.there else 3, "breaks": verifier.breaks}
        except OSError as error:
            answer = {"status": 3, "breaks": [], "error": str(error)}
        print(json.dumps(answer), flush=True)
    return 0

def verify(options):
    """A trail may be written meanwhile: one that is whole at one of several looks is whole."""
    for look in range(1 if options.still else LOOKS):
        time.sleep(PAUSE if look else 0)
        verifier = Verifier(options.data_dir, options.key, options.checkpoints, options.still)
        if not verifier.breaks:
            break
    if not verifier.there:
        raise FileNotFoundError("there is no audit trail")
    for shard, (segments, frames, records) in verifier.totals.items():
        print(f"shard {shard}: {segments} segments, {frames} frames, {records} records", file=sys.stderr)
    return verifier.breaks

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", nargs="?")
    parser.add_argument("--package")
    parser.add_argument("--still", action="store_true")
    parser.add_argument("--batch", action="store_true")
    parser.add_argument("--key", action="append", default=[])
    parser.add_argument("--checkpoints", action="append", default=[])
    options = parser.parse_args()
    if options.batch:
        return batch()
    if not options.data_dir and not options.package:
        parser.error("a data directory or a package is needed")
    try:
        breaks = package_breaks(options.package, options.key) if options.package else verify(options)
    except OSError as error:
        print(f"verify.py: {options.package or options.data_dir}: {error}", file=sys.stderr)
        return 3
    for path, frame, kind in breaks:
        print(f"{path.encode('unicode_escape').decode()}\t{'-' if frame is None else frame}\t{kind}")
    return 1 if breaks else 0

if __name__ == "__main__":
    sys.exit(main())
