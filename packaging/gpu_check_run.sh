#!/usr/bin/env bash
# Checks the GPU's part on this machine: does it start, does it compute what the CPU computes, how fast, what happens
# when memory runs out. Packed by packaging/gpu_check.sh as run.sh; needs an NVIDIA card with its driver and cuBLAS, and
# Python 3.9 for some parts. It fetches nothing and writes nothing outside OUT.
#
# usage: run.sh [OUT] [PART...]           OUT: result by default; no PART: all of them, about ten minutes
#   start device check vectors weights check-large bench bench-mix interactive peers
#
# Variables: LD_LIBRARY_PATH, or CUBLAS=FOLDER, where cuBLAS is found neither by the system nor in PyTorch's wheels;
# PYTHON=PROGRAM, a Python with torch and sentence-transformers for the comparison; SHAPE="--layers 2 ..." for weights of
# another shape than bge-m3's; BENCH="--seconds 30 ..." for other runs.
# Exit status: 0 nothing failed, 1 something failed, 3 there is no usable GPU. OUT/log has everything, OUT/result.json
# the figures.
set -uo pipefail
case "${1:-}" in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(realpath -m "${1:-result}")
[ $# -eq 0 ] || shift
wanted=" ${*:-start device check vectors weights check-large bench bench-mix interactive peers} "
mkdir -p "$out" || exit 1
program=$here/alexandria-ingestd
log=$out/log
: >"$log"
parts=() failed=0 passed=0 not_run=0 gpu=
large=$out/models/bge-m3-shape

# settings NAME DEVICE MODEL: a configuration of its own, so that none of this machine's is read.
settings() {
  cat >"$out/$1.toml" <<TOML
state_dir = "$out/state"
[embedding]
model = "$(basename "$3")"
model_path = "$3"
device = "$2"
cuda_libraries = "${CUBLAS:-}"
TOML
}

# note NAME RESULT REASON SECONDS: one line for a person, one for the JSON.
note() {
  local reason=${3//\\/\\\\}
  reason=${reason//\"/\\\"}
  # Control characters cannot stand in JSON.
  reason=${reason//[[:cntrl:]]/ }
  printf '%-12s %-8s %6s s  %s\n' "$1" "$2" "$4" "$3"
  parts+=("{\"part\": \"$1\", \"result\": \"$2\", \"seconds\": $4, \"said\": \"$reason\"}")
  case $2 in passed) passed=$((passed + 1)) ;; failed) failed=$((failed + 1)) ;; *) not_run=$((not_run + 1)) ;; esac
}

# part NAME SECONDS COMMAND...: runs it with a time limit, into the log. Its status 3 means that it cannot run here.
part() {
  local name=$1 limit=$2 started=$SECONDS status=0 said
  shift 2
  [[ "$wanted" == *" $name "* ]] || return 0
  printf '\n=== %s: %s\n' "$name" "$*" >>"$log"
  if [ "$1" = measured ]; then
    shift 2
    measured "$name" timeout --kill-after=10 "$limit" "$@" >"$out/$name.txt" 2>&1 </dev/null || status=$?
  else
    timeout --kill-after=10 "$limit" "$@" >"$out/$name.txt" 2>&1 </dev/null || status=$?
  fi
  cat "$out/$name.txt" >>"$log"
  said=$(grep -v '^[[:space:]]*$' "$out/$name.txt" | tail -n 1 | cut -c 1-160)
  case $status in
    0) note "$name" passed "$said" $((SECONDS - started)) ;;
    3) note "$name" "not run" "$said" $((SECONDS - started)) ;;
    124 | 137) note "$name" failed "longer than $limit s" $((SECONDS - started)) ;;
    *) note "$name" failed "status $status: $said" $((SECONDS - started)) ;;
  esac
  return "$status"
}

# A number of a run's JSON; empty where there is none.
figure() { sed -n "s/^ *\"$2\": \([0-9.e+-]*\),\{0,1\}\$/\1/p" "$out/$1.json" 2>/dev/null | head -n 1; }

