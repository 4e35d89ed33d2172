#!/usr/bin/env bash
# Measures every performance promise beside PgBouncer and HAProxy, and writes bench/RESULTS.md: the machine, one table of what was
# promised and what came out, and what each script printed.
#
#   bench/side-by-side.sh                       everything but durability; 22 minutes on two cores, which should be free
#   bench/side-by-side.sh --all                 durability too, 4 minutes more
#   bench/side-by-side.sh --only NAME[,NAME]    some rows, to standard output: cpu simple gigabyte idle fairness tls storm enters shards
#                                               promises instructions allocations durability
#   bench/side-by-side.sh --smoke               all of them briefly, to see that they work; writes to a temporary folder
#   bench/side-by-side.sh --output FILE         writes there
#   BUILT=1                                     builds nothing: CARGO_TARGET_DIR has it all
#   ROUNDS SECONDS_EACH WARM_UP MB SESSIONS TURN_S RATE SCALE     reach the scripts, which say what they mean
#
# Installs what is missing from Debian's packages (root or sudo) and builds once. Numbers and verdicts are read from what the scripts
# print; their output is kept in a folder that is named at the end. Exit status: 0 all measured, whether or not it holds; 1 something could
# not be measured; 2 wrong usage; 3 could not install or build.
called_from=$PWD
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/tests/prepare.sh"
. "$root/bench/lib.sh"

DEFAULT=(cpu simple gigabyte idle fairness tls storm enters shards promises instructions allocations)
LENGTHS=(ROUNDS SECONDS_EACH WARM_UP MB SESSIONS TURN_S RATE SCALE)
# MANY and SOME: 64 and 32 clients; fewer where a round is so brief that a busy machine might not log in more. The benches have longer than
# they ask for: making the segment that records are appended to takes so long that criterion would append a handful, all of them cold.
declare -A COMMAND=(
  [cpu]='CLIENTS="1 8 MANY" bench/cpu.sh'
  [simple]='MODE=simple CLIENTS=MANY PEERS="pgbouncer haproxy relay off on" bench/cpu.sh'
  [gigabyte]='bench/gigabyte.sh'
  [idle]='bench/idle.sh'
  [fairness]='bench/fairness.sh'
  [tls]='CLIENTS="8 MANY" bench/tls.sh'
  [storm]='bench/storm.sh'
  [enters]='CLIENTS="1 8 SOME MANY" bench/enters.sh'
  [shards]="bench/knobs.sh MANY '' '--shards 2'"
  [promises]="cargo bench -p lockgate-bench --bench promises -- --quiet --discard-baseline TIMES 'at most|pg_query'"
  [instructions]='bench/instructions.sh'
  [allocations]='cargo test --release -p lockgate-bench --test allocations'
  [durability]='CLIENTS="1 MANY" bench/durability.sh'
)

