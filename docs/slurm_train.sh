#!/bin/bash
# Train on several machines: sbatch docs/slurm_train.sh DATA RUN [KEY VALUE]...
#SBATCH --job-name=ct-cncl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.log
set -euo pipefail

data=$1 run=$2
shift 2
processes=${SLURM_GPUS_ON_NODE:-1}
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${hosts%%$'\n'*}  # no pipe into head: it may close before scontrol is done, which pipefail takes for a failure
configs=${CONFIGS:-bundles/ct_cncl/configs}
files="['$configs/train.json', '$configs/recipes/fast.json', '$configs/multi_gpu_train.json']"

if [ $(($# % 2)) -ne 0 ]; then
    echo "Expected pairs KEY VALUE after DATA RUN, for example max_epochs 10, but got: $*" >&2
    exit 2
fi
overrides=()
while [ $# -gt 0 ]; do
    overrides+=("--$1" "$2")
    shift 2
done

export OMP_NUM_THREADS=$((${SLURM_CPUS_PER_TASK:-1} / processes > 0 ? ${SLURM_CPUS_PER_TASK:-1} / processes : 1))
# Slurm from 22.05 on does not hand sbatch's --cpus-per-task on to srun by itself.
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" torchrun \
    --nnodes="$SLURM_NNODES" --nproc_per_node="$processes" --max_restarts=3 \
    --rdzv_backend=c10d --rdzv_id="$SLURM_JOB_ID" --rdzv_endpoint="$first:${PORT:-29500}" \
    -m monai.bundle run training --config_file "$files" \
    --dataset_dir "$data" --output_dir "$run" --resume auto ${overrides[@]+"${overrides[@]}"}
