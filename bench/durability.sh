#!/usr/bin/env bash
# What durability costs: records a second, CPU per record and latency of `async`, `group` and `strict`, beside what the disk
# under the trail does with one fdatasync per record, measured in the same run.
#
#   bench/durability.sh                        --smoke: once and briefly
#   ROUNDS=5 SECONDS_EACH=3 CLIENTS="1 64"     override the defaults
#   TMPDIR=/var/tmp                            where the trails and the probe lie: it has to be a disk
#
# Starts a private PostgreSQL 15 and three gateways (one shard, a grant, each durability) and runs `pgbench -S -M prepared -j 1` through
# them, the disk's probe and the trail alone (`group`, its code without sockets and target: what the disk and it can do where nobody else takes
# the time; both in bench/src/bin/durability.rs) in interleaved rounds; prints medians over rounds, ratios of each round
# to the disk of that round. CPU is that of the gateway with the processes it has started, its archiver among them. A statement makes two records. Latencies are medians of single statements.
# `piped`: sessions that send 100 statements in a pipeline (\startpipeline), through `group` to PostgreSQL; `canned`: the same through another
# `group` to `lockgate-loadgen respond`, so that the database is not what bounds it.
. "$(dirname "$0")/lib.sh"
begin "${1:-}"
default ROUNDS 5 1
default SECONDS_EACH 3 1
default CLIENTS "1 64" 4
cargo_build -p lockgate -p lockgate-bench -p lockgate-loadgen --bins
MODES="async group strict"
PIPELINE=100 # statements in one

start_postgres
pgbench_tables
issuer
for mode in $MODES; do start_gateway "$mode" "${port[postgres]}" "$mode" </dev/null; done
port[piped]=${port[group]} pid[piped]=${pid[group]}
start_respond respond
start_gateway canned "${port[respond]}" group </dev/null
{ echo '\startpipeline'; printf 'SELECT abalance FROM pgbench_accounts WHERE aid = 1;%.0s\n' $(seq "$PIPELINE"); echo '\endpipeline'; } >"$dir/pipeline.sql"

metric() { # server, name: summed over shards
  local server=${1/piped/group}
  python3 - "$(sed -n 's/^ops = .*:\([0-9]*\)".*/\1/p' "$dir/$server/lockgate.toml")" "$2" <<'PY'
import sys, urllib.request
text = urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/metrics").read().decode()
print(int(sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(sys.argv[2]))))
PY
}
statement_p50() { # of pgbench's logs, which go away
  cat "$dir"/latencies.* | awk '{ print $3 }' | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
  rm -f "$dir"/latencies.*
}
durable_round() { # clients, mode
  local records syncs p50 script=(-S)
  case $2 in piped | canned) script=(-f "$dir/pipeline.sql") ;; esac
  records=$(metric "$2" lockgate_audit_records_total) syncs=$(metric "$2" lockgate_audit_syncs_total)
  cpu_begins "$2"
  "$BIN/pgbench" "${script[@]}" -M prepared -n -j 1 -c "$1" -T "$SECONDS_EACH" --log --log-prefix="$dir/latencies" -h 127.0.0.1 -p "${port[$2]}" -U postgres postgres \
    >"$dir/out" 2>&1 || { cat "$dir/out" >&2; exit 1; }
  cpu_ends "$2"
  p50=$(statement_p50)
  echo "$1 $2 $((($(metric "$2" lockgate_audit_records_total) - records))) $p50 $(((own_ns + children_ns) / 1000)) $(($(metric "$2" lockgate_audit_syncs_total) - syncs))" >>"$dir/samples"
}

manifest "$ROUNDS rounds of $SECONDS_EACH s each, pgbench -S -M prepared"
echo "disk: $(findmnt -no FSTYPE,SOURCE -T "$dir" | tr -s ' ')"
for round in $(seq "$ROUNDS"); do
  for clients in $CLIENTS; do
    echo "$clients disk $("$RELEASE/durability" disk "$dir" "$SECONDS_EACH" 1024)" >>"$dir/samples"
    echo "$clients trail $("$RELEASE/durability" trail "$dir" "$SECONDS_EACH" "$clients")" >>"$dir/samples"
    for mode in $(shuffled $MODES piped canned); do durable_round "$clients" "$mode"; done
  done
done
for frame in 1024 4096 16384; do
  "$RELEASE/durability" proof "$frame" | awk -v n="$frame" '{ printf "a frame of %d bytes: checksum %d ns, hash %d ns; a checkpoint: signature %d ns\n", n, $1, $2, $3 }'
done
"$RELEASE/durability" prepare "$dir" "$ROUNDS" | awk '{ printf "a segment of 64 MiB: %d ms of CPU for a new file, %d ms for one that was a segment before\n", $1, $2 }'
if command -v perf >/dev/null; then # of all the gateway's time, the kernel's too
  for clients in $CLIENTS; do
    perf record -q -F 999 -p "${pid[group]}" -o "$dir/perf" 2>/dev/null & counting=$!
    durable_round "$clients" group
    kill -INT "$counting" && wait "$counting" || true
    perf report -i "$dir/perf" --stdio --sort symbol 2>/dev/null |
      awk -v clients="$clients" '/blake3|crc32c/ { sum += $1 } END { printf "group at %d clients: checksums and hashes are %.1f %% of the CPU\n", clients, sum }'
  done
fi
echo
python3 - "$dir/samples" "$SECONDS_EACH" <<'PY'
import collections, statistics, sys
from rounds import ratio
samples, seconds = collections.defaultdict(list), float(sys.argv[2])
for line in open(sys.argv[1]):
    clients, mode, *numbers = line.split()
    samples[int(clients), mode].append([float(number) for number in numbers])
def median(values):
    return statistics.median(list(values))
print("| clients | | records a second | over the disk | p50 us | p99 us | p50 over async, in fdatasyncs | CPU us per record | syncs a second |")
print("|---|---|---|---|---|---|---|---|---|")
for clients in sorted({key[0] for key in samples}):
    disks, bare = samples[clients, "disk"], samples[clients, "async"]
    rate, p50, p99 = (median(row[index] for row in disks) for index in range(3))
    print(f"| {clients} | disk | {rate:.0f} | 1.0 | {p50:.0f} | {p99:.0f} | - | - | {rate:.0f} |")
    trails = samples[clients, "trail"]
    over = ratio(row[0] / disk[0] for row, disk in zip(trails, disks))
    print(f"| {clients} | the trail alone | {median(row[0] for row in trails):.0f} | {over} | - | - | - | {median(row[1] for row in trails):.2f} | - |")
    for mode, name in {"async": "async", "group": "group", "strict": "strict", "piped": "group, pipelines", "canned": "group, pipelines, canned server"}.items():
        rows = samples[clients, mode]
        over = ratio(row[0] / seconds / disk[0] for row, disk in zip(rows, disks))
        added = ratio((row[1] - base[1]) / disk[1] for row, base, disk in zip(rows, bare, disks))
        rate, p50, late = median(row[0] for row in rows) / seconds, median(row[1] for row in rows), added
        if mode != name:  # a pipeline is no statement
            p50, late = 0, "-"
        cpu, syncs = median(row[2] / row[0] for row in rows), median(row[3] for row in rows) / seconds
        print(f"| {clients} | {name} | {rate:.0f} | {over} | {p50 or '-'} | - | {late} | {cpu:.2f} | {syncs:.0f} |")
PY
