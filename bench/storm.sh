#!/usr/bin/env bash
# What a storm of new TLS sessions costs, against the handshakes alone: CPU of the gateway per session (accept, TLS handshake, token
# check, login at the target, two records, close), and of rustls by itself for the same handshake.
#
#   bench/storm.sh            --smoke: few sessions, to see that it works
#   ROUNDS=7 SESSIONS=1000
#
# The aim: at most 1.5 x rustls's own (bench/src/bin/handshakes.rs: same certificate, key exchange and cipher, both ends in memory, CPU of the server's side). Clients
# are pgbench -C, whose OpenSSL resumes no session: TLS 1.3, X25519, ECDSA P-256. The target is a canned server; `on` is without masks on columns. PgBouncer, which asks for
# no token and keeps its connections to the target, is beside it; so is our own storm without TLS.
. "$(dirname "$0")/lib.sh"
begin "$@"
default ROUNDS 7 1
default SESSIONS 1000 50
cargo_build -p lockgate-bench -p lockgate -p lockgate-loadgen --bins

certificate
start_respond behind
issuer
start_pgbouncer pgbouncer-tls "${port[behind]}" <<INI
client_tls_sslmode = require
client_tls_cert_file = $dir/cert.pem
client_tls_key_file = $dir/key.pem
INI
LISTENER=", tls = { cert = \"$dir/cert.pem\", key = \"$dir/key.pem\" }"
start_gateway off-tls "${port[behind]}" group </dev/null
port[off-plain]=${port[off-tls]} pid[off-plain]=${pid[off-tls]}
start_gateway on-tls "${port[behind]}" group < <(everything without-columns)

manifest "$ROUNDS rounds of $SESSIONS sessions each, eight at a time"
echo 'SELECT 1;' >"$dir/select.sql"
PEERS="off-plain off-tls on-tls pgbouncer-tls"
order rustls $PEERS
for round in $(seq "$ROUNDS"); do
  us=$("$RELEASE/handshakes" "$dir/cert.pem" "$dir/key.pem" "$SESSIONS")
  python3 -c "print('rustls', $round, $us * 1000 * $SESSIONS, 0, $SESSIONS, $us, 1e6 / $us, sep='\t')" >>"$dir/samples"
  for proxy in $(shuffled $PEERS); do
    case $proxy in *-tls) export PGSSLMODE=require ;; *) export PGSSLMODE=disable ;; esac
    pgbench_round "$proxy" "$round" "$proxy" -C -f "$dir/select.sql" -c 8 -t $((SESSIONS / 8))
  done
done
table session rustls
