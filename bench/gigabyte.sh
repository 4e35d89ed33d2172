#!/usr/bin/env bash
# What a byte of a large result costs through a masked column: CPU per GB of Lockgate (off; a mask on the column; four content
# detectors on every text column) beside HAProxy's.
#
#   bench/gigabyte.sh            --smoke: a few MB, to see that it works
#   ROUNDS=7 MB=208              megabytes of rows each proxy carries in a round: five rounds make a gigabyte
#
# The aim: at most 2 x HAProxy's. Rows of PostgreSQL 15 have an id, the masked column (60 characters) and a note (100); the client is
# lockgate-loadgen with one connection, which counts the bytes of the rows and checks that nothing comes through unmasked.
. "$(dirname "$0")/lib.sh"
begin "$@"
default ROUNDS 7 1
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
PEERS="haproxy off mask detect"
manifest "$ROUNDS rounds of $responses responses of $one bytes of rows each, after a first one"
for round in $(seq "$ROUNDS"); do
  for proxy in $(shuffled $PEERS); do
    cpu_begins "$proxy"
    start=$(date +%s%N)
    bytes=$(carry "$proxy" "$responses")
    spent=$(($(date +%s%N) - start))
    cpu_ends "$proxy"
    echo "$proxy $round $own_ns $children_ns $bytes $spent" >>"$dir/samples"
  done
done
python3 - "$dir/samples" $PEERS <<'PY'
import collections, statistics, sys
from rounds import median, over, ratio
own, whole, speed = collections.defaultdict(dict), collections.defaultdict(dict), collections.defaultdict(list)
for line in open(sys.argv[1]):
    proxy, turn, own_ns, children_ns, size, ns = line.split()
    own[proxy][turn], whole[proxy][turn] = (each / int(size) for each in (int(own_ns), int(own_ns) + int(children_ns)))
    speed[proxy].append(int(size) / 1e6 / (int(ns) / 1e9))
print("| proxy | CPU s a GB of rows | over haproxy | with its children | with children over haproxy | MB/s with the client's own work |\n|---|---|---|---|---|---|")
for proxy in sys.argv[2:]:
    cells = [cell for of in (own, whole) for cell in (median(of[proxy].values()), ratio(over(of[proxy][turn], of["haproxy"][turn]) for turn in of[proxy]))]
    print("|", proxy, "|", " | ".join(cells), f"| {statistics.median(speed[proxy]):.0f} |")
PY
