#!/bin/bash
#SBATCH --job-name=train
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# A minute before the time limit, to this script.
#SBATCH --signal=B:USR1@60

# burn-backup starts the training again after a crash. TERM has the training saved, and ended with code 75.
burn-backup run --grace 50s --log events.log -- ./train &
supervisor=$!
trap 'kill -TERM "$supervisor"; is_asked=1' USR1 TERM
wait "$supervisor"
code=$?
# The signal has ended the first wait.
if [[ $is_asked ]]; then
    wait "$supervisor"
    code=$?
fi
if [[ $code == 75 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
