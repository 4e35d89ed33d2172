#!/usr/bin/env bash
# Lockgate's test command: installs what it needs from Debian, builds, checks, and runs every suite against real
# servers and real clients. Quick the second time.
#
#   tests/run.sh                  format, lints, unit tests, and the integration suites
#   tests/run.sh --full           the same, and the long ones: PostgreSQL's own suites, 2,000 crash rounds, 100,000 flipped
#                                 bits, 10,000 power cuts, JDBC, pgx, object stores, Kafka, the instruction budget, the scripts of
#                                 bench/
#   tests/run.sh --suite NAME     one integration suite alone (again for more); a wrong name lists them
#   tests/run.sh --direct         the integration suites straight at PostgreSQL, to try the tests themselves
#
# LOCKGATE_CACHE (default ~/.cache/lockgate) keeps the build and the client libraries; CARGO_TARGET_DIR overrides its target/.
# Everything started here listens on free loopback ports and is ended here. Exit status: 0 all passed, 1 something failed,
# 2 wrong usage, 3 could not run.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tests/prepare.sh"

full= direct= suites=()
while [ $# -gt 0 ]; do
  case $1 in
    --full) full=1 ;;
    --direct) direct=1 ;;
    --suite) [ $# -ge 2 ] || { echo "--suite needs a name" >&2; exit 2; }; suites+=("$2"); shift ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "unknown argument: $1 (see --help)" >&2; exit 2 ;;
  esac
  shift
done

passed=0 failed=0
run_dir=$(mktemp -d "${TMPDIR:-/tmp}/lockgate-tests.XXXXXX")
chmod 755 "$run_dir" # servers that run as another user live below it
runner_pid=

finish() {
  [ -n "$runner_pid" ] && kill "$runner_pid" 2>/dev/null && wait "$runner_pid" 2>/dev/null
  # What a killed runner could not end itself: only servers whose data is in our own directory.
  for pid_file in "$run_dir"/*/data/postmaster.pid "$run_dir"/*/*.pid; do
    [ -f "$pid_file" ] && kill -QUIT "$(head -n 1 "$pid_file")" 2>/dev/null
  done
  if [ -n "${LOCKGATE_KEEP:-}" ]; then echo "kept: $run_dir"; else rm -rf "$run_dir"; fi
}
trap finish EXIT
trap 'exit 130' INT TERM

count() { # ok|failed, what: one line of the summary
  if [ "$1" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  echo "$1: $2"
}

check() { # name, command...: a step that passes or fails as a whole
  local name=$1; shift
  if step "$name" "$@"; then count ok "$name"; else count failed "$name"; fi
}

cargo_tests() { # runs the workspace's tests and adds their numbers to ours
  local log=$run_dir/cargo-test.log status
  [ -n "$full" ] && export POWERLOSS_SEEDS=2500
  LOCKGATE_NEEDS_BROWSER=1 "$CARGO" test --release --workspace "${features[@]}" --no-fail-fast 2>&1 | tee "$log" | grep -vE '^(test .* ok|running [0-9]+ tests?)?$'
  status=${PIPESTATUS[0]}
  read -r unit_passed unit_failed < <(awk '/^test result:/ { p += $4; f += $6 } END { print p + 0, f + 0 }' "$log")
  [ "$status" -ne 0 ] && [ "$unit_failed" -eq 0 ] && unit_failed=1 # a test that did not compile, or a crash
  passed=$((passed + unit_passed)) failed=$((failed + unit_failed))
  return "$status"
}

integration() { # the suites of tests/src/suites, counted by the runner itself
  local log=$run_dir/runner.log arguments=(--run-dir "$run_dir") suite
  [ -n "$full" ] && arguments+=(--full)
  [ -n "$direct" ] && arguments+=(--direct)
  for suite in ${suites[@]+"${suites[@]}"}; do arguments+=(--suite "$suite"); done
  "$CARGO_TARGET_DIR/release/lockgate-tests" "${arguments[@]}" > >(tee "$log") &
  runner_pid=$!
  wait "$runner_pid"
  local status=$?
  runner_pid=
  local more_passed=0 more_failed=0
  read -r more_passed more_failed < <(sed -n 's/^suites: \([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$log" | tail -n 1)
  [ "$status" -ne 0 ] && [ "${more_failed:-0}" -eq 0 ] && more_failed=1 # it died before it could say
  passed=$((passed + ${more_passed:-0})) failed=$((failed + ${more_failed:-0}))
  return "$status"
}

build() { "$CARGO" build --release -p lockgate -p lockgate-loadgen -p lockgate-tests ${wants_bench:+-p lockgate-bench --bins} "${features[@]}"; }

echo "Lockgate tests. Build and client libraries are kept in $LOCKGATE_CACHE"
wants_postgres_suites=$full wants_java=$full wants_go=$full wants_bench=$full wants_store=$full wants_kafka=$full wants_receivers=
[ ${#suites[@]} -eq 0 ] && [ -z "$direct" ] && wants_receivers=1
for suite in ${suites[@]+"${suites[@]}"}; do
  case $suite in
    regress | isolation) wants_postgres_suites=1 ;;
    jdbc) wants_java=1 ;;
    pgx) wants_go=1 ;;
    bench) wants_bench=1 ;;
    sinks) wants_receivers=1 ;;
    store) wants_store=1 ;;
    kafka) wants_kafka=1 ;;
  esac
