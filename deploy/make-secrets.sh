#!/bin/sh
# Makes the secrets that docker-compose.yml hands to its services, each in a file of its own; never changes one that exists.
#
#   deploy/make-secrets.sh [FOLDER] [HOST NAME]
#
# The TLS certificate is self-signed, good for a first look; put the hospital's own over it before real use.
set -eu
folder=${1:-$(dirname "$0")/secrets}
host=${2:-$(hostname -f 2>/dev/null || hostname)}
# Compose mounts these files as they are, for users that do not exist on this machine: the folder keeps others out,
# the files themselves are readable inside the container that gets them.
mkdir -p "$folder"
chmod 700 "$folder"
for name in sonomark_database_password sonomark_broker_password sonomark_secret_key grafana_password; do
    [ -s "$folder/$name" ] || openssl rand -hex 32 | tr -d '\n' > "$folder/$name"
done
if [ ! -s "$folder/tls_certificate.pem" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj "/CN=$host" \
        -addext "subjectAltName=DNS:$host,DNS:localhost,IP:127.0.0.1" \
        -keyout "$folder/tls_private_key.pem" -out "$folder/tls_certificate.pem" 2>/dev/null
fi
chmod 444 "$folder"/sonomark_* "$folder"/grafana_password "$folder"/tls_*.pem
echo "Secrets are in $folder."