# measured NAME COMMAND...: keeps the command's JSON under that name, and ends with the figures that matter most.
measured() {
  local name=$1 ceiling
  shift
  "$@" >"$out/$name.json.part" || return
  mv "$out/$name.json.part" "$out/$name.json"
  cat "$out/$name.json"
  ceiling=$(figure "$name" ceiling_share)
  printf '%.0f tokens/s' "$(figure "$name" tokens_per_second)"
  [ -z "$ceiling" ] || printf ', %.1f %% of the matmul ceiling' "$(awk -v share="$ceiling" 'BEGIN { print share * 100 }')"
  [ "$name" != interactive ] ||
    printf '; answers in %.0f ms, at worst %.0f' "$(figure "$name" median_ms)" "$(figure "$name" worst_ms)"
  echo
}

skip() {
  [[ "$wanted" == *" $1 "* ]] || return 0
  note "$1" "not run" "$2" 0
}

# --- what is here -------------------------------------------------------------------------------------------------

python=${PYTHON:-python3}
has_python=
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null && has_python=1
{
  echo "packed from $(cat "$here/commit")"
  date -u '+%F %T UTC'
  uname -srm
  echo "$(nproc) CPUs, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
  nvidia-smi 2>&1 || true
} >>"$log"

usable() { "$program" --config "$out/small.toml" device 2>/dev/null | grep -q '^chosen *cuda'; }

# Folders with cuBLAS: the system's CUDA, then the wheels that PyTorch brings.
cublas_folders() {
  local file
  for file in /usr/local/cuda*/lib64/libcublas.so.1[23] /usr/local/cuda*/targets/x86_64-linux/lib/libcublas.so.1[23] \
    /usr/lib/x86_64-linux-gnu/libcublas.so.1[23]; do
    [ ! -e "$file" ] || dirname "$file"
  done
  [ -z "$has_python" ] || "$python" - <<'PY'
import glob, os, sys
for place in sys.path:
    for file in sorted(glob.glob(os.path.join(place, "nvidia", "*", "lib", "libcublas.so.1[23]")), reverse=True):
        print(os.path.dirname(file))
PY
}

small=$here/models/minilm
settings small auto "$small"
if [ -z "${CUBLAS:-}" ] && ! usable; then
  while read -r folder; do
    CUBLAS=$folder
    settings small auto "$small"
    if usable; then
      echo "cuBLAS is taken from $folder" | tee -a "$log"
      break
    fi
    CUBLAS=
  done < <(cublas_folders)
fi
settings small auto "$small"
settings cuda cuda "$small"
settings cpu cpu "$small"
settings large cuda "$large"

# --- the parts ----------------------------------------------------------------------------------------------------

"$program" --version >/dev/null 2>&1 || wanted=" start "
for name in bench bench-mix interactive peers; do
  [[ "$wanted" != *" $name "* ]] || rm -f "$out/$name.json"
done
part start 60 "$program" --version
part device 120 "$program" --config "$out/small.toml" device
if usable; then
  gpu=1
else
  missing=$("$program" --config "$out/cuda.toml" device 2>&1 | grep -v '^$' | tail -n 1)
  echo "no usable GPU: $missing" | tee -a "$log"
fi

if [ -z "$gpu" ]; then
  for name in check vectors weights check-large bench bench-mix interactive peers; do skip "$name" "no usable GPU"; done
