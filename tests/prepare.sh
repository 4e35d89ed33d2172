# What a machine with Debian 12 and rustup's Rust still lacks. Sourced by tests/run.sh and deploy/demo.sh, which share
# one build: a demo after the tests (or the other way round) builds nothing twice.

LOCKGATE_CACHE=${LOCKGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lockgate}
mkdir -p "$LOCKGATE_CACHE" || exit 3
export LOCKGATE_CACHE
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$LOCKGATE_CACHE/target}
CARGO=${CARGO:-$(command -v cargo || echo "$HOME/.cargo/bin/cargo")}
python_packages=(psycopg[binary]==3.3.* asyncpg==0.32.*
  blake3==1.* google-crc32c==1.* cryptography==50.* # the independent verifier of the trail
  duckdb==2.*) # reads the archive's files as their owners would
receiver_packages=("moto[server]==5.*" opentelemetry-proto==1.*) # CloudWatch Logs and S3; what an OTLP collector would decode with
node_packages=(pg@8 pg-copy-streams@7 oauth2-mock-server@7.2.1) # the last line of each that runs on Debian's Node 18

# Which package is needed for what.
build_packages=(
  gcc libc6-dev make # C parts of the crates: PostgreSQL's parser, aws-lc, liburing
  clang libclang-dev # bindgen reads the parser's headers
  git # glommio's build calls it, although a crate from the registry has nothing to fetch
)
server_packages=(postgresql-15 postgresql-client-15 procps) # always used from /usr/lib/postgresql/15/bin
client_packages=(python3 python3-venv openssl ca-certificates)
command -v node >/dev/null && command -v npm >/dev/null || client_packages+=(nodejs npm)
java_packages=(libpostgresql-jdbc-java openjdk-17-jdk-headless) # the JDK runs the client from its source file
go_packages=(golang-go golang-github-jackc-pgx-v4-dev)
bench_packages=(pgbouncer haproxy linux-perf iproute2) # what the scripts of bench/ compare with and count by
count_packages=(valgrind) # counts the instructions of a statement
kafka_packages=(kcat librdkafka1) # reads topics; the broker is the one librdkafka brings for its own tests
rsyslog_packages=(rsyslog rsyslog-gnutls liblognorm5 libestr0 libfastjson4) # a syslog receiver over TLS
browser_packages=(chromium) # the load generator's report draws itself in a real browser
regress_packages=(dpkg-dev bzip2 xz-utils patch) # PostgreSQL's own suites come from Debian's source package

step() { # name, command...: says what is being done and how long it took
  local name=$1 began=$SECONDS status; shift
  echo "==> $name"
  "$@"
  status=$?
  if [ $status -eq 0 ]; then echo "    $name: done in $((SECONDS - began)) s"; else echo "    $name: FAILED after $((SECONDS - began)) s" >&2; fi
  return $status
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

missing_packages() { # of the given ones, those that are not installed, one a line
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
  done
}

install_packages() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -eq 0 ] && { echo "    all installed"; return 0; }
  echo "    installing: ${missing[*]}"
  if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
    echo "    not root, and no sudo here: run as root: apt-get install ${missing[*]}" >&2
    return 1
  fi
  as_root apt-get update -qq &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$LOCKGATE_CACHE/apt.log" 2>&1 ||
    { tail -n 20 "$LOCKGATE_CACHE/apt.log" >&2; return 1; }
}

require_rust() {
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
  found=$("$CARGO" --version 2>/dev/null | cut -d' ' -f2)
  [ -n "$found" ] || { echo "    no cargo: install Rust with rustup (https://rustup.rs)" >&2; return 1; }
  if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
    echo "    Rust $found is too old, $wanted is needed: rustup update stable" >&2
    return 1
  fi
  echo "    cargo $found, target directory $CARGO_TARGET_DIR"
}

free_gigabytes() { df -Pk "$1" | awk 'NR == 2 { print int($4 / 1048576) }'; }

# Cargo never deletes what older sources left in a target directory. Where room gets short, first what only makes the next
# build quicker goes, then the whole build.
require_room() { # gigabytes that a build and what is run with it take at most
  local least=$1 wanted=$((2 * $1)) free
  mkdir -p "$CARGO_TARGET_DIR" || return 1
  if [ "$(free_gigabytes "$CARGO_TARGET_DIR")" -lt $wanted ] && [ -d "$CARGO_TARGET_DIR/release/incremental" ]; then
    echo "    less than $wanted GB free: $CARGO_TARGET_DIR/release/incremental is deleted"
    rm -rf "$CARGO_TARGET_DIR/release/incremental"
  fi
  if [ "$(free_gigabytes "$CARGO_TARGET_DIR")" -lt "$least" ] && [ "$CARGO_TARGET_DIR" = "$LOCKGATE_CACHE/target" ]; then
    echo "    still less than $least GB free: $CARGO_TARGET_DIR is deleted and built anew"
    rm -rf "$CARGO_TARGET_DIR"; mkdir -p "$CARGO_TARGET_DIR"
  fi
  free=$(free_gigabytes "$CARGO_TARGET_DIR")
  if [ "$free" -lt "$least" ]; then
    echo "    $free GB free for $CARGO_TARGET_DIR, $least are needed: make room, or set CARGO_TARGET_DIR to another disk" >&2
    return 1
  fi
  free=$(free_gigabytes "${TMPDIR:-/tmp}")
  if [ "$free" -lt "$least" ]; then
    echo "    $free GB free in ${TMPDIR:-/tmp}, $least are needed: make room, or set TMPDIR to another disk" >&2
    return 1
  fi
}

