#!/usr/bin/env bash
# End this machine when Ray has been gone from it for a while: nobody else would, once the head is lost.
# Usage: end_left_node.sh MINUTES [SECONDS_BETWEEN_LOOKS]
set -euo pipefail
minutes=${1:?minutes without Ray after which the machine ends}
interval=${2:-60}

exec 9>/tmp/end_left_node.lock
flock --nonblock 9 || exit 0
last_seen=$SECONDS
while ((SECONDS - last_seen < minutes * 60)); do
    if pgrep --exact raylet >/dev/null; then last_seen=$SECONDS; fi
    sleep "$interval"
done
sudo shutdown --poweroff now
