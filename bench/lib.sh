# What the scripts of this folder share: a private PostgreSQL and the proxies on free loopback ports, the manifest, the clean-up.
# Sourced, not run. A script calls `begin` first, starts what it needs (each server has a name, its `port` and its `pid`), and
# everything is ended when it exits. Environment: ROUNDS, SECONDS_EACH (lengths), BUILT=1 (build nothing).
#
# Needs Debian's postgresql-15, pgbouncer and haproxy, and python3.
set -euo pipefail
SCRIPT=$(realpath "$0")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BIN=/usr/lib/postgresql/15/bin
RELEASE=${CARGO_TARGET_DIR:-target}/release LOCKGATE=$RELEASE/lockgate LOADGEN=$RELEASE/lockgate-loadgen
declare -A pid=() port=()
SMOKE= dir= AS_POSTGRES=()
export PYTHONPATH=$PWD/bench PYTHONDONTWRITEBYTECODE=1 # rounds.py, for every script

begin() { # the script's own arguments: --smoke (everything once and briefly, to see that it works) or --help
  case ${1:-} in
    '') ;;
    --smoke) SMOKE=1 ;;
    *) sed -n '2,/^set\|^\. /{/^#/s/^# \{0,1\}//p}' "$SCRIPT"; [ "$1" = --help ] || exit 2; exit 0 ;;
  esac
  dir=$(mktemp -d "${TMPDIR:-/tmp}/lockgate-bench.XXXXXX")
  chmod 755 "$dir"
  # setpriv becomes what it starts: the process we know is the server itself.
  [ "$(id -u)" = 0 ] && AS_POSTGRES=(setpriv --reuid=postgres --regid=postgres --init-groups) && chown postgres "$dir"
  trap clean_up EXIT
  trap 'exit 130' INT TERM
}

default() { # variable, value, value in a smoke test: unless the caller has set it
  local value=$2
  [ -z "$SMOKE" ] || value=$3
  [ -n "${!1:-}" ] || printf -v "$1" %s "$value"
}

clean_up() {
  for server in "${pid[@]}"; do kill "$server" 2>/dev/null || true; done
  for _ in $(seq 50); do jobs -r | grep -q . || break; sleep 0.1; done
  for server in "${pid[@]}"; do kill -9 "$server" 2>/dev/null || true; done
  [ ! -d "$dir/pg" ] || "${AS_POSTGRES[@]}" "$BIN/pg_ctl" -D "$dir/pg" -m immediate stop >/dev/null 2>&1 || true
  wait
  [ -n "${KEEP:-}" ] || rm -rf "$dir"
}

