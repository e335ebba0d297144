#!/bin/sh
# Restores a backup of deploy/backup.sh into an empty house, and verifies every object by its digest.
#
#   SONOMARK_DATABASE_URL=… SONOMARK_ARCHIVE_URL=… deploy/restore.sh FOLDER
#
# It is given the settings of the roles and, for PostgreSQL, PGPASSWORD. No role may run meanwhile. The database must be empty (PostgreSQL: created, without tables; SQLite: no file), the archive
# too: this script never writes over anything. Afterwards run `sonomark migrate` and start the roles; the queue needs no
# restoring, the sweeper rings for every analysis that waits.
set -eu
source=${1:?usage: deploy/restore.sh FOLDER}
data=${SONOMARK_DATA_DIR:-data}
umask 077
mkdir -p "$data"
database=${SONOMARK_DATABASE_URL:-sqlite:///$(cd "$data" && pwd)/sonomark.sqlite}
archive=${SONOMARK_ARCHIVE_URL:-$data/archive}
[ -e "$source/complete" ] || { echo "$source is no complete backup: 'complete' is missing." >&2; exit 1; }
bucket=
case $archive in
s3://*)
    bucket=$archive
    archive=$data/archive
    ;;
esac
[ ! -e "$archive/instances" ] || { echo "There are instances in $archive already; restore into an empty one." >&2; exit 1; }

address=postgresql:${database#*:}  # without SQLAlchemy's driver name
# Asked before anything is copied: a second try would find the archive no longer empty.
case $database in
sqlite:*)
    [ ! -e "${database#sqlite:///}" ] || { echo "There is a database at ${database#sqlite:///} already." >&2; exit 1; }
    ;;
postgresql*)
    psql --quiet --no-psqlrc --output=/dev/null --command='SELECT 1' "$address"
    ;;
esac

mkdir -p "$archive"
rsync --archive "$source/archive/" "$archive/"
# What is in a bucket, the bucket has verified when it took it.
[ -n "$bucket" ] || [ ! -d "$archive/instances" ] || "${PYTHON:-python3}" "$(dirname "$0")/verify.py" "$archive"

case $database in
sqlite:*)
    cp "$source/database.sqlite" "${database#sqlite:///}"
    ;;
postgresql*)
    pg_restore --exit-on-error --single-transaction --no-owner --dbname="$address" "$source/database.dump"
    ;;
*)
    echo "Cannot restore into $database." >&2
    exit 1
    ;;
esac
sync
echo "Restored from $source."
