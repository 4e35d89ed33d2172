"""The page of `bench/side-by-side.sh`, on standard output: what was promised, what it came to, and what each script printed.

    python3 bench/report.py FOLDER [--strict]

FOLDER is what a run left: for each script NAME.command, .out, .err and .status, and run.parts, run.manifest.
Exit status: 0 everything was measured, whether or not it holds; 10 something could not be; 11 with --strict a promise is missed; anything
else: this is no page.
"""

import fractions, math, pathlib, re, sys

NOT_MEASURED, NOT_KEPT = 10, 11

folder = pathlib.Path(sys.argv[1])
many, some, *parts = (folder / "run.parts").read_text().split()

# What was promised: the script that shows it, the promise, the aim, the cells that are judged by it (what each is, its row's first
# cells, its column), and cells that tell more.
# What something costs is the sum of all that the product runs for it: a gateway's process, and the archiver that it starts.
CPU, ALONE, ADDED = "with children over pgbouncer", "CPU over pgbouncer", "added over pgbouncer"
PROCESS = "the process alone"
PROMISES = [
    ("cpu", f"everything on, {many} clients: CPU a query", "at most 0.95 x PgBouncer's", [("", f"{many} | on", CPU)], [(PROCESS, f"{many} | on", ALONE)]),
    ("cpu", "everything on, 8 clients: CPU a query", "at most 1.15 x PgBouncer's", [("", "8 | on", CPU)], [(PROCESS, "8 | on", ALONE)]),
    ("simple", f"everything on, `-M simple` with new constants, {many} clients: CPU a query", "at most 1.15 x PgBouncer's",
     [("", f"{many} | on", CPU)], [(PROCESS, f"{many} | on", ALONE)]),
    ("cpu", "everything on, one client: latency added to PostgreSQL's own", "at most 1.2 x PgBouncer's", [("", "1 | on", ADDED)],
     [("whole latency", "1 | on", "latency over pgbouncer"), ("HAProxy adds", "1 | haproxy", ADDED)]),
    ("cpu", f"everything off, {many} clients: CPU a query", "at most 0.8 x PgBouncer's", [("", f"{many} | off", CPU)],
     [(PROCESS, f"{many} | off", ALONE), ("bare relay", f"{many} | relay", CPU), ("HAProxy", f"{many} | haproxy", CPU)]),
    ("gigabyte", "1 GB through a masked column: CPU a byte", "at most 2 x HAProxy's", [("", "mask", "with children over haproxy")],
     [(PROCESS, "mask", "over haproxy"), ("with four detectors besides", "detect", "with children over haproxy")]),
    ("allocations", "a steady statement: heap allocations, copies of its payload", "at most 0 allocations and 1 copy",
     [("tests of it that failed:", "tests", "failed")], [("of", "tests", "run")]),
    ("idle", "10,000 idle sessions: memory", "at most 1.5 x PgBouncer's", [("off", "off", CPU), ("on", "on", CPU)],
     [("the processes alone", "off", "over pgbouncer"), ("and", "on", "over pgbouncer"), ("sessions", "on", "sessions"), ("HAProxy", "haproxy", "over pgbouncer")]),
    ("fairness", "one session streams 1 GB: its neighbours' p99", "at most 2 x quiet", [("", "on", "p99 ratio")],
     [("HAProxy", "haproxy", "p99 ratio"), ("PgBouncer", "pgbouncer", "p99 ratio")]),
    ("tls", "TLS on both legs: CPU a query", "at most 1.6 x our plaintext",
     [("8 clients", "8 | on-tls", "with children over on"), (f"{many} clients", f"{many} | on-tls", "with children over on")],
     [("the processes alone", "8 | on-tls", "CPU over on"), ("and", f"{many} | on-tls", "CPU over on")]),
    ("storm", "1,000 new TLS sessions: CPU a session", "at most 1.5 x rustls's own handshake", [("", "on-tls", "with children over rustls")],
     [(PROCESS, "on-tls", "CPU over rustls"), ("PgBouncer", "pgbouncer-tls", "CPU over rustls")]),
    ("enters", f"`io_uring_enter` a query, {some} clients", "at most 0.5",
     [("one shard", f"{some} | 1", "io_uring_enter a query"), ("two shards", f"{some} | 2", "io_uring_enter a query")], []),
    ("shards", "two shards: CPU a query", "at most 1.05 x one shard's", [("", "--shards 2", "with children over (defaults)")],
     [(PROCESS, "--shards 2", "CPU over (defaults)")]),
    ("promises", "an audit append on the path, with its share of the frame's checksum, hash and write", "at most 150 ns",
     [("", "audit append and frame write, a record", "ns")], [("its encoding alone", "audit append, its encoding alone, a record", "ns")]),
    ("promises", "an identity check", "at most 20 ns", [("", "identity check", "ns")], []),
    ("promises", "what a deny list adds to a new text", "at most 1/40 of a parse",
     [("ten classes", "ten classes added to a new text", "of the parse"), ("eight words", "eight words added to a new text", "of the parse"),
      ("ten classes to a text that one names", "ten classes added to a new text that one names", "of the parse")],
     [("the verdict on a known meaning: ten classes", "verdict of ten classes on a known meaning", "of the parse"),
      ("eight words", "verdict of eight words on a known meaning", "of the parse")]),
    ("promises", "a cached decision", "at most 100 ns",
     [(name, f"cached decision, {name}", "ns") for name in ("prepared", "the same text", "1,024 constants", "a mapper's 600 bytes")], []),
    ("instructions", "instructions of a statement inside the gateway", "at most 1 x bench/budget.toml",
     [(f"{mode}, {features}", f"{mode}_{features}", "of the budget") for mode in ("prepared", "repeated", "simple") for features in ("off", "on")], []),
    ("durability", f"`group`, {many} sessions that pipeline: records a second", "at least 30 x one fdatasync each",
     [("", f"{many} | group, pipelines, canned server", "over the disk")], [("PostgreSQL behind", f"{many} | group, pipelines", "over the disk")]),
    ("durability", "`strict`, one session: added to the median", "at most 1.3 fdatasyncs", [("", "1 | strict", "p50 over async, in fdatasyncs")], []),
]
# A script that says so by its exit status has measured all the same.
SAYS_NO = {"instructions": "1", "allocations": "101"}

