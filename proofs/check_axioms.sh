#!/usr/bin/env bash
# What the proofs are held to beyond compiling.
#
#   check_axioms.sh SOURCES         the texts: among them that each theorem of Results*.v has its
#                                   example, and each statement there its Print Assumptions
#   check_axioms.sh SOURCES BUILT   also what Coq answered when it compiled Results*.v in BUILT, kept
#                                   in statements/Results*.log there
#
# Prints every theorem, example and lemma with what it rests on; ends with 1 where something is wrong, and says what.
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
  words+='|Context|Variables?|Hypothes[ie]s|Declare (Module|Instance)'  # of a Section just as well
  words+='|(Unset|Set) (Guard|Positivity|Universe) Checking|bypass_check|Type In Type'
  for file in "$sources"/*/*.v; do
    name=${file#"$sources"/}
    [ "$(wc -l <"$file")" -le $longest ] || complain "$name: more than $longest lines"
    grep -qx "$name" "$sources/_CoqProject" || complain "$name: not in _CoqProject"
    code "$file" | tr -s '[:space:]' ' ' > "$scratch/code"
    while read -r word; do
      complain "$name: $word"
    done < <(grep -oE "(^|[^A-Za-z0-9_'])($words)([^A-Za-z0-9_']|$)" "$scratch/code")
    [[ $name != */Results* ]] || check_order "$file" || bad=1
  done
}

# What a file Results*.v states and asks, wherever on a line: "Theorem NAME", "Proof", "Qed",
# "Asked NAME", the words "match" and "with", and "Refused WORD" for other ways to state something.
statements() {
  code "$1" | perl -0777 -ne '
    my $begin = qr/(?<![\w\x27])/;
    my $end = qr/(?![\w\x27])/;
    while (/$begin(?:(Theorem|Corollary|Lemma|Example)\s+([\w\x27]+)
        |Print\s+Assumptions\s+([\w\x27.]*[\w\x27])
        |(match|with|Proof|Qed|Defined)$end
        |(Fact|Remark|Proposition|Property|Goal|Instance|Let|Program|Module|Save)$end)/gx) {
      print defined $1 ? "$1 $2" : defined $3 ? "Asked $3" : defined $4 ? $4 : "Refused $5", "\n";
    }'
}

# Each theorem of a file Results*.v, its example, and "Print Assumptions NAME.", in this order; and
# the same question for each lemma and example, before the next theorem.
check_order() {
  statements "$1" | awk -v file="$(basename "$1")" '
    function wrong(what) { print "check_axioms: " file ": " what > "/dev/stderr"; bad = 1 }
    function finish(name) {
      for (name in open) wrong(name " without its Print Assumptions")
      split("", open)
    }
    function proved() { if (proving != "") wrong(proving " without a proof"); proving = "" }
    $1 == "Refused" { wrong($2 ": only Theorem, Corollary, Lemma and Example state something here") }
    $1 ~ /^(Theorem|Corollary|Lemma|Example)$/ {
      proved()
      if ($1 ~ /^[TC]/) { finish(); theorem = $2; shown = 0 }
      if ($1 == "Example") shown = 1
      open[$2]
      proving = $2
      stating = 1
      withs = 0
    }
    stating && $1 == "match" { withs-- }
    stating && $1 == "with" && ++withs > 0 { wrong(proving " with a second statement") }
    $1 == "Proof" { stating = 0 }
    $1 ~ /^(Qed|Defined)$/ {
      if (proving == "") wrong("a proof of no theorem, lemma or example")
      proving = ""
      stating = 0
    }
    $1 == "Asked" {
      proved()
      if (!($2 in open)) wrong("Print Assumptions " $2 " out of place")
      else if ($2 == theorem && !shown) wrong($2 " without an example")
      delete open[$2]
    }
    END { proved(); finish(); exit bad }'
}

# What Coq answered, each answer behind what was asked about: "== Theorem Results.NAME".
answers() {
  local file name log
  for file in "$1"/statements/Results*.v; do
    name=$(basename "$file" .v)
    log=$2/statements/$name.log
    [ -e "$log" ] || { complain "$name.log: not in $2/statements"; continue; }
    statements "$file" | awk -v file="$name" '
      $1 == "Asked" { print kind[$2], file "." $2; next }
      { kind[$2] = $1 }' > "$scratch/asked"
    awk -v file="$name" '
      FILENAME == ARGV[1] { asked[++count] = $0; next }
      /^(Closed under the global context|[A-Z][A-Za-z ]*:)$/ { print "== " asked[++answer] }
      { print }
      END {
        if (answer != count) {
          print "check_axioms: " file ".log: " answer+0 " answers to " count+0 > "/dev/stderr"
          exit 1
        }
      }' "$scratch/asked" "$log" || bad=1
  done
}

# Axioms stand at the beginning of a line, their types behind or indented below.
judge() {
  awk -v allowed="${allowed[*]}" '
    function wrong(what) { print "check_axioms: " name ": " what > "/dev/stderr"; bad = 1 }
    function finish() {
      if (name == "") return
      if (!closed && axioms == "") wrong("nothing known about it")
      printf "%-47s %s\n", (kind ~ /^[TC]/ ? "" : "  ") name, closed ? "Closed under the global context" : "axioms:" axioms
    }
    BEGIN { count = split(allowed, list, " "); for (i = 1; i <= count; i++) may[list[i]] = 1 }
    /^== /  { finish(); kind = $2; name = $3; closed = 0; axioms = ""; theorems++; next }
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
