"""An evidence package: hashes, manifest, checkpoint and signatures. From FORMAT.md alone. (That the records are what the archive
files answer to the question is for somebody who reads Parquet: here the files are proved, not read.)"""

import json
import tarfile
from io import BytesIO

from archive import BROKEN, CHECKPOINTS, MANIFEST, Breaks, Line, lines, members, shaped, signature_holds
from blake3 import blake3

INDEX = members("records key", format="1", files=[members("path bytes blake3")])

def package_breaks(path, keys):
    """(file in the package, line or None, kind) of each break."""
    breaks, files = Breaks(), {}
    with open(path, "rb") as raw:
        whole = raw.read()
    try:
        with tarfile.open(fileobj=BytesIO(whole), mode="r:") as tar:
            for member in tar:
                if not breaks.name(member.name, None, surplus=not member.isreg() or member.name in files):
                    files[member.name] = tar.extractfile(member).read()
            end = tar.offset
        index = shaped(json.loads(files["index.json"]), INDEX)
    except (tarfile.TarError, EOFError, *BROKEN):
        breaks.name("index.json", None, line="index.json" in files, missing_file=True)
        return breaks
    key, listed, signature = index["key"], {entry["path"]: entry for entry in index["files"]}, files.get("index.sig", b"")
    due = [name for name in ("index.json", "index.sig") if name in files] + [*listed]
    held = len(signature) == 129 and signature_holds(key, signature[:-1].decode("ascii", "replace"), files["index.json"])
    breaks.name("", None, after_end=len(whole) != end + 1024 or any(whole[end:]))
    breaks.name("index.json", None, line=set(files) == set(due) and list(files) != due)
    breaks.name("index.sig", None, signature=signature and not held)
    breaks.name("index.json", None, key=keys and key not in keys)
    breaks.name("index.sig", None, missing_file=keys and list(files)[1:2] != ["index.sig"])
    for name, entry in listed.items():
        raw = files.get(name, b"")
        breaks.name(name, None, missing_file=name not in files, size=len(raw) != entry["bytes"],
                    content=blake3(raw).hexdigest() != entry["blake3"])
    for name in files:
        breaks.name(name, None, surplus=name not in due)
    breaks.name("records.ndjson", None, rows=len(files.get("records.ndjson", b"").splitlines()) != index["records"])
    check_chain(files, key, breaks)
    return breaks

def check_chain(files, key, breaks):
    before, entries = None, {}
    # A last line may stand here without its line end.
    ended = {name: raw if raw.endswith(b"\n") or not raw else raw + b"\n" for name, raw in files.items()}
    for line in filter(None, lines(ended.get("manifest.jsonl", b""), "manifest.jsonl", MANIFEST, breaks)):
        breaks.name(*line.place, **line.continues(before))
        before = line.head
        if line.kind == "file":
            entries[line.entry["path"]] = line.entry
    try:
        line = Line(ended["checkpoints.jsonl"], CHECKPOINTS)
        named = line.entry["manifest"]
        breaks.name("checkpoints.jsonl", 1, signature=not signature_holds(line.entry["key"], line.signature, line.body))
        breaks.name("checkpoints.jsonl", 1, key=line.entry["key"] != key)
        breaks.name("checkpoints.jsonl", 1, promised_entry=before != (named["number"], named["hash"]))
    except BROKEN:
        breaks.name("checkpoints.jsonl", 1, line=True)
    for name in (name for name in files if name.startswith("parquet/")):
        entry, raw = entries.get(name), files[name]
        content = entry and (len(raw), blake3(raw).hexdigest()) != (entry["bytes"], entry["blake3"])
        breaks.name(name, None, path=entry is None, content=content)
