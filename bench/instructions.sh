#!/usr/bin/env bash
# Counts the instructions of one statement inside the gateway, without sockets, and holds them against bench/budget.toml:
# the same on a busy machine as on a quiet one. Needs valgrind.
#
#   bench/instructions.sh            count and judge; exit status 1: over the budget, 3: could not count
#   bench/instructions.sh --print    count, and print lines for the budget with 10 % on top
#   MODES="prepared repeated simple"    the default, each with a budget: prepared, the same simple Query again and again, one with a new
#                                    constant each time
#   FEATURES="off unrecorded on" bench/instructions.sh --print    off: login and grant; on: rules, masks, detectors, and each
#                                    response recorded; unrecorded: the same with payloads = "none"
#
# The difference between a run of 12,000 statements and one of 2,000 leaves start and login out.
set -euo pipefail
cd "$(dirname "$0")/.."
print=
case ${1:-} in
  '') ;;
  --print) print=1 ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; [ "$1" = --help ] || exit 2; exit 0 ;;
esac
command -v valgrind >/dev/null || { echo "valgrind is missing: apt-get install valgrind" >&2; exit 3; }
rounds=${CARGO_TARGET_DIR:-target}/release/gate-rounds
[ -n "${BUILT:-}" ] || "${CARGO:-cargo}" build -q --release -p lockgate-bench --bin gate-rounds || exit 3
dir=$(mktemp -d "${TMPDIR:-/tmp}/lockgate-instructions.XXXXXX")
trap 'rm -rf "$dir"' EXIT

counted() { # features, mode, statements
  local log=$dir/log
  TMPDIR=$dir valgrind --tool=callgrind --callgrind-out-file=/dev/null "$rounds" "$1" "$2" "$3" >"$log" 2>&1 || { cat "$log" >&2; exit 3; }
  awk '/Collected :/ { print $4; found = 1 } END { exit !found }' "$log" || { cat "$log" >&2; exit 3; }
}

status=0
for mode in ${MODES:-prepared repeated simple}; do
  for features in ${FEATURES:-off on}; do
    few=$(counted $features $mode 2000) && many=$(counted $features $mode 12000) || exit 3
    each=$(((many - few) / 10000))
    name=${mode}_$features
    if [ -n "$print" ]; then
      echo "$name = $(((each * 11 + 9) / 10))    # counted: $each"
      continue
    fi
    budget=$(sed -n "s/^$name = \([0-9]*\).*/\1/p" bench/budget.toml)
    [ -n "$budget" ] || { echo "bench/budget.toml has no line for $name" >&2; exit 3; }
    if [ "$each" -le "$budget" ]; then verdict=ok; else verdict=OVER status=1; fi
    printf '%-14s %8d instructions a statement, budget %8d: %s\n' "$name" "$each" "$budget" "$verdict"
  done
done
exit $status
