"""An evidence package: hashes, manifest, checkpoint and signatures. From FORMAT.md alone. (That the records are what the archive files
answer to the question is for somebody who reads Parquet: here the files are proved, not read.)"""

import json
import tarfile

from archive import Line
from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def package_breaks(path, keys):
    """(file in the package, line or None, kind) of each break. ValueError: it is no package at all."""
    breaks, files = [], {}
    with open(path, "rb") as raw:
        whole = raw.read()
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isreg() or member.name in files:
                    breaks.append((member.name, None, "surplus"))
                    continue
                files[member.name] = tar.extractfile(member).read()
            end = tar.offset
        index = json.loads(files["index.json"])
        key, listed = index["key"], {entry["path"]: entry for entry in index["files"]}
    except (tarfile.TarError, EOFError, KeyError, TypeError, ValueError):
        return [*breaks, ("index.json", None, "line" if "index.json" in files else "missing_file")]
    if len(whole) < end + 1024 or any(whole[end:]) or len(whole) % 512:
        breaks.append(("", None, "after_end"))
    if index.get("format") != 1:
        breaks.append(("index.json", None, "line"))
    if "index.sig" in files and not signed(key, files["index.sig"].decode("ascii", "replace")[:-1], files["index.json"]):
        breaks.append(("index.sig", None, "signature"))
    if keys and key not in keys:
        breaks.append(("index.json", None, "key"))
    if keys and list(files)[1:2] != ["index.sig"]:
        breaks.append(("index.sig", None, "missing_file"))
    for name, entry in listed.items():
        if name not in files:
            breaks.append((name, None, "missing_file"))
        elif len(files[name]) != entry["bytes"]:
            breaks.append((name, None, "size"))
        elif blake3(files[name]).hexdigest() != entry["blake3"]:
            breaks.append((name, None, "content"))
    breaks += [(name, None, "surplus") for name in files if name not in listed and name not in ("index.json", "index.sig")]
    order = [name for name in files if name not in ("index.json", "index.sig")]
    if set(order) == set(listed) and order != list(listed):
        breaks.append(("index.json", None, "line"))
    if len(files.get("records.ndjson", b"").splitlines()) != index["records"]:
        breaks.append(("records.ndjson", None, "rows"))
    return breaks + chain_breaks(files, key)


def signed(key, signature, message):
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), message)
        return len(signature) == 128
    except (InvalidSignature, ValueError):
        return False


def chain_breaks(files, key):
    breaks, last, entries = [], None, {}
    for count, raw in enumerate(files.get("manifest.jsonl", b"").splitlines(), 1):
        try:
            line = Line(raw, False)
        except ValueError:
            breaks.append(("manifest.jsonl", count, "line"))
            continue
        if last and line.number != last.number + 1:
            breaks.append(("manifest.jsonl", count, "number"))
        elif last and line.previous != last.hash:
            breaks.append(("manifest.jsonl", count, "chain"))
        last = line
        if line.json["kind"] == "file":
            entries[line.json["path"]] = line.json
    try:
        checkpoint = Line(files.get("checkpoints.jsonl", b"").rstrip(b"\n"), True)
        if not signed(checkpoint.json["key"], checkpoint.signature.hex(), checkpoint.body):
            breaks.append(("checkpoints.jsonl", 1, "signature"))
        if checkpoint.json["key"] != key:
            breaks.append(("checkpoints.jsonl", 1, "key"))
        if not last or checkpoint.json["manifest"] != {"number": last.number, "hash": last.hash}:
            breaks.append(("checkpoints.jsonl", 1, "promised_entry"))
    except (ValueError, KeyError):
        breaks.append(("checkpoints.jsonl", 1, "line"))
    for name, raw in files.items():
        if name.startswith("parquet/"):
            entry = entries.get(name)
            if not entry or (len(raw), blake3(raw).hexdigest()) != (entry["bytes"], entry["blake3"]):
                breaks.append((name, None, "content" if entry else "path"))
    return breaks
