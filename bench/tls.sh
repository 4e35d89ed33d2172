#!/usr/bin/env bash
# What TLS on both legs costs a query, beside the same without: Lockgate with everything on, and PgBouncer.
#
#   bench/tls.sh            --smoke: one short round, to see that it works
#   ROUNDS=7 SECONDS_EACH=2 CLIENTS="8 64"
#
# The aim: at most 1.6 x our own plaintext. One PostgreSQL 15 serves both; clients are pgbench -S -M prepared -j 1, which encrypts
# with OpenSSL. Sessions last for a round, so handshakes do not count (bench/storm.sh counts those).
. "$(dirname "$0")/lib.sh"
begin "$@"
default ROUNDS 7 1
default SECONDS_EACH 2 1
default CLIENTS "8 64" 4
cargo_build -p lockgate

certificate
start_postgres -c ssl=on -c "ssl_cert_file=$dir/cert.pem" -c "ssl_key_file=$dir/key.pem"
pgbench_tables
issuer
start_pgbouncer pgbouncer "${port[postgres]}" </dev/null
start_pgbouncer pgbouncer-tls "${port[postgres]}" <<INI
client_tls_sslmode = require
client_tls_cert_file = $dir/cert.pem
client_tls_key_file = $dir/key.pem
server_tls_sslmode = require
INI
start_gateway on "${port[postgres]}" group < <(everything)
LISTENER=", tls = { cert = \"$dir/cert.pem\", key = \"$dir/key.pem\" }"
TARGET=", tls = \"verify-full\", tls_ca = \"$dir/cert.pem\""
start_gateway on-tls "${port[postgres]}" group < <(everything)

manifest "$ROUNDS rounds of $SECONDS_EACH s each, pgbench -S -M prepared"
PEERS="on on-tls pgbouncer pgbouncer-tls"
order $PEERS
for clients in $CLIENTS; do
  settle
  for round in $(seq "$ROUNDS"); do
    for proxy in $(shuffled $PEERS); do
      case $proxy in *-tls) export PGSSLMODE=require ;; *) export PGSSLMODE=disable ;; esac
      pgbench_round "$clients | $proxy" "$round" "$proxy" -S -M prepared -c "$clients" -T "$SECONDS_EACH"
    done
  done
done
table "clients | proxy" on
