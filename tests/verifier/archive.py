"""The archive's half of verify.py: chained lines, the manifest and its files, checkpoints and holds. From FORMAT.md alone."""

import json
import os
import re
import stat
from datetime import datetime

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# What a value must be: a pattern of its JSON text; in braces an object with these members, in brackets a list of these.
NUMBER, SHARD, TEXT, HASH = r"\d+", r"[0-9]+", r'".*"', r'"[0-9a-f]{64}"'
TIME = r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"'
NAMES = {"shard schema": SHARD, "path file what reason by": TEXT, "hash before after blake3 key next": HASH, "since until": TIME}
KNOWN = {name: pattern for names, pattern in NAMES.items() for name in names.split()}

def members(names, **others):
    return {**{name: KNOWN.get(name, NUMBER) for name in names.split()}, **others}

HEAD, PROMISE = members("number hash"), members("shard segment frame record hash")
SPAN = members("shard first_frame last_frame first_record last_record before after")
POSITIONS = [members("shard segment offset frame record hash")]
MANIFEST = {
    "file": members("path bytes blake3 rows schema since until", shards=[SPAN], positions=POSITIONS),
    "damage": members("shard segment offset file what", frame=NUMBER + "|null", positions=POSITIONS),
    "deleted": members("reason", files=[members("entry path")], positions=POSITIONS),
}
CHECKPOINTS = {"checkpoint": members("key", manifest=HEAD, shards=[PROMISE], holds=HEAD), "key": members("next key")}
HOLDS = {
    "hold": members("reason by", users=[TEXT], targets=[TEXT], since=TIME + "|null", until=TIME + "|null"),
    "release": members("hold reason by"),
}
LINE = rb'(\{"number":(\d+),"previous":"([0-9a-f]{64})".*),"hash":"([0-9a-f]{64})"%s\}'
PLAIN, SIGNED = (re.compile(LINE % tail, re.DOTALL) for tail in (b"", b',"signature":"([0-9a-f]{128})"'))
ZEROS = "0" * 64
NONE_YET = {"number": 0, "hash": ZEROS}
START = {"segment": 1, "offset": 0, "frame": 0, "record": 0, "hash": ZEROS}
PUBLISHED = re.compile(r".*-(\d{10,})\.parquet", re.DOTALL)

# --- chained lines ------------------------------------------------------------------------------------------------------

def ensure(value, holds):
    if not holds:
        raise ValueError
    return value

# int() refuses what is no integer: fractions, exponents, NaN and Infinity.
STRICT = json.JSONDecoder(
    object_pairs_hook=lambda members: ensure(dict(members), len(dict(members)) == len(members)),
    parse_int=lambda digits: ensure(int(digits), digits.isdecimal() and int(digits) < 1 << 53), parse_float=int, parse_constant=int)

TO_JSON, FLAGS = json.JSONEncoder(ensure_ascii=False), re.ASCII | re.DOTALL

def shaped(value, shape):
    """The members that the shape has; ValueError if one is missing or is not as it must be."""
    if isinstance(shape, dict):
        ensure(value, isinstance(value, dict) and shape.keys() <= value.keys())
        return {name: shaped(value[name], inner) for name, inner in shape.items()}
    if isinstance(shape, list):
        return [shaped(item, shape[0]) for item in ensure(value, isinstance(value, list))]
    ensure(value, re.fullmatch(shape, TO_JSON.encode(value), FLAGS))
    ensure(value, value is None or not shape.startswith(TIME) or datetime.fromisoformat(value))
    return ensure(value, shape != SHARD or value < 1 << 32)

class Line:
    """A chained line that holds by itself; ValueError or RecursionError if it does not."""

    def __init__(self, raw, kinds, place=None):
        match = (SIGNED if kinds is CHECKPOINTS else PLAIN).fullmatch(raw)
        ensure(raw, match and blake3(match[1]).hexdigest() == match[4].decode())
        said = STRICT.decode(match[1].decode() + "}")
        TO_JSON.encode(said).encode()  # half a surrogate pair is no text
        self.kind, self.place, self.body, self.signature = said.get("kind"), place, match[1], match[match.lastindex].decode()
        self.number, self.previous, self.hash = int(match[2]), match[3].decode(), match[4].decode()
        ensure(said, isinstance(self.kind, str) and self.kind in kinds)
        self.entry = shaped({"holds": NONE_YET, **said}, {"time": TIME, **kinds[self.kind]})