cargo_build() { [ -n "${BUILT:-}" ] || "${CARGO:-cargo}" build -q --release "$@"; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
await_port() { # name: until it listens
  for _ in $(seq 200); do (: <"/dev/tcp/127.0.0.1/${port[$1]}") 2>/dev/null && return; sleep 0.1; done
  echo "$1 does not answer on port ${port[$1]}" >&2
  cat "$dir/$1.log" >&2 2>/dev/null || true
  exit 1
}
cpu_ns() { # server: nanoseconds so far, its own and its children's; 0 where nothing is between
  if [ -n "${pid[$1]:-}" ]; then python3 bench/process.py cpu "${pid[$1]}"; else echo 0 0; fi
}
# What a server used between the two, in own_ns and children_ns. Children work on when a round is over (an archiver has the round's records
# still to read): what they used since the server's last round counts with this one, unless `settle` was called meanwhile.
declare -A children_at=()
cpu_begins() { # server
  read -r own_before children_before < <(cpu_ns "$1")
  children_before=${children_at[${pid[$1]:-none}]:-$children_before}
}
cpu_ends() { # server
  local own children
  read -r own children < <(cpu_ns "$1")
  own_ns=$((own - own_before)) children_ns=$((children - children_before)) children_at[${pid[$1]:-none}]=$children
}
settle() { # before rounds of another kind: children finish what came before, which nobody counts
  [ -n "$SMOKE" ] || sleep 2
  children_at=()
}
shuffled() { shuf -e -- "$@"; }
order() { printf '%s\n' "$@" >"$dir/order"; } # of a table's rows: each round has another
run_server() { # name, command...
  local name=$1; shift
  "$@" >"$dir/$name.log" 2>&1 & pid[$name]=$!
}

# What is measured: one commit, and programs as they lie there. Who runs several scripts says it once, in MEASURED, for all of them.
measured() {
  [ -z "${MEASURED:-}" ] || { echo "$MEASURED"; return; }
  echo "commit: $(git rev-parse --short HEAD 2>/dev/null || echo unknown)$([ -z "$(git status --porcelain -- . ':!bench/RESULTS.md' 2>/dev/null)" ] || echo ', and changes that are in no commit')"
  echo "programs: $(program "$LOCKGATE"), $(program "$LOADGEN")${BUILT:+; built before, not by this run}"
}
program() { # file
  if [ -f "$1" ]; then echo "${1##*/} sha256 $(sha256sum "$1" | cut -c1-12)"; else echo "no ${1##*/}"; fi
}
manifest() { # what was run, on what
  echo "machine: $(uname -sr), $(nproc) cores, $(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo), $(awk '/MemTotal/ { printf "%.1f GiB", $2 / 1048576 }' /proc/meminfo)"
  echo "peers: PostgreSQL $("$BIN/postgres" --version | awk '{ print $3 }'), $(pgbouncer --version | head -1), HAProxy $(haproxy -v | awk '{ print $3; exit }')"
  measured
  echo "what: $*"
  echo "date: $(date -u +%FT%TZ), load average $(cut -d' ' -f1-3 /proc/loadavg)"
  echo
}

start_postgres() { # further options of the server
  port[postgres]=$(free_port)
  "${AS_POSTGRES[@]}" "$BIN/initdb" -D "$dir/pg" -A trust -U postgres --no-sync >/dev/null
  "${AS_POSTGRES[@]}" "$BIN/pg_ctl" -D "$dir/pg" -w -l "$dir/pg.log" -o "-p ${port[postgres]} -k $dir -c listen_addresses=127.0.0.1 \
    -c max_connections=300 -c shared_buffers=128MB $*" start >/dev/null || { cat "$dir/pg.log" >&2; exit 1; }
}
sql() { "$BIN/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "${port[postgres]}" -U postgres postgres "$@"; }
pgbench_tables() { "$BIN/pgbench" -i -s "${SCALE:-10}" -q -h 127.0.0.1 -p "${port[postgres]}" -U postgres postgres >/dev/null 2>&1; }

certificate() { # one for this machine, in cert.pem and key.pem: its own authority
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
    -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
  chmod 600 "$dir/key.pem"
  [ ${#AS_POSTGRES[@]} -eq 0 ] || chown postgres "$dir/key.pem"
}

start_pgbouncer() { # name, target's port; further lines of its configuration on standard input
  port[$1]=$(free_port)
  { cat <<INI; cat -; } >"$dir/$1.ini"
[databases]
postgres = host=127.0.0.1 port=$2 user=postgres dbname=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port[$1]}
auth_type = any
pool_mode = session
max_client_conn = ${CONNECTIONS:-1000}
default_pool_size = ${CONNECTIONS:-1000}
unix_socket_dir =
logfile = /dev/null
INI
  chmod 644 "$dir/$1.ini"
  run_server "$1" "${AS_POSTGRES[@]}" pgbouncer -q "$dir/$1.ini"
  await_port "$1"
}

start_haproxy() { # name, target's port
  port[$1]=$(free_port)
  cat >"$dir/$1.cfg" <<CFG
global
  nbthread 1
  maxconn ${CONNECTIONS:-1000}
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen pg
  bind 127.0.0.1:${port[$1]}
  server pg 127.0.0.1:$2
CFG
  run_server "$1" haproxy -f "$dir/$1.cfg" -db
  await_port "$1"
}

start_relay() { # name, target's port: our shard, nothing understood
  port[$1]=$(free_port)
  run_server "$1" "$RELEASE/bare-relay" "127.0.0.1:${port[$1]}" "127.0.0.1:$2"
  await_port "$1"
}

start_respond() { # name, arguments of lockgate-loadgen respond
  port[$1]=$(free_port)
  run_server "$1" "$LOADGEN" respond --port "${port[$1]}" "${@:2}"
  await_port "$1"
}

issuer() { # a development issuer, and a token of it in PGPASSWORD, where every client of these scripts finds it
  "$LOCKGATE" token --new-issuer "$dir/issuer" 2>/dev/null
  PGPASSWORD=$("$LOCKGATE" token --issuer-key "$dir/issuer/issuer.pem" --user bench@example.com --groups bench --ttl 7d 2>/dev/null)
  export PGPASSWORD
  echo unused >"$dir/password"
}

# Lockgate with a grant for everybody. Durability, then flags of `serve`; further configuration on standard input. LISTENER and
# TARGET: more keys of those tables, beginning with a comma.
start_gateway() { # name, target's port, durability, flags...
  local name=$1 target=$2 durability=$3; shift 3
  port[$name]=$(free_port)
  mkdir "$dir/$name"
  { cat <<TOML; cat -; } >"$dir/$name/lockgate.toml"
server = { shards = 1, data_dir = "data", pin = false }
ops = { address = "127.0.0.1:$(free_port)" }
web = { address = "127.0.0.1:$(free_port)" }
listener = [{ protocol = "postgres", address = "127.0.0.1:${port[$name]}"${LISTENER:-} }]
issuer = [{ name = "dev", issuer = "lockgate-development", audience = "lockgate", algorithms = ["ES256"], jwks_file = "$dir/issuer/jwks.json" }]
target = [{ name = "postgres", protocol = "postgres", address = "127.0.0.1:$target", database = "postgres", user = "postgres", password_file = "$dir/password", require_auth = "none"${TARGET:-, tls = \"disable\"} }]
grant = [{ targets = ["postgres"] }]
audit = { durability = "$durability" }
TOML
  run_server "$name" "$LOCKGATE" serve --config "$dir/$name/lockgate.toml" "$@"
  await_port "$name"
}

# What `on` means besides: ten deny rules, masks on two columns, four detectors. Masks on columns ask the target for its catalogue:
# a canned server has none, there `everything` takes the columns to leave out.
everything() {
  local class
  for class in drop truncate alter grant revoke copy_program do vacuum lock comment; do
    printf '[[rule]]\nname = "no-%s"\ntargets = ["postgres"]\nclasses = ["%s"]\naction = "deny"\n' "$class" "$class"
  done
  printf '[[mask]]\ntargets = ["postgres"]\n'
  [ "${1:-}" = without-columns ] || printf 'columns = ["pgbench_accounts.filler", "customers.card_number"]\n'
  printf 'detect = ["card", "email", "ssn", "iban"]\nstyle = "last4"\n'
}

# Runs pgbench at a server and adds a line to $dir/samples, as table.py wants them. What a statement took follows from how many there were, which
# pgbench rounds less than its milliseconds.
start_peers() { # what bench/cpu.sh describes
  start_postgres
  pgbench_tables
  port[direct]=${port[postgres]}
  issuer
  start_pgbouncer pgbouncer "${port[postgres]}" </dev/null
  start_haproxy haproxy "${port[postgres]}"
  start_relay relay "${port[postgres]}"
  start_gateway off "${port[postgres]}" async --payloads none </dev/null
  start_gateway on "${port[postgres]}" group --payloads masked < <(everything)
}

warm_up() { # servers: WARM_UP seconds of 64 clients that do not count
  local server
  for server in "$@"; do
    [ "$server" != direct ] || continue
    "$BIN/pgbench" -n -j 1 -h 127.0.0.1 -p "${port[$server]}" -U postgres -S -M "$MODE" -c 64 -T "$WARM_UP" postgres >"$dir/warm-up.log" 2>&1 ||
      { echo "$server:" >&2; cat "$dir/warm-up.log" >&2; exit 1; }
  done
}

pgbench_round() { # label, round, server, pgbench's arguments, -c N among them...
  local label=$1 round=$2 server=$3 out clients; shift 3
  clients=$(sed -n 's/.*-c \([0-9]*\).*/\1/p' <<<" $* ")
  cpu_begins "$server"
  out=$("$BIN/pgbench" -n -j 1 -h 127.0.0.1 -p "${port[$server]}" -U postgres "$@" postgres 2>&1) || { echo "$server: $out" >&2; exit 1; }
  cpu_ends "$server"
  awk -v label="$label" -v round="$round" -v own="$own_ns" -v children="$children_ns" -v clients="$clients" -v OFS='\t' '
    /actually processed/ { split($6, n, "/"); queries = n[1] } /^tps/ { tps = $3 }
    END { print label, round, own, children, queries, (tps > 0 ? clients * 1e6 / tps : 0), tps }' <<<"$out" >>"$dir/samples"
}

table() { # headings of the label's columns, FIRST, BARE: as table.py has them
  python3 bench/table.py "$dir/samples" "$dir/order" "$@"
}
