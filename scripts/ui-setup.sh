#!/usr/bin/env bash
# Fetches what the dashboard's browser tests need, by name: axe-core, which checks pages against the accessibility rules.
set -euo pipefail
cd "$(dirname "$0")/.."
axe=4.14.1
file=.cache/ui/node_modules/axe-core/package.json
if [ -f "$file" ] && grep -q "\"version\": \"$axe\"" "$file"; then exit 0; fi
mkdir -p .cache/ui
npm install --silent --no-fund --no-audit --ignore-scripts --prefix .cache/ui "axe-core@$axe"
