#!/usr/bin/env python3
"""An independent verifier of Lockgate's audit trail, written from FORMAT.md alone.

    verify.py DATA_DIR          a trail that nobody is writing
    verify.py --package FILE    an evidence package
    --key HEX                   a public key that is vouched for (again for more); else the first one met is believed
    --checkpoints FILE          checkpoints of the trail that were kept elsewhere (again for more, in their order)

Prints one line a break: file, frame or line, kind, separated by tabs. Exit status: 0 whole, 1 broken, 2 wrong usage, 3 it could
not be read or there is none. Needs the packages blake3, google-crc32c and cryptography."""

import argparse
import os
import re
import struct
import sys
import time
from collections import namedtuple

from archive import Archive, Breaks, contents, ensure, listed, package_breaks
from blake3 import blake3
from google_crc32c import extend, value as crc32c

HEADER, FRAME, FOOTER = struct.Struct("<12sIIIQQqQQ16s16s32s"), struct.Struct("<6sHIIIIQQqQ8s32s"), struct.Struct("<QQqqQQ")
Header = namedtuple("Header", "opening crc shard flags segment bytes time number record boot unused previous next")
Frame = namedtuple("Frame", "opening kind length crc shard records number record time segment unused previous payload end next")
Expected = namedtuple("Expected", "previous number record")
NOTHING = Expected(None, None, None)
NAME = re.compile(r"(?:segments/shard-(0|[1-9]\d*)/|archive/shard-(0|[1-9]\d*)-)(\d{10}|[1-9]\d{10,})"
                  r"(?(2)-(?:\d{8}T\d{6}Z-\d{8}T\d{6}Z-[0-9a-f]{64}|damaged))\.seg", re.ASCII)

def intact(element, raw):
    """What headers and frames have in common: unused bytes are zeros, no number is too great, and the checksum holds."""
    great = max(element.segment, element.number, element.record) >= (1 << 53) - (1 << 32)
    return not great and not any(element.unused) and element.crc == extend(crc32c(raw[:12] + bytes(4)), raw[16:])

def header_of(data, place=None):
    """The segment header; None if it does not hold, or is not of this shard and number."""
    if not data.startswith(b"LGSEGMT\x01\x01\0\x80\0") or len(data) < HEADER.size:
        return None
    fields, raw = HEADER.unpack_from(data), data[: HEADER.size]
    header = Header(*fields, Expected(blake3(raw).digest(), *fields[7:9]))
    drawn = header.flags <= 1 and place in (None, (header.shard, header.segment))
    return header if drawn and intact(header, raw) else None

def frame_at(data, at):
    """The frame that holds there, or None."""
    if not data.startswith(b"LGFR\x01\0", at) or at + FRAME.size > len(data):
        return None
    fields = FRAME.unpack_from(data, at)
    raw = data[at : at + FRAME.size + min(fields[2], 16 << 20)]
    frame = Frame(*fields, raw[FRAME.size :], at + len(raw), Expected(blake3(raw).digest(), fields[6] + 1, fields[7] + fields[5]))
    drawn = frame.kind in (1, 2) and frame.length % 8 == 0 and len(frame.payload) == frame.length
    return frame if drawn and intact(frame, raw) else None

# Of each kind of record: where in its fixed part the fields begin that point at something, and at what, 8 bytes each: t a text,
# r any bytes, l a list of texts, b a list of binds. 8 bytes more end the fixed part, and so the row; the last four say how far back its
# who begins. A row of version 1 has who inside.
WHO = "ttlltttt"
ROWS = {1: (32, "rblttt"), 2: (48, "tr"), **dict.fromkeys(range(3, 8), (32, "tttt"))}
ITEM = {"t": 1, "r": 1, "l": 8, "b": 12}  # bytes

def record_times(payload):
    """The time of each record; an exception where one cannot be read."""
    at, whos, kind = 0, set(), None
    while at < len(payload):
        size, kind, version, unused = struct.unpack_from("<IBBH", payload, at)
        start, row, at = at, payload[at + 8 : at + 8 + size], at + 8 + (size + 7) // 8 * 8
        first, fields = (0, WHO) if kind == 8 else ROWS[kind]
        fields = WHO + fields if version == 1 else fields
        root, end = len(row) - first - 8 * len(fields) - (0 if kind == 8 else 8), 0
        ensure(row, not unused and version in (1, 2) and at <= len(payload) and root >= 0 and root % 8 == 0)
        for index, what in enumerate(fields):
            end = field_end(row, root + first + 8 * index, what, end, root)
        if kind == 8:
            ensure(row, version == 2)
            whos.add(start)
            continue
        ensure(row, version == 1 or start - struct.unpack("<I", row[-4:])[0] in whos)
        yield struct.unpack_from("<q", row, root)[0]
    ensure(payload, kind != 8)

