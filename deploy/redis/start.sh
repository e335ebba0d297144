#!/bin/sh
# Redis as Sonomark's doorbell: one account that may ring and listen and nothing else. The password comes from a file,
# so it stands neither in the environment nor in the list of processes.
#
# appendonly: rings outlive a restart. noeviction: a full memory refuses a ring, it never forgets one. Either loss would
# be healed by the sweeper, which rings again for rows that nobody came for; this spares the wait.
set -eu
secret=${BROKER_PASSWORD_FILE:-/run/secrets/sonomark_broker_password}
acl=${REDIS_ACL_FILE:-/run/redis/users.acl}
umask 077
digest=$(tr -d '\n' < "$secret" | sha256sum | cut -d ' ' -f 1)
cat > "$acl" <<ACL
user default off
user sonomark on #$digest ~* &* +@all -@admin -@dangerous +info
ACL
exec redis-server --aclfile "$acl" --appendonly yes --appendfsync everysec --maxmemory 256mb \
    --maxmemory-policy noeviction --save '' --dir "${REDIS_FOLDER:-/data}" --port "${REDIS_PORT:-6379}" "$@"
