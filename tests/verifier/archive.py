"""The archive's half of verify.py: manifest, Parquet files by their hash, signed checkpoints. From FORMAT.md alone."""

import json
import os
import re
import stat
from datetime import date

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ZEROS = "0" * 64
HEAD = re.compile(rb'\{"number":(\d+),"previous":"([0-9a-f]{64})"')
TAIL = {False: re.compile(rb',"hash":"([0-9a-f]{64})"\}'), True: re.compile(rb',"hash":"([0-9a-f]{64})","signature":"([0-9a-f]{128})"\}')}
START = {"segment": 1, "offset": 0, "frame": 0, "record": 0, "hash": ZEROS}
PUBLISHED = re.compile(r".*-(\d{10})\.parquet")


class Line:
    """One chained line whose hash holds; ValueError if it is none."""

    def __init__(self, raw, signed):
        tail = TAIL[signed].fullmatch(raw[-(218 if signed else 75) :])
        self.body = raw[: -(218 if signed else 75)]
        head = HEAD.match(self.body)
        if not tail or not head or blake3(self.body).hexdigest().encode() != tail[1]:
            raise ValueError("no chained line")
        self.number, self.previous, self.hash = int(head[1]), head[2].decode(), tail[1].decode()
        self.signature = bytes.fromhex(tail[2].decode()) if signed else None
        self.json = json.loads(self.body + b"}")


def lines(path, signed):
    """(line number, Line or None where it does not hold) of a file."""
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        return
    for count, text in enumerate(raw.split(b"\n"), 1):
        if not text and count == raw.count(b"\n") + 1:
            return
        try:
            yield count, (Line(text, signed) if count <= raw.count(b"\n") else None)
        except (ValueError, KeyError, RecursionError):
            yield count, None


class Manifest:
    def __init__(self, archive, named):
        self.path, self.named = os.path.join(archive, "manifest.jsonl"), named
        self.hashes, self.positions, self.before, self.files, self.deletions, self.ends = [], {}, {}, {}, {}, {}
        follows, self.damaged = True, set()
        for count, line in lines(self.path, False):
            try:
                if line is None:
                    raise ValueError
                kind = self.disagreement(line, follows)
                self.take(line)
                follows = True
            except (ValueError, KeyError, TypeError, RecursionError):
                kind, follows = "line", False
            if kind:
                named(self.path, count, kind)
            if line and kind != "line" and line.json["kind"] == "damage":
                named(self.path, count, "damage")

    def hash_of(self, number):
        return ZEROS if number == 0 else self.hashes[number - 1] if number <= len(self.hashes) else None

    def disagreement(self, line, follows):
        entry, due = line.json, len(self.hashes) + 1
        if entry["kind"] not in ("file", "damage", "deleted"):
            raise ValueError("an unknown kind")
        if follows and line.number != due:
            return "number"
        if follows and line.previous != self.hash_of(due - 1):
            return "chain"
        if entry["kind"] == "file" and entry["path"] != published_path(entry["since"], line.number):
            return "path"
        if follows and self.broken_span(entry):
            return "span"
        spans = entry.get("shards", [])
        records = sum(span["last_record"] + 1 - span["first_record"] for span in spans)
        lost = any(span["shard"] in self.damaged for span in spans)
        return "rows" if follows and entry["kind"] == "file" and not lost and records != entry["rows"] else None

    def broken_span(self, entry):
        after = {position["shard"]: position for position in entry["positions"]}
        spans = {span["shard"]: span for span in entry.get("shards", [])}
        if not after.keys() >= self.positions.keys() | spans.keys():
            return True
        for shard, now in after.items():
            was = self.positions.get(shard, {"shard": shard, **START})
            span = spans.get(shard)
            begins = span and (span["first_frame"], span["first_record"], span["before"]) == (
                was["frame"] + 1, was["record"] + 1, was["hash"])
            ends = span and (span["last_frame"], span["last_record"], span["after"]) == (
                now["frame"], now["record"], now["hash"])
            back = [now[key] < was[key] for key in ("segment", "frame", "record")]
            equal = [now[key] == was[key] for key in ("segment", "frame", "record")]
            if back[0] or (equal[0] and (back[1] or (equal[1] and back[2]))):
                return True
            if not (ends and (begins or shard in self.damaged) if span else now == was):
                return True
        return False

    def take(self, line):
        entry = line.json
        positions = {position["shard"]: position for position in entry["positions"]}
        if len(self.hashes) < line.number <= len(self.hashes) + 1024:
            self.hashes += [ZEROS] * (line.number - len(self.hashes))
        if 0 < line.number <= len(self.hashes):
            self.hashes[line.number - 1] = line.hash
        for span in entry.get("shards", []):
            self.damaged.discard(span["shard"])
            self.ends.setdefault(span["shard"], {})[span["last_frame"]] = span["after"]
        if entry["kind"] == "file":
            self.files[line.number] = entry
        elif entry["kind"] == "damage":
            self.damaged.add(entry["shard"])
        elif entry["kind"] == "deleted":
            self.deletions[line.number] = [(file["entry"], file["path"]) for file in entry["files"]]
        self.before, self.positions = self.positions, positions

    def settle(self, signed):
        """An entry that no checkpoint names deletes nothing, and what it moves may still be in the segments alone."""
        if len(self.hashes) == signed + 1:
            self.positions = self.before
        for number, files in self.deletions.items():
            for entry, _ in files if number <= signed else []:
                self.files.pop(entry, None)

    def check_files(self, archive):
        for entry in self.files.values():
            path = os.path.join(archive, entry["path"])
            if kind := file_break(path, entry):
                self.named(path, None, kind)
        known = {entry["path"] for entry in self.files.values()}
        known |= {path for files in self.deletions.values() for _, path in files}
        root = os.path.join(archive, "parquet")
        for folder, folders, names in sorted(os.walk(root)):
            names += [name for name in folders if folder == root and os.path.islink(os.path.join(folder, name))]
            for name in sorted(names if os.path.dirname(folder) in (root, archive) else []):
                number = PUBLISHED.fullmatch(name)
                path = os.path.join(folder, name)
                next_one = number and int(number[1]) == len(self.hashes) + 1
                if os.path.relpath(path, archive) not in known and not next_one:
                    self.named(path, None, "surplus")


