#!/usr/bin/env bash
# Starts a run as torchtitan's script of this name does, for scripts that call it:
#   NGPU=4 CONFIG_FILE="configs/debug.toml" LOG_RANK=0,1 ./run_train.sh --training.steps 5
# NGPU is the number of ranks to start on this machine (default 1), LOG_RANK the ranks to show (default 0).
set -euo pipefail
cd "$(dirname "$0")"
export LOG_RANK=${LOG_RANK:-0}
exec npx -y deno task --quiet train --nproc "${NGPU:-1}" --config "${CONFIG_FILE:-configs/debug.toml}" "$@"
