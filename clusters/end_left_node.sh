#!/usr/bin/env bash
# End this machine when Ray has been gone from it for a while: nobody else would, once the head is lost.
# Usage: end_left_node.sh SECONDS_WITHOUT_RAY [SECONDS_BETWEEN_LOOKS]
set -euo pipefail
patience=${1:?seconds without Ray after which the machine ends}
interval=${2:-60}

# Ray may be started again, this script need not.
exec 9>>~/.end_left_node.lock
flock --nonblock 9 || exit 0
last_seen=$SECONDS
while true; do
    if pgrep --exact raylet >/dev/null; then
        last_seen=$SECONDS
    elif ((SECONDS - last_seen >= patience)); then
        sudo shutdown --poweroff now
        exit
    fi
    sleep "$interval"
done
