#!/usr/bin/env bash
# Starts a run as torchtitan's script of this name does, for scripts that call it:
#   NGPU=4 CONFIG_FILE="my.toml" LOG_RANK=0,1 ./run_train.sh --training.steps 5
# NGPU is the number of ranks to start on this machine (default 1), LOG_RANK the ranks to show
# (default: 0, and with a pipeline the first rank of its last stage). Paths begin where one stands.
# The run takes the place of this script, and gets its signals; those that npx gets end in npx.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
deno=("$here/node_modules/.bin/deno") # tools/keep_deno.ts has written it, or does so now
[[ -x ${deno[0]} ]] || (cd "$here" && npx -y deno task --quiet setup)
[[ -x ${deno[0]} ]] || deno=(npx -y deno)
export INIT_CWD=$PWD
exec "${deno[@]}" task --quiet --config "$here/deno.json" train \
  --nproc "${NGPU:-1}" --config "${CONFIG_FILE:-$here/configs/debug.toml}" "$@"