prepare_python() {
  local home=$LOCKGATE_CACHE/python stamp
  stamp="${python_packages[*]} $(/usr/bin/python3 --version)"
  export LOCKGATE_PYTHON=$home/bin/python
  [ "$(cat "$home/stamp" 2>/dev/null)" = "$stamp" ] && { echo "    have $home"; return 0; }
  rm -rf "$home"
  /usr/bin/python3 -m venv "$home" &&
    "$home/bin/pip" install --quiet --disable-pip-version-check "${python_packages[@]}" &&
    echo "$stamp" >"$home/stamp"
}

prepare_receivers() { # what sinks send to
  local home=$LOCKGATE_CACHE/receivers stamp
  stamp="${receiver_packages[*]} $(/usr/bin/python3 --version)"
  export LOCKGATE_RECEIVERS_PYTHON=$home/bin/python
  [ "$(cat "$home/stamp" 2>/dev/null)" = "$stamp" ] && { echo "    have $home"; return 0; }
  rm -rf "$home"
  /usr/bin/python3 -m venv "$home" &&
    "$home/bin/pip" install --quiet --disable-pip-version-check "${receiver_packages[@]}" &&
    echo "$stamp" >"$home/stamp"
}

# Installed, rsyslog would begin to log this machine: it is fetched and unpacked, nothing is installed.
prepare_rsyslog() {
  local home=$LOCKGATE_CACHE/rsyslog package
  export LOCKGATE_RSYSLOG=$home/root
  [ -f "$home/stamp" ] && { echo "    have $home"; return 0; }
  rm -rf "$home" && mkdir -p "$home"
  (
    cd "$home" && { apt-get download -qq "${rsyslog_packages[@]}" || { as_root apt-get update -qq && apt-get download -qq "${rsyslog_packages[@]}"; }; } &&
      for package in *.deb; do dpkg -x "$package" root || exit 1; done && touch stamp
  )
}

prepare_node() {
  local home=$LOCKGATE_CACHE/node stamp
  stamp="${node_packages[*]} $(node --version)"
  export NODE_PATH=$home/node_modules
  [ "$(cat "$home/stamp" 2>/dev/null)" = "$stamp" ] && { echo "    have $home"; return 0; }
  rm -rf "$home" && mkdir -p "$home" && echo '{"private":true}' >"$home/package.json" &&
    npm install --prefix "$home" --no-audit --no-fund --loglevel=error "${node_packages[@]}" &&
    echo "$stamp" >"$home/stamp"
}

# PostgreSQL's own suites want sources and server of exactly one version. Debian's main suite has both, and they stay when
# security updates move on: they are fetched side by side and unpacked, nothing is installed.
fetch_postgres_suites() {
  local home=$LOCKGATE_CACHE/postgres-suites version options
  [ -f "$home/stamp" ] && { echo "    have $home ($(cat "$home/stamp"))"; return 0; }
  mkdir -p "$home/lists/partial" "$home/etc"
  printf '%s http://deb.debian.org/debian bookworm main\n' deb deb-src >"$home/etc/sources.list"
  options=(-o "Dir::Etc::SourceList=$home/etc/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$home/lists"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root -qq)
  (
    cd "$home" && apt-get "${options[@]}" update &&
      version=$(apt-cache "${options[@]}" showsrc postgresql-15 | sed -n 's/^Version: //p' | sort -V | tail -n 1) &&
      apt-get "${options[@]}" download "postgresql-15=$version" "postgresql-client-15=$version" \
        "postgresql-server-dev-15=$version" &&
      apt-get "${options[@]}" source --download-only "postgresql-15=$version" &&
      echo "$version" >stamp
  )
}

unpack_postgres_suites() { # folder: server/, source/ and modules/ for the suites to use
  local home=$LOCKGATE_CACHE/postgres-suites folder=$1 package name
  mkdir -p "$folder/server" "$folder/modules" || return 1
  for package in "$home"/*.deb; do dpkg -x "$package" "$folder/server" || return 1; done
  dpkg-source --no-check -x "$home"/*.dsc "$folder/source" >/dev/null || return 1
  gcc -shared -fPIC -O1 -w -I "$folder/server/usr/include/postgresql/15/server" -I "$folder/source/src/test/regress" \
    -o "$folder/modules/regress.so" "$folder/source/src/test/regress/regress.c" || return 1
  for name in refint autoinc; do
    cp "$folder/server/usr/lib/postgresql/15/lib/$name.so" "$folder/modules/" || return 1
  done
  export LOCKGATE_POSTGRES_SUITES=$folder
}
