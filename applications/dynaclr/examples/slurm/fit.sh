#!/bin/bash
#SBATCH --job-name=dynaclr_fit
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=8G
#SBATCH --time=1-00:00:00
#SBATCH --requeue
#SBATCH --signal=SIGUSR1@120

# Start in the folder of the configs: sbatch ../slurm/fit.sh multi_experiment_fit.yml
# A pre-empted job writes a checkpoint on SIGUSR1, is put back into the queue and goes on at the batch
# where it stopped, in the same run folder: runs/<name of the job>-<its number>.
set -euo pipefail

config=${1:?usage: sbatch fit.sh CONFIG}
run=$SLURM_JOB_NAME-$SLURM_JOB_ID
resume=()
if [[ -e runs/$run/run.json ]]; then
    resume=(--ckpt_path last)
fi

srun dynaclr fit --config "$config" --run "$run" "${resume[@]}" \
    --trainer.accelerator gpu --trainer.strategy ddp \
    --trainer.devices "$SLURM_NTASKS_PER_NODE" --trainer.num_nodes "$SLURM_JOB_NUM_NODES"
