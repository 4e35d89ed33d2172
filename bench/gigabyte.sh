#!/usr/bin/env bash
# What a byte of a large result costs through a masked column: CPU per GB of Lockgate (off; a mask on the column; four content
# detectors on every text column) beside HAProxy's.
#
#   bench/gigabyte.sh            --smoke: a few MB, to see that it works
#   ROUNDS=5 MB=208              megabytes of rows each proxy carries in a round: five rounds make a gigabyte
#
# The aim: at most 2 x HAProxy's. Rows of PostgreSQL 15 have an id, the masked column (60 characters) and a note (100); the client is
# lockgate-loadgen with one connection, which counts the bytes of the rows and checks that nothing comes through unmasked.
. "$(dirname "$0")/lib.sh"
begin "$@"
default ROUNDS 5 1
default MB 208 16
cargo_build -p lockgate-loadgen -p lockgate

# 100,000 rows are about 18 MB: one response.
start_postgres
sql -c "CREATE TABLE customers (id int, card_number text, note text)" -c "INSERT INTO customers SELECT n, \
  'card 4111-1111-1111-' || lpad((n % 10000)::text, 4, '0') || ' of a customer with a long name 0', rpad('n' || n, 100, ' lorem ipsum') \
  FROM generate_series(1, 100000) n" -c "VACUUM ANALYZE customers"
issuer
start_haproxy haproxy "${port[postgres]}"
start_gateway off "${port[postgres]}" group </dev/null
mask() { printf '[[mask]]\ntargets = ["postgres"]\nstyle = "last4"\n%s\n' "$1"; }
start_gateway mask "${port[postgres]}" group < <(mask 'columns = ["customers.card_number"]')
start_gateway detect "${port[postgres]}" group < <(mask 'columns = ["customers.card_number"]
detect = ["card", "email", "ssn", "iban"]')

carry() { # proxy, responses: prints the bytes of their rows. A first response, by which the others are judged, comes on top
  local masked=() count=$2
  case $1 in mask | detect) masked=(--expect-masked '####-####-####-####') ;; esac
  "$LOADGEN" run --target "postgres://postgres@127.0.0.1:${port[$1]}/postgres" --workload simple --sql 'SELECT * FROM customers' --closed \
    --connections 1 --count "$count" --warmup 0s --timeout 60s --lag-limit 1h ${masked[@]+"${masked[@]}"} -o json >"$dir/carried" || { cat "$dir/carried" >&2; exit 1; }
  python3 -c 'import json, sys; run, count = json.load(open(sys.argv[1])), int(sys.argv[2]); print(run["row_bytes"] * (count + 1) // count)' "$dir/carried" "$count"
}

one=$(($(carry haproxy 1) / 2))
responses=$(((MB * 1000000 + one - 1) / one))
manifest "$ROUNDS rounds of $responses responses of $one bytes of rows each, after a first one"
for round in $(seq "$ROUNDS"); do
  for proxy in haproxy off mask detect; do
    before=$(ticks "$proxy") start=$(date +%s%N)
    bytes=$(carry "$proxy" "$responses")
    echo "$proxy $round $(($(ticks "$proxy") - before)) $bytes $(($(date +%s%N) - start))" >>"$dir/samples"
  done
done
python3 - "$dir/samples" "$TICK_US" <<'PY'
import collections, statistics, sys
cost, speed = collections.defaultdict(dict), collections.defaultdict(list)
for line in open(sys.argv[1]):
    proxy, turn, ticks, size, ns = line.split()
    cost[proxy][turn] = int(ticks) * int(sys.argv[2]) / 1e6 / (int(size) / 1e9)
    speed[proxy].append(int(size) / 1e6 / (int(ns) / 1e9))
print("| proxy | CPU s a GB of rows | over haproxy | MB/s with the client's own work |\n|---|---|---|---|")
for proxy, of in cost.items():
    ratio = statistics.median(of[turn] / max(cost["haproxy"][turn], 1e-9) for turn in of)
    print(f"| {proxy} | {statistics.median(of.values()):.2f} | {ratio:.2f} | {statistics.median(speed[proxy]):.0f} |")
PY
