#!/usr/bin/env bash
# How often the gateway enters the kernel, with one shard and with two: io_uring_enter and context switches per query, counted by the
# kernel (perf stat), which unlike strace does not slow down what it counts.
#
#   bench/enters.sh            --smoke: one short round, to see that it works
#   ROUNDS=3 SECONDS_EACH=2 CLIENTS="1 8 32 64" SHARDS="1 2"
#
# The aim: at most 0.5 io_uring_enter a query at 32 clients. Lockgate has everything on; clients are pgbench -S -M prepared -j 1.
# A query is two arrivals and two sends, so 4 / (enters a query) is what one wake has to do on average. Needs linux-perf and the right
# to trace (root).
. "$(dirname "$0")/lib.sh"
begin "$@"
default ROUNDS 3 1
default SECONDS_EACH 2 1
default CLIENTS "1 8 32 64" 4
default SHARDS "1 2" "1 2"
command -v perf >/dev/null || { echo "perf is missing: apt-get install linux-perf" >&2; exit 3; }
cargo_build -p lockgate

start_postgres
pgbench_tables
issuer
for shards in $SHARDS; do start_gateway "shards$shards" "${port[postgres]}" group --shards "$shards" < <(everything); done

manifest "$ROUNDS rounds of $SECONDS_EACH s each, pgbench -S -M prepared"
events=syscalls:sys_enter_io_uring_enter,raw_syscalls:sys_enter,context-switches,cpu-migrations
for clients in $CLIENTS; do
  for round in $(seq "$ROUNDS"); do
    for shards in $(shuffled $SHARDS); do
      perf stat -x, -e "$events" -p "${pid[shards$shards]}" -o "$dir/perf" & counting=$!
      sleep 0.3
      pgbench_round "$clients | $shards" "$round" "shards$shards" -S -M prepared -c "$clients" -T "$SECONDS_EACH"
      kill -INT $counting
      wait $counting || true
      awk -F, -v OFS='\t' '/io_uring_enter/ { enters = $1 } /raw_syscalls/ { all = $1 } /context-switches/ { switches = $1 } /migrations/ { moves = $1 }
        END { print enters, all - enters, switches, moves }' "$dir/perf" >>"$dir/counts"
    done
  done
done
paste "$dir/samples" "$dir/counts" | python3 -c '
import collections, statistics, sys
rows = collections.defaultdict(list)
for line in sys.stdin:
    label, _, own_ns, children_ns, queries, _, tps, *counts = line.rstrip("\n").split("\t")
    own, whole = int(own_ns) / 1000, (int(own_ns) + int(children_ns)) / 1000
    rows[label].append([float(tps)] + [each / int(queries) for each in (own, whole, *map(int, counts))])
print("| clients | shards | queries a second | CPU us a query | with its children | io_uring_enter a query | other system calls | context switches | migrations |")
print("|---|---|---|---|---|---|---|---|---|")
for label, of in sorted(rows.items(), key=lambda row: [int(part) for part in row[0].split(" | ")]):
    tps, own, whole, *counts = (statistics.median(column) for column in zip(*of))
    print(f"| {label} | {tps:.0f} | {own:.2f} | {whole:.2f} | " + " | ".join(f"{count:.3f}" for count in counts) + " |")
'