def published_path(since, number):
    stamp = since.replace("-", "").replace(":", "")
    return f"parquet/date={since[:10]}/{stamp}-{number:010}.parquet"


def file_break(path, entry):
    try:
        linked = os.path.islink(path) or os.path.islink(os.path.dirname(path))
        if linked or not stat.S_ISREG(os.stat(path).st_mode):
            return "not_a_file"
        if os.path.getsize(path) != entry["bytes"]:
            return "size"
        hasher = blake3()
        hasher.update_mmap(path)
        return None if hasher.hexdigest() == entry["blake3"] else "content"
    except (FileNotFoundError, NotADirectoryError):
        return "missing_file"


class Checkpoints:
    """The chain of signed lines over several files. `keys`: vouched for."""

    def __init__(self, files, keys, number, named):
        self.files, self.keys, self.named = files, keys, named
        self.seen, self.due, self.key, self.begun = set(), number and (number, ZEROS), None, False

    def __iter__(self):
        for path in self.files:
            for count, line in lines(path, True):
                if self.holds(path, count, line):
                    yield path, count, line

    def holds(self, path, count, line):
        if line is None or not isinstance(line.json.get("key"), str):
            self.named(path, count, "line")
            self.due = self.key = None
            return False
        if self.due and line.number != self.due[0]:
            self.named(path, count, "number")
        elif self.due and line.previous != self.due[1]:
            self.named(path, count, "chain")
        self.due, key = (line.number + 1, line.hash), line.json["key"]
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(line.signature, line.body)
        except (InvalidSignature, ValueError):
            self.named(path, count, "signature")
            self.key = None
            return False
        believed = self.key == key if self.key else key in self.seen | self.keys or not (self.begun or self.keys)
        self.begun = True
        if not believed:
            self.named(path, count, "key")
            return False
        self.key = line.json.get("next", key)
        self.seen |= {key, self.key}
        return True


