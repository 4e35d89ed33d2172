#!/usr/bin/env bash
# What a tuning flag of `lockgate serve` does to throughput, latency and CPU per query.
#
#   bench/knobs.sh CLIENTS 'FLAGS' 'OTHER FLAGS'...      an empty string: the defaults; --smoke: two sets, briefly
#   ROUNDS=7 SECONDS_EACH=2                              override the defaults
#
# Starts a private PostgreSQL 15 and one gateway for each set of flags (one shard unless they say otherwise, a grant, group-
# committed audit), runs `pgbench -S -M prepared -j 1` through each in rounds, each in another order, and prints medians.
. "$(dirname "$0")/lib.sh"
case ${1:-} in
  [0-9]*) [ $# -ge 2 ] || begin wrong-usage; clients=$1; shift; sets=("$@"); begin ;;
  *) begin "${1:---help}"; clients=4 sets=("" "--shards 2") ;;
esac
default ROUNDS 7 1
default SECONDS_EACH 2 1
cargo_build -p lockgate

start_postgres
pgbench_tables
issuer
for index in "${!sets[@]}"; do
  # shellcheck disable=SC2086 # flags are words
  start_gateway "set$index" "${port[postgres]}" group ${sets[$index]} </dev/null
done

manifest "$clients clients, $ROUNDS rounds of $SECONDS_EACH s each, pgbench -S -M prepared"
order "$(for flags in "${sets[@]}"; do echo "${flags:-(defaults)}"; done)"
for round in $(seq "$ROUNDS"); do
  for index in $(shuffled "${!sets[@]}"); do
    pgbench_round "${sets[$index]:-(defaults)}" "$round" "set$index" -S -M prepared -c "$clients" -T "$SECONDS_EACH"
  done
done
table flags "${sets[0]:-(defaults)}"
