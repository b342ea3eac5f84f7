#!/usr/bin/env bash
# Every check that needs a GPU, in one call: what ran, what could not, and a non-zero exit if anything that ran failed.
#
#     benchmarks/gpu.sh                        on a machine with a CUDA device
#     benchmarks/gpu.sh --device cpu --small   the same script on a CPU, to prove that it works; its figures mean nothing
#
# PYTHON names the interpreter (default: python).
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
device=cuda small=()
while (($#)); do
  case $1 in
    --device) device=${2:?--device needs cuda or cpu}; shift 2 ;;
    --small) small=(--small); shift ;;
    *) echo "unknown option $1; known are --device cuda|cpu and --small" >&2; exit 2 ;;
  esac
done

ran=() failed=() skipped=()
part() { # part NAME COMMAND...
  local name=$1
  shift
  echo "== $name: $*"
  if "$@"; then ran+=("$name"); else ran+=("$name"); failed+=("$name"); fi
}
skip() {
  echo "== $1: not run: $2"
  skipped+=("$1 ($2)")
}

if [[ $device == cuda ]]; then
  if ! "$PYTHON" -c 'import torch; assert torch.cuda.is_available(); print("device:", torch.cuda.get_device_name())'; then
    echo "no CUDA device that torch can see; nothing was run" >&2
    exit 2
  fi
else
  echo "device: cpu; these figures are not a GPU's"
fi

if ((${#small[@]})); then
  part pruning "$PYTHON" -m benchmarks.pruning --device "$device" --hidden 256 --layers 2 --samples 2 --tokens 32
else
  part pruning "$PYTHON" -m benchmarks.pruning --device "$device" --hidden 4096 --layers 8 --samples 128 --tokens 2048
fi

if reason=$("$PYTHON" -m benchmarks.gpu_swap --device "$device" --check 2>&1 | tail -1) && [[ $reason == ready ]]; then
  for check in answers swap throughput; do
    part "$check" "$PYTHON" -m benchmarks.gpu_swap --device "$device" ${small[@]+"${small[@]}"} "$check"
  done
else
  for check in answers swap throughput; do skip "$check" "$reason"; done
fi

echo
echo "ran: ${ran[*]:-nothing}"
for one in ${skipped[@]+"${skipped[@]}"}; do echo "not run: $one"; done
echo "failed: ${failed[*]:-none}"
((${#failed[@]} == 0))
