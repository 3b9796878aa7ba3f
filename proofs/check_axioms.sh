#!/usr/bin/env bash
# What the proofs are held to beyond compiling.
#
#   check_axioms.sh SOURCES         the texts: among them that each theorem of Results*.v has its
#                                   example and its Print Assumptions
#   check_axioms.sh SOURCES BUILT   also what Coq answered when it compiled Results*.v in BUILT, kept
#                                   in Results*.log there
#
# Prints every theorem with what it rests on; ends with 1 where something is wrong, and says what.
set -euo pipefail

# Only theorems about real numbers, in ResultsSoftmax.v, may rest on axioms, and only on those with
# which Coq's library builds its real numbers:
allowed=(
  ClassicalDedekindReals.sig_forall_dec  # the order of two reals is decided ...
  ClassicalDedekindReals.sig_not_dec     # ... classically
  FunctionalExtensionality.functional_extensionality_dep  # a real is a cut, a function
  Classical_Prop.classic  # the library's logarithm
)
longest=400  # lines of a file

bad=0
complain() { echo "check_axioms: $*" >&2; bad=1; }

# The text of a .v file without its comments, which nest.
code() { perl -0777 -pe '1 while s/\(\*(?:(?!\(\*|\*\)).)*\*\)//gs' "$1"; }

check_texts() {
  local sources=$1 file name words
  words='Admitted|admit|give_up|Admit Obligations|Axioms?|Parameters?|Conjectures?'
  words+='|(Unset|Set) (Guard|Positivity|Universe) Checking|bypass_check|Type In Type'
  for file in "$sources"/*.v; do
    name=$(basename "$file")
    [ "$(wc -l <"$file")" -le $longest ] || complain "$name: more than $longest lines"
    grep -qx "$name" "$sources/_CoqProject" || complain "$name: not in _CoqProject"
    code "$file" | tr -s ' \n' ' ' > "$scratch/code"
    while read -r word; do
      complain "$name: $word"
    done < <(grep -oE "(^|[^A-Za-z0-9_'])($words)([^A-Za-z0-9_']|$)" "$scratch/code")
    [[ $name != Results* ]] || check_order "$file" || bad=1
  done
}

# Each theorem of a file Results*.v, its example, and "Print Assumptions NAME.", in this order.
check_order() {
  code "$1" | awk -v file="$(basename "$1")" '
    function wrong(what) { print "check_axioms: " file ": " what > "/dev/stderr"; bad = 1 }
    function finish() { if (name != "") wrong(name " without its Print Assumptions") }
    $1 ~ /^(Theorem|Corollary)$/ { finish(); name = $2; sub(/:$/, "", name); shown = 0 }
    $1 == "Example" { shown = 1 }
    $1 == "Print" && $2 == "Assumptions" {
      if ($3 != name ".") wrong("Print Assumptions " $3 " out of place")
      else if (!shown) wrong(name " without an example")
      name = ""
    }
    END { finish(); exit bad }'
}

# What Coq answered, each answer behind the name of its theorem: "== Results.NAME".
answers() {
  local file name
  for file in "$1"/Results*.v; do
    name=$(basename "$file" .v)
    [ -e "$2/$name.log" ] || { complain "$name.log: not in $2"; continue; }
    code "$file" | sed -nE 's/^ *Print Assumptions ([^ ]+)\.$/\1/p' > "$scratch/asked"
    awk -v file="$name" '
      FILENAME == ARGV[1] { asked[++count] = $1; next }
      /^(Closed under the global context|[A-Z][A-Za-z ]*:)$/ { print "== " file "." asked[++answer] }
      { print }
      END {
        if (answer != count) {
          print "check_axioms: " file ".log: " answer+0 " answers to " count+0 > "/dev/stderr"
          exit 1
        }
      }' "$scratch/asked" "$2/$name.log" || bad=1
  done
}

# Axioms stand at the beginning of a line, their types behind or indented below.
judge() {
  awk -v allowed="${allowed[*]}" '
    function wrong(what) { print "check_axioms: " name ": " what > "/dev/stderr"; bad = 1 }
    function finish() {
      if (name == "") return
      if (!closed && axioms == "") wrong("nothing known about it")
      printf "%-45s %s\n", name, closed ? "Closed under the global context" : "axioms:" axioms
    }
    BEGIN { count = split(allowed, list, " "); for (i = 1; i <= count; i++) may[list[i]] = 1 }
    /^== /  { finish(); name = $2; closed = 0; axioms = ""; theorems++; next }
    /^Closed under the global context$/ { closed = 1; next }
    /^Axioms:$/ || /^[ \t]/ || /^$/ { next }
    {
      short = $1
      sub(/.*[.]/, "", short)
      axioms = axioms " " short
      if (name !~ /^ResultsSoftmax[.]/) wrong("a theorem about integers rests on " $1)
      else if (!($1 in may)) wrong("rests on " $1)
    }
    END {
      finish()
      if (!theorems) { name = "Results*.v"; wrong("no theorem") }
      exit bad
    }' "$1"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
check_texts "$1"
if [ $# -eq 2 ]; then
  answers "$1" "$2" > "$scratch/answers"
  judge "$scratch/answers" || bad=1
fi
exit $bad
