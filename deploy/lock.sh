#!/bin/sh
# Writes the lock files that the images are built from: every package at one version, every file by its hash.
# Run it after a change of pyproject.toml's dependencies, or to take in newer versions. Needs uv (pip install uv).
set -eu
cd "$(dirname "$0")/.."
lock() {
    out=$1
    shift
    uv pip compile --quiet --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
        --upgrade --no-header --output-file "$out" "$@"
}
lock deploy/requirements.lock pyproject.toml --extra cpu --extra s3 --extra otel
# One version of everything that both images share.
lock deploy/requirements-gpu.lock pyproject.toml --extra gpu --extra s3 --extra otel --constraint deploy/requirements.lock
echo 'hatchling>=1.27' | lock deploy/requirements-build.lock -
