#!/usr/bin/env bash
# Installs the Debian packages that are missing, and nothing else. `--test` adds what tests talk to, `--package` those that make
# packages, `--dev` both and those of the formatter, the cross build and the tests of packages.
set -euo pipefail

packages=(g++ cmake ninja-build pkg-config ccache libcli11-dev libfmt-dev libspdlog-dev nlohmann-json3-dev libgtest-dev
  libbenchmark-dev libboost-dev libpcre2-dev libcurl4-openssl-dev libssl-dev libedit-dev libxxhash-dev liburing-dev
  libhiredis-dev python3 python3-pip)
command -v cargo >/dev/null || packages+=(cargo-web rustc-web)
case "${1:-}" in --test | --dev) packages+=(redis-server) ;; esac
case "${1:-}" in
  --package | --dev) packages+=(dpkg-dev python3-wheel zlib1g-dev) ;;
esac
if [ "${1:-}" = --dev ]; then
  packages+=(clang-format-19 g++-aarch64-linux-gnu qemu-user googletest fish lintian man-db mmdebstrap openssl python3-venv
    systemd zsh)
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "error: install these packages as root: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "Installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
