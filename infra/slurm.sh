#!/usr/bin/env bash
# Slurm, for a run or sweep on whole nodes that share your home folder: from the root, with the project in .venv,
# `sbatch infra/slurm.sh sweep demo` or `sbatch infra/slurm.sh run SPEC`; --nodes and --gpus-per-node there go before those here.
# Killed or out of time, the same command goes on where it was. Ray starts on every node with a token of this job's own.
#SBATCH --job-name=selfsup
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
PATH="$PWD/.venv/bin:$PATH"
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export PATH RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
export SELFSUP_HOME="${SELFSUP_HOME:-$HOME/.selfsup}"
head=$(hostname -I | cut -d ' ' -f 1):6379 # a batch script runs on the first node
done=$(mktemp -d)
# shellcheck disable=SC2016
srun ray symmetric-run --address "$head" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus "$SLURM_CPUS_ON_NODE" \
  --disable-usage-stats -- bash -c 'RAY_ADDRESS=$0 selfsup "${@:2}" && touch "$1/yes"' "$head" "$done" "$@"
rm "$done/yes" # Ray 2.60 ends with 0 also where it did not start