def opened(path):
    """What stands in the place of a file and is none is an error, and never waited for."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise OSError(f"{path} is not a file")
    return file

def size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0

def lines(path, kinds, size=-1):
    """(path, line number) and Line, or None where it does not hold, of the first bytes of a file."""
    try:
        with opened(path) as file:
            *raws, rest = file.read(size).split(b"\n")
    except FileNotFoundError:
        return
    for count, raw in enumerate(raws, 1):
        try:
            yield (path, count), Line(raw, kinds, (path, count))
        except (ValueError, RecursionError):
            yield (path, count), None
    if rest:
        yield (path, len(raws) + 1), None

def first(kinds):
    """The first kind of break that is true."""
    return next((kind for kind, broken in kinds.items() if broken), None)

def links(line, before):
    """`before`: number and hash of the line before; None: not known."""
    return {"number": before and line.number != before[0] + 1, "chain": before and line.previous != before[1]}

def signature_holds(key, signature, message):
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), message)
        return True
    except (InvalidSignature, ValueError):
        return False

# --- files --------------------------------------------------------------------------------------------------------------

def listed(folder):
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []

def published_path(since, number):
    return f"parquet/date={since[:10]}/{since.replace('-', '').replace(':', '')}-{number:010}.parquet"

def file_break(path, entry):
    try:
        linked = os.path.islink(path) or os.path.islink(os.path.dirname(path))
        if linked or not stat.S_ISREG(os.stat(path).st_mode):
            return "not_a_file"
        if os.path.getsize(path) != entry["bytes"]:
            return "size"
        return None if blake3().update_mmap(path).hexdigest() == entry["blake3"] else "content"
    except (FileNotFoundError, NotADirectoryError):
        return "missing_file"

# --- the archive --------------------------------------------------------------------------------------------------------

class Archive:
    """What the manifest and the checkpoints say of the segments: `positions`; `proven`: (shard, frame) -> hash; `greatest`: shard ->
    the last frame promised."""

    def __init__(self, folder, keys, elsewhere, named):
        self.folder, self.named, self.manifest = folder, named, os.path.join(folder, "manifest.jsonl")
        # By number, the greatest number, by shard, and by shard as it was before the last entry.
        self.hashes, self.last, self.positions, self.before = {0: ZEROS}, 0, {}, {}
        self.files, self.deleted, self.damaged, self.proven, self.promised = {}, [], set(), {}, {}
        self.greatest, self.promises, self.signed, self.hold, self.holds, self.checkpoints = {}, {}, 0, NONE_YET, [], 0
        self.sizes = self.moment()
        self.read_manifest()
        self.read_checkpoints(keys, elsewhere)
        self.read_holds()
        self.check_files()
        self.proven = {**self.promised, **self.proven}

    def moment(self):
        """How long manifest and checkpoints are while no checkpoint is written."""
        days = [day for day in listed(os.path.join(self.folder, "checkpoints")) if re.fullmatch(r"\d{4}-\d\d-\d\d\.jsonl", day.name)]
        before = [(day.path, size(day.path)) for day in days]
        sizes = {self.manifest: size(self.manifest), **dict(before)}
        return sizes if all(size(path) == was for path, was in before) else self.moment()

    def read_manifest(self):
        follows = True
        for place, line in lines(self.manifest, MANIFEST, self.sizes[self.manifest]):
            self.named(*place, self.broken_entry(line, follows) if line else "line")
            follows = line is not None
            if line:
                self.take(line)

    def broken_entry(self, line, follows):
        entry, spans = line.entry, line.entry.get("shards", [])
        lost = any(span["shard"] in self.damaged for span in spans)
        rows = sum(span["last_record"] + 1 - span["first_record"] for span in spans)
        return first({
            **links(line, (self.last, self.hashes[self.last]) if follows else None),
            "path": line.kind == "file" and entry["path"] != published_path(entry["since"], line.number),
            "span": follows and self.broken_span(by_shard(entry["positions"]), by_shard(spans)),
            "rows": follows and line.kind == "file" and not lost and rows != entry["rows"]})

    def broken_span(self, positions, spans):
        for shard, now in positions.items():
            was, span = self.positions.get(shard, {"shard": shard, **START}), spans.get(shard)
            due = {**now, "frame": span["last_frame"], "record": span["last_record"], "hash": span["after"]} if span else was
            begins = [span["first_frame"] - 1, span["first_record"] - 1, span["before"]] if span else None
            if now != due or [now["segment"], now["frame"], now["record"]] < [was["segment"], was["frame"], was["record"]]:
                return True
            if span and shard not in self.damaged and begins != [was["frame"], was["record"], was["hash"]]:
                return True
        return not positions.keys() >= self.positions.keys() | spans.keys()

    def take(self, line):
        if 0 < line.number <= self.last + 1024:
            self.hashes[line.number], self.last = line.hash, max(self.last, line.number)
        for span in line.entry.get("shards", []):
            self.damaged.discard(span["shard"])
            self.proven[span["shard"], span["last_frame"]] = span["after"]
        if line.kind == "file":
            self.files[line.number] = line.entry
        elif line.kind == "deleted":
            self.deleted += [(line.number, *file.values()) for file in line.entry["files"]]
        else:
            self.damaged.add(line.entry["shard"])
            self.named(*line.place, "damage")
        self.before, self.positions = self.positions, by_shard(line.entry["positions"])

    def signed_lines(self, files, keys, before):
        """The lines whose promises count. `keys`: vouched for."""
        due, known = None, set(keys)
        for place, line in (found for path in files for found in lines(path, CHECKPOINTS, self.sizes.get(path, -1))):
            if line is None:
                self.named(*place, "line")
                before = due = None
                continue
            self.named(*place, first(links(line, before)))
            before, key = (line.number, line.hash), line.entry["key"]
            if not signature_holds(key, line.signature, line.body):
                self.named(*place, "signature")
                due = None
            elif key != due if due else known and key not in known:
                self.named(*place, "key")
            else:
                due = line.entry.get("next", key)
                known |= {key, due}
                yield line

    def read_checkpoints(self, keys, elsewhere):
        files = [path for path in self.sizes if path != self.manifest]
        theirs, only_keys = list(self.signed_lines(elsewhere, keys, None)), True
        for index, line in enumerate(self.signed_lines(files, keys, (0, ZEROS)), 1):
            while theirs and theirs[0].number <= line.number:
                other = theirs.pop(0)
                self.named(*other.place, "elsewhere" if (other.number, other.hash) != (line.number, line.hash) else None)
            begins = only_keys and line.number == index and line.kind == "checkpoint"
            self.named(*line.place, "checkpoints_begin" if begins and line.entry["manifest"]["number"] else None)
            only_keys = only_keys and line.kind == "key"
            self.promise(line)
        for index, line in enumerate(theirs):  # newer than all of ours: those were cut off here
            self.named(*line.place, None if index else "elsewhere")
            self.promise(line)
        if self.last > self.signed + 1 or (self.last and not self.checkpoints):
            self.named(files[-1] if files else self.manifest, None, "checkpoints_end")

    def promise(self, line):
        self.checkpoints += 1
        if line.kind == "key":
            return
        entry, hold = line.entry["manifest"], line.entry["holds"]
        if self.hashes.get(entry["number"]) != entry["hash"] or entry["number"] < self.signed:
            self.named(*line.place, "promised_entry")
        self.signed = max(self.signed, entry["number"])
        for promise in line.entry["shards"]:
            self.named(*line.place, self.broken_promise(promise["shard"], promise["frame"], promise["hash"]))
        if hold["number"] < self.hold["number"]:
            self.named(*line.place, "promised_hold")
        elif hold != self.hold:
            self.holds.append((line.place, hold))
            self.hold = hold

    def broken_promise(self, shard, frame, hash):
        self.greatest[shard] = max(self.greatest.get(shard, 0), frame)
        last, self.promises[shard] = self.promises.get(shard, (0, hash)), (frame, hash)
        if frame < last[0] or (frame == last[0] and hash != last[1]):
            return "promised_frame"
        known = self.proven.get((shard, frame))
        if known is None and frame > self.before.get(shard, START)["frame"]:
            known = self.promised.get((shard, frame))
            self.promised[shard, frame] = hash
        return "promised_frame" if known not in (None, hash) else None

    def read_holds(self):
        hashes, before = {0: ZEROS}, (0, ZEROS)
        for place, line in lines(os.path.join(self.folder, "holds.jsonl"), HOLDS):
            self.named(*place, first(links(line, before)) if line else "line")
            before = (place[1], line.hash) if line else None
            hashes[place[1]] = line.hash if line else None
        for place, hold in self.holds:
            self.named(*place, "promised_hold" if hashes.get(hold["number"]) != hold["hash"] else None)

    def check_files(self):
        """An entry that no checkpoint names deletes nothing, and what it moves may still be in the segments alone."""
        if self.last == self.signed + 1:
            self.positions = self.before
        gone = {entry for number, entry, _ in self.deleted if number <= self.signed}
        for number, entry in self.files.items():
            path = os.path.join(self.folder, entry["path"])
            kind = file_break(path, entry)
            self.named(path, None, None if number in gone and kind == "missing_file" else kind)
        known = {entry["path"] for entry in self.files.values()}
        for entry in listed(os.path.join(self.folder, "parquet")):
            for found in listed(entry.path) if entry.is_dir(follow_symlinks=False) else [entry]:
                number = PUBLISHED.fullmatch(found.name)
                next_one = number and int(number[1]) == self.last + 1
                if os.path.relpath(found.path, self.folder) not in known and not next_one:
                    self.named(found.path, None, "surplus")

def by_shard(items):
    return {item["shard"]: item for item in items}
