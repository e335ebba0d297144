#!/bin/sh
# A backup of one consistent point: database first, archive after it.
#
#   SONOMARK_DATABASE_URL=… SONOMARK_ARCHIVE_URL=… deploy/backup.sh FOLDER
#
# The order is what makes it consistent while images arrive: objects of the archive are written once, before the row that
# names them is committed, and never changed. So whatever the copied database names lies in the archive already when the
# copying of the archive begins. What arrives meanwhile may be copied without its row: restoring registers it or leaves it.
#
# With the archive in a bucket (s3://…) the bucket keeps its objects itself: switch its versioning and replication on. What
# it is still owed lies in SONOMARK_DATA_DIR and is copied.
#
# FOLDER gets `database.sqlite` or `database.dump`, `archive/`, and last of all `complete`, with what was saved. A backup
# without `complete` was cut short; run it again. Unchanged objects are linked to those of the backup in PREVIOUS, if set.
set -eu
target=${1:?usage: deploy/backup.sh FOLDER}
data=${SONOMARK_DATA_DIR:-data}
if [ -z "${SONOMARK_DATABASE_URL:-}" ] || [ -z "${SONOMARK_ARCHIVE_URL:-}" ]; then
    [ -d "$data" ] || { echo "There is no data folder $data: give SONOMARK_DATA_DIR and the roles' other settings." >&2; exit 1; }
fi
database=${SONOMARK_DATABASE_URL:-sqlite:///$(cd "$data" && pwd)/sonomark.sqlite}
archive=${SONOMARK_ARCHIVE_URL:-$data/archive}
umask 077
mkdir -p "$target/archive"
[ ! -e "$target/complete" ] || { echo "$target holds a complete backup already; choose another folder." >&2; exit 1; }

address=postgresql:${database#*:}  # without SQLAlchemy's driver name
case $database in
sqlite:*)
    # SQLite's own backup: a snapshot, also while others write.
    "${PYTHON:-python3}" - "${database#sqlite:///}" "$target/database.sqlite" <<'PY'
import pathlib, sqlite3, sys

source, copy = sys.argv[1:]
if not pathlib.Path(source).is_file():
    sys.exit(f"There is no database at {source}.")
pathlib.Path(copy).unlink(missing_ok=True)
with sqlite3.connect(copy) as there, sqlite3.connect(source) as here:
    here.backup(there)
PY
    saved=database.sqlite
    ;;
postgresql*)
    # One transaction's snapshot. The password comes from PGPASSWORD, PGPASSFILE or the URL.
    pg_dump --format=custom --no-owner --file="$target/database.dump" \
        "$address"
    saved=database.dump
    ;;
*)
    echo "Cannot back up $database." >&2
    exit 1
    ;;
esac

parts="instances masks deliveries"
case $archive in
s3://*)
    archive=$data/archive
    parts=outbox
    ;;
esac
# The journal first: what leaves it while it is copied is among the others by then. Of its gigabyte only what waits there.
rm -rf "$target/archive/journal"
if [ -d "$archive/journal" ]; then
    "${PYTHON:-python3}" "$(dirname "$0")/journal.py" "$archive/journal" "$target/archive/journal"
fi
for part in $parts; do
    [ -d "$archive/$part" ] || continue
    rsync --archive ${PREVIOUS:+--link-dest="$(cd "$PREVIOUS" && pwd)/archive/$part"} "$archive/$part/" "$target/archive/$part/"
done
sync
printf '%s\ndatabase %s\nobjects %s\n' "$(date --utc +%FT%TZ)" "$saved" "$(find "$target/archive" -type f | wc -l)" > "$target/complete"
echo "Backed up to $target."
