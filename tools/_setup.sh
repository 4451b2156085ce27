# Sourced by tools/run, tools/test and tools/lmk: brings the machine and the checkout's .venv to the state the
# rest needs. Idempotent; about 0.1 s when nothing changed.
# shellcheck shell=bash
set -euo pipefail
LMK_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LMK_VENV=$LMK_ROOT/.venv

# What the simulator needs.
# shellcheck disable=SC2034 # used by the scripts that source this
LMK_PYTHON_PACKAGES=(ca-certificates python3 python3-venv)
# Kernel and guest builds, the emulator, adb, the data disk; python3-venv for the environment itself.
# shellcheck disable=SC2034 # used by the scripts that source this
LMK_PACKAGES=(
  gcc make binutils flex bison bc libelf-dev libssl-dev cpio rsync kmod xz-utils zstd lz4 patch perl
  qemu-system-x86 qemu-utils adb e2fsprogs apt dpkg debian-archive-keyring git ca-certificates
  python3 python3-venv
)

say() { printf 'lmk: %s\n' "$*" >&2; }

die() {
  say "$1; $2"
  exit 2
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || echo "$package"
  done
}

ensure_packages() {
  command -v dpkg-query >/dev/null || die "this is not a Debian system (no dpkg)" "use Debian 12 or 13, or a container of it"
  local missing
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
    die "Debian packages are missing and neither root nor sudo is at hand" "as root run: apt-get install ${missing[*]}"
  fi
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  local log
  log=$(mktemp)
  # The package lists may be absent or stale on a fresh machine; install first only if they are usable.
  if ! { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    die "apt-get could not install: ${missing[*]}" "mend the apt configuration, then run this again"
  fi
  rm -f "$log"
}

ensure_venv() {
  local python=${LMK_PYTHON:-python3} stamp want
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$python is older than 3.11" "set LMK_PYTHON to a newer interpreter"
  stamp=$LMK_VENV/.lmk-stamp
  want=$(cat "$LMK_ROOT/requirements.lock" "$LMK_ROOT/pyproject.toml" | sha256sum)" $("$python" -VV) $LMK_ROOT"
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && return
  say "setting up the Python environment in .venv (downloads about 300 MB the first time)"
  rm -f "$stamp"
  "$python" -m venv "$LMK_VENV"
  "$LMK_VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
    -r "$LMK_ROOT/requirements.lock" >&2
  "$LMK_VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
    -e "$LMK_ROOT" >&2
  printf '%s' "$want" >"$stamp"
}
