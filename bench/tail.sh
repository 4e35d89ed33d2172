#!/usr/bin/env bash
# The slowest of many queries, beside PgBouncer and HAProxy: p50, p99, p99.9, p99.99 and the maximum of the latency.
#
#   bench/tail.sh            --smoke: one short round, to see that it works
#   ROUNDS=7 SECONDS_EACH=4 CLIENTS="8 64" MODE=prepared|simple|extended PEERS="direct pgbouncer haproxy relay off on" WARM_UP=10
#
# The servers of bench/cpu.sh, pgbench -S -j 1 with its log of each query: clients in a closed loop, which send nothing while they wait, so a
# stall counts once for each of them (what an open loop sees, `lockgate-loadgen run --rate` tells). Medians over rounds, the proxies of each in
# another order, of each round's percentiles (nearest rank) and of its ratios to PgBouncer. A round has half a second more
# at each end, which does not count: backends are new, or exit.
. "$(dirname "$0")/lib.sh"
begin "$@"
default ROUNDS 7 1
default SECONDS_EACH 4 1
default CLIENTS "8 64" 8
default MODE prepared prepared
default WARM_UP 10 1
default PEERS "direct pgbouncer haproxy relay off on" "direct pgbouncer haproxy relay off on"
cargo_build -p lockgate-bench -p lockgate --bins

start_peers
manifest "$ROUNDS rounds of $SECONDS_EACH s each, and half a second at both ends that does not count, after $WARM_UP s of warm-up, pgbench -S -M $MODE"
warm_up $PEERS
order $PEERS
for clients in $CLIENTS; do
  for round in $(seq "$ROUNDS"); do
    for proxy in $(shuffled $PEERS); do
      pgbench_round "$clients | $proxy" "$round" "$proxy" -S -M "$MODE" -c "$clients" -T $((SECONDS_EACH + 1)) -l --log-prefix="$dir/latencies"
      python3 bench/tail.py sample "$clients | $proxy" "$round" "$dir"/latencies.* >>"$dir/tails"
      rm "$dir"/latencies.*
    done
  done
done
python3 bench/tail.py table "$dir/tails" "$dir/order" "clients | proxy" pgbouncer
