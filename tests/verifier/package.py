"""An evidence package: hashes, manifest, checkpoint and signatures. From FORMAT.md alone. (That the records are what the archive files
answer to the question is for somebody who reads Parquet: here the files are proved, not read.)"""

import json
import tarfile

from archive import CHECKPOINTS, MANIFEST, Line, first, links, signature_holds
from blake3 import blake3

def package_breaks(path, keys):
    """(file in the package, line or None, kind) of each break."""
    breaks, files = [], {}
    with open(path, "rb") as raw:
        whole = raw.read()
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isreg() or member.name in files:
                    breaks.append((member.name, None, "surplus"))
                else:
                    files[member.name] = tar.extractfile(member).read()
            end = tar.offset
        index = json.loads(files["index.json"])
        key, records, listed = index["key"], index["records"], {entry["path"]: entry for entry in index["files"]}
    except (tarfile.TarError, EOFError, KeyError, TypeError, ValueError):
        return [*breaks, ("index.json", None, "line" if "index.json" in files else "missing_file")]
    signature = files.get("index.sig", b"")
    due = ["index.json", *(["index.sig"] if "index.sig" in files else []), *listed]
    held = signature_holds(key, signature.decode("ascii", "replace")[:-1], files["index.json"])
    short = len(files.get("records.ndjson", b"").splitlines()) != records
    breaks += [(name, None, kind) for name, kind, broken in (
        ("", "after_end", len(whole) != end + 1024 or any(whole[end:])),
        ("index.json", "line", index.get("format") != 1 or (set(files) == set(due) and list(files) != due)),
        ("index.sig", "signature", signature and (not held or len(signature) != 129)),
        ("index.json", "key", keys and key not in keys),
        ("index.sig", "missing_file", keys and list(files)[1:2] != ["index.sig"])) if broken]
    for name, entry in listed.items():
        there, raw = name in files, files.get(name, b"")
        breaks.append((name, None, first({
            "missing_file": not there, "size": len(raw) != entry["bytes"], "content": blake3(raw).hexdigest() != entry["blake3"]})))
    breaks += [(name, None, "surplus") for name in files if name not in due]
    breaks.append(("records.ndjson", None, "rows" if short else None))
    return [found for found in [*breaks, *chain_breaks(files, key)] if found[2]]

def chain_breaks(files, key):
    before, entries = None, {}
    for count, raw in enumerate(files.get("manifest.jsonl", b"").splitlines(), 1):
        try:
            line = Line(raw, MANIFEST)
        except (ValueError, RecursionError):
            yield "manifest.jsonl", count, "line"
            continue
        yield "manifest.jsonl", count, first(links(line, before))
        before = (line.number, line.hash)
        if line.kind == "file":
            entries[line.entry["path"]] = line.entry
    try:
        line = Line(files.get("checkpoints.jsonl", b"").rstrip(b"\n"), CHECKPOINTS)
        named = line.entry["manifest"]
        yield "checkpoints.jsonl", 1, None if signature_holds(line.entry["key"], line.signature, line.body) else "signature"
        yield "checkpoints.jsonl", 1, "key" if line.entry["key"] != key else None
        yield "checkpoints.jsonl", 1, "promised_entry" if before != (named["number"], named["hash"]) else None
    except (ValueError, KeyError, RecursionError):
        yield "checkpoints.jsonl", 1, "line"
    for name, raw in files.items():
        entry = entries.get(name)
        if name.startswith("parquet/"):
            content = entry and (len(raw), blake3(raw).hexdigest()) != (entry["bytes"], entry["blake3"])
            yield name, None, "content" if content else None if entry else "path"