class Missing(Exception):
    pass

def read(part, what):
    file = folder / f"{part}.{what}"
    return file.read_text(errors="replace").strip("\n") if file.exists() else ""

def last_line(part):
    said = [line for line in (read(part, "out") + "\n" + read(part, "err")).splitlines() if line.strip()]
    return said[-1].strip().replace("|", "\\|") if said else f"exit status {read(part, 'status')}, and not a word"

def tables(part):  # rows of cells; the first of each table are its headings
    text = read(part, "out")
    if part == "promises":
        scale = {"ps": 1e-3, "ns": 1.0, "µs": 1e3, "us": 1e3, "ms": 1e6}
        found = re.findall(r"^(\S.*?)(?: \((?:of )?at most .*\))?\s+time:\s+\[(\S+) (\S+) (\S+) (\S+) (\S+) (\S+)\]", text, re.M)
        ns = {name: [float(time) * scale[unit] for time, unit in zip(ends[::2], ends[1::2])] for name, *ends in found}
        parse = ns.get("pg_query parse", [0.0] * 3)[1]
        def share(time):
            if not parse:
                return "no parse"
            # Dearer than a parse: how many parses, so that it is judged as what it is.
            return "0" if time <= 0 else f"1/{int(parse / time)}" if time <= parse else f"{time / parse:.2f}"
        told = lambda show, ends: "{1} [{0}, {2}]".format(*map(show, ends))
        rows = [[name, told("{:.1f}".format, ends), told(share, ends)] for name, ends in ns.items()]
        return [[["bench", "ns", "of the parse"]] + rows]
    if part == "instructions":
        found = re.findall(r"^(\w+) +(\d+) instructions a statement, budget +(\d+):", text, re.M)
        return [[["statement", "of the budget"]] + [[name, f"{counted}/{budget}"] for name, counted, budget in found]]
    if part == "allocations":
        passed, failed = (len(re.findall(rf"^test \S+ \.\.\. {end}$", text, re.M)) for end in ("ok", "FAILED"))
        return [[["", "failed", "run"]] + ([["tests", str(failed), str(passed + failed)]] if passed + failed else [])]
    here = []
    for line in text.splitlines():
        if line.startswith("|---"):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else None
        if cells and here and here[-1]:
            here[-1].append(cells)
        else:
            here.append([cells] if cells else [])
    return [table for table in here if table]

