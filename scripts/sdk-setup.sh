#!/usr/bin/env bash
# Installs the client libraries that sdktest drives the gateway with, at the versions that its lock files name. What is
# there already is not installed again. One that cannot be had does not keep the others out; the exit status then says so.
set -uo pipefail
cd "$(dirname "$0")/.."

# current FILE STAMP: whether STAMP was made from FILE as it is now.
current() { [ -f "$2" ] && cmp -s "$1" "$2"; }

javascript() {
  local stamp=sdktest/js/node_modules/.installed
  current sdktest/js/package-lock.json "$stamp" && return
  command -v node >/dev/null && command -v npm >/dev/null || { echo "sdk-setup: no node and npm: the JavaScript client tests will skip"; return; }
  echo "sdk-setup: JavaScript packages"
  (cd sdktest/js && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) && cp sdktest/js/package-lock.json "$stamp"
}

python() {
  local venv=.cache/sdk/venv
  current sdktest/python/requirements.txt "$venv/installed.txt" && return
  command -v python3 >/dev/null || { echo "sdk-setup: no python3: the Python client tests will skip"; return; }
  echo "sdk-setup: Python packages"
  mkdir -p .cache/sdk
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv" || return
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r sdktest/python/requirements.txt &&
    cp sdktest/python/requirements.txt "$venv/installed.txt"
}

go_modules() { (cd sdktest/gosdk && go mod download); }

failed=0
for part in javascript python go_modules; do
  "$part" || { echo "sdk-setup: $part: not installed"; failed=1; }
done
exit $failed
