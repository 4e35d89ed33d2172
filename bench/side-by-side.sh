#!/usr/bin/env bash
# Measures every performance promise beside PgBouncer and HAProxy, and writes bench/RESULTS.md: the machine, one table of what was
# promised and what came out, and what each script printed.
#
#   bench/side-by-side.sh                       everything but durability; half an hour on two cores, which should be free
#   bench/side-by-side.sh --all                 durability too, 4 minutes more
#   bench/side-by-side.sh --only NAME[,NAME]    some rows, to standard output: cpu simple tail gigabyte idle fairness tls storm enters shards
#                                               promises instructions allocations durability
#   bench/side-by-side.sh --smoke               all of them briefly, to see that they work; writes to a temporary folder
#   bench/side-by-side.sh --output FILE         writes there
#   bench/side-by-side.sh --strict              exit status 4 where all was measured and a promise is missed, within noise or not
#   bench/side-by-side.sh --again FOLDER        measures nothing: the page of what a run left in FOLDER, to standard output
#   BUILT=1                                     builds nothing: CARGO_TARGET_DIR has it all
#   ROUNDS SECONDS_EACH WARM_UP MB SESSIONS TURN_S RATE SCALE     reach the scripts, which say what they mean
#
# Installs what is missing from Debian's packages (root or sudo) and builds once. Numbers and verdicts are read from what the scripts
# print; their output is kept in a folder that is named at the end. Exit status: 0 all measured, whether or not it holds; 1 something could
# not be measured (a page that is there already stays as it was); 2 wrong usage; 3 could not install, build or make the page;
# 4 see --strict.
called_from=$PWD
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/tests/prepare.sh"
. "$root/bench/lib.sh"

DEFAULT=(cpu simple tail gigabyte idle fairness tls storm enters shards promises instructions allocations)
LENGTHS=(ROUNDS SECONDS_EACH WARM_UP MB SESSIONS TURN_S RATE SCALE)
# MANY and SOME: 64 and 32 clients; fewer where a round is so brief that a busy machine might not log in more.
declare -A COMMAND=(
  [cpu]='CLIENTS="1 8 MANY" bench/cpu.sh'
  [simple]='MODE=simple CLIENTS=MANY PEERS="pgbouncer haproxy relay off on" bench/cpu.sh'
  [tail]='CLIENTS="8 MANY" bench/tail.sh'
  [gigabyte]='bench/gigabyte.sh'
  [idle]='bench/idle.sh'
  [fairness]='bench/fairness.sh'
  [tls]='CLIENTS="8 MANY" bench/tls.sh'
  [storm]='bench/storm.sh'
  [enters]='CLIENTS="1 8 SOME MANY" bench/enters.sh'
  [shards]="bench/knobs.sh MANY '' '--shards 2'"
  [promises]="cargo bench -p lockgate-bench --bench promises -- --quiet --discard-baselineTIMES 'at most|pg_query'"
  [instructions]='bench/instructions.sh'
  [allocations]='cargo test --release -p lockgate-bench --test allocations'
  [durability]='CLIENTS="1 MANY" bench/durability.sh'
)

parts=("${DEFAULT[@]}") many=64 some=32 times='' only='' again='' strict='' output='' child='' given='' whole=$(basename "$0")
arguments() {
  local argument part
  for argument in "$@"; do whole+=" $([[ $argument =~ ^[A-Za-z0-9_./,=-]+$ ]] && echo "$argument" || printf %q "$argument")"; done
  while [ $# -gt 0 ]; do
    case $1 in
      --smoke) SMOKE=1 many=16 some=12 times=' --sample-size 10 --warm-up-time 0.1 --measurement-time 0.1' ;;
      --all) parts=("${DEFAULT[@]}" durability) ;;
      --only) [ $# -ge 2 ] || usage 2; only=1; IFS=, read -ra parts <<<"$2"; shift ;;
      --strict) strict=--strict ;;
      --again)
        [ $# -ge 2 ] || usage 2
        again=$(cd "$called_from" && realpath -m "$2")
        [ -f "$again/run.parts" ] || { echo "$2 is no folder that a run left" >&2; exit 2; }
        shift
        ;;
      --output) [ $# -ge 2 ] || usage 2; output=$(cd "$called_from" && realpath -m "$2"); shift ;;
      --help) usage 0 ;;
      *) usage 2 ;;
    esac
    shift
  done
  for part in "${parts[@]}"; do [ -n "${COMMAND[$part]:-}" ] || { echo "no row is called $part: ${DEFAULT[*]} durability" >&2; exit 2; }; done
  [ ${#parts[@]} -gt 0 ] || usage 2
  if [ -n "$SMOKE" ] && [ "$output" = "$root/bench/RESULTS.md" ]; then echo "--smoke measures nothing: not to bench/RESULTS.md" >&2; exit 2; fi
}
usage() { sed -n '2,/^called_from/{/^#/s/^# \{0,1\}//p}' "$root/bench/side-by-side.sh"; exit "$1"; }
wants() { printf '%s\n' "${parts[@]}" | grep -qx "$1"; }
elapsed() { echo "$((SECONDS / 60)) min $((SECONDS % 60)) s"; }

settings() { # what the caller has set: the scripts have it from here, and from nowhere else
  local name
  for name in "${LENGTHS[@]}"; do [ -z "${!name:-}" ] || { given+="$name=${!name} "; export "${name?}"; }; done
  whole="$given${BUILT:+BUILT=1 }bench/$whole"
  unset CLIENTS MODE PEERS SHARDS MODES FEATURES
}

install() {
  local packages=("${server_packages[@]}" "${bench_packages[@]}" python3 openssl)
  wants instructions && packages+=("${count_packages[@]}")
  [ -n "${BUILT:-}" ] || packages+=("${build_packages[@]}")
  step "Debian packages" install_packages "${packages[@]}" >&2 || exit 3
}

build() { # all at once; from here on scripts build nothing
  [ -n "${BUILT:-}" ] || step build build_all >&2 || exit 3
  for program in lockgate lockgate-loadgen bare-relay handshakes durability gate-rounds; do
    [ -x "$RELEASE/$program" ] || { echo "$RELEASE has no $program: build it, or run without BUILT=1" >&2; exit 3; }
  done
}
build_all() {
  require_rust && require_room 8 || return 1
  "$CARGO" build -q --release -p lockgate -p lockgate-loadgen -p lockgate-bench --bins || return 1
  if wants allocations; then "$CARGO" test -q --release -p lockgate-bench --test allocations --no-run || return 1; fi
  if wants promises; then "$CARGO" bench -q -p lockgate-bench --bench promises --no-run || return 1; fi
}

command_of() { # name: what somebody would type
  local command=${COMMAND[$1]//MANY/$many}
  command=${command//SOME/$some} command=${command//TIMES/$times}
  case $1 in
    allocations | promises | instructions) echo "$command" ;;
    shards) if [ -n "$SMOKE" ]; then echo "bench/knobs.sh --smoke"; else echo "$command"; fi ;;
    *) echo "$command${SMOKE:+ --smoke}" ;;
  esac
}
to_run() { # name: what we run for it; nothing if there is nothing to run
  case $1 in allocations | promises) compiled "$1" ;; *) command_of "$1" ;; esac
}
compiled() { # name of a test or bench: by cargo where we build, else the program that a build has left
  local command program
  command=$(command_of "$1")
  if [ -n "${BUILT:-}" ]; then
    program=$(find "$RELEASE/deps" -maxdepth 1 -name "$1-*" -executable -type f -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1 | cut -d' ' -f2-)
    [ -n "$program" ] || return 0
    case $command in *' -- '*) command="cargo --bench ${command#* -- }" ;; *) command=cargo ;; esac
  fi
  echo "$(printf %q "${program:-$CARGO}") ${command#cargo}"
}