def cell(part, row, column):
    first = row.split(" | ")
    for headings, *rows in tables(part):
        for cells in rows:
            if cells[: len(first)] == first and column in headings and len(cells) == len(headings):
                return cells[headings.index(column)]
    raise Missing(f"{part} printed no {column!r} of {row!r}")

def number(text):
    return math.inf if text == "inf" else fractions.Fraction(text)

def value(part, said, row, column):  # in words, and the number with the ends of its interval, if it has one: `0.93 [0.90, 0.97]`
    text = cell(part, row, column)
    found = re.fullmatch(r"(\S+)(?: \[(\S+), (\S+)\])?", text)
    try:
        return f"{said} {text}".strip(), [number(end) for end in found.groups() if end is not None]
    except (AttributeError, ValueError, ZeroDivisionError):
        raise Missing(f"{part} printed {text!r} as {column!r} of {row!r}") from None

def judge(part, aim, judged, beside):  # what was measured, and whether it holds
    status = read(part, "status")
    if status.startswith("skipped"):
        return status, "-", True
    try:
        if status not in ("0", SAYS_NO.get(part)):
            raise Missing(last_line(part))
        bound = fractions.Fraction(re.search(r"[\d./]+", aim).group())
        seen = [value(part, *of) for of in judged]
        more = [value(part, *of)[0] for of in beside]
    except Missing as missing:
        why = str(missing)
        return f"could not be measured: {why if len(why) < 200 else why[:200] + '...'}", "-", False
    keeps = (lambda one: one >= bound) if aim.startswith("at least") else (lambda one: one <= bound)
    # By its number; and whether both ends of its interval say the same.
    verdicts = [(keeps(middle), len({keeps(end) for end in ends}) > 1) for _, (middle, *ends) in seen]
    missed = [noise for kept, noise in verdicts if not kept]
    noise = all(missed) if missed else any(noise for _, noise in verdicts)
    measured = ", ".join(text for text, _ in seen) + (f" ({', '.join(more)})" if more else "")
    return measured, ("**no**" if missed else "yes") + (", within noise" if noise else ""), True

def section(part):
    print(f"\n## {part}\n\n    {read(part, 'command')}\n")
    failed = read(part, "status") not in ("0", SAYS_NO.get(part))
    lines = read(part, "out").splitlines() + (read(part, "err").splitlines()[-20:] if failed else [])
    # At the top once, for all of them.
    lines = [line for line in lines if not line.startswith(("machine: ", "peers: ", "commit: ", "programs: "))]
    before = ""
    for line in lines:
        if before and line and line.startswith("|") != before.startswith("|"):
            print()
        if line or before:
            print(line if line.startswith("|") or not line else f"    {line.rstrip()}")
        before = line

print("# What was promised, and what it costs\n")
print("Written by `bench/side-by-side.sh`: numbers and verdicts are computed from what its scripts printed, which follows. `[a, b]` covers the true median of a")
print("ratio with at least 95 %; a verdict is within noise where its ends are not on one side of the aim. CPU and memory are those of a server with the")
print("processes that it has started, a gateway's archiver among them, unless it says otherwise. `on` has everything on,")
print("`off` a login and a grant (`bench/cpu.sh --help`). What was tried, and what other machines said before, is in `NOTES.md`.\n")
print("\n".join(f"    {line}" if line else "" for line in read("run", "manifest").splitlines()))
print("\n| promise | aim | measured | holds |\n|---|---|---|---|")
whole, kept = True, True
for part, promise, aim, judged, beside in PROMISES:
    if part in parts:
        measured, holds, well = judge(part, aim, judged, beside)
        whole, kept = whole and well, kept and not holds.startswith("**no**")
        print(f"| {promise} | {aim} | {measured} | {holds} |")
for part in parts:
    section(part)
sys.exit(NOT_MEASURED if not whole else NOT_KEPT if not kept and "--strict" in sys.argv[2:] else 0)
