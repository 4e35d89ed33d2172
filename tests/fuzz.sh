#!/usr/bin/env bash
# Fuzzes with libFuzzer on stable Rust, at low priority:
#
#   tests/fuzz.sh shape 300      texts of SQL: any that is given a shape has the tokens PostgreSQL's scanner finds (masking/fuzz)
#   tests/fuzz.sh session 300    recordings of two peers against one PostgreSQL session (codecs/fuzz)
#
# The second word is how long, in seconds. The corpus stays in $LOCKGATE_CACHE/fuzz and grows from run to run; an input that
# fails is kept beside it and named. Exit status: 0 nothing found, 1 something was, 2 wrong usage, 3 could not build.
# Needs a C++ compiler (libFuzzer is built from its crate). cargo-fuzz is not needed: coverage is what LLVM's pass in any rustc gives;
# the address sanitizer, which takes a nightly compiler, finds nothing in crates that forbid unsafe code.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
case ${1:-} in
  shape) folder=$root/masking/fuzz seeds= ;;
  session) folder=$root/codecs/fuzz seeds=$root/codecs/tests/postgres/transcripts ;;
  -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
name=$1 seconds=${2:-60} host=$(rustc -vV | sed -n 's/^host: //p')
home=${LOCKGATE_CACHE:-$HOME/.cache/lockgate}/fuzz
mkdir -p "$home/$name" "$home/found"
flags="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
# With --target the flags are for the fuzzed crates, not for build scripts.
(cd "$folder" && RUSTFLAGS=$flags CARGO_TARGET_DIR=$home/target nice "${CARGO:-cargo}" build --release --target "$host" --bin "$name") || exit 3
nice -n 15 "$home/target/$host/release/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
  -artifact_prefix="$home/found/" "$home/$name" ${seeds:+"$seeds"} || exit 1
