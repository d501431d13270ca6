#!/usr/bin/env bash
# The browser that tests/report drives. Where it is missing and cannot be installed, those tests say that they are skipped.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
  if command -v "$name" > /dev/null; then exit 0; fi
done
if ! command -v apt-get > /dev/null || { [ "$(id -u)" != 0 ] && ! sudo -n true 2> /dev/null; }; then
  echo "No Chromium here, and no right to install it: the tests of the report in a browser will be skipped." >&2
  exit 0
fi
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends chromium
