#!/usr/bin/env bash
# What a GPU is asked, of the programs in a build folder made by `cmake --preset gpu`:
#   experiments/gpu.sh BUILD [tests] [compare] [bench] [accuracy] [training] [sweep] [learning]
# some, or all.
# Results go to results/<device>/, and the tables of docs/results.md are made anew from results/. What is
# there from this commit is kept, so that an interrupted run goes on where it stopped. Ends with 77
# where there is no GPU. Outside a git checkout COMMIT and DIRTY (yes or no) tell what was built.
set -euo pipefail
build=$(realpath "${1:?a build folder}")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=$(realpath --relative-to=. "$build")  # results name no folder of this machine
multistep=$build/multistep
commit=${COMMIT:-$(git rev-parse HEAD)}
dirty=${DIRTY:-$([ -z "$(git status --porcelain -- . ':!results' ':!docs/results.md' ':!README.md')" ] && echo no || echo yes)}

SCHEDULES=(
  "--preset paper --window-index 31"  # A
  "--preset released"                 # B
  "--steps 2"
  "--steps 3"
  "--steps 4"
  "--preset even --steps 2"
  "--preset even --steps 3"
  "--preset aligned --steps 2"
  "--preset aligned --steps 3"
  "--preset aligned --steps 4"
)
LENGTHS=(4Ki 64Ki 1Mi 10M)
QUERIES=(1 2Ki)  # decoding, and a chunk at the end of the context

EVERY=A,B,nstep2,nstep3,nstep4,even2,even3,even4,aligned2,aligned3,aligned4,dense
BENCHES=(  # file, phases, lengths, configurations
  "context_4Ki decode,prefill 4Ki $EVERY"
  "context_16Ki decode,prefill 16Ki $EVERY"
  "context_64Ki decode,prefill 64Ki $EVERY"
  "context_256Ki decode,prefill 256Ki $EVERY"
  "context_1Mi decode,prefill 1Mi $EVERY"
  "context_4Mi decode,prefill 4Mi $EVERY"
  "context_10M decode,prefill 10M $EVERY"
  "whole whole 4Ki,8Ki,16Ki,32Ki,64Ki A,B,nstep2,nstep3,even2,aligned2,aligned3,dense"
  "train train 16Ki,64Ki,128Ki A,B,nstep2,nstep3,even2,aligned2,aligned3,dense"
)

ACCURACY_LENGTHS=(4Ki 64Ki 1Mi)
ACCURACY_SCHEDULES=("${SCHEDULES[@]:0:4}")
ACCURACY_DTYPES=(bf16 fp16)
ACCURACY_INPUTS=(random clustered hot needle)
ACCURACY_QUERIES=256  # at the end of the context
ACCURACY_ROWS=64      # of them and their heads, held to the oracle

TRAINING_LENGTHS=4096,16384,65536,131072

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

# Whether a result is of this commit and whole: then it is kept.
finished() {
  [ "$dirty" = no ] && [ -e "$1" ] && python3 - "$1" "$commit" <<'END'
import json, sys
result = json.load(open(sys.argv[1]))
sys.exit(result["commit"] != sys.argv[2] or result["dirty"] != "no" or bool(result.get("failed")))
END
}

tests() {
  say "tests on the GPU"
  "$build/tests/gpu_tests"
  say "the same of the code for 80, as chips later than Hopper run it"
  CUDA_FORCE_PTX_JIT=1 "$build/tests/gpu_tests"
  "$build/tests/gpu_tests_faulty" "[chunk]"
  python3 tests/program/gpu_program_test.py "$multistep"
  say "faults that the comparison or the tests must catch"
  python3 tests/cuda/faults.py "$build/multistep_faulty" "$build/tests/gpu_tests_faulty"
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
  local failed=0 line file phases lengths configs option
  for line in "${BENCHES[@]}"; do
    read -r file phases lengths configs <<<"$line"
    if finished "$folder/$file.json"; then
      echo "$file: kept, of this commit"
      continue
    fi
    echo "$file: $phases of $configs"
    option=--lengths
    [[ $phases = whole || $phases = train ]] && option=--whole-lengths
    "$multistep" bench --phases "$phases" "$option" "$lengths" --configs "$configs" \
      --commit "$commit" --dirty "$dirty" --json --output "$folder/$file.json" || failed=1
  done
  return $failed
}

