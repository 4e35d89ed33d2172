"""The archive's half of verify.py: chained lines, the manifest and its files, checkpoints, holds, and packages of evidence."""

import json
import os
import re
import tarfile
from contextlib import suppress
from datetime import datetime

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ZEROS = "0" * 64
NONE_YET = {"number": 0, "hash": ZEROS}
START = {"segment": 1, "offset": 0, "frame": 0, "record": 0, "hash": ZEROS}
BROKEN = (ValueError, KeyError, TypeError, RecursionError)  # what reading raises where something is not as drawn
# Types: numbers by their bounds, texts by their patterns, objects by their members. A member's own type stands behind its colon,
# without one it is a number; T? is T or null, T* a list of T.
NUMBERS = {"number": 1 << 53, "small": 1 << 32}
TEXTS = {"text": r"(?s).*", "hash": r"[0-9a-f]{64}", "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"}
OBJECTS = {
    "line": "number previous:hash time:time", "head": "number hash:hash",
    "file": "path:text bytes blake3:hash rows schema:small since:time until:time shards:span* positions:position*",
    "damage": "shard:small segment offset frame:number? file:text what:text positions:position*",
    "deleted": "files:removed* reason:text positions:position*", "removed": "entry path:text",
    "position": "shard:small segment offset frame record hash:hash", "promise": "shard:small segment frame record hash:hash",
    "span": "shard:small first_frame last_frame first_record last_record before:hash after:hash",
    "checkpoint": "manifest:head shards:promise* holds:head key:hash", "key": "next:hash key:hash",
    "hold": "users:text* targets:text* since:time? until:time? reason:text by:text", "release": "hold reason:text by:text",
    "index": "format records key:hash files:content*", "content": "path:text bytes blake3:hash",
}
MANIFEST, CHECKPOINTS, HOLDS = ("file", "damage", "deleted"), ("checkpoint", "key"), ("hold", "release")
LINE = re.compile(r'^(\{"number":\d+,"previous":"[0-9a-f]{64}".*),"hash":"([0-9a-f]{64})"(?:,"signature":"([0-9a-f]{128})")?}\n$')

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

# A negative number becomes a fraction, which is of no type; int() refuses NaN and Infinity.
STRICT = json.JSONDecoder(
    object_pairs_hook=lambda members: ensure(dict(members), len(dict(members)) == len(members)),
    parse_int=lambda digits: int(digits) if digits.isdecimal() else float(digits), parse_constant=int)

def typed(value, kind):
    """The value, of an object the members that are drawn; an exception if something is missing or not of its type."""
    if kind.endswith("*"):
        return [typed(item, kind[:-1]) for item in ensure(value, isinstance(value, list))]
    if kind.endswith("?"):
        return None if value is None else typed(value, kind[:-1])
    if kind in OBJECTS:
        members = (member.partition(":") for member in OBJECTS[kind].split())
        return {name: typed(value[name], inner or "number") for name, _, inner in members}
    if kind in NUMBERS:
        return ensure(value, type(value) is int and value < NUMBERS[kind])
    return ensure(value, re.fullmatch(TEXTS[kind], value) and (kind != "time" or datetime.fromisoformat(value)))

class Line:
    """A chained line that holds by itself; an exception if it does not."""
    def __init__(self, raw, kinds, place):
        [(body, self.hash, self.signature)] = LINE.findall(raw.decode())
        self.place, self.body = place, body.encode()
        ensure(self, blake3(self.body).hexdigest() == self.hash and bool(self.signature) == (kinds is CHECKPOINTS))
        said = STRICT.decode(body + "}")
        json.dumps(said, ensure_ascii=False).encode()  # half a surrogate pair is no text
        self.kind = ensure(said["kind"], said["kind"] in kinds)
        self.entry = typed(said, "line") | typed({"holds": NONE_YET, **said}, self.kind)
        self.number = self.entry["number"]

def contents(path):
    """All of a file. What stands in the place of a file and is none is an error, and never waited for."""
    if not os.path.isfile(path) or os.path.getsize(path) > 4 << 30:
        raise OSError(f"{path} is no file, or larger than any segment")
    with open(path, "rb") as file:
        return file.read()

def lines(paths, kinds, breaks, before=(0, ZEROS), due=lambda line, before: before, read=contents):
    """Each line that holds by itself, in files that continue each other. `before`: number and hash of the line before, None: not
    known. `due`: what a line has to continue where that is known. Of a line: `follows`, whether it is; `broken`, it does not."""
    for path in paths:
        for count, raw in enumerate(re.findall(rb".*\n|.+", read(path)), 1):
            try:
                line = Line(raw, kinds, (path, count))
            except BROKEN:
                breaks.name(path, count, line=True)
                before = None
                continue
            line.follows, previous = before is not None, line.entry["previous"]
            number, hash = due(line, before) if before else (line.number - 1, previous)
            line.broken = breaks.name(path, count, number=line.number != number + 1, chain=previous != hash)
            before = line.number, line.hash
            yield line

