#!/usr/bin/env bash
# Lockgate on this machine with nothing set up: installs what it needs from Debian, builds, and runs `lockgate demo`.
# Arguments go to `lockgate demo` (try --tour). Quick the second time; shares its build with tests/run.sh.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tests/prepare.sh"

build() { cd "$root" && "$CARGO" build --release -p lockgate; }

{
  echo "Lockgate demo. The build is kept in $LOCKGATE_CACHE"
  step "Debian packages" install_packages "${build_packages[@]}" "${server_packages[@]}" || exit 3
  step "Rust" require_rust || exit 3
  step "room on disk" require_room 3 || exit 3
  step "build (about ten minutes on two cores the first time)" build || exit 3
} >&2
exec "$CARGO_TARGET_DIR/release/lockgate" demo "$@"
