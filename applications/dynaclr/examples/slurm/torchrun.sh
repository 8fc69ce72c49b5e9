#!/bin/bash
# Train on several machines without SLURM: start this on each of them, in the folder of the configs, with the same
# arguments. The first machine named is where all meet; it has to be one of them.
#
#   ../slurm/torchrun.sh 2 4 first-machine:29500 multi_experiment_fit.yml      (2 machines with 4 GPUs each)
#
# All machines see the same files under the same paths. Further arguments go to dynaclr fit.
set -euo pipefail

nodes=${1:?usage: torchrun.sh MACHINES PROCESSES_PER_MACHINE HOST:PORT CONFIG [--key value ...]}
processes=${2:?how many processes per machine, one per GPU}
meeting=${3:?where to meet, HOST:PORT}
config=${4:?which configuration}

torchrun --nnodes "$nodes" --nproc-per-node "$processes" --rdzv-backend c10d --rdzv-endpoint "$meeting" \
    --no-python -- dynaclr fit --config "$config" "${@:5}" \
    --trainer.strategy ddp --trainer.devices "$processes" --trainer.num_nodes "$nodes"