def signature_holds(key, signature, message):
    with suppress(InvalidSignature, ValueError):
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), message)
        return True

def listed(folder):
    return sorted(os.scandir(folder), key=lambda entry: entry.name) if os.path.isdir(folder) else []

class Archive:
    """What it says of segments: `positions`; `proven`, hash by (shard, frame); `greatest`, by shard the last frame promised."""
    def __init__(self, folder, keys, elsewhere, breaks):
        self.folder, self.breaks, self.manifest = folder, breaks, os.path.join(folder, "manifest.jsonl")
        # Of entries: hash by number, the greatest number, what they name; by shard: positions, those before the last entry.
        self.hashes, self.last, self.files, self.deleted = {0: ZEROS}, 0, {}, []
        self.positions, self.before, self.damaged, self.ends = {}, {}, set(), {}
        manifest, holds = (filter(os.path.exists, [path]) for path in (self.manifest, os.path.join(folder, "holds.jsonl")))
        for line in lines(manifest, MANIFEST, breaks, due=lambda line, before: (self.last, self.hashes[self.last])):
            self.read_entry(line)
        # Of checkpoints: how many, the greatest entry, which line names which hold; by shard: the last promise.
        self.checkpoints, self.signed, self.holds = 0, 0, [(None, NONE_YET)]
        self.promises, self.greatest, self.proven = {}, {}, dict(self.ends)
        self.read_checkpoints(keys, elsewhere)
        held = lines(holds, HOLDS, breaks, due=lambda line, before: (line.place[1] - 1, before[1]))
        hashes = {0: ZEROS, **{line.place[1]: line.hash for line in held}}
        for place, hold in self.holds[1:]:
            breaks.name(*place, promised_hold=hashes.get(hold["number"]) != hold["hash"])
        self.check_files()

    def read_entry(self, line):
        entry, since, shards = line.entry, line.entry.get("since", ""), line.entry.get("shards", [])
        spans, positions = ({item["shard"]: item for item in items} for items in (shards, entry["positions"]))
        path = f"parquet/date={since[:10]}/{re.sub('[-:]', '', since)}-{line.number:010}.parquet"
        rows = sum(span["last_record"] + 1 - span["first_record"] for span in shards)
        if not line.broken:
            span = any(self.broken_span(shard, spans.get(shard), positions.get(shard))
                       for shard in {*spans, *positions, *self.positions})
            self.breaks.name(*line.place, path=entry.get("path", path) != path, span=line.follows and span,
                             rows=line.follows and entry.get("rows", rows) != rows and not self.damaged & spans.keys())
        if 0 < line.number <= self.last + 1024:
            self.hashes[line.number], self.last = line.hash, max(self.last, line.number)
        self.damaged -= spans.keys()
        self.ends |= {(span["shard"], span["last_frame"]): span["after"] for span in shards}
        self.before, self.positions = self.positions, positions
        self.deleted += [(line.number, file["entry"]) for file in entry.get("files", [])]
        if line.kind == "file":
            self.files[line.number] = (os.path.join(self.folder, entry["path"]), entry)
        if self.breaks.name(*line.place, damage=line.kind == "damage"):
            self.damaged.add(entry["shard"])

    def broken_span(self, shard, span, now):
        """Span and position do not continue the position before."""
        was = self.positions.get(shard, {"shard": shard, **START})
        if not span or not now:
            return now != was
        begins = (span["first_frame"] - 1, span["first_record"] - 1, span["before"]) == (was["frame"], was["record"], was["hash"])
        ends = (span["last_frame"], span["last_record"], span["after"]) == (now["frame"], now["record"], now["hash"])
        back = (now["segment"], now["frame"], now["record"]) < (was["segment"], was["frame"], was["record"])
        return back or not ends or not (begins or shard in self.damaged)

    def signed_lines(self, paths, keys, before):
        """The lines whose promises count. `keys`: vouched for."""
        due, known = None, set(keys)
        for line in lines(paths, CHECKPOINTS, self.breaks, before):
            key, due = line.entry["key"], due if line.follows else None
            wrong = key != due if due else known and key not in known
            broken = self.breaks.name(*line.place, signature=not signature_holds(key, line.signature, line.body), key=wrong)
            if not broken:
                due = line.entry.get("next", key)
                known |= {key, due}
                yield line
            elif broken == "signature":
                due = None

    def read_checkpoints(self, keys, elsewhere):
        found = listed(os.path.join(self.folder, "checkpoints"))
        days = [day.path for day in found if re.fullmatch(r"\d{4}-\d\d-\d\d\.jsonl", day.name)]
        theirs, only_keys = list(self.signed_lines(elsewhere, keys, None)), True
        for index, line in enumerate(self.signed_lines(days, keys, (0, ZEROS)), 1):
            while theirs and theirs[0].number <= line.number:
                other = theirs.pop(0)
                self.breaks.name(*other.place, elsewhere=(other.number, other.hash) != (line.number, line.hash))
            if line.kind == "checkpoint" and only_keys:
                only_keys = False
                self.breaks.name(*line.place, checkpoints_begin=line.number == index and line.entry["manifest"]["number"])
            self.promise(line)
        for index, line in enumerate(theirs):  # newer than all of ours: those were cut off here
            self.breaks.name(*line.place, elsewhere=index == 0)
            self.promise(line)
        self.breaks.name([self.manifest, *days][-1], None, checkpoints_end=self.last > self.signed + bool(self.checkpoints))

    def promise(self, line):
        self.checkpoints += 1
        if line.kind == "key":
            return
        (number, digest), hold, last_hold = line.entry["manifest"].values(), line.entry["holds"], self.holds[-1][1]
        self.breaks.name(*line.place, promised_entry=number < self.signed or self.hashes.get(number) != digest)
        self.signed = max(self.signed, number)
        for promise in line.entry["shards"]:
            shard, frame, hash = promise["shard"], promise["frame"], promise["hash"]
            last, self.promises[shard] = self.promises.get(shard, (0, hash)), (frame, hash)
            broken = frame < last[0] or (frame == last[0] and hash != last[1])
            known = self.proven.get((shard, frame), hash)
            self.breaks.name(*line.place, promised_frame=broken or known != hash)
            if not broken and (shard, frame) not in self.ends and frame > self.before.get(shard, START)["frame"]:
                self.proven[shard, frame] = hash
            self.greatest[shard] = max(self.greatest.get(shard, 0), frame)
        if not self.breaks.name(*line.place, promised_hold=hold["number"] < last_hold["number"]) and hold != last_hold:
            self.holds.append((line.place, hold))

    def check_files(self):
        """An entry that no checkpoint names deletes nothing, and what it moves may still be in the segments alone."""
        if self.last == self.signed + 1:
            self.positions = self.before
        gone = {entry for number, entry in self.deleted if number <= self.signed}
        for number, (path, entry) in self.files.items():
            linked = os.path.islink(path) or os.path.islink(os.path.dirname(path))  # no file, nor is what is behind it
            there, regular = linked or os.path.lexists(path), os.path.isfile(path) and not linked
            whole = regular and os.path.getsize(path) == entry["bytes"]
            changed = whole and blake3().update_mmap(path).hexdigest() != entry["blake3"]
            self.breaks.name(path, None, missing_file=not there and number not in gone, not_a_file=there and not regular,
                             size=there and not whole, content=changed)
        known = {path for path, _ in self.files.values()}
        for entry in listed(os.path.join(self.folder, "parquet")):
            for found in listed(entry.path) if entry.is_dir(follow_symlinks=False) else [entry]:
                due = found.path in known or found.name.endswith(f"-{self.last + 1:010}.parquet")
                self.breaks.name(found.path, None, surplus=not due)

