#!/usr/bin/env bash
# Installs what the tests need and the machine lacks, by name from the ordinary registries. A part that cannot be installed
# is named; its tests then skip, saying so.
set -uo pipefail
cd "$(dirname "$0")/.."

missing() { ! command -v "$1" >/dev/null 2>&1; }
say() { printf 'setup: %s\n' "$*"; }

packages=()
compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || packages+=(postgresql)
missing chromium && packages+=(chromium)
missing nginx && packages+=(nginx-light)
missing haproxy && packages+=(haproxy)
missing node && packages+=(nodejs npm)
missing python3 && packages+=(python3 python3-venv)
if [ ${#packages[@]} -gt 0 ]; then
  as_root=""
  [ "$(id -u)" -eq 0 ] || as_root="sudo -n"
  if missing apt-get || { [ -n "$as_root" ] && ! sudo -n true 2>/dev/null; }; then
    say "cannot install ${packages[*]} (no apt-get or no root): tests that need them will skip"
  else
    say "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null ||
      say "installing failed: tests that need ${packages[*]} will skip"
  fi
fi
if [ -x scripts/sdk-setup.sh ]; then
  scripts/sdk-setup.sh || say "the SDK packages could not be installed: their tests will skip"
fi
scripts/ui-setup.sh || say "axe-core could not be installed: the browser tests of the dashboard will skip"
exit 0
