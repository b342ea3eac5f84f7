#!/usr/bin/env bash
# The checks that only a GPU can make, part by part: a table each, and what ran, what could not, and what failed.
#
#     benchmarks/gpu.sh [PART...] [--device cuda|cpu] [--small] [--work DIR]
#
# Parts (default: all, in this order): thread model answers swap throughput pruning. Each is bounded to 8 minutes, so
# that a machine lent for a few minutes can run one at a time: a 16 GB model of random weights is made once in DIR
# (default: the cache folder), by `model` or by the first part that needs it. docs/gpu.md says what each part shows.
#
#     benchmarks/gpu.sh --device cpu --small     the same script on a CPU, to prove that it works; figures mean nothing
#
# PYTHON names the interpreter (default: python3). Exit 1 if a part failed, 2 for bad use, else 0.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
PARTS=(thread model answers swap throughput pruning)
device=cuda options=() parts=()
usage() {
  echo "$1; known are the parts ${PARTS[*]}, --device cuda|cpu, --small and --work DIR" >&2
  exit 2
}
while (($#)); do
  case $1 in
    --device) device=${2:-}; [[ $device == cuda || $device == cpu ]] || usage "--device needs cuda or cpu"; shift 2 ;;
    --work) [[ -n ${2:-} ]] || usage "--work needs a folder"; options+=(--work "$2"); shift 2 ;;
    --small) options+=(--small); shift ;;
    *) [[ " ${PARTS[*]} " == *" $1 "* ]] || usage "unknown part or option $1"; parts+=("$1"); shift ;;
  esac
done
((${#parts[@]})) || parts=("${PARTS[@]}")

if [[ $device == cuda ]] && ! "$PYTHON" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  echo "no CUDA device that torch of $PYTHON can see; nothing was run" >&2
  exit 2
fi

ran=() failed=() skipped=()
for part in "${parts[@]}"; do
  timeout --kill-after=20 480 "$PYTHON" -m benchmarks.gpu_checks --device "$device" ${options[@]+"${options[@]}"} "$part"
  case $? in
    0) ran+=("$part") ;;
    3) skipped+=("$part") ;;
    124 | 137) failed+=("$part (not done in 480 s)") ;;
    *) failed+=("$part") ;;
  esac
done
echo
echo "held: ${ran[*]:-none}"
echo "not run: ${skipped[*]:-none}"
echo "failed: ${failed[*]:-none}"
((${#failed[@]} == 0))
