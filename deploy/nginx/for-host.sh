#!/bin/sh
# Prints nginx.conf for a machine without containers: its own ports, certificate and logs, the dashboard on port 8000.
#
#   deploy/nginx/for-host.sh [SECRETS FOLDER] > /etc/nginx/nginx.conf
set -eu
secrets=${1:-/etc/sonomark/secrets}
exec sed \
    -e "s|/run/secrets/tls_certificate;|$secrets/tls_certificate.pem;|" \
    -e "s|/run/secrets/tls_private_key;|$secrets/tls_private_key.pem;|" \
    -e 's|listen 8080;|listen 80;|' -e 's|listen 8443 |listen 443 |' \
    -e 's|review:8000|127.0.0.1:8000|' -e '/resolver/d' -e "/Docker's resolver/d" \
    -e 's|/tmp/nginx.pid|/run/nginx.pid|' \
    -e 's|/dev/stdout|/var/log/nginx/access.log|' -e 's|/dev/stderr|/var/log/nginx/error.log|' \
    "$(dirname "$0")/nginx.conf"
