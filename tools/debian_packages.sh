#!/usr/bin/env bash
# Installs Debian packages by name where this is root; otherwise names what is missing.
#   debian_packages.sh [--optional] PACKAGE...
set -euo pipefail
optional=no
if [ "${1:-}" = --optional ]; then optional=yes; shift; fi
missing=()
for package in "$@"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  (apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}") >/dev/null && exit 0
fi
echo "missing Debian packages: ${missing[*]} (as root: apt-get install ${missing[*]})" >&2
[ "$optional" = yes ] || exit 1
