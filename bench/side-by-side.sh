#!/usr/bin/env bash
# What a query costs through the gateway, beside PgBouncer and HAProxy.
#
#   bench/side-by-side.sh            --smoke: one short round, to see that it works
#   ROUNDS=5 SECONDS_EACH=4 CLIENTS="1 8 64" MODE=prepared|simple|extended PEERS="pgbouncer haproxy relay off on"
#
# Starts a private PostgreSQL 15, PgBouncer (session mode), HAProxy (TCP mode), the bare relay (our shard, nothing
# understood) and Lockgate twice (off: token login and a grant, async audit without responses; on: besides, ten deny rules,
# masks on two columns, four detectors, group-committed audit with each response) on loopback, runs pgbench -S -j 1 through each in interleaved rounds, and
# prints CPU per query (user + system, from /proc/PID/stat) with the median over rounds of each round's ratio to PgBouncer.
. "$(dirname "$0")/lib.sh"
begin "$@"
default ROUNDS 5 1
default SECONDS_EACH 4 1
default CLIENTS "1 8 64" 8
default MODE prepared prepared
default PEERS "pgbouncer haproxy relay off on" "pgbouncer haproxy relay off on"
cargo_build -p lockgate-bench -p lockgate --bins

start_postgres
pgbench_tables
issuer
start_pgbouncer pgbouncer "${port[postgres]}" </dev/null
start_haproxy haproxy "${port[postgres]}"
start_relay relay "${port[postgres]}"
start_gateway off "${port[postgres]}" async --payloads none </dev/null
start_gateway on "${port[postgres]}" group --payloads masked < <(everything)

manifest "$ROUNDS rounds of $SECONDS_EACH s each, pgbench -S -M $MODE"
for clients in $CLIENTS; do
  for round in $(seq "$ROUNDS"); do
    for proxy in $PEERS; do
      pgbench_round "$clients | $proxy" "$round" "$proxy" -S -M "$MODE" -c "$clients" -T "$SECONDS_EACH"
    done
  done
done
table "clients | proxy" pgbouncer