class Promises:
    """What the checkpoints promise of frames: those the segments must hold, and the greatest of each shard."""

    def __init__(self, data_dir, manifest, keys, elsewhere, named):
        self.manifest, self.named, self.frames, self.greatest, self.entry, self.count = manifest, named, {}, {}, 0, 0
        self.holds, self.hold, self.last = [], (0, ZEROS), {}
        folder = os.path.join(data_dir, "archive", "checkpoints")
        names = sorted(name for name in os.listdir(folder) if is_day(name)) if os.path.isdir(folder) else []
        files = [os.path.join(folder, name) for name in names]
        theirs = iter(Checkpoints(elsewhere, keys, None, named))
        other, only_keys = next(theirs, None), 0
        for path, count, line in Checkpoints(files, keys, 1, named):
            while other and other[2].number <= line.number:
                if (other[2].number, other[2].hash) != (line.number, line.hash):
                    named(other[0], other[1], "elsewhere")
                other = next(theirs, None)
            if line.json["kind"] == "key":
                only_keys += 1
            elif line.number == only_keys + 1 and line.json["manifest"]["number"]:
                named(path, count, "checkpoints_begin")
            only_keys = only_keys if line.json["kind"] == "key" else -2
            self.promise(path, count, line)
        if other:
            named(other[0], other[1], "elsewhere")  # newer than all of ours: it was cut off here
        while other:
            self.promise(*other)
            other = next(theirs, None)
        entries = len(manifest.hashes)
        if self.entry + 1 < entries or (entries and not self.count):
            named(files[-1] if files else manifest.path, None, "checkpoints_end")
        self.check_holds(os.path.join(data_dir, "archive", "holds.jsonl"))

    def check_holds(self, holds):
        hashes, follows = [], True
        for count, line in lines(holds, False):
            if line is None or line.json.get("kind") not in ("hold", "release"):
                self.named(holds, count, "line")
                hashes, follows = [*hashes, ZEROS], False
                continue
            if follows and line.number != len(hashes) + 1:
                self.named(holds, count, "number")
            elif follows and line.previous != (hashes or [ZEROS])[-1]:
                self.named(holds, count, "chain")
            hashes, follows = [*hashes, line.hash], True
        for path, count, (number, hash) in self.holds:
            if hashes[number - 1 : number] != [hash]:
                self.named(path, count, "promised_hold")

    def promise(self, path, count, line):
        self.count += 1
        if line.json["kind"] != "checkpoint":
            return
        entry = line.json["manifest"]
        if self.manifest.hash_of(entry["number"]) != entry["hash"] or entry["number"] < self.entry:
            self.named(path, count, "promised_entry")
        self.entry = max(self.entry, entry["number"])
        for promise in line.json["shards"]:
            shard, frame = promise["shard"], promise["frame"]
            self.greatest[shard] = max(self.greatest.get(shard, 0), frame)
            last, self.last[shard] = self.last.get(shard, (0, None)), (frame, promise["hash"])
            if frame < last[0] or (frame == last[0] and last[1] not in (None, promise["hash"])):
                self.named(path, count, "promised_frame")
                continue
            known = self.manifest.ends.get(shard, {}).get(frame)
            if known is None and frame > self.manifest.before.get(shard, START)["frame"]:
                known = self.frames.setdefault(shard, {}).get(frame)
                self.frames[shard][frame] = promise["hash"]
            if known not in (None, promise["hash"]):
                self.named(path, count, "promised_frame")
        hold = line.json.get("holds", {"number": 0, "hash": ZEROS})
        hold = (hold["number"], hold["hash"])
        if hold[0] < self.hold[0]:
            self.named(path, count, "promised_hold")
        elif hold != self.hold:
            self.holds, self.hold = [*self.holds, (path, count, hold)], hold


def is_day(name):
    try:
        return name.endswith(".jsonl") and bool(date.fromisoformat(name[:-6]))
    except ValueError:
        return False
