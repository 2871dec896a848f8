# What every shell and every Ray process of a cluster's node sees: read by ~/.bashrc and before `ray start`.
project="$HOME/galaxy-search"
export PATH="$project/.venv/bin:$PATH"
# Ray answers nobody without the token in ~/.ray/auth_token.
export RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED=0
# Where this node keeps the shards. Hosts that share a home keep one copy each.
GALAXY_SEARCH_CACHE="$HOME/.cache/galaxy-search/$(hostname)"
export GALAXY_SEARCH_CACHE
# A node whose network was gone for half a minute is not given up; one whose power is gone is found out by its silence.
export RAY_health_check_failure_threshold=10
export AUTOSCALER_HEARTBEAT_TIMEOUT_S=120
# Ray's second autoscaler neither falls back from spot to on-demand nor brings up the last host of a fixed list.
export RAY_enable_autoscaler_v2=0
export RAY_AUTOSCALER_UTILIZATION_SCORER=search.spot_first.score