def field_end(row, at, what, low, high):
    """What fields point at lies in their order, and before the fixed part."""
    offset, count = struct.unpack_from("<iI", row, at)
    start, end = at + offset, at + offset + count * ITEM[what]
    ensure(row, low <= start and end <= high and (what in "tr" or start % 4 == 0))
    if what == "t":
        row[start:end].decode()
    for item in range(start, end, ITEM[what]) if what in "lb" else ():
        low = field_end(row, item + ITEM[what] - 8, "t", low, start)
    return end

class Shard:
    """The chain of one shard, read to its end. `expected`: of what follows. `last`: segment and number of the last frame."""
    def __init__(self, shard, found, data_dir, archive, breaks):
        self.shard, self.archive, self.breaks, self.files, self.last = shard, archive, breaks, {}, (0, 0)
        self.ring = os.path.join(data_dir, "segments", f"shard-{shard}")
        surplus = [(number, path) for of, number, path, regular in found
                   if of == shard and not (regular and self.files.setdefault(number, path) == path)]
        # What precedes the position is proved by the manifest: its segments may be there, or not.
        proved, proved_frame = (archive.positions.get(shard, {}).get(name, 0) for name in ("segment", "frame"))
        first = max(1, min([proved, *self.files])) if proved else 1
        self.expected = Expected(bytes(32), 1, 1) if first == 1 else NOTHING
        prepared = self.walk(first, proved)
        surplus += [(number, path) for number, path in self.files.items() if number > prepared or not number]
        for _, path in sorted(surplus):
            breaks.name(path, None, surplus=True)
        segment, end = max(self.last[0], proved, 1), max(self.last[1], proved_frame)
        breaks.name(f"{self.ring}/{segment:010}.seg", end + 1, promised=archive.greatest.get(shard, 0) > end)

    def walk(self, number, proved):
        """Reads from this segment on. Returned: the number behind the end, that of the file that may be prepared."""
        for found in sorted(other for other in self.files if other >= number):
            if found > number:
                self.breaks.name(f"{self.ring}/{number:010}.seg", self.expected.number, missing_segment=found > proved)
                self.expected = NOTHING
            number = found + 1
            self.read_segment(self.files[found], found)
            later = (header_of(contents(path), (self.shard, other)) for other, path in self.files.items() if other > found)
            if not self.sealed and (self.archived or any(later)):
                self.breaks.name(self.path, self.expected.number, unsealed=not self.damaged)
                self.expected = NOTHING
            elif not self.sealed and self.blank and self.last[0] != found:
                return found
            elif not self.sealed:
                prepared = self.files.get(number)
                self.breaks.name(prepared, None, after_end=prepared and contents(prepared).strip(b"\0"))
                return number
        self.breaks.name(f"{self.ring}/{number:010}.seg", self.expected.number, missing_segment=number > 1 or proved)
        return number

    def read_segment(self, path, number):
        """`told`: what its frames say, for the footer. `highest`: the least number that a frame found again may have."""
        self.data, self.path, self.place = contents(path), path, (self.shard, number)
        self.archived, header = os.path.basename(path).startswith("shard"), header_of(self.data)
        self.highest, self.damaged, self.told, self.sealed = 1, False, [], False
        self.blank = len(self.data) >= HEADER.size and not any(self.data[: HEADER.size])
        if self.named(None, header=not header and not self.blank):
            self.expected = NOTHING
        if header:
            self.follow(header, None, size=header.bytes != len(self.data))
        at = 0 if self.blank else HEADER.size
        while at is not None:
            at = self.read_frame(at)

    def named(self, frame, /, **kinds):
        kind = self.breaks.name(self.path, frame, **kinds)
        self.damaged = self.damaged or kind not in (None, "record")
        return kind

    def follow(self, element, frame, **others):
        """Names where a header (its `frame` is None) or a frame is not as expected, and expects what follows it."""
        said = Expected(element.previous, element.number, element.record)
        due = said if self.expected == NOTHING else self.expected
        ahead = 0 if frame is None else frame - due.number
        self.named(frame, foreign=(element.shard, element.segment) != self.place, missing_frames=ahead > 0,
                   repeated_frame=ahead < 0, chain=said[:2] != due[:2], sequence=said.record != due.record, **others)
        self.expected, self.highest = element.next, max(self.highest, element.next.number)

    def read_frame(self, at):
        """Where to go on; None: the segment's reading has ended."""
        frame = frame_at(self.data, at)
        if not frame:
            behind = len(self.data) - len(self.data[at:].lstrip(b"\0"))  # the first byte that is not zero
            ended = behind >= at + FRAME.size
            return self.next_good(behind // 8 * 8 if ended else at, ended) if behind < len(self.data) else None
        self.follow(frame, frame.number)
        self.last, digest = (self.place[1], frame.number), frame.next.previous.hex()
        proven = self.archive.proven.get((self.shard, frame.number), digest)
        self.breaks.name(self.path, frame.number, proven=proven != digest)
        if frame.kind == 1:
            self.read_records(frame)
        elif not self.named(frame.number, footer=frame.records or frame.length != FOOTER.size):
            return self.read_footer(frame, digest)
        return frame.end

    def read_records(self, frame):
        times = [frame.time]
        try:
            times.extend(record_times(frame.payload))  # as far as they can be read
            ensure(times, len(times) == frame.records + 1)
        except (KeyError, ValueError, struct.error):
            self.named(frame.number, record=True)
        if frame.records:
            self.told.append((1, frame.records, min(times), max(times), frame.record, frame.next.record - 1))

    def read_footer(self, frame, digest):
        self.sealed, footer = True, FOOTER.unpack(frame.payload)
        held = tuple(of(told) for of, told in zip((sum, sum, min, max, min, max), zip(*self.told))) or (0,) * 6
        behind = self.data[frame.end :].strip(b"\0")
        self.named(self.expected.number, after_end=behind)
        if not behind and not self.named(frame.number, footer=footer != held and not self.damaged):
            since, until = (time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(s)) for s in (footer[2] // 10**6, footer[3] // 10**6 + 1))
            name = f"shard-{self.shard}-{self.place[1]:010}-{since}-{until}-{digest}.seg"
            self.breaks.name(self.path, None, name=self.archived and name != os.path.basename(self.path))

    def next_good(self, at, ended):
        """Looked for here, where the length that stands here says, and at every multiple of 8 behind it."""
        behind = at + (FRAME.size + int.from_bytes(self.data[at + 8 : at + 12], "little") + 7) // 8 * 8
        for place in (at, behind, *(magic.start() for magic in re.compile(b"LGFR").finditer(self.data, at + 1))):
            frame = frame_at(self.data, place) if place % 8 == 0 else None
            if frame and (frame.shard, frame.segment) == self.place and frame.number >= self.highest:
                self.named(self.expected.number, after_end=ended, frame=True)
                self.expected = NOTHING
                return place
        self.named(self.expected.number, after_end=ended, tail=True)

def segments(data_dir):
    """(shard, number, path, whether it is a file) of each, of a number the one that counts first."""
    ring = [entry for folder in listed(os.path.join(data_dir, "segments")) for entry in listed(folder.path)]
    for entry in listed(os.path.join(data_dir, "archive")) + ring:
        name = NAME.fullmatch(os.path.relpath(entry.path, data_dir))
        if name and int(name[3]) < 1 << 53:
            yield int(name[1] or name[2]), int(name[3]), entry.path, entry.is_file(follow_symlinks=False)

def trail_breaks(data_dir, keys=(), elsewhere=()):
    """(file below the data directory, frame or line or None, kind) of each break: of the archive, then shard by shard."""
    breaks, found = Breaks(), [*segments(data_dir)]
    archive = Archive(os.path.join(data_dir, "archive"), keys, elsewhere, breaks)
    shards = {*(shard for shard, *_ in found), *archive.positions, *archive.greatest}
    if not shards and not breaks and not archive.checkpoints:
        raise FileNotFoundError(f"{data_dir}: there is no audit trail")
    for shard in sorted(shards):
        Shard(shard, found, data_dir, archive, breaks)
    return [(path.removeprefix(os.path.join(data_dir, "")), place, kind) for path, place, kind in breaks]

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="DATA_DIR|FILE")
    parser.add_argument("--package", action="store_true")
    parser.add_argument("--key", action="append", default=[])
    parser.add_argument("--checkpoints", action="append", default=[])
    args = parser.parse_args()
    try:
        breaks = package_breaks(args.path, args.key) if args.package else trail_breaks(args.path, args.key, args.checkpoints)
    except OSError as error:
        print(f"verify.py: {error}", file=sys.stderr)
        return 3
    for path, place, kind in breaks:
        print(f"{path.encode('unicode_escape').decode()}\t{'-' if place is None else place}\t{kind}")
    return 1 if breaks else 0

if __name__ == "__main__":
    sys.exit(main())