done
# Object stores and Kafka are cargo features: built in only where their suites run. Unit tests are built with the same, or the
# gateway they leave behind would be another than the suites want.
features=(${wants_store:+--features lockgate/object-store} ${wants_kafka:+--features lockgate/kafka})
packages=("${build_packages[@]}" "${server_packages[@]}" "${client_packages[@]}")
[ -n "$wants_postgres_suites" ] && packages+=("${regress_packages[@]}")
[ -n "$wants_java" ] && packages+=("${java_packages[@]}")
[ -n "$full$wants_bench" ] && packages+=("${count_packages[@]}")
[ -n "$wants_bench" ] && packages+=("${bench_packages[@]}")
[ -n "$wants_kafka" ] && packages+=("${kafka_packages[@]}")
[ -n "$wants_go" ] && packages+=("${go_packages[@]}")
[ ${#suites[@]} -eq 0 ] && [ -z "$direct" ] && packages+=("${browser_packages[@]}") # unit tests run then
step "Debian packages" install_packages "${packages[@]}" || exit 3
step "Rust" require_rust || exit 3
step "room on disk" require_room 12 || exit 3
step "Python client libraries" prepare_python || exit 3
step "Node client libraries" prepare_node || exit 3
if [ -n "$wants_receivers$wants_store" ]; then step "Receivers of audit events: Python" prepare_receivers || exit 3; fi
if [ -n "$wants_receivers" ]; then step "Receivers of audit events: rsyslog" prepare_rsyslog || exit 3; fi
if [ -n "$wants_postgres_suites" ]; then
  step "PostgreSQL's own suites: fetch" fetch_postgres_suites || exit 3
  step "PostgreSQL's own suites: unpack" unpack_postgres_suites "$run_dir/postgres-suites" || exit 3
fi
cd "$root" || exit 3

if [ ${#suites[@]} -eq 0 ] && [ -z "$direct" ]; then
  check "cargo fmt --check" "$CARGO" fmt --all --check
fi
if ! step "build" build; then
  count failed "build"
else
  if [ ${#suites[@]} -eq 0 ] && [ -z "$direct" ]; then
    check "cargo clippy" "$CARGO" clippy --release --workspace --all-targets "${features[@]}" -- -D warnings
    step "unit tests" cargo_tests
    [ -n "$full" ] && check "instructions a statement" bench/instructions.sh
  fi
  step "integration suites" integration
fi

echo
echo "took ${SECONDS} s"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
