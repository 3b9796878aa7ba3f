(** * What is proved: the checker of span lists

    What [multistep verify --spans] decides for anybody's kernel, given the final spans that each
    query can choose from, its window as one more.  The proofs are in SpanChecker.v. *)

From Coq Require Import ZArith List Lia Sorted.
From Multistep Require Import Schedule.
From Multistep Require SpanChecker.
Import ListNotations.
Open Scope Z_scope.

(** Three queries: 3 can reach the keys [[0, 4)], 4 all but the key 2, and 5 its own key alone. *)
Definition rows : list (Z * span) :=
  [(3, Span 0 4); (5, Span 5 6); (4, Span 3 5); (4, Span 0 2)].

(** The checker of `SpanChecker.v` lists a pair exactly where the query is in the list, the key
    eligible, and in none of its spans.
    SPEC 9; `verify_spans`. *)
Theorem checker_lists_the_excluded : forall rows start stop t j,
  In (t, j) (SpanChecker.excluded_pairs rows start stop) <->
  start <= j <= t /\ t < stop /\ (exists s, In (t, s) rows) /\
  ~ exists s, In (t, s) rows /\ within j s.
Proof. exact SpanChecker.in_excluded_pairs. Qed.

Example six_are_excluded :
  SpanChecker.excluded_pairs rows 0 6 = [(4, 2); (5, 0); (5, 1); (5, 2); (5, 3); (5, 4)] /\
  SpanChecker.excluded_pairs rows 3 6 = [(5, 3); (5, 4)] /\
  ~ exists s, In (4, s) rows /\ within 2 s.
Proof.
  split; [reflexivity | split; [reflexivity |]].
  apply (checker_lists_the_excluded rows 0 6 4 2). now left.
Qed.

Print Assumptions checker_lists_the_excluded.
Print Assumptions six_are_excluded.

(** It lists them by query, then by key, and none twice: the first is the first hole, and the list's
    length is their number.
    SPEC 9; `CoverageReport`. *)
Theorem excluded_are_in_order : forall rows start stop,
  StronglySorted (fun a b => fst a < fst b \/ fst a = fst b /\ snd a < snd b)
                 (SpanChecker.excluded_pairs rows start stop).
Proof. exact SpanChecker.excluded_pairs_sorted. Qed.

(** So no pair of [rows] comes before (4, 2). *)
Example the_first_is_4_2 : forall t j,
  In (t, j) (SpanChecker.excluded_pairs rows 0 6) -> 4 < t \/ 4 = t /\ 2 <= j.
Proof.
  intros t j listed. pose proof (excluded_are_in_order rows 0 6) as sorted.
  change (SpanChecker.excluded_pairs rows 0 6)
    with ((4, 2) :: tl (SpanChecker.excluded_pairs rows 0 6)) in *.
  apply StronglySorted_inv in sorted. destruct sorted as [_ after].
  destruct listed as [same | later]; [injection same; lia |].
  apply (proj1 (Forall_forall _ _) after) in later. cbn [fst snd] in later. lia.
Qed.

Print Assumptions excluded_are_in_order.
Print Assumptions the_first_is_4_2.