def package_breaks(path, keys):
    """(file in the package, line or None, kind) of each break of an evidence package. (That the records are what the archive
    files answer to the question is for somebody who reads Parquet: here the files are proved, not read.)"""
    breaks = Breaks()
    try:
        with open(path, "rb") as raw, tarfile.open(fileobj=raw, mode="r:") as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}
            names = tar.getnames()
            raw.seek(tar.offset)
            breaks.name("", None, after_end=raw.read() != bytes(1024))
        index = typed(STRICT.decode(files["index.json"].decode()), "index")
    except (tarfile.TarError, EOFError, *BROKEN):
        return [("index.json", None, "line")]
    key, signature, read = index["key"], files.get("index.sig", b""), lambda name: files.get(name, b"")
    due = ["index.json", "index.sig"][: 1 + bool(signature)] + [file["path"] for file in index["files"]]
    held = re.fullmatch(rb"[0-9a-f]{128}\n", signature) and signature_holds(key, signature.decode(), files["index.json"])
    breaks.name("index.sig", None, missing_file=keys and not signature, signature=signature and not held)
    breaks.name("index.json", None, format=index["format"] != 1, key=keys and key not in keys,
                missing_file=not {"summary.txt", "records.ndjson"} <= {*due}, surplus=names != [*dict.fromkeys(due)])
    chain = [*lines(["manifest.jsonl"], MANIFEST, breaks, None, read=read)]
    entries = {line.entry["path"]: (line.entry["bytes"], line.entry["blake3"]) for line in chain if line.kind == "file"}
    last = {"number": chain[-1].number, "hash": chain[-1].hash} if chain else None
    signed = [line.entry.get("manifest") for line in lines(["checkpoints.jsonl"], CHECKPOINTS, breaks, None, read=read)
              if line.entry["key"] == key and signature_holds(key, line.signature, line.body)]
    breaks.name("checkpoints.jsonl", None, promised_entry=not last or last not in signed)
    for file in index["files"]:
        name, raw, said = file["path"], read(file["path"]), (file["bytes"], file["blake3"])
        breaks.name(name, None, missing_file=name not in files, content=(len(raw), blake3(raw).hexdigest()) != said,
                    path=name.startswith("parquet/") and entries.get(name) != said)
    breaks.name("records.ndjson", None, rows=len(read("records.ndjson").splitlines()) != index["records"])
    return breaks
