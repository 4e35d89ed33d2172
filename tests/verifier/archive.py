"""The archive's half of verify.py: chained lines, the manifest and its files, checkpoints and holds. From FORMAT.md alone."""

import fcntl
import json
import os
import re
import stat
import time
from datetime import datetime
from io import BytesIO

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ZEROS = "0" * 64
NONE_YET = {"number": 0, "hash": ZEROS}
START = {"segment": 1, "offset": 0, "frame": 0, "record": 0, "hash": ZEROS}
BROKEN = (ValueError, KeyError, TypeError, RecursionError)  # what reading raises where something is not as drawn
# What a value must be: a pattern of its JSON text; in braces an object with these members, in brackets a list of these.
NUMBER, SHARD, TEXT, HASH, TIME = r"\d+", r"\d{1,10}", r'".*"', r'"[0-9a-f]{64}"', r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"'
KNOWN = {"shard schema": SHARD, "path file what reason by": TEXT, "time since until": TIME,
         "previous hash before after blake3 key next": HASH}

def members(names, **others):
    known = {name: pattern for names, pattern in KNOWN.items() for name in names.split()}
    return {**{name: known.get(name, NUMBER) for name in names.split()}, **others}

ALL, HEAD, POSITIONS = members("number previous time"), members("number hash"), [members("shard segment offset frame record hash")]
SPANS = [members("shard first_frame last_frame first_record last_record before after")]
MANIFEST = {
    "file": members("path bytes blake3 rows schema since until", shards=SPANS, positions=POSITIONS),
    "damage": members("shard segment offset file what", frame=NUMBER + "|null", positions=POSITIONS),
    "deleted": members("reason", files=[members("entry path")], positions=POSITIONS)}
CHECKPOINTS = {
    "checkpoint": members("key", manifest=HEAD, shards=[members("shard segment frame record hash")], holds=HEAD),
    "key": members("next key")}
HOLDS = {
    "hold": members("reason by", users=[TEXT], targets=[TEXT], since=TIME + "|null", until=TIME + "|null"),
    "release": members("hold reason by")}
LINE = re.compile(rb'(\{"number":\d+,"previous":"[0-9a-f]{64}".*),"hash":"([0-9a-f]{64})"(?:,"signature":"([0-9a-f]{128})")?\}\n')

class Breaks(list):
    """(file, frame or line, kind) of each."""

    def name(self, file, place, /, **kinds):
        """One break at most, the first kind that is true: it is returned."""
        kind = next((kind for kind, broken in kinds.items() if broken), None)
        if kind:
            self.append((file, place, kind))
        return kind

def ensure(value, holds):
    if not holds:
        raise ValueError
    return value

# What is no integer from 0 on becomes a fraction, whose text no pattern matches; int() refuses NaN and Infinity.
STRICT = json.JSONDecoder(
    object_pairs_hook=lambda members: ensure(dict(members), len(dict(members)) == len(members)),
    parse_int=lambda digits: int(digits) if digits.isdecimal() else float(digits), parse_constant=int)

def shaped(value, shape):
    """The members that the shape has; an exception if one is missing or is not as it must be."""
    if isinstance(shape, dict):
        return {name: shaped(value[name], inner) for name, inner in shape.items()}
    if isinstance(shape, list):
        return [shaped(item, shape[0]) for item in ensure(value, isinstance(value, list))]
    ensure(value, re.fullmatch(shape, json.dumps(value, ensure_ascii=False)))
    ensure(value, not isinstance(value, int) or value < (1 << 32 if shape == SHARD else 1 << 53))
    return ensure(value, value is None or not shape.startswith(TIME) or datetime.fromisoformat(value))

class Line:
    """A chained line that holds by itself; an exception if it does not."""

    def __init__(self, raw, kinds, place=None):
        match = LINE.fullmatch(raw)
        ensure(match, match and blake3(match[1]).hexdigest() == match[2].decode() and bool(match[3]) == (kinds is CHECKPOINTS))
        self.place, self.body, self.signature = place, match[1], (match[3] or b"").decode()
        said = STRICT.decode(self.body.decode() + "}")
        json.dumps(said, ensure_ascii=False).encode()  # half a surrogate pair is no text
        self.kind, self.entry = said["kind"], shaped({"holds": NONE_YET, **said}, {**ALL, **kinds[said["kind"]]})
        self.head = self.number, self.hash = self.entry["number"], match[2].decode()

    def continues(self, before):
        """Kinds of breaks. `before`: number and hash of the line before; None: not known."""
        return {"number": before and self.number != before[0] + 1, "chain": before and self.entry["previous"] != before[1]}

def lines(data, path, kinds, breaks):
    """Each chained line; None where one does not hold, which is named."""
    for count, raw in enumerate(BytesIO(data), 1):
        try:
            yield Line(raw, kinds, (path, count))
        except BROKEN:
            breaks.name(path, count, line=True)
            yield None

