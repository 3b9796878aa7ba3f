#!/usr/bin/env bash
# What a GPU is asked, of the programs in a build folder made by `cmake --preset gpu`:
#   experiments/gpu.sh BUILD [tests] [compare] [bench]    some of the three, or all
# Results go to results/<device>/, and the README's table is made anew from results/h100. Ends with
# 77 where there is no GPU. Outside a git checkout COMMIT and DIRTY (yes or no) tell what was built.
set -euo pipefail
build=$(realpath "${1:?a build folder}")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
multistep=$build/multistep
commit=${COMMIT:-$(git rev-parse HEAD)}
dirty=${DIRTY:-$([ -z "$(git status --porcelain -- . ':!results' ':!README.md')" ] && echo no || echo yes)}

SCHEDULES=(
  "--preset paper --window-index 31"  # A
  "--preset released"                 # B
  "--steps 2"
  "--steps 3"
  "--steps 4"
  "--preset even --steps 2"
  "--preset even --steps 3"
)
LENGTHS=(4Ki 64Ki 1Mi 10M)
QUERIES=(1 2Ki)  # decoding, and a chunk at the end of the context

BENCHES=(  # file, phases, lengths, configurations
  "contexts decode,prefill 64Ki,256Ki,1Mi A,B,nstep2,nstep3,nstep4,even2,even3"
  "contexts_10M decode,prefill 10M A,B,nstep2,nstep3,nstep4,even2,even3"
  "dense decode,prefill 64Ki,256Ki,1Mi dense"
  "whole whole 64Ki A,dense"
)

say() { printf '\n== %s\n' "$*"; }

# Where the device's results go: h100, or its name in lower case.
results() {
  local report name code=0
  report=$("$multistep" compare --length 256 --json) || code=$?
  [ $code -le 1 ] || return $code
  name=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["device"]["name"])' <<<"$report")
  case $name in
    *H100*) echo results/h100 ;;
    *) echo "results/$(tr 'A-Z ' 'a-z-' <<<"${name#NVIDIA }")" ;;
  esac
}

tests() {
  say "tests on the GPU"
  "$build/tests/gpu_tests"
  python3 tests/gpu_program_test.py "$multistep"
  say "faults that the comparison must catch"
  python3 tests/cuda/faults.py "$build/multistep_faulty"
}

compare() {
  say "comparisons with the oracle, into $folder/compare.txt"
  local out=$folder/compare.txt failed=0 length queries schedule options verdict
  echo "multistep compare at commit $commit, uncommitted changes: $dirty" >"$out.partial"
  for length in "${LENGTHS[@]}"; do
    for queries in "${QUERIES[@]}"; do
      for schedule in "${SCHEDULES[@]}"; do
        options="--length $length --queries $queries $schedule"
        verdict=pass
        printf '\n$ multistep compare %s\n' "$options" >>"$out.partial"
        # shellcheck disable=SC2086  # options are words
        "$multistep" compare $options >>"$out.partial" 2>&1 || { verdict=FAIL; failed=1; }
        echo "$verdict  $options"
      done
    done
  done
  mv "$out.partial" "$out"
  return $failed
}

bench() {
  say "times, into $folder"
  local failed=0 line file phases lengths configs
  for line in "${BENCHES[@]}"; do
    read -r file phases lengths configs <<<"$line"
    echo "$file: $phases of $configs"
    "$multistep" bench --phases "$phases" --lengths "$lengths" --configs "$configs" \
      --commit "$commit" --dirty "$dirty" --json --output "$folder/$file.json" || failed=1
  done
  python3 experiments/readme.py
  return $failed
}

folder=$(results)
mkdir -p "$folder"
[ $# -gt 0 ] || set -- tests compare bench
for part in "$@"; do
  case $part in
    tests | compare | bench) $part ;;
    *) echo "experiments/gpu.sh $part: tests, compare or bench" >&2; exit 2 ;;
  esac
done
