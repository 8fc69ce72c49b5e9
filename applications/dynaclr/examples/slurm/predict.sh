#!/bin/bash
#SBATCH --job-name=dynaclr_predict
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=8G
#SBATCH --time=04:00:00
#SBATCH --requeue

# Start in the folder of the configs:
#   sbatch ../slurm/predict.sh --config multi_experiment_fit.yml --config multi_experiment_predict.yml
# A job that was stopped resumes after the embeddings it has written.
set -euo pipefail

srun dynaclr predict "$@" --trainer.accelerator gpu --trainer.devices 1