parts=("${DEFAULT[@]}") many=64 some=32 times='--warm-up-time 3 --measurement-time 5' only='' output='' child='' given='' whole=$(basename "$0")
arguments() {
  local argument part
  for argument in "$@"; do whole+=" $([[ $argument =~ ^[A-Za-z0-9_./,=-]+$ ]] && echo "$argument" || printf %q "$argument")"; done
  while [ $# -gt 0 ]; do
    case $1 in
      --smoke) SMOKE=1 many=16 some=12 times='--sample-size 10 --warm-up-time 0.1 --measurement-time 0.1' ;;
      --all) parts=("${DEFAULT[@]}" durability) ;;
      --only) [ $# -ge 2 ] || usage 2; only=1; IFS=, read -ra parts <<<"$2"; shift ;;
      --output) [ $# -ge 2 ] || usage 2; output=$(cd "$called_from" && realpath -m "$2"); shift ;;
      --help) usage 0 ;;
      *) usage 2 ;;
    esac
    shift
  done
  for part in "${parts[@]}"; do [ -n "${COMMAND[$part]:-}" ] || { echo "no row is called $part: ${DEFAULT[*]} durability" >&2; exit 2; }; done
  [ ${#parts[@]} -gt 0 ] || usage 2
  if [ -n "$SMOKE" ] && [ "$output" = "$root/bench/RESULTS.md" ]; then echo "--smoke measures nothing: not to bench/RESULTS.md" >&2; exit 2; fi
}
usage() { sed -n '2,/^called_from/{/^#/s/^# \{0,1\}//p}' "$root/bench/side-by-side.sh"; exit "$1"; }
wants() { printf '%s\n' "${parts[@]}" | grep -qx "$1"; }
elapsed() { echo "$((SECONDS / 60)) min $((SECONDS % 60)) s"; }

settings() { # what the caller has set: the scripts have it from here, and from nowhere else
  local name
  for name in "${LENGTHS[@]}"; do [ -z "${!name:-}" ] || { given+="$name=${!name} "; export "${name?}"; }; done
  whole="$given${BUILT:+BUILT=1 }bench/$whole"
  unset CLIENTS MODE PEERS SHARDS MODES FEATURES
}

install() {
  local packages=("${server_packages[@]}" "${bench_packages[@]}" python3 openssl)
  wants instructions && packages+=("${count_packages[@]}")
  [ -n "${BUILT:-}" ] || packages+=("${build_packages[@]}")
  step "Debian packages" install_packages "${packages[@]}" >&2 || exit 3
}

build() { # all at once; from here on scripts build nothing
  [ -n "${BUILT:-}" ] || step build build_all >&2 || exit 3
  for program in lockgate lockgate-loadgen bare-relay handshakes durability gate-rounds; do
    [ -x "$RELEASE/$program" ] || { echo "$RELEASE has no $program: build it, or run without BUILT=1" >&2; exit 3; }
  done
}
build_all() {
  require_rust || return 1
  "$CARGO" build -q --release -p lockgate -p lockgate-loadgen -p lockgate-bench --bins || return 1
  if wants allocations; then "$CARGO" test -q --release -p lockgate-bench --test allocations --no-run || return 1; fi
  if wants promises; then "$CARGO" bench -q -p lockgate-bench --bench promises --no-run || return 1; fi
}

command_of() { # name: what somebody would type
  local command=${COMMAND[$1]//MANY/$many}
  command=${command//SOME/$some} command=${command//TIMES/$times}
  case $1 in
    allocations | promises | instructions) echo "$command" ;;
    shards) if [ -n "$SMOKE" ]; then echo "bench/knobs.sh --smoke"; else echo "$command"; fi ;;
    *) echo "$command${SMOKE:+ --smoke}" ;;
  esac
}
to_run() { # name: what we run for it; nothing if there is nothing to run
  case $1 in allocations | promises) compiled "$1" ;; *) command_of "$1" ;; esac
}
compiled() { # name of a test or bench: by cargo where we build, else the program that a build has left
  local command program
  command=$(command_of "$1")
  if [ -n "${BUILT:-}" ]; then
    program=$(find "$RELEASE/deps" -maxdepth 1 -name "$1-*" -executable -type f -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1 | cut -d' ' -f2-)
    [ -n "$program" ] || return 0
    case $command in *' -- '*) command="cargo --bench ${command#* -- }" ;; *) command=cargo ;; esac
  fi
  echo "$(printf %q "${program:-$CARGO}") ${command#cargo}"
}