else
  part check 600 "$program" --config "$out/cuda.toml" device --check
  if [ -n "$has_python" ]; then
    part vectors 300 "$python" "$here/vectors.py" "$here/texts.jsonl" "$program" "$out/cuda.toml" "$out/cpu.toml" 0.999
    if [ -f "$large/model.safetensors" ] && [ -z "${SHAPE:-}" ]; then
      skip weights "made before: $large"
    else
      # shellcheck disable=SC2086 # several words
      part weights 300 "$python" "$here/make_random_model.py" "$large" \
        --tokenizer "$here/models/xlm-roberta-tokenizer.json" ${SHAPE:-}
    fi
  else
    for name in vectors weights; do skip "$name" "$python is missing, or older than 3.9"; done
  fi
  if [ -f "$large/model.safetensors" ]; then
    part check-large 900 "$program" --config "$out/large.toml" device --check
    # bench NAME OPTION...
    bench() {
      local name=$1
      shift
      # shellcheck disable=SC2086 # several words
      part "$name" 600 measured "$name" "$program" --config "$out/large.toml" bench --json "$@" ${BENCH:-}
    }
    bench bench
    bench bench-mix --mix
    bench interactive --interactive
    if [ -n "$has_python" ]; then
      # Three seconds of ours: a peer at a tenth of the rate ends within the limit, three times, on a small card, too.
      chunks=$(awk -v rate="$(figure bench tokens_per_second)" \
        'BEGIN { n = int(rate * 3 / 450); print (n < 96 ? 96 : (n > 4000 ? 4000 : n)) }')
      part peers 1200 "$python" "$here/embed_peers.py" "$program" --model "$large" --device cuda --chunks "$chunks" \
        --config "$out/large.toml" --json "$out/peers.json"
    else
      skip peers "$python is missing, or older than 3.9"
    fi
  else
    for name in check-large bench bench-mix interactive peers; do skip "$name" "there are no weights of bge-m3's shape"; done
  fi
fi

# --- the result ---------------------------------------------------------------------------------------------------

goals=()
# goal WHAT VALUE at-least|at-most LIMIT
goal() {
  [ -n "$2" ] || return 0
  local word
  word=$(awk -v value="$2" -v how="$3" -v limit="$4" \
    'BEGIN { print (how == "at-least" ? value >= limit : value <= limit) ? "met" : "missed" }')
  printf 'goal %-6s  %s: %.3f (%s %s)\n' "$word" "$1" "$2" "${3/-/ }" "$4"
  goals+=("{\"goal\": \"$1\", \"value\": $2, \"$3\": $4, \"result\": \"$word\"}")
}
ratio() { [ -z "$1" ] || [ -z "$2" ] || awk -v a="$1" -v b="$2" 'BEGIN { printf "%.4f", a / b }'; }
echo
rate=$(figure bench tokens_per_second)
goal "share of the matmul ceiling, 450 tokens" "$(figure bench ceiling_share)" at-least 0.5
goal "rate of the mix by that of 450 tokens" "$(ratio "$(figure bench-mix tokens_per_second)" "$rate")" at-least 0.95
goal "worst answer, in times of one bulk batch" \
  "$(ratio "$(figure interactive worst_ms)" "$(figure interactive batch_ms)")" at-most 1
goal "the host's memory after loading, MiB" "$(ratio "$(figure bench host_loaded_bytes)" 1048576)" at-most 400
peer=$(sed -n '/fp16 batch 96/,/}/s/^ *"ratio": \([0-9.]*\).*/\1/p' "$out/peers.json" 2>/dev/null | head -n 1)
goal "tokens/s by sentence-transformers fp16 batch 96" "$peer" at-least 4

join() { local IFS=,; echo "$*"; }
{
  printf '{"commit": "%s", "parts": [%s], "goals": [%s]' "$(cat "$here/commit")" "$(join "${parts[@]}")" \
    "$(join "${goals[@]}")"
  for name in bench bench-mix interactive peers; do
    [ ! -f "$out/$name.json" ] || printf ', "%s": %s' "$name" "$(cat "$out/$name.json")"
  done
  echo '}'
} >"$out/result.json"
echo
echo "$passed passed, $failed failed, $not_run not run; everything is in $out/log, the figures in $out/result.json"
[ "$failed" -eq 0 ] || exit 1
[ -n "$gpu" ] || exit 3
