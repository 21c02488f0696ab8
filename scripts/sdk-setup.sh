#!/usr/bin/env bash
# Installs the client libraries that sdktest drives the gateway with, at the versions that its lock files name. What is
# there already is not installed again.
set -euo pipefail
cd "$(dirname "$0")/.."

# current FILE STAMP: whether STAMP was made from FILE as it is now.
current() { [ -f "$2" ] && cmp -s "$1" "$2"; }

if command -v node >/dev/null && command -v npm >/dev/null; then
  if ! current sdktest/js/package-lock.json sdktest/js/node_modules/.installed; then
    echo "sdk-setup: JavaScript packages"
    (cd sdktest/js && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    cp sdktest/js/package-lock.json sdktest/js/node_modules/.installed
  fi
else
  echo "sdk-setup: no node and npm: the JavaScript client tests will skip"
fi

if command -v python3 >/dev/null; then
  venv=.cache/sdk/venv
  if ! current sdktest/python/requirements.txt "$venv/installed.txt"; then
    echo "sdk-setup: Python packages"
    mkdir -p .cache/sdk
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r sdktest/python/requirements.txt
    cp sdktest/python/requirements.txt "$venv/installed.txt"
  fi
else
  echo "sdk-setup: no python3: the Python client tests will skip"
fi

if [ -f sdktest/gosdk/go.mod ]; then
  (cd sdktest/gosdk && go mod download)
fi
