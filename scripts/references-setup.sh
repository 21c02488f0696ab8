#!/usr/bin/env bash
# Installs the tools that make bench-specialist compares occam with, from Debian's packages. What cannot be installed is named, and its column
# of the table stays empty.
set -uo pipefail

packages=()
command -v fasttext >/dev/null 2>&1 || packages+=(fasttext)
/usr/bin/python3 -c 'import sklearn' >/dev/null 2>&1 || packages+=(python3-sklearn)
[ ${#packages[@]} -eq 0 ] && exit 0
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo -n"
echo "installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null ||
  echo "installing failed: ${packages[*]} will not be measured"
exit 0
