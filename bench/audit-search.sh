#!/usr/bin/env bash
# How long questions to a large archive take: fills one with made-up records and asks it (the median of five runs, files in
# the page cache).
#
#   bench/audit-search.sh [RECORDS]      default ten million: 150 MB below TMPDIR, removed at the end
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tests/prepare.sh"
records=${1:-10000000}
bin=$CARGO_TARGET_DIR/release
cd "$root"
"$CARGO" build --release -q -p lockgate -p lockgate-bench --bin lockgate --bin archive-fill
dir=$(mktemp -d "${TMPDIR:-/tmp}/lockgate-search.XXXXXX")
trap 'rm -rf "$dir"' EXIT
began=$(date +%s.%N)
"$bin/archive-fill" "$dir" "$records"
awk -v began="$began" -v now="$(date +%s.%N)" -v records="$records" \
  'BEGIN { printf "filled: %d records in %.1f s\n", records, now - began }'
echo "archive: $(du -sm "$dir/archive/parquet" | cut -f1) MB in $(find "$dir/archive/parquet" -type f | wc -l) files"

ask() { # what, arguments of search...
  local what=$1 times=() began found; shift
  for _ in 1 2 3 4 5; do
    began=$(date +%s%N)
    found=$("$bin/lockgate" audit search --dir "$dir" -o json "$@" | wc -l)
    times+=($((($(date +%s%N) - began) / 1000000)))
  done
  printf '%-62s %7d found  %6d ms\n' "$what" "$found" "$(printf '%s\n' "${times[@]}" | sort -n | sed -n 3p)"
}
hour=(--since 2026-11-20T03:00:00Z --until 2026-11-20T04:00:00Z)
ask "one user, one table, one hour" --user user0001@example.com --table public.table003 "${hour[@]}"
ask "one user, one table by its bare name, one hour" --user user0001@example.com --table table003 "${hour[@]}"
ask "one user, one hour" --user user0001@example.com "${hour[@]}"
ask "a text in statements, one hour" --contains 'account = 4711 ' "${hour[@]}"
ask "one user, one table, the whole day" --user user0001@example.com --table public.table003
ask "a user who is not there, the whole day" --user nobody@example.com
ask "a text in statements, the whole day" --contains 'account = 4711 '
