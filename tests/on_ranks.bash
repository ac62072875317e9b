# For the tests that start ranks: $work, a folder that goes away at the end; ok
# and not_ok; no launcher's variables.
set -u
status=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GOMP_SPINCOUNT=0
unset RANK WORLD_SIZE SLURM_PROCID SLURM_NTASKS SLURM_NTASKS_PER_NODE

ok() { echo "ok $1"; }
not_ok() { echo "not ok $1: $2"; status=1; }