def signature_holds(key, signature, message):
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), message)
        return True
    except (InvalidSignature, ValueError):
        return False

def contents(path, length=-1):
    """The first bytes of a file, or all. What stands in the place of a file and is none is an error, and never waited for."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise OSError(f"{path} is not a file")
        if length < 0 and about.st_size > 4 << 30:
            raise OSError(f"{path} is larger than any segment")
        share(file)
        if not os.path.samestat(about, os.stat(path)):
            raise FileNotFoundError(f"{path} has left the ring")
        return file.read(length)

def share(file):
    """Nobody uses it again as another segment meanwhile."""
    for _ in range(50):
        try:
            return fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:
            return None  # where there are no locks, no file is used again
    raise OSError(f"{file.name} is locked")

def listed(folder):
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []

class Archive:
    """What it says of the segments: `positions`; `proven`: (shard, frame) -> hash; `greatest`: shard -> the last frame promised."""

    def __init__(self, folder, keys, elsewhere, breaks):
        self.folder, self.breaks, self.manifest = folder, breaks, os.path.join(folder, "manifest.jsonl")
        # Of entries: hash by number, the greatest number, what they name; by shard: positions, those before the last entry.
        self.hashes, self.last, self.files, self.deleted = {0: ZEROS}, 0, {}, []
        self.positions, self.before, self.damaged, self.proven = {}, {}, set(), {}
        # Of checkpoints: how many, the greatest entry, the last hold, which line names which; by shard: the last promise.
        self.checkpoints, self.signed, self.hold, self.holds = 0, 0, NONE_YET, []
        self.promises, self.promised, self.greatest = {}, {}, {}
        days, manifest = None, b""
        while days != self.days():  # as they are while no checkpoint is written
            days, manifest = self.days(), self.read(self.manifest)
        self.read_manifest(manifest)
        self.read_checkpoints(days, keys, elsewhere)
        self.read_holds()
        self.check_files()
        self.proven = {**self.promised, **self.proven}

    def days(self):
        """The files of checkpoints, and how long they are."""
        found = listed(os.path.join(self.folder, "checkpoints"))
        days = [day.path for day in found if re.fullmatch(r"\d{4}-\d\d-\d\d\.jsonl", day.name)]
        return {day: os.path.getsize(day) if os.path.exists(day) else 0 for day in days}

    def read(self, path, length=-1):
        """Its first bytes, none of a file that is not there."""
        try:
            return contents(path, length)
        except FileNotFoundError:
            return b""

    def read_manifest(self, data):
        follows = True
        for line in lines(data, self.manifest, MANIFEST, self.breaks):
            if line:
                self.read_entry(line, (self.last, self.hashes[self.last]) if follows else None)
            follows = line is not None

    def read_entry(self, line, before):
        entry, file, since = line.entry, line.kind == "file", line.entry.get("since", "")
        spans, positions = ({item["shard"]: item for item in entry.get(items, [])} for items in ("shards", "positions"))
        shards = spans.keys() | positions.keys() | self.positions.keys()
        path = f"parquet/date={since[:10]}/{re.sub('[-:]', '', since)}-{line.number:010}.parquet"
        rows = sum(span["last_record"] + 1 - span["first_record"] for span in entry.get("shards", []))
        self.breaks.name(
            *line.place, **line.continues(before), path=file and entry["path"] != path,
            span=before and any(self.broken_span(shard, spans.get(shard), positions.get(shard)) for shard in shards),
            rows=before and file and rows != entry["rows"] and not self.damaged & spans.keys())
        if 0 < line.number <= self.last + 1024:
            self.hashes[line.number], self.last = line.hash, max(self.last, line.number)
        self.damaged -= spans.keys()
        self.proven |= {(span["shard"], span["last_frame"]): span["after"] for span in entry.get("shards", [])}
        self.before, self.positions = self.positions, positions
        if file:
            self.files[line.number] = entry
        elif line.kind == "deleted":
            self.deleted += [(line.number, file["entry"]) for file in entry["files"]]
        else:
            self.damaged.add(entry["shard"])
            self.breaks.name(*line.place, damage=True)

    def broken_span(self, shard, span, now):
        """Span and position do not continue the position before."""
        was = self.positions.get(shard, {"shard": shard, **START})
        if not span or not now:
            return now != was
        begins = (span["first_frame"] - 1, span["first_record"] - 1, span["before"]) == (was["frame"], was["record"], was["hash"])
        ends = (span["last_frame"], span["last_record"], span["after"]) == (now["frame"], now["record"], now["hash"])
        back = (now["segment"], now["frame"], now["record"]) < (was["segment"], was["frame"], was["record"])
        return back or not ends or not (begins or shard in self.damaged)

    def signed_lines(self, files, keys, before):
        """The lines whose promises count. `files`: with how much of them is read. `keys`: vouched for."""
        due, known = None, set(keys)
        for path, length in files.items():
            for line in lines(self.read(path, length), path, CHECKPOINTS, self.breaks):
                if line is None:
                    before = due = None
                    continue
                self.breaks.name(*line.place, **line.continues(before))
                before, key = line.head, line.entry["key"]
                wrong = key != due if due else known and key not in known
                held = signature_holds(key, line.signature, line.body)
                broken = self.breaks.name(*line.place, signature=not held, key=wrong)
                if not broken:
                    due = line.entry.get("next", key)
                    known |= {key, due}
                    yield line
                elif not held:
                    due = None

    def read_checkpoints(self, days, keys, elsewhere):
        theirs, only_keys = list(self.signed_lines(dict.fromkeys(elsewhere, -1), keys, None)), True
        for index, line in enumerate(self.signed_lines(days, keys, (0, ZEROS)), 1):
            while theirs and theirs[0].number <= line.number:
                other = theirs.pop(0)
                self.breaks.name(*other.place, elsewhere=other.head != line.head)
            begins = only_keys and line.number == index and line.kind == "checkpoint"
            self.breaks.name(*line.place, checkpoints_begin=begins and line.entry["manifest"]["number"])
            only_keys = only_keys and line.kind == "key"
            self.promise(line)
        for index, line in enumerate(theirs):  # newer than all of ours: those were cut off here
            self.breaks.name(*line.place, elsewhere=index == 0)
            self.promise(line)
        cut = self.last > self.signed + 1 or (self.last and not self.checkpoints)
        self.breaks.name([self.manifest, *days][-1], None, checkpoints_end=cut)

    def promise(self, line):
        self.checkpoints += 1
        if line.kind == "key":
            return
        entry, hold = line.entry["manifest"], line.entry["holds"]
        unknown = self.hashes.get(entry["number"]) != entry["hash"]
        self.breaks.name(*line.place, promised_entry=unknown or entry["number"] < self.signed)
        self.signed = max(self.signed, entry["number"])
        for promise in line.entry["shards"]:
            self.breaks.name(*line.place, promised_frame=self.broken_promise(promise["shard"], promise["frame"], promise["hash"]))
        lower = self.breaks.name(*line.place, promised_hold=hold["number"] < self.hold["number"])
        if hold != self.hold and not lower:
            self.holds.append((line.place, hold))
            self.hold = hold

    def broken_promise(self, shard, frame, hash):
        self.greatest[shard] = max(self.greatest.get(shard, 0), frame)
        last, self.promises[shard] = self.promises.get(shard, (0, hash)), (frame, hash)
        if frame < last[0] or (frame == last[0] and hash != last[1]):
            return True
        known = self.proven.get((shard, frame))
        if known is None and frame > self.before.get(shard, START)["frame"]:
            known = self.promised.get((shard, frame))
            self.promised[shard, frame] = hash
        return known not in (None, hash)

    def read_holds(self):
        path, hashes, before = os.path.join(self.folder, "holds.jsonl"), {0: ZEROS}, (0, ZEROS)
        for count, line in enumerate(lines(self.read(path), path, HOLDS, self.breaks), 1):
            if line:
                self.breaks.name(*line.place, **line.continues(before))
            before, hashes[count] = ((count, line.hash), line.hash) if line else (None, None)
        for place, hold in self.holds:
            self.breaks.name(*place, promised_hold=hashes.get(hold["number"]) != hold["hash"])

    def check_files(self):
        """An entry that no checkpoint names deletes nothing, and what it moves may still be in the segments alone."""
        if self.last == self.signed + 1:
            self.positions = self.before
        gone = {entry for number, entry in self.deleted if number <= self.signed}
        paths = {number: os.path.join(self.folder, entry["path"]) for number, entry in self.files.items()}
        for number, path in paths.items():
            self.check_file(path, self.files[number], number in gone)
        known = set(paths.values())
        for entry in listed(os.path.join(self.folder, "parquet")):
            for found in listed(entry.path) if entry.is_dir(follow_symlinks=False) else [entry]:
                number = re.fullmatch(r".*-(\d{10,})\.parquet", found.name, re.DOTALL)
                due = found.path in known or (number and int(number[1]) == self.last + 1)
                self.breaks.name(found.path, None, surplus=not due)

    def check_file(self, path, entry, gone):
        folder = os.path.dirname(path)
        try:
            about = os.lstat(folder if os.path.islink(folder) else path)  # a link is no file, nor is what is behind it
            regular, whole = stat.S_ISREG(about.st_mode), about.st_size == entry["bytes"]
            content = regular and whole and blake3().update_mmap(path).hexdigest() != entry["blake3"]
            self.breaks.name(path, None, not_a_file=not regular, size=not whole, content=content)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # a path with a zero byte leads nowhere
            self.breaks.name(path, None, missing_file=not gone)
