#!/usr/bin/env bash
# What a tuning flag of `lockgate serve` does to throughput, latency and CPU per query.
#
#   bench/knobs.sh CLIENTS 'FLAGS' 'OTHER FLAGS'...      an empty string: the defaults
#   ROUNDS=5 SECONDS_EACH=2                              override the defaults
#
# Starts a private PostgreSQL 15 and one gateway for each set of flags (one shard unless they say otherwise, a grant, group-
# committed audit), runs `pgbench -S -M prepared -j 1` through each in interleaved rounds and prints medians.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
ROUNDS=${ROUNDS:-5} SECONDS_EACH=${SECONDS_EACH:-2} BIN=/usr/lib/postgresql/15/bin
lockgate=${CARGO_TARGET_DIR:-target}/release/lockgate clients=$1
shift
[ -n "${BUILT:-}" ] || cargo build -q --release -p lockgate
dir=$(mktemp -d /tmp/lockgate-knobs.XXXXXX) pids=()
as_postgres() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
cleanup() {
  for pid in ${pids[@]+"${pids[@]}"}; do kill "$pid" 2>/dev/null || true; done
  wait
  as_postgres "$BIN/pg_ctl" -D "$dir/pg" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$dir"
}
trap cleanup EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
await_port() { for _ in $(seq 100); do (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return; sleep 0.1; done; echo "nothing answers on port $1" >&2; exit 1; }
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

chmod 755 "$dir"
[ "$(id -u)" = 0 ] && chown postgres "$dir"
pg=$(free_port)
as_postgres "$BIN/initdb" -D "$dir/pg" -A trust -U postgres >/dev/null
as_postgres "$BIN/pg_ctl" -D "$dir/pg" -w -l "$dir/pg.log" -o "-p $pg -k $dir -c listen_addresses=127.0.0.1 -c max_connections=300" start >/dev/null
as_postgres "$BIN/pgbench" -i -s 10 -q -h 127.0.0.1 -p "$pg" postgres >/dev/null 2>&1
"$lockgate" token --new-issuer "$dir/issuer" 2>/dev/null
PGPASSWORD=$("$lockgate" token --issuer-key "$dir/issuer/issuer.pem" --user bench@example.com --ttl 1d 2>/dev/null)
export PGPASSWORD
echo unused >"$dir/password"
ports=()
for flags in "$@"; do
  port=$(free_port) home=$dir/${#ports[@]}
  ports+=("$port")
  mkdir "$home"
  cat >"$home/lockgate.toml" <<TOML
server = { shards = 1, data_dir = "data", pin = false }
ops = { address = "127.0.0.1:$(free_port)" }
listener = [{ protocol = "postgres", address = "127.0.0.1:$port" }]
issuer = [{ name = "dev", issuer = "lockgate-development", audience = "lockgate", algorithms = ["ES256"], jwks_file = "$dir/issuer/jwks.json" }]
target = [{ name = "postgres", protocol = "postgres", address = "127.0.0.1:$pg", database = "postgres", user = "postgres", password_file = "$dir/password", tls = "disable" }]
grant = [{ targets = ["postgres"] }]
TOML
  # shellcheck disable=SC2086 # flags are words
  "$lockgate" serve --config "$home/lockgate.toml" $flags 2>"$home/log" & pids+=($!)
done
for port in "${ports[@]}"; do await_port "$port"; done

for round in $(seq "$ROUNDS"); do
  for index in "${!ports[@]}"; do
    before=$(ticks "${pids[$index]}")
    out=$("$BIN/pgbench" -S -M prepared -n -j 1 -c "$clients" -T "$SECONDS_EACH" -h 127.0.0.1 -p "${ports[$index]}" -U postgres postgres 2>&1) \
      || { echo "$out" >&2; exit 1; }
    after=$(ticks "${pids[$index]}")
    awk -v i="$index" -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" '
      /actually processed/ { n = $6 } /latency average/ { ms = $4 } /^tps/ { tps = $3 }
      END { printf "%d %.0f %.1f %.2f\n", i, tps, ms * 1000, ticks / hz * 1e6 / n }' <<<"$out" >>"$dir/samples"
  done
done
echo "commit $(git rev-parse --short HEAD), $(nproc) cores, $clients clients, $ROUNDS rounds of $SECONDS_EACH s"
echo "| flags | queries a second | latency us | CPU us per query |"
echo "|---|---|---|---|"
index=0
for flags in "$@"; do
  python3 - "$dir/samples" "$index" "${flags:-(defaults)}" <<'PY'
import statistics, sys
rows = [list(map(float, line.split()))[1:] for line in open(sys.argv[1]) if line.split()[0] == sys.argv[2]]
tps, us, cpu = (statistics.median(column) for column in zip(*rows))
print(f"| `{sys.argv[3]}` | {tps:.0f} | {us:.0f} | {cpu:.1f} |")
PY
  index=$((index + 1))
done
