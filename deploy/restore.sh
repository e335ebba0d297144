#!/bin/sh
# Restores a backup of deploy/backup.sh into an empty house, and verifies every object by its digest.
#
#   SONOMARK_DATABASE_URL=… SONOMARK_ARCHIVE_URL=… deploy/restore.sh FOLDER
#
# No role may run meanwhile. The database must be empty (PostgreSQL: created, without tables; SQLite: no file), the archive
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

mkdir -p "$archive"
rsync --archive "$source/archive/" "$archive/"
# What is in a bucket, the bucket has verified when it took it.
[ -n "$bucket" ] || "${PYTHON:-python3}" "$(dirname "$0")/verify.py" "$archive"

address=postgresql:${database#*:}  # without SQLAlchemy's driver name
case $database in
sqlite:*)
    file=${database#sqlite:///}
    [ ! -e "$file" ] || { echo "There is a database at $file already." >&2; exit 1; }
    cp "$source/database.sqlite" "$file"
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
