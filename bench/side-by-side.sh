#!/bin/bash
# What a query costs through the gateway, beside PgBouncer and HAProxy. No arguments.
#
# Starts a private PostgreSQL 15, PgBouncer (session mode), HAProxy (TCP mode), the bare relay (our shard, nothing
# understood) and Lockgate twice (off: token login and a grant, async audit; on: besides, ten deny rules, masks on two
# columns, four detectors, group-committed audit) on loopback, runs pgbench -S -j 1 through each in interleaved rounds, and
# prints CPU per query (user + system, from /proc/PID/stat) with the median over rounds of each round's ratio to PgBouncer.
#   ROUNDS=5 SECONDS_EACH=4 CLIENTS="1 8 64" MODE=prepared|simple|extended  override the defaults.
set -euo pipefail
cd "$(dirname "$0")/.."
ROUNDS=${ROUNDS:-5} SECONDS_EACH=${SECONDS_EACH:-4} CLIENTS=${CLIENTS:-1 8 64}
BIN=/usr/lib/postgresql/15/bin
MODE=${MODE:-prepared} PEERS=${PEERS:-pgbouncer haproxy relay off on}
RELEASE=${CARGO_TARGET_DIR:-target}/release RELAY=$RELEASE/bare-relay LOCKGATE=$RELEASE/lockgate
[ -n "${BUILT:-}" ] || cargo build -q --release -p lockgate-bench -p lockgate --bins

dir=$(mktemp -d /tmp/lockgate-relay.XXXXXX)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  as_postgres "$BIN/pg_ctl" -D "$dir/pg" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$dir"
}
trap cleanup EXIT

