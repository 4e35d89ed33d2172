#!/usr/bin/env bash
# What large statements cost their neighbours on the same shard: the longest answer of a client that asks SELECT 1 every 2 ms while
# another sends one large text, and how long that took.
#
#   bench/large.sh            --smoke: one round of small texts, to see that it works
#   ROUNDS=3 MEGABYTES="1 4 16" KINDS="values literal statements" PEERS="pgbouncer on"
#
# values: rows of a multi-row VALUES, as a bulk INSERT has them; literal: one long constant; statements: many in one Query. Lockgate has
# everything on, one shard. Texts of more than 300,000 words and signs are refused by it (answered, and marked).
. "$(dirname "$0")/lib.sh"
begin "$@"
default ROUNDS 3 1
default MEGABYTES "1 4 16" 0.1
default KINDS "values literal statements" values
default PEERS "pgbouncer on" "pgbouncer on"
cargo_build -p lockgate

start_postgres
issuer
start_pgbouncer pgbouncer "${port[postgres]}" <<<'max_packet_size = 2147483647'
start_gateway on "${port[postgres]}" group --payloads masked < <(everything)

manifest "$ROUNDS rounds, one large text after the other"
rows=()
for kind in $KINDS; do for megabytes in $MEGABYTES; do for peer in $PEERS; do rows+=("$kind | $megabytes | $peer"); done; done; done
order "${rows[@]}"
for round in $(seq "$ROUNDS"); do
  for row in "${rows[@]}"; do
    IFS=' |' read -r kind megabytes peer <<<"$row"
    python3 bench/large.py sample "$row" "${port[$peer]}" "$kind" "$megabytes" >>"$dir/samples"
  done
done
python3 bench/large.py table "$dir/samples" "$dir/order"
