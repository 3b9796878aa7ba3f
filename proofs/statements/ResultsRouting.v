(** * What is proved: which keys scores can choose

    As in Results.v: theorems to be read with Schedule.v alone, each with an example and with what
    both rest on.  That a pattern reaches a key is structure; here scores are inner products, and
    one path is kept. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule ResultsWork.
From Multistep Require Routing Checker.
Import ListNotations.
Open Scope Z_scope.

(** ** Vectors of [D] coordinates (Routing.v) *)

Definition dot (D : nat) (a b : nat -> Z) : Z := total (map (fun c => a c * b c) (seq 0 D)).

(** Among vectors of one length none scores more for the query a than a itself, and as much only a.
    SPEC 2.5.11; `span_search`. *)
Theorem own_query_scores_best : forall D a b,
  dot D a a = dot D b b ->
  dot D a b <= dot D a a /\
  (dot D a b = dot D a a -> forall c, (c < D)%nat -> a c = b c).
Proof. exact Routing.own_query_scores_best. Qed.

(** (3, 4) and (5, 0): 15 below 25. *)
Definition three_four (c : nat) : Z := match c with O => 3 | _ => 4 end.
Definition five_zero (c : nat) : Z := match c with O => 5 | _ => 0 end.

Example three_four_scores_best :
  dot 2 three_four five_zero <= 25 /\ dot 2 three_four five_zero = 15.
Proof.
  split; [| reflexivity]. exact (proj1 (own_query_scores_best 2 three_four five_zero eq_refl)).
Qed.

Print Assumptions own_query_scores_best.
Print Assumptions three_four_scores_best.

(** A mean of other anchors, with weights, never scores more than all of them: it never wins alone.
    SPEC 2.5.11; `span_search`. *)
Theorem middle_never_wins_alone : forall D q middle others,
  0 < total (map fst others) -> Forall (fun one => 0 <= fst one) others ->
  (forall c, (c < D)%nat ->
     total (map fst others) * middle c = total (map (fun one => fst one * snd one c) others)) ->
  exists one, In one others /\ dot D q middle <= dot D q (snd one).
Proof. exact Routing.middle_never_wins_alone. Qed.

(** (4, 2) between (3, 4) and (5, 0). *)
Example four_two_never_wins_alone : forall q,
  let four_two c := match c with O => 4 | _ => 2 end in
  exists one, In one [(1, three_four); (1, five_zero)] /\ dot 2 q four_two <= dot 2 q (snd one).
Proof.
  intros q four_two.
  apply middle_never_wins_alone; [reflexivity | repeat constructor; discriminate |].
  intros [| [| c]] range; [reflexivity | reflexivity | lia].
Qed.

Print Assumptions middle_never_wins_alone.
Print Assumptions four_two_never_wins_alone.

(** ** Paths

    With one routing query a level, every choice of the path is one of the best: no anchor of the
    segment scores more, and as much only one with the same vector. *)
Fixpoint best (D : nat) (vector : Z -> nat -> Z) (w : Z) (ls : list level) (n : segment)
    (path : list Z) (queries : list (nat -> Z)) : Prop :=
  match ls, path, queries with
  | [], [], [] => True
  | l :: rest, i :: path', q :: queries' =>
      let vector_of i := vector (ends n - 1 - anchor w (steps_of ls) l n i) in
      (forall other, is_stripe w (steps_of ls) l n other ->
         dot D q (vector_of other) <= dot D q (vector_of i) /\
         (dot D q (vector_of other) = dot D q (vector_of i) ->
          forall c, (c < D)%nat -> vector_of i c = vector_of other c)) /\
      best D vector 0 rest (segment_of w (steps_of ls) l n i) path' queries'
  | _, _, _ => False
  end.

(** Search keys of one length: for every path of any schedule there are routing queries, one a
    level, for which no anchor of a searched segment scores more than the path's own.
    SPEC 2.5.11; `span_search`. *)
Theorem every_path_can_be_chosen : forall D vector square,
  (forall key, dot D (vector key) (vector key) = square) ->
  forall ls w (n : segment) path d,
  leads w ls n path d -> exists queries, best D vector w ls n path queries.
Proof. exact Routing.every_path_can_be_chosen. Qed.

(** The keys of 20 as unit vectors, two tight steps: distance 12 is in the span of stripe 3. *)
Definition axis (key : Z) (c : nat) : Z := if key =? Z.of_nat c then 1 else 0.
Example distance_12_can_be_chosen :
  exists queries,
    best 20 (fun key => axis (key mod 20)) 0 (levels two_tight) (seen 0 19) [3] queries.
Proof.
  apply (every_path_can_be_chosen 20 (fun key => axis (key mod 20)) 1) with (d := 12).
  - intros key. pose proof (Z.mod_pos_bound key 20 eq_refl) as range.
    assert (cases : exists c, (c < 20)%nat /\ key mod 20 = Z.of_nat c)
      by (exists (Z.to_nat (key mod 20)); lia).
    destruct cases as (c & small & ->). unfold axis.
    do 20 (destruct c as [| c]; [reflexivity |]). lia.
  - vm_compute. repeat split; discriminate.
Qed.

Print Assumptions every_path_can_be_chosen.
Print Assumptions distance_12_can_be_chosen.

(** So for every key outside the window where a context is covered.
    SPEC 2.5.11; `span_search`. *)
Theorem every_key_can_be_chosen : forall D vector square s start stop,
  (forall key, dot D (vector key) (vector key) = square) ->
  covered s start stop ->
  forall t j, start <= j <= t -> t < stop -> window_of s <= t - j ->
  exists path queries,
    leads (window_index s) (levels s) (seen start t) path (t - j) /\
    best D vector (window_index s) (levels s) (seen start t) path queries.
Proof. exact Routing.every_key_can_be_chosen. Qed.

(** Vectors of one coordinate, all 1: ties everywhere, and nothing scores more. *)
Example every_key_of_20_can_be_chosen : forall t j, 0 <= j <= t -> t < 20 -> 0 <= t - j ->
  exists path queries,
    leads 0 (levels two_tight) (seen 0 t) path (t - j) /\
    best 1 (fun _ _ => 1) 0 (levels two_tight) (seen 0 t) path queries.
Proof.
  apply (every_key_can_be_chosen 1 (fun _ _ => 1) 1 two_tight 0 20); [reflexivity |].
  apply Checker.first_hole_none. vm_compute. reflexivity.
Qed.

Print Assumptions every_key_can_be_chosen.
Print Assumptions every_key_of_20_can_be_chosen.