as_postgres() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
await_port() { for _ in $(seq 100); do (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return; sleep 0.1; done; echo "nothing answers on port $1" >&2; exit 1; }
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

chmod 755 "$dir"
[ "$(id -u)" = 0 ] && chown postgres "$dir"
pg=$(free_port)
as_postgres "$BIN/initdb" -D "$dir/pg" -A trust -U postgres >/dev/null
as_postgres "$BIN/pg_ctl" -D "$dir/pg" -w -l "$dir/pg.log" \
  -o "-p $pg -k $dir -c listen_addresses=127.0.0.1 -c max_connections=300 -c shared_buffers=128MB" start >/dev/null
as_postgres "$BIN/pgbench" -i -s 10 -q -h 127.0.0.1 -p "$pg" postgres >/dev/null 2>&1

bouncer=$(free_port)
cat >"$dir/pgbouncer.ini" <<INI
[databases]
postgres = host=127.0.0.1 port=$pg
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $bouncer
auth_type = any
pool_mode = session
max_client_conn = 500
default_pool_size = 200
unix_socket_dir =
logfile = /dev/null
INI
sed -i "s/port=$pg/port=$pg user=postgres/" "$dir/pgbouncer.ini"
chmod 644 "$dir/pgbouncer.ini"
as_postgres pgbouncer -q "$dir/pgbouncer.ini" & pids+=($!)

haproxy=$(free_port)
cat >"$dir/haproxy.cfg" <<CFG
global
  nbthread 1
  maxconn 1000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen pg
  bind 127.0.0.1:$haproxy
  server pg 127.0.0.1:$pg
CFG
haproxy -f "$dir/haproxy.cfg" -db & pids+=($!)

relay=$(free_port)
"$RELAY" "127.0.0.1:$relay" "127.0.0.1:$pg" & pids+=($!)

# Lockgate: a development issuer, one target, and for `on` everything the README's row names.
"$LOCKGATE" token --new-issuer "$dir/issuer" 2>/dev/null
token=$("$LOCKGATE" token --issuer-key "$dir/issuer/issuer.pem" --user bench@example.com --groups bench --ttl 7d 2>/dev/null)
echo unused >"$dir/password"
gateway() { # name, durability; further configuration on standard input
  mkdir "$dir/$1"
  { cat <<TOML; cat -; } >"$dir/$1/lockgate.toml"
server = { shards = 1, data_dir = "data", pin = false }
ops = { address = "127.0.0.1:$(free_port)" }
listener = [{ protocol = "postgres", address = "127.0.0.1:$3" }]
issuer = [{ name = "dev", issuer = "lockgate-development", audience = "lockgate", algorithms = ["ES256"], jwks_file = "$dir/issuer/jwks.json" }]
target = [{ name = "postgres", protocol = "postgres", address = "127.0.0.1:$pg", database = "postgres", user = "postgres", password_file = "$dir/password", tls = "disable" }]
grant = [{ targets = ["postgres"] }]
audit = { durability = "$2" }
TOML
  "$LOCKGATE" serve --config "$dir/$1/lockgate.toml" 2>"$dir/$1/log" & pids+=($!)
}
off=$(free_port) on=$(free_port)
gateway off async "$off" </dev/null
{
  for class in drop truncate alter grant revoke copy_program do vacuum lock comment; do
    printf '[[rule]]\nname = "no-%s"\ntargets = ["postgres"]\nclasses = ["%s"]\naction = "deny"\n' "$class" "$class"
  done
  printf '[[mask]]\ntargets = ["postgres"]\ncolumns = ["pgbench_accounts.filler", "customers.card_number"]\n'
  printf 'detect = ["card", "email", "ssn", "iban"]\nstyle = "last4"\n'
} >"$dir/everything"
gateway on group "$on" <"$dir/everything"
for port in $bouncer $haproxy $relay $off $on; do await_port "$port"; done
export PGPASSWORD=$token
pid_of() { python3 - "$1" <<'PY'
import os, sys
port = f"{int(sys.argv[1]):04X}"
inodes = {l.split()[9] for l in open("/proc/net/tcp") if l.split()[1].endswith(":" + port) and l.split()[3] == "0A"}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if any(os.readlink(f"/proc/{pid}/fd/{fd}")[8:-1] in inodes for fd in os.listdir(f"/proc/{pid}/fd")):
            print(pid); break
    except OSError: pass
PY
}
declare -A port=([pgbouncer]=$bouncer [haproxy]=$haproxy [relay]=$relay [off]=$off [on]=$on) pid
pid[pgbouncer]=$(pid_of "$bouncer")
pid[relay]=$(pid_of "$relay")
pid[haproxy]=$(pid_of "$haproxy")
pid[off]=$(pid_of "$off")
pid[on]=$(pid_of "$on")
# runuser does not pass signals on: end the pooler itself.
pids+=("${pid[pgbouncer]}")

echo "machine: $(uname -sr), $(nproc) cores, $(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo), $(awk '/MemTotal/ { printf "%.1f GiB", $2 / 1048576 }' /proc/meminfo)"
echo "peers: PostgreSQL $($BIN/postgres --version | awk '{ print $3 }'), $(pgbouncer --version | head -1), HAProxy $(haproxy -v | awk '{ print $3; exit }')"
echo "commit: $(git rev-parse --short HEAD)$(git diff --quiet HEAD || echo ' and changes'), $ROUNDS rounds of $SECONDS_EACH s each, pgbench -S -M $MODE"
echo "date: $(date -u +%FT%TZ)"

samples=$dir/samples
for clients in $CLIENTS; do
  for round in $(seq "$ROUNDS"); do
    for proxy in $PEERS; do
      before=$(ticks "${pid[$proxy]}")
      out=$("$BIN/pgbench" -S -M "$MODE" -n -j 1 -c "$clients" -T "$SECONDS_EACH" -h 127.0.0.1 -p "${port[$proxy]}" -U postgres postgres 2>&1) \
        || { echo "$out" >&2; exit 1; }
      after=$(ticks "${pid[$proxy]}")
      queries=$(awk '/number of transactions actually processed/ { print $6 }' <<<"$out")
      latency=$(awk '/latency average/ { print $4 }' <<<"$out")
      echo "$clients $round $proxy $((after - before)) $queries $latency" >>"$samples"
    done
  done
done
python3 - "$samples" "$(getconf CLK_TCK)" <<'PY'
import collections, statistics, sys
tick = 1e6 / int(sys.argv[2])
cost, latency = collections.defaultdict(dict), collections.defaultdict(dict)
for line in open(sys.argv[1]):
    clients, rnd, proxy, ticks, queries, ms = line.split()
    cost[int(clients), proxy][rnd] = int(ticks) * tick / int(queries)
    latency[int(clients), proxy][rnd] = float(ms) * 1000
print("| clients | proxy | CPU us per query | over PgBouncer | latency us | over PgBouncer |")
print("|---|---|---|---|---|---|")
for (clients, proxy), samples in cost.items():
    ratio = statistics.median(samples[r] / cost[clients, "pgbouncer"][r] for r in samples)
    slow = statistics.median(latency[clients, proxy][r] / latency[clients, "pgbouncer"][r] for r in samples)
    cpu, lat = statistics.median(samples.values()), statistics.median(latency[clients, proxy].values())
    print(f"| {clients} | {proxy} | {cpu:.2f} | {ratio:.2f} | {lat:.0f} | {slow:.2f} |")
PY
