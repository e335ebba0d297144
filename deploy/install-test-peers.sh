#!/bin/sh
# Installs the programs the tests speak to, where this is Debian or Ubuntu and we may; says what is missing elsewhere.
set -eu
here=$(dirname "$0")
packages=$(grep -v '^#' "$here/test-peers.txt")
missing=""
for package in $packages; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
# Node may have come from elsewhere, and the distribution's own npm would then stand in its way.
command -v npm >/dev/null || missing="$missing npm"
if [ -n "$missing" ]; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        # shellcheck disable=SC2086 # one word a package
        apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        echo "Tests that need these programs will skip; install them with: sudo apt-get install$missing" >&2
    fi
fi
# What tests run in Node: an OpenID Connect provider, and axe-core beside the viewer's sources.
if command -v npm >/dev/null; then
    for folder in tests/review/identity_provider service/review/viewer; do
        [ -d "$here/../$folder/node_modules" ] || npm ci --silent --no-audit --no-fund --prefix "$here/../$folder" ||
            echo "Tests that need $folder/node_modules will skip." >&2
    done
fi
