#!/usr/bin/env bash
# Pre-training on several machines of a Slurm cluster: sbatch examples/slurm.sh DATA RUN METHOD FLAGS ...
#
# Two nodes of eight GPUs. DATA and RUN lie on a file system that every node sees. The job is told 120 s before its time is over: the run then writes a
# checkpoint and ends, and the job queues itself again. The same command continues, so a killed job loses nothing but the steps since its last checkpoint.
#SBATCH --job-name=headstart
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

data=$1 run=$2 method=$3
shift 3
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

code=0
srun torchrun \
    --nnodes "$SLURM_NNODES" --nproc_per_node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint "$first:29400" \
    -m headstart pretrain "$method" --data "$data" --out "$run" "$@" || code=$?

# torchrun ends with 1 whatever ended the run: run.json knows. "stopped" means that there is more to do.
if [ "$code" -ne 0 ] && grep -q '"status": *"stopped"' "$run/run.json"; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
