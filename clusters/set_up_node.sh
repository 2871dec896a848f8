#!/usr/bin/env bash
# Prepare one node: the project in an environment of its own, and the folder for shards on the fastest disk.
# Usage: set_up_node.sh EXTRA, an optional part of the project as in pyproject.toml.
# It may run again at any time, also on hosts that share a home.
set -euo pipefail
shopt -s inherit_errexit
extra=${1:?the part of the project to install, such as aws}
# shellcheck source=clusters/node_env.sh
. "$(dirname "${BASH_SOURCE[0]}")/node_env.sh"

fail() {
    echo "error: $(hostname): $*" >&2
    exit 2
}

protect_token() {
    [[ -s ~/.ray/auth_token ]] || fail "no token in ~/.ray/auth_token: make one where you call ray up, as the README says"
    chmod 700 ~/.ray
    chmod 600 ~/.ray/auth_token
}

install_project() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || fail "$(python3 --version), expected 3.11 or newer: choose an image that has it"
    # Debian's Python lacks it.
    python3 -c 'import ensurepip' 2>/dev/null || {
        sudo apt-get -qq -o DPkg::Lock::Timeout=300 update
        sudo apt-get -qq -o DPkg::Lock::Timeout=300 install --yes python3-venv
    }
    [[ -f $project/.venv/bin/activate ]] || python3 -m venv --clear "$project/.venv"
    # Ray names the head to workers alone: they take the head's versions, also those that start a week later.
    local versions=$project/versions.txt wanted=()
    if [[ -n ${RAY_HEAD_IP:-} && -s $versions ]]; then wanted=(--constraint "$versions"); fi
    "$project/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        "${wanted[@]}" --editable "$project[$extra]"
    if [[ -z ${RAY_HEAD_IP:-} ]]; then
        "$project/.venv/bin/python" -m pip freeze --exclude-editable >"$versions"
    fi
}

# Prints the folder of a local NVMe disk, if there is one: mounted by the image, or formatted and mounted here.
local_nvme() {
    if mountpoint --quiet /opt/dlami/nvme; then
        echo /opt/dlami/nvme
        return
    fi
    local disk
    disk=$(lsblk --nodeps --noheadings --paths --output NAME,MODEL | awk '/Instance Storage/ && !n++ { print $1 }')
    [[ -n $disk ]] || return 0
    if ! mountpoint --quiet /mnt/nvme; then
        # A disk with anything on it stays as it is.
        [[ -z $(lsblk --noheadings --output FSTYPE,MOUNTPOINT "$disk" | tr -d '[:space:]') ]] || return 0
        sudo mkfs.ext4 -q -E nodiscard "$disk" >&2
        sudo mkdir -p /mnt/nvme
        sudo mount -o noatime "$disk" /mnt/nvme
    fi
    echo /mnt/nvme
}

place_cache() {
    local nvme
    nvme=$(local_nvme)
    mkdir -p "$(dirname "$GALAXY_SEARCH_CACHE")"
    if [[ -z $nvme ]]; then
        mkdir -p "$GALAXY_SEARCH_CACHE"
    elif [[ ! -e $GALAXY_SEARCH_CACHE ]]; then
        sudo install --directory --owner "$(id -un)" --mode 700 "$nvme/galaxy-search"
        ln -sfn "$nvme/galaxy-search" "$GALAXY_SEARCH_CACHE"
    fi
    echo "shards are kept in $(readlink -f "$GALAXY_SEARCH_CACHE")"
}

protect_token
# One host at a time, where the home is shared.
exec 9>>"$project/.setup.lock"
flock 9
install_project
line=". $project/clusters/node_env.sh"
grep -qxF "$line" ~/.bashrc 2>/dev/null || echo "$line" >>~/.bashrc
place_cache
