# What every shell and every Ray process of a cluster's node sees: read by ~/.bashrc and before `ray start`.
project="$HOME/galaxy-search"
export PATH="$project/.venv/bin:$PATH"
# Ray answers nobody without the token in ~/.ray/auth_token.
export RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED=0
# Where this node keeps the shards. Hosts that share a home keep one copy each.
GALAXY_SEARCH_CACHE="$HOME/.cache/galaxy-search/$(hostname)"
export GALAXY_SEARCH_CACHE
# A network that was gone for half a minute is no reason to give up a node, or a connection: a connection that one side
# has given up keeps the other waiting for minutes. Who has lost its power is found out by its silence, after two.
export RAY_health_check_failure_threshold=10
export AUTOSCALER_HEARTBEAT_TIMEOUT_S=120
export RAY_grpc_keepalive_timeout_ms=120000
export RAY_grpc_client_keepalive_time_ms=30000
# Else a node's first search waits for the node's first workers, and if one of them dies, for ever.
export RAY_prestart_worker_first_driver=0
# Ray's second autoscaler neither falls back from spot to on-demand nor brings up the last host of a fixed list.
export RAY_enable_autoscaler_v2=0
export RAY_AUTOSCALER_UTILIZATION_SCORER=search.spot_first.score
