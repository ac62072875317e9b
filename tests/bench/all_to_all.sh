#!/bin/bash
# Bandwidth of all-to-alls of 4 ranks, ours and MPI's alone, in turns: the
# machine is the same for both. Needs MPI; BUILD is the build folder.
#   tests/bench/all_to_all.sh [RANKS]
set -eu
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build} ranks=${1:-4}
bench=$BUILD/all_to_all
[ -x "$bench" ] || { echo "no $bench: it is built where MPI is" >&2; exit 1; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
for _ in 1 2; do
  "$bench" "$ranks"
  mpirun --oversubscribe -n "$ranks" "$bench"
done
