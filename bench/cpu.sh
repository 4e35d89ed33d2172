#!/usr/bin/env bash
# What a query costs through the gateway, beside PgBouncer and HAProxy.
#
#   bench/cpu.sh            --smoke: one short round, to see that it works
#   ROUNDS=7 SECONDS_EACH=2 CLIENTS="1 8 64" MODE=prepared|simple|extended PEERS="direct pgbouncer haproxy relay off on" WARM_UP=25
#
# Starts a private PostgreSQL 15, PgBouncer (session mode), HAProxy (TCP mode), the bare relay (our shard, nothing
# understood) and Lockgate twice (off: token login and a grant, async audit without responses; on: besides, ten deny rules,
# masks on two columns, four detectors, group-committed audit with each response) on loopback, runs pgbench -S -j 1 through each: WARM_UP
# seconds of 64 clients that do not count (by then a gateway's ring has been round once, and its segments are reused), then rounds, the proxies of each in
# another order; and prints CPU per query (user + system, to the nanosecond), of the proxy's own process and with the processes it has started (a
# gateway's archiver), with the median over rounds of each round's ratio to PgBouncer and, from six rounds on, an interval that covers the true one
# with 95 % or more. `direct` is PostgreSQL with nothing between: what a proxy adds to its latency is compared with what PgBouncer adds in the same
# round, and where that is nothing, with `inf`.
. "$(dirname "$0")/lib.sh"
begin "$@"
default ROUNDS 7 1
default SECONDS_EACH 2 1
default CLIENTS "1 8 64" 8
default MODE prepared prepared
default WARM_UP 25 1
default PEERS "direct pgbouncer haproxy relay off on" "direct pgbouncer haproxy relay off on"
cargo_build -p lockgate-bench -p lockgate --bins

start_peers
manifest "$ROUNDS rounds of $SECONDS_EACH s each after $WARM_UP s of warm-up, pgbench -S -M $MODE"
warm_up $PEERS
order $PEERS
for clients in $CLIENTS; do
  settle
  for round in $(seq "$ROUNDS"); do
    for proxy in $(shuffled $PEERS); do
      pgbench_round "$clients | $proxy" "$round" "$proxy" -S -M "$MODE" -c "$clients" -T "$SECONDS_EACH"
    done
  done
done
table "clients | proxy" pgbouncer direct
