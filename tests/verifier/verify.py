#!/usr/bin/env python3
"""An independent verifier of Lockgate's audit trail, written from FORMAT.md alone.

    verify.py DATA_DIR          one line a break (file, frame or line, kind, separated by tabs), totals on standard error
    --still                     the trail is not being written: it is read once
    --key HEX                   a public key that is vouched for (again for more); else the first one met is believed
    --checkpoints FILE          checkpoints that were kept elsewhere (again for more, in their order)
    verify.py --package FILE    an evidence package instead (--key as above)
    verify.py --batch           folders come on standard input, one a line (behind tabs: checkpoints kept elsewhere); each is
                                answered by a line of JSON ({"status": 0, "breaks": [[file, frame, kind], ...]}), as with --still

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
from functools import partial
from itertools import chain

from archive import Archive, Breaks, contents, ensure, listed
from blake3 import blake3
from google_crc32c import extend, value as crc32c
from package import package_breaks

HEADER, FRAME, FOOTER = struct.Struct("<12sIIIQQqQQ16s16s32s"), struct.Struct("<6sHIIIIQQqQQ32s"), struct.Struct("<QQqqQQ")
Header = namedtuple("Header", "opening crc shard flags number bytes time first_frame first_record boot unused previous")
Frame = namedtuple(
    "Frame", "opening kind length crc shard records number first_record time segment unused previous payload hash end")
Expected = namedtuple("Expected", "previous frame record")
GREATEST = (1 << 53) - 1 - (1 << 32)
NOTHING = Expected(None, None, None)
LOOKS, PAUSE = 8, 0.2  # how often, and how much later, a trail with breaks is read again
NAME = re.compile(r"(?:segments/shard-(0|[1-9]\d*)/|archive/shard-(0|[1-9]\d*)-)(\d{10}|[1-9]\d{10,})"
                  r"(?(2)-(?:\d{8}T\d{6}Z-\d{8}T\d{6}Z-[0-9a-f]{64}|damaged))\.seg", re.ASCII)

def checksum_holds(element):
    return extend(crc32c(element[:12] + bytes(4)), element[16:]) == int.from_bytes(element[12:16], "little")

def header_of(data):
    """The segment header, or None if it does not hold."""
    if len(data) < HEADER.size:
        return None
    header = Header._make(HEADER.unpack_from(data))
    drawn = header.opening == b"LGSEGMT\x01\x01\0\x80\0" and header.flags <= 1 and not any(header.unused)
    drawn = drawn and max(header.number, header.first_frame, header.first_record) <= GREATEST
    return header if drawn and checksum_holds(data[: HEADER.size]) else None

def frame_at(data, at):
    """The frame that holds there, or None."""
    if not data.startswith(b"LGFR\x01\0", at) or at + FRAME.size > len(data):
        return None
    fields = FRAME.unpack_from(data, at)
    element = data[at : at + FRAME.size + fields[2]]
    frame = Frame(*fields, element[FRAME.size :], blake3(element).digest(), at + len(element))
    drawn = frame.kind in (1, 2) and frame.length <= 16 << 20 and frame.length % 8 == 0 and not frame.unused
    drawn = drawn and max(frame.number, frame.first_record, frame.segment) <= GREATEST
    return frame if drawn and len(frame.payload) == frame.length and checksum_holds(element) else None

RAW, TEXT, LIST, BINDS = 0, 1, 8, 12  # of the lists: bytes of an item
WHO = (TEXT, TEXT, LIST, LIST, TEXT, TEXT, TEXT, TEXT)
# Of the kinds of records: bytes of the fixed part, and what it points at, from where on (8 bytes each).
ROWS = dict.fromkeys(range(3, 8), (136, 32, (*WHO, TEXT, TEXT, TEXT, TEXT)))
ROWS[1] = (152, 32, (*WHO, RAW, BINDS, LIST, TEXT, TEXT, TEXT))
ROWS[2] = (136, 48, (*WHO, TEXT, RAW))

def record_times(payload):
    """The time of each record; an exception where one cannot be read."""
    at = 0
    while at < len(payload):
        size, kind, version, unused = struct.unpack_from("<IBBH", payload, at)
        fixed, first, fields = ROWS[kind]
        row, at = payload[at + 8 : at + 8 + size], at + 8 + (size + 7) // 8 * 8
        root, end = len(row) - fixed, 0
        ensure(row, not unused and version == 1 and at <= len(payload) and root >= 0 and root % 8 == 0)
        for index, what in enumerate(fields):
            end = field_end(row, root + first + 8 * index, what, end, root)
        yield struct.unpack_from("<q", row, root)[0]

def field_end(row, at, what, low, high):
    """What fields point at lies in their order, and before the fixed part."""
    offset, count = struct.unpack_from("<iI", row, at)
    start, end = at + offset, at + offset + count * max(what, 1)
    ensure(row, low <= start and end <= high and (what < LIST or start % 4 == 0))
    if what == TEXT:
        row[start:end].decode()
    for item in range(start, end, what) if what >= LIST else ():
        low = field_end(row, item + what - 8, TEXT, low, start)
    return end

class Shard:
    """The chain of one shard, read to its end. `expected`: of what follows. `last`: segment and number of the last frame."""

    def __init__(self, trail, shard):
        self.trail, self.shard, self.breaks, self.totals, self.last = trail, shard, trail.breaks, [0, 0, 0], (0, 0)
        self.ring = os.path.join(trail.data_dir, "segments", f"shard-{shard}")
        self.list_again()
        # What precedes the position is proved by the manifest: its segments may be there, or not.
        position = trail.archive.positions.get(shard, {"segment": 0, "frame": 0})
        self.proved = position["segment"]
        number = max(1, min([self.proved, *self.files])) if self.proved else 1
        self.expected = Expected(bytes(32), 1, 1) if number == 1 else NOTHING
        prepared = self.walk(number)
        behind = [(number, path) for number, path in self.files.items() if number > prepared or not number]
        for _, path in sorted(behind + self.surplus):
            self.breaks.name(path, None, surplus=True)
        segment, end = max(self.last[0], self.proved, 1), max(self.last[1], position["frame"])
        self.breaks.name(f"{self.ring}/{segment:010}.seg", end + 1, promised=trail.archive.greatest.get(shard, 0) > end)

    def list_again(self):
        """`files`: by number those that count. `surplus`: the others."""
        self.files, self.surplus = {}, []
        for _, number, path, regular in (found for found in self.trail.listing() if found[0] == self.shard):
            if not regular or self.files.setdefault(number, path) != path:
                self.surplus.append((number, path))

    def walk(self, number):
        """The number behind the end: that of the file that may be prepared."""
        while True:
            if number not in self.files:
                self.list_again()
            if number not in self.files:
                later = min((other for other in self.files if other > number), default=0)
                self.proved = max(self.proved, self.trail.proved_by_now(self.shard) if later > self.proved else 0)
                missing = later > self.proved or (not later and (number > 1 or self.proved))
                self.breaks.name(f"{self.ring}/{number:010}.seg", self.expected.frame, missing_segment=missing)
                if not later:
                    return number
                number, self.expected = later, NOTHING
            path = self.files[number]
            archived = os.path.basename(path).startswith("shard")
            try:
                # Whether there is a successor is asked first: by then its predecessor was complete.
                begun = archived or any(self.begun(other) for other in sorted(self.files) if other > number)
                self.read_segment(path, number)
            except FileNotFoundError:
                self.list_again()
                continue
            if self.sealed:
                self.breaks.name(path, None, name=archived and self.name not in (None, os.path.basename(path)))
            elif begun:
                self.breaks.name(path, self.expected.frame, unsealed=not self.damaged)
                self.expected = NOTHING
            elif self.blank and self.last[0] != number:
                return number
            else:
                path = self.files.get(number + 1)
                try:
                    self.breaks.name(path, None, after_end=path and contents(path).strip(b"\0"))
                except FileNotFoundError:  # it has been filled and has left the ring since
                    pass
                return number + 1
            number += 1

    def begun(self, number):
        header = header_of(contents(self.files[number], HEADER.size))
        return header is not None and (header.shard, header.number) == (self.shard, number)

    def read_segment(self, path, number):
        """`name`: what the footer makes it."""
        self.data, self.path, self.place = contents(path), path, (self.shard, number)
        self.highest, self.damaged, self.told, self.sealed, self.name = 1, False, [], False, None
        self.totals[0] += 1
        self.blank = len(self.data) >= HEADER.size and not any(self.data[: HEADER.size])
        at = 0 if self.blank else self.read_header()
        while at is not None:
            at = self.read_frame(at)

    def named(self, frame, /, **kinds):
        kind = self.breaks.name(self.path, frame, **kinds)
        self.damaged = self.damaged or kind not in (None, "record")
        return kind

    def read_header(self):
        header = header_of(self.data)
        if self.named(None, header=not header):
            self.expected = NOTHING
            return HEADER.size
        said = Expected(header.previous, header.first_frame, header.first_record)
        due = said if self.expected == NOTHING else self.expected
        self.named(None, foreign=(header.shard, header.number) != self.place, chain=said[:2] != due[:2],
                   sequence=said.record != due.record, size=header.bytes != len(self.data))
        self.expected, self.highest = said._replace(previous=blake3(self.data[: HEADER.size]).digest()), max(said.frame, 1)
        return HEADER.size

    def read_frame(self, at):
        """Where to go on; None: the segment's reading has ended."""
        frame = frame_at(self.data, at)
        if not frame:
            behind = len(self.data) - len(self.data[at:].lstrip(b"\0"))  # the first byte that is not zero
            ended = behind >= at + FRAME.size
            return self.next_good(behind // 8 * 8 if ended else at, ended) if behind < len(self.data) else None
        said = Expected(frame.previous, frame.number, frame.first_record)
        due = said if self.expected == NOTHING else self.expected
        self.named(frame.number, foreign=(frame.shard, frame.segment) != self.place, missing_frames=said.frame > due.frame,
                   repeated_frame=said.frame < due.frame, chain=said.previous != due.previous, sequence=said.record != due.record)
        proven = self.trail.archive.proven.get((self.shard, frame.number), frame.hash.hex())
        self.breaks.name(self.path, frame.number, proven=proven != frame.hash.hex())
        self.expected = Expected(frame.hash, frame.number + 1, frame.first_record + frame.records)
        self.last, self.highest = (self.place[1], frame.number), max(self.highest, frame.number + 1)
        if frame.kind == 1:
            self.read_records(frame)
        elif not self.named(frame.number, footer=frame.records or frame.length != FOOTER.size):
            return self.read_footer(frame)
        return frame.end

    def read_records(self, frame):
        times = [frame.time]
        try:
            times.extend(record_times(frame.payload))  # as far as they can be read
            ensure(times, len(times) == frame.records + 1)
        except (KeyError, ValueError, struct.error):
            self.named(frame.number, record=True)
        self.totals[2] += len(times) - 1
        if frame.records:
            self.totals[1] += 1
            self.told.append((1, frame.records, min(times), max(times), frame.first_record, self.expected.record - 1))

    def read_footer(self, frame):
        self.sealed, footer = True, FOOTER.unpack(frame.payload)
        held = tuple(of(told) for of, told in zip((sum, sum, min, max, min, max), zip(*self.told))) or (0,) * 6
        behind = self.data[frame.end :].strip(b"\0")
        self.named(self.expected.frame, after_end=behind)
        if not behind and not self.named(frame.number, footer=footer != held and not self.damaged):
            since, until = (time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at)) for at in (footer[2] // 10**6, footer[3] // 10**6 + 1))
            self.name = f"shard-{self.shard}-{self.place[1]:010}-{since}-{until}-{frame.hash.hex()}.seg"

    def next_good(self, at, ended):
        """Looked for here, where the length that stands here says, and at every multiple of 8 behind it."""
        behind = at + (FRAME.size + int.from_bytes(self.data[at + 8 : at + 12], "little") + 7) // 8 * 8
        for place in chain((at, behind), (magic.start() for magic in re.compile(b"LGFR").finditer(self.data, at + 1))):
            frame = frame_at(self.data, place) if place % 8 == 0 else None
            if frame and (frame.shard, frame.segment) == self.place and frame.number >= self.highest:
                self.named(self.expected.frame, after_end=ended, frame=True)
                self.expected = NOTHING
                return place
        self.named(self.expected.frame, after_end=ended, tail=True)

class Verifier:
    """A whole trail: what its archive says, then shard by shard."""

    def __init__(self, data_dir, keys=(), elsewhere=(), still=True):
        self.data_dir, self.still, found = data_dir, still, Breaks()
        self.read_archive = partial(Archive, os.path.join(data_dir, "archive"), keys, elsewhere)
        self.breaks, self.archive = found, self.read_archive(found)
        shards = {*(shard for shard, *_ in self.listing()), *self.archive.positions, *self.archive.greatest}
        self.there = bool(shards) or os.path.exists(self.archive.manifest) or self.archive.checkpoints > 0
        self.totals = {shard: Shard(self, shard).totals for shard in sorted(shards)}
        self.breaks = [(path.removeprefix(os.path.join(data_dir, "")), place, kind) for path, place, kind in found]

    def listing(self):
        """(shard, number, path, whether it is a file), of each number the one that counts first."""
        # The ring is listed first: what is moved meanwhile is in the archive.
        ring = [entry for folder in listed(os.path.join(self.data_dir, "segments")) for entry in listed(folder.path)]
        for entry in listed(os.path.join(self.data_dir, "archive")) + ring:
            name = NAME.fullmatch(os.path.relpath(entry.path, self.data_dir))
            if name and int(name[3]) < 1 << 53:
                yield int(name[1] or name[2]), int(name[3]), entry.path, entry.is_file(follow_symlinks=False)

    def proved_by_now(self, shard):
        """The position's segment in a trail that is written meanwhile, where all holds that says so."""
        breaks = Breaks()
        archive = self.archive if self.still else self.read_archive(breaks)
        return 0 if breaks else archive.positions.get(shard, {"segment": 0})["segment"]

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