# Every comparison is a file until all are there.
accuracy() {
  say "accuracy, into $folder/accuracy.json"
  if finished "$folder/accuracy.json"; then
    echo "accuracy: kept, of this commit"
    return
  fi
  local parts=$folder/accuracy.$commit failed=0 count=0 length dtype inputs schedule file code
  [ "$dirty" = no ] || rm -rf "$parts"
  mkdir -p "$parts"
  for length in "${ACCURACY_LENGTHS[@]}"; do
    for dtype in "${ACCURACY_DTYPES[@]}"; do
      for inputs in "${ACCURACY_INPUTS[@]}"; do
        for schedule in "${ACCURACY_SCHEDULES[@]}"; do
          count=$((count + 1))
          file=$(printf '%s/%03d.json' "$parts" "$count")
          [ -e "$file" ] && continue
          code=0
          # shellcheck disable=SC2086  # options are words
          "$multistep" compare --length "$length" --queries "$ACCURACY_QUERIES" \
            --sample "$ACCURACY_ROWS" --dtype "$dtype" --inputs "$inputs" $schedule \
            --json --output "$file" || code=$?
          [ $code -le 1 ] || return $code
          [ $code -eq 0 ] || failed=1
          echo "$([ $code -eq 0 ] && echo pass || echo FAIL)  $length $dtype $inputs $schedule"
        done
      done
    done
  done
  python3 - "$parts" "$commit" "$dirty" "$build" >"$folder/accuracy.json.partial" <<'END'
import json, pathlib, sys
folder, commit, dirty, build = sys.argv[1:]
files = sorted(pathlib.Path(folder).glob("*.json"))
runs = [json.loads(file.read_text()) for file in files]
seconds = files[-1].stat().st_mtime - files[0].stat().st_mtime  # from the first to the last
json.dump({"command": f"experiments/gpu.sh {build} accuracy", "commit": commit, "dirty": dirty,
           "seed": runs[0]["seed"], "seconds": round(seconds, 1), "device": runs[0]["device"],
           "runs": runs}, sys.stdout, indent=2)
END
  mv "$folder/accuracy.json.partial" "$folder/accuracy.json"
  rm -r "$parts"
  return $failed
}

# Of the Python package that python3 finds.
training() {
  say "training, and few queries, from PyTorch, into $folder"
  if ! python3 -c 'import multistep.torch' 2>/dev/null; then
    echo "training: skipped, as python3 finds no multistep.torch"
    return
  fi
  local failed=0 origin=(--commit "$commit" --dirty "$dirty")
  finished "$folder/sdpa.json" ||
    python3 experiments/sdpa_times.py --lengths "$TRAINING_LENGTHS" --output "$folder/sdpa.json" \
      "${origin[@]}" || failed=1
  finished "$folder/query_times.json" ||
    python3 experiments/query_times.py --output "$folder/query_times.json" "${origin[@]}" || failed=1
  finished "$folder/training_curve.json" ||
    python3 experiments/studies/training_curve.py --device cuda \
      --output "$folder/training_curve.json" "${origin[@]}" || failed=1
  return $failed
}

# Every factor between neighbouring shapes; a cliff fails, and its file tells which.
sweep() {
  say "cliffs, into $folder/sweep.json"
  if finished "$folder/sweep.json"; then
    echo "sweep: kept, of this commit, and without a cliff"
    return
  fi
  "$multistep" bench --sweep --commit "$commit" --dirty "$dirty" \
    --json --output "$folder/sweep.json"
}

# Small models, on all GPUs; goes on where it stopped, whatever the commit.
learning() {
  say "whether routing is learned, into $folder/learning.json"
  if ! python3 -c 'import multistep.torch' 2>/dev/null; then
    echo "learning: skipped, as python3 finds no multistep.torch"
    return
  fi
  python3 experiments/studies/learning/run.py --plan slower --device cuda --workers 8 \
    --output "$folder/learning.json" --commit "$commit" --dirty "$dirty"
}

folder=$(results)
mkdir -p "$folder"
[ $# -gt 0 ] || set -- tests compare bench accuracy training sweep learning
for part in "$@"; do
  case $part in
    tests | compare | bench | accuracy | training | sweep | learning) ;;
    *)
      echo "experiments/gpu.sh $part: tests, compare, bench, accuracy, training, sweep or learning" >&2
      exit 2
      ;;
  esac
done
for part in "$@"; do
  $part
done
