#!/usr/bin/env bash
# What an idle session costs in memory: Lockgate (off and on), PgBouncer and HAProxy with many sessions open that ask for one
# answer in 20 s each.
#
#   bench/idle.sh            --smoke: 200 sessions, to see that it works
#   SESSIONS=10000
#
# The aim: at most 1.5 x PgBouncer's. PostgreSQL cannot hold that many backends, so each proxy has a canned server of its own behind it
# (lockgate-loadgen respond); lockgate-loadgen logs in on every connection and asks over each in turn (PgBouncer connects to
# its server only then). `on` is without masks on columns.
# Memory is the process's own, and with the processes it has started (a gateway's archiver); what processes share counts in parts (Pss). `kernel` is what the kernel's memory (slab, sockets) grew by for both ends of both legs, which is the
# same whoever the proxy is. Needs two descriptors a session, and what
# the gateway keeps for itself: where they are not to be had, there are fewer sessions.
. "$(dirname "$0")/lib.sh"
begin "$@"
default SESSIONS 10000 200
default TURN_S 20 3
cargo_build -p lockgate -p lockgate-loadgen
need=$((2 * SESSIONS + 400))
ulimit -Sn "$(ulimit -Hn)"
if [ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -lt "$need" ] && (ulimit -Hn "$need") 2>/dev/null; then
  ulimit -Hn "$need"
  ulimit -Sn "$need"
fi
if [ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -lt "$need" ]; then
  SESSIONS=$((($(ulimit -n) - 400) / 2))
  echo "only $(ulimit -n) open files are allowed here: $SESSIONS sessions" >&2
fi
CONNECTIONS=$((SESSIONS + 10))

memory_kib() { python3 bench/process.py memory "${pid[$1]}"; } # its own, and with its children
kernel_kib() { awk '/^(Slab|KernelStack|PageTables):/ { kib += $2 } END { print kib }' /proc/meminfo; }
issuer
manifest "$SESSIONS sessions"
echo "| proxy | sessions | MiB before | MiB with them idle | KiB a session | over pgbouncer | MiB with its children | with children over pgbouncer | kernel, KiB a session |"
echo "|---|---|---|---|---|---|---|---|---|"
for proxy in pgbouncer haproxy off on; do
  start_respond "behind-$proxy"
  target=${port[behind-$proxy]}
  case $proxy in
    pgbouncer) start_pgbouncer pgbouncer "$target" </dev/null ;;
    haproxy) start_haproxy haproxy "$target" ;;
    off) start_gateway off "$target" async --login-timeout 2m </dev/null ;;
    on) start_gateway on "$target" group --login-timeout 2m < <(everything without-columns) ;;
  esac
  read -r before _ < <(memory_kib "$proxy")
  kernel=$(kernel_kib)
  "$LOADGEN" run --target "postgres://postgres@127.0.0.1:${port[$proxy]}/postgres" --connections "$SESSIONS" \
    --rate $((SESSIONS / TURN_S)) --duration 600s --warmup 0s --lag-limit 10s --timeout 60s -o json >"$dir/idle.log" 2>&1 & load=$!
  # All are open when the server behind has a connection for each.
  open() { ss -Htn state established "sport = :$target" | wc -l; }
  for _ in $(seq 1200); do [ "$(open)" -ge "$SESSIONS" ] && break; kill -0 $load 2>/dev/null || { cat "$dir/idle.log" >&2; exit 1; }; sleep 0.1; done
  [ "$(open)" -ge "$SESSIONS" ] || { echo "$proxy: only $(open) sessions opened" >&2; exit 1; }
  # Each has asked at least once, and has had time to fall silent again.
  sleep $((TURN_S + 5))
  kill -0 $load 2>/dev/null || { cat "$dir/idle.log" >&2; exit 1; }
  read -r after all < <(memory_kib "$proxy")
  kernel=$(($(kernel_kib) - kernel))
  kill $load; wait $load || true
  each=$(python3 -c "print(f'{($after - $before) / $SESSIONS:.2f}')")
  [ "$proxy" != pgbouncer ] || of=$after of_all=$all
  python3 -c "print(f'| $proxy | $SESSIONS | {$before / 1024:.1f} | {$after / 1024:.1f} | $each | {$after / $of:.2f} | {$all / 1024:.1f} | {$all / $of_all:.2f} | {$kernel / $SESSIONS:.1f} |')"
  kill "${pid[$proxy]}" "${pid[behind-$proxy]}"
  for server in "${pid[$proxy]}" "${pid[behind-$proxy]}"; do wait "$server" 2>/dev/null || true; done
  unset "pid[$proxy]" "pid[behind-$proxy]"
done
