#!/usr/bin/env bash
# What needs no GPU, of the program in a build folder, into results/cpu/:
#   experiments/cpu.sh BUILD [--fresh] [scaling] [audit] [needles] [relatives] [oracle] [training]
# A file that this command made of this commit is kept, unless --fresh; so an interrupted run goes
# on where it was. Outside a git checkout COMMIT and DIRTY (yes or no) tell what was built.
set -euo pipefail
build=$(realpath "${1:?a build folder}")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
multistep=$build/multistep
[ -x "$multistep" ] || { echo "experiments/cpu.sh $build: a folder with the multistep program" >&2; exit 2; }
commit=${COMMIT:-$(git rev-parse HEAD)}
dirty=${DIRTY:-$([ -z "$(git status --porcelain -- . ':!results' ':!docs/results.md' ':!README.md')" ] && echo no || echo yes)}
folder=${RESULTS:-results/cpu}

# 2^10 ... 2^40 by doubling, and one and a half times every second of them.
lengths() {
  local power list=()
  for power in {10..40}; do
    list+=($((1 << power)))
    [ $((power % 2)) -eq 1 ] || [ "$power" -eq 40 ] || list+=($((3 << (power - 1))))
  done
  (IFS=,; echo "${list[*]}")
}

SCALING=(scale --json --last-query --samples 1024 --lengths "$(lengths)"
  --configs dense,nstep2,nstep3,nstep4,nstep5,nstep6,even2,even3,even4,aligned2,aligned3,aligned4,tight3,tight4,paper,released)
AUDIT=(audit --json)
NEEDLES=(needles --json --configs nstep2,nstep3,nstep4,even2,even3,aligned2,aligned3,paper,released)

# The file $1 was made by the command $2 from the same commit. From a tree with changes, which the
# commit does not tell, it must also be newer than the program.
kept() {
  [ $fresh = no ] && [ -e "$1" ] || return 1
  [ $dirty = no ] || [ "$1" -nt "$multistep" ] || return 1
  python3 - "$1" "$2" "$commit" "$dirty" <<'PYTHON'
import json, sys
try:
    result = json.load(open(sys.argv[1]))
except ValueError:
    sys.exit(1)
sys.exit([result.get(name) for name in ("command", "commit", "dirty")] != sys.argv[2:])
PYTHON
}

# Makes $folder/$1.json, if it is not there: of the program with the arguments $2 ...
made() {
  local file=$folder/$1.json begin=$SECONDS
  shift
  if kept "$file" "multistep $*"; then
    echo "$file: kept"
    return
  fi
  echo "$file: multistep $*" | cut -c 1-100
  "$multistep" "$@" --commit "$commit" --dirty "$dirty" --output "$file"
  echo "$file: $((SECONDS - begin)) s"
}

scaling() { made scaling "${SCALING[@]}"; }
audit() { made audit "${AUDIT[@]}"; }
needles() { made needles "${NEEDLES[@]}"; }

# Likewise of an experiment $2 that asks the program.
asked() {
  local file=$folder/$1.json begin=$SECONDS
  if kept "$file" "$2"; then
    echo "$file: kept"
    return
  fi
  echo "$file: $2"
  python3 "$2" "$multistep" --output "$file" --commit "$commit" --dirty "$dirty"
  echo "$file: $((SECONDS - begin)) s"
}

relatives() { asked relatives experiments/relatives.py; }
oracle() { asked oracle experiments/oracle_times.py; }

# Of the Python package that python3 finds.
training() {
  local file=$folder/training_curve.json begin=$SECONDS
  local command="experiments/studies/training_curve.py --device cpu"
  if kept "$file" "$command"; then
    echo "$file: kept"
    return
  fi
  if ! python3 -c 'import multistep.torch' 2>/dev/null; then
    echo "$file: skipped, as python3 finds no multistep.torch"
    return
  fi
  echo "$file: $command"
  # shellcheck disable=SC2086  # words
  python3 $command --output "$file" --commit "$commit" --dirty "$dirty"
  echo "$file: $((SECONDS - begin)) s"
}

fresh=no
parts=()
for part in "$@"; do
  case $part in
    --fresh) fresh=yes ;;
    scaling | audit | needles | relatives | oracle | training) parts+=("$part") ;;
    *) echo "experiments/cpu.sh $part: --fresh, scaling, audit, needles, relatives, oracle or training" >&2; exit 2 ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(scaling audit needles relatives oracle training)
mkdir -p "$folder"
for part in "${parts[@]}"; do $part; done