run_part() { # name: leaves NAME.command, .out, .err and .status in $dir
  local command status=0 began=$SECONDS
  command=$(to_run "$1")
  case $command in bench/* | [A-Z]*) echo "$given$command" ;; *) command_of "$1" ;; esac >"$dir/$1.command"
  if [ -z "$command" ]; then
    echo "skipped: BUILT=1, and nobody has built it" | tee "$dir/$1.status" | sed 's/^/    /' >&2
    return
  fi
  BUILT=1 bash -c "exec env $command" >"$dir/$1.out" 2>"$dir/$1.err" & child=$!
  wait "$child" || status=$?
  child=
  echo $status >"$dir/$1.status"
  echo "    exit status $status after $((SECONDS - began)) s" >&2
}
stop() { # the script that runs ends its own servers
  [ -z "$child" ] || { echo "ending the servers" >&2; kill "$child" 2>/dev/null; wait "$child"; }
  exit 130
}

# The page of $dir to where it was asked for. A page in which something is missing replaces none: it stays where it was made.
deliver() {
  local status=0
  python3 "$root/bench/report.py" "$dir" ${strict:+"$strict"} >"$dir/page" || status=$?
  case $status in
    0 | 11)
      status=$((status ? 4 : 0))
      if [ -n "$output" ]; then cp "$dir/page" "$output" && echo "$output"; else cat "$dir/page"; fi
      ;;
    10)
      status=1
      if [ -n "$output" ]; then echo "something could not be measured: $output is left as it was, and the page is $dir/page" >&2; else cat "$dir/page"; fi
      ;;
    *) status=3; echo "the page could not be made${output:+: $output is left as it was}" >&2 ;;
  esac
  echo "what the scripts printed: $dir (bench/side-by-side.sh --again $dir makes the page once more)" >&2
  exit "$status"
}

arguments "$@"
[ -z "$again" ] || { dir=$again; deliver; }
settings
install
build
dir=$(mktemp -d "${TMPDIR:-/tmp}/lockgate-side-by-side.XXXXXX")
chmod 755 "$dir"
echo "$many $some ${parts[*]}" >"$dir/run.parts"
[ -n "$output$only" ] || output=${SMOKE:+$dir/RESULTS.md}
[ -n "$output$only" ] || output=$root/bench/RESULTS.md
trap stop INT TERM
MEASURED=$(measured) # once for the whole page: scripts repeat it
export MEASURED
described=$(manifest "${#parts[@]} scripts${SMOKE:+, briefly (--smoke): these numbers say nothing}")
number=0
for part in "${parts[@]}"; do
  number=$((number + 1))
  echo "[$number of ${#parts[@]}] $part: $(command_of "$part") ($(elapsed) so far)" >&2
  run_part "$part"
done
# Somebody may have built or committed meanwhile.
now=$(MEASURED='' measured)
[ "$now" = "$MEASURED" ] || described+=$'\nNOT ONE BUILD: when this ended it was '"$(paste -sd' ' <<<"$now")"
printf 'command: %s\n%s\ntook: %s\n' "$whole" "$described" "$(elapsed)" >"$dir/run.manifest"
deliver