run_part() { # name: leaves NAME.command, .out, .err and .status in $dir
  local command status=0 began=$SECONDS
  command=$(to_run "$1")
  case $command in bench/* | [A-Z]*) echo "$given$command" ;; *) command_of "$1" ;; esac >"$dir/$1.command"
  if [ -z "$command" ]; then
    echo "skipped: BUILT=1, and nobody has built it" | tee "$dir/$1.status" | sed 's/^/    /' >&2
    return
  fi
  BUILT=1 bash -c "exec env $command" >"$dir/$1.out" 2>"$dir/$1.err" & child=$!
  wait "$child" || status=$?
  child=
  echo $status >"$dir/$1.status"
  echo "    exit status $status after $((SECONDS - began)) s" >&2
}
stop() { # the script that runs ends its own servers
  [ -z "$child" ] || { echo "ending the servers" >&2; kill "$child" 2>/dev/null; wait "$child"; }
  exit 130
}

report() { # reads $dir, prints the page; status 1: something is not in it
  python3 - "$dir" "$many" "$some" "${parts[@]}" <<'PY'
import fractions, pathlib, re, sys

folder, many, some, parts = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]

# What was promised: the script that shows it, the promise, the aim, the cells that are judged by it (what each is, its row's first
# cells, its column), and cells that tell more.
CPU, ADDED = "CPU over pgbouncer", "added over pgbouncer"
PROMISES = [
    ("cpu", f"everything on, {many} clients: CPU a query", "at most 0.95 x PgBouncer's", [("", f"{many} | on", CPU)], []),
    ("cpu", "everything on, 8 clients: CPU a query", "at most 1.15 x PgBouncer's", [("", "8 | on", CPU)], []),
    ("simple", f"everything on, `-M simple` with new constants, {many} clients: CPU a query", "at most 1.15 x PgBouncer's",
     [("", f"{many} | on", CPU)], []),
    ("cpu", "everything on, one client: latency added to PostgreSQL's own", "at most 1.2 x PgBouncer's", [("", "1 | on", ADDED)],
     [("whole latency", "1 | on", "latency over pgbouncer"), ("HAProxy adds", "1 | haproxy", ADDED)]),
    ("cpu", f"everything off, {many} clients: CPU a query", "at most 0.8 x PgBouncer's", [("", f"{many} | off", CPU)],
     [("bare relay", f"{many} | relay", CPU), ("HAProxy", f"{many} | haproxy", CPU)]),
    ("gigabyte", "1 GB through a masked column: CPU a byte", "at most 2 x HAProxy's", [("", "mask", "over haproxy")],
     [("with four detectors besides", "detect", "over haproxy")]),
    ("allocations", "a steady statement: heap allocations, copies of its payload", "at most 0 allocations and 1 copy",
     [("tests of it that failed:", "tests", "failed")], [("of", "tests", "run")]),
    ("idle", "10,000 idle sessions: memory", "at most 1.5 x PgBouncer's", [("off", "off", "over pgbouncer"), ("on", "on", "over pgbouncer")],
     [("sessions", "on", "sessions"), ("HAProxy", "haproxy", "over pgbouncer")]),
    ("fairness", "one session streams 1 GB: its neighbours' p99", "at most 2 x quiet", [("", "on", "p99 ratio")],
     [("HAProxy", "haproxy", "p99 ratio"), ("PgBouncer", "pgbouncer", "p99 ratio")]),
    ("tls", "TLS on both legs: CPU a query", "at most 1.6 x our plaintext",
     [("8 clients", "8 | on-tls", "CPU over on"), (f"{many} clients", f"{many} | on-tls", "CPU over on")], []),
    ("storm", "1,000 new TLS sessions: CPU a session", "at most 1.5 x rustls's own handshake", [("", "on-tls", "CPU over rustls")],
     [("PgBouncer", "pgbouncer-tls", "CPU over rustls")]),
    ("enters", f"`io_uring_enter` a query, {some} clients", "at most 0.5",
     [("one shard", f"{some} | 1", "io_uring_enter a query"), ("two shards", f"{some} | 2", "io_uring_enter a query")], []),
    ("shards", "two shards: CPU a query", "at most 1.05 x one shard's", [("", "--shards 2", "CPU over (defaults)")], []),
    ("promises", "an audit append on the path", "at most 150 ns", [("", "audit append, a record", "ns")], []),
    ("promises", "an identity check", "at most 20 ns", [("", "identity check", "ns")], []),
    ("promises", "the deny list's prefilter", "at most 1/40 of a parse",
     [("ten classes", "deny list of ten classes", "of the parse"), ("eight words", "deny list of eight words", "of the parse")], []),
    ("promises", "a cached decision", "at most 100 ns", [("", "cached decision", "ns")], []),
    ("instructions", "instructions of a prepared statement inside the gateway", "at most 1 x bench/budget.toml",
     [("off", "prepared_off", "of the budget"), ("on", "prepared_on", "of the budget")], []),
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
        found = re.findall(r"^(\S.*?)(?: \(at most .*\))?\s+time:\s+\[\S+ \S+ (\S+) (\S+) \S+ \S+\]", text, re.M)
        ns = {name: float(time) * scale[unit] for name, time, unit in found}
        parse = ns.get("pg_query parse", 0.0)
        return [[["bench", "ns", "of the parse"]] + [[name, f"{time:.1f}", f"1/{int(parse / time)}"] for name, time in ns.items()]]
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

def value(part, said, row, column):
    text = cell(part, row, column)
    try:
        return f"{said} {text}".strip(), fractions.Fraction(text)
    except (ValueError, ZeroDivisionError):
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
    except Missing as why:
        return f"could not be measured: {why if len(why) < 200 else why[:200] + '...'}", "-", False
    holds = all(number >= bound if aim.startswith("at least") else number <= bound for _, number in seen)
    measured = ", ".join(text for text, _ in seen) + (f" ({', '.join(more)})" if more else "")
    return measured, "yes" if holds else "**no**", True

def section(part):
    print(f"\n## {part}\n\n    {read(part, 'command')}\n")
    failed = read(part, "status") not in ("0", SAYS_NO.get(part))
    lines = read(part, "out").splitlines() + (read(part, "err").splitlines()[-20:] if failed else [])
    lines = [line for line in lines if not line.startswith(("machine: ", "peers: "))]
    before = ""
    for line in lines:
        if before and line and line.startswith("|") != before.startswith("|"):
            print()
        if line or before:
            print(line if line.startswith("|") or not line else f"    {line.rstrip()}")
        before = line

print("# What was promised, and what it costs\n")
print("Written by `bench/side-by-side.sh`: numbers and verdicts are computed from what its scripts printed, which follows. `on` has everything on,")
print("`off` a login and a grant (`bench/cpu.sh --help`). What was tried, and what other machines said before, is in `NOTES.md`.\n")
print("\n".join(f"    {line}" if line else "" for line in read("run", "manifest").splitlines()))
print("\n| promise | aim | measured | holds |\n|---|---|---|---|")
whole = True
for part, promise, aim, judged, beside in PROMISES:
    if part in parts:
        measured, holds, well = judge(part, aim, judged, beside)
        whole &= well
        print(f"| {promise} | {aim} | {measured} | {holds} |")
for part in parts:
    section(part)
sys.exit(0 if whole else 1)
PY
}

arguments "$@"
settings
install
build
dir=$(mktemp -d "${TMPDIR:-/tmp}/lockgate-side-by-side.XXXXXX")
chmod 755 "$dir"
[ -n "$output$only" ] || output=${SMOKE:+$dir/RESULTS.md}
[ -n "$output$only" ] || output=$root/bench/RESULTS.md
trap stop INT TERM
described=$(manifest "${#parts[@]} scripts${SMOKE:+, briefly (--smoke): these numbers say nothing}")
number=0
for part in "${parts[@]}"; do
  number=$((number + 1))
  echo "[$number of ${#parts[@]}] $part: $(command_of "$part") ($(elapsed) so far)" >&2
  run_part "$part"
done
printf 'command: %s\n%s\ntook: %s\n' "$whole" "$described" "$(elapsed)" >"$dir/run.manifest"
status=0
report >"$dir/page" || status=$?
echo "what the scripts printed: $dir" >&2
if [ -n "$output" ]; then cp "$dir/page" "$output" && echo "$output"; else cat "$dir/page"; fi
exit $status
