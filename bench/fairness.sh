#!/usr/bin/env bash
# Whether one session that streams a gigabyte holds up its neighbours: their latency through one shard while it streams, against
# the same while all is quiet. HAProxy and PgBouncer beside it say what the machine itself does to neighbours.
#
#   bench/fairness.sh            --smoke: briefly, to see that it works
#   ROUNDS=3 SECONDS_EACH=4 RATE=1000
#
# The aim: p99 within 2 x of quiet. Neighbours are four connections of lockgate-loadgen in an open loop; the stream is a COPY TO STDOUT of
# PostgreSQL 15, a gigabyte at a time, taken as fast as it comes. On two cores the stream,
# its server and its client want more than both: then neighbours wait for a core, whoever the proxy is.
. "$(dirname "$0")/lib.sh"
begin "$@"
default ROUNDS 3 1
default SECONDS_EACH 4 1
default RATE 1000 500
cargo_build -p lockgate -p lockgate-loadgen

start_postgres
pgbench_tables
issuer
start_pgbouncer pgbouncer "${port[postgres]}" </dev/null
start_haproxy haproxy "${port[postgres]}"
start_gateway on "${port[postgres]}" group < <(everything)

url() { echo "postgres://postgres@127.0.0.1:${port[$1]}/postgres"; }
neighbours() { # proxy: p50 and p99, us
  "$LOADGEN" run --target "$(url "$1")" --workload prepared --sql 'SELECT abalance FROM pgbench_accounts WHERE aid = :aid' \
    --set 'aid=random(1,100000)' --rate "$RATE" --duration "${SECONDS_EACH}s" --connections 4 --warmup 500ms \
    --lag-limit 1s -o json >"$dir/neighbours" || { cat "$dir/neighbours" >&2; exit 1; }
  python3 -c 'import json, sys; of = json.load(open(sys.argv[1]))["response"]["percentiles"]; print(of["p50"]["ns"] / 1000, of["p99"]["ns"] / 1000)' "$dir/neighbours"
}

manifest "$ROUNDS rounds of $SECONDS_EACH s each, $RATE queries a second of four neighbours"
PEERS="haproxy pgbouncer on"
for round in $(seq "$ROUNDS"); do
  for proxy in $(shuffled $PEERS); do
    read -r quiet50 quiet99 < <(neighbours "$proxy")
    # Several gigabytes, so that it lasts; ended when the neighbours are measured.
    mkfifo "$dir/stream"
    "$BIN/psql" -X -q -h 127.0.0.1 -p "${port[$proxy]}" -U postgres -d postgres -o "$dir/stream" \
      -c "COPY (SELECT repeat('x', 95) FROM (SELECT generate_series(1, 100000000)) AS n) TO STDOUT" & stream=$!
    start=$(date +%s%N)
    wc -c <"$dir/stream" >"$dir/streamed" & count=$!
    sleep 0.5
    read -r busy50 busy99 < <(neighbours "$proxy")
    kill -0 $stream 2>/dev/null || { echo "$proxy: the stream ended before its neighbours" >&2; exit 1; }
    kill $stream
    seconds=$((($(date +%s%N) - start) / 1000000))
    wait $count
    wait $stream || true
    rm "$dir/stream"
    echo "$proxy $quiet50 $busy50 $quiet99 $busy99 $(($(cat "$dir/streamed") / 1000 / seconds))" >>"$dir/samples"
  done
done
python3 - "$dir/samples" $PEERS <<'PY'
import collections, statistics, sys
from rounds import over, ratio
rows = collections.defaultdict(list)
for line in open(sys.argv[1]):
    proxy, *numbers = line.split()
    rows[proxy].append([float(number) for number in numbers])
print("| proxy | p50 quiet, us | p50 beside the stream | p50 ratio | p99 quiet, us | p99 beside the stream | p99 ratio | stream, MB/s |\n|---|---|---|---|---|---|---|---|")
for proxy in sys.argv[2:]:
    of = rows[proxy]
    middle = [statistics.median(column) for column in zip(*of)]
    p50, p99 = (ratio(over(row[at + 1], row[at]) for row in of) for at in (0, 2))
    print(f"| {proxy} | {middle[0]:.0f} | {middle[1]:.0f} | {p50} | {middle[2]:.0f} | {middle[3]:.0f} | {p99} | {middle[4]:.0f} |")
PY
