(** * What is proved: the judge of selections is sound (SPEC 8.2)

    As in Results.v, each theorem with an example and with what both rest on.  The judge is
    [judge_selection] of reference/judge/selection.cpp with [RowOracle] of possible_paths.hpp, one
    row, where the anchors of the paths are submitted.  Left out: scores that are NaN or infinite;
    slots that are not clean; that the final span is the path's own, inside [[start, t + 1)]; how it
    guesses the anchors where only spans are submitted; which of equal scores it takes for a
    threshold; the rounding of its own float64; and that its bounds are large enough for float32,
    which is Higham's theorem, not this file's.  Scores and bounds are integers: as many of one
    small unit. *)

From Coq Require Import ZArith List Lia Bool.
From Multistep Require Judge.
Import ListNotations.
Open Scope Z_scope.

(** ** The search *)

(** [kept] are the best [k] of the candidates, or all where they are fewer: none of them is worse
    than one that is not kept. *)
Definition best_of {A : Type} (better : A -> A -> Prop) (k : nat) (candidates kept : list A)
    : Prop :=
  NoDup kept /\ incl kept candidates /\ length kept = Nat.min k (length candidates) /\
  forall x y, In x kept -> In y candidates -> ~ In y kept -> better x y.

(** The keys of the anchors that a path goes through, the last one first. *)
Definition path : Type := list Z.

(** [offers p] are the keys of the anchors to choose from after [p]: those of the span that [p] has
    led to. *)
Definition children (offers : path -> list Z) (p : path) : list path :=
  map (fun key => key :: p) (offers p).

(** What a search of [levels] levels, [N - 1], keeps: at every level the best [k] candidates by
    scores of its own, [own], over all children of what it has kept.  Between equals it may keep
    any, so also those of SPEC 3. *)
Definition right_search (k : nat) (offers : path -> list Z) (own : path -> Z) (levels : nat)
    (kept : nat -> list path) : Prop :=
  kept O = [[]] /\
  forall m, (m < levels)%nat ->
    best_of (fun p q => own q <= own p) k (flat_map (children offers) (kept m)) (kept (S m)).

(** ** The judge *)

(** Paths ranked by the exact scores, and the first [k] of them. *)
Fixpoint place (score : path -> Z) (p : path) (ranked : list path) : list path :=
  match ranked with
  | [] => [p]
  | q :: rest => if score q <? score p then p :: ranked else q :: place score p rest
  end.

Definition best (k : nat) (score : path -> Z) (paths : list path) : list path :=
  firstn k (fold_right (place score) [] paths).

(** [bound p]: how far a right search may see the score of [p] from the exact one. *)
Definition largest (bound : path -> Z) (paths : list path) : Z :=
  fold_right (fun p => Z.max (bound p)) 0 paths.

(** The threshold of a level is the best [k] of its sure candidates.  A path is behind, its regret
    beyond 1, where there are [k] and the worst of them is better than the path by more than their
    largest bound and the path's own. *)
Definition behind (k : nat) (score bound : path -> Z) (threshold : list path) (p : path) : bool :=
  (length threshold =? k)%nat &&
  forallb (fun y => largest bound threshold + bound p <? score y - score p) threshold.

(** The paths to level [m] that some rounding keeps and, among them, those that every rounding
    keeps: with a sure parent, and at most [k] paths, itself among them, that can come out at its
    score or above. *)
Fixpoint possible_and_sure (k : nat) (offers : path -> list Z) (score bound : path -> Z) (m : nat)
    : list path * list path :=
  match m with
  | O => ([[]], [[]])
  | S before =>
      let (possible, sure) := possible_and_sure k offers score bound before in
      let of_sure := flat_map (children offers) sure in
      let near := filter (fun p => negb (behind k score bound (best k score of_sure) p)) in
      let still := near (flat_map (children offers) possible) in
      let rivals p := filter (fun q => score p - bound p <=? score q + bound q) still in
      (still, filter (fun p => (length (rivals p) <=? k)%nat) (near of_sure))
  end.

Definition sure k offers score bound m : list path :=
  snd (possible_and_sure k offers score bound m).

Definition threshold k offers score bound m : list path :=
  best k score (flat_map (children offers) (sure k offers score bound m)).

(** A path of the schedule that is behind at none of its levels. *)
Fixpoint passes (k : nat) (offers : path -> list Z) (score bound : path -> Z) (p : path) : bool :=
  match p with
  | [] => true
  | key :: parent =>
      existsb (Z.eqb key) (offers parent) &&
      negb (behind k score bound (threshold k offers score bound (length parent)) p) &&
      passes k offers score bound parent
  end.

(** Whether lists have what they should. *)
Definition among (p : path) (paths : list path) : bool :=
  if in_dec (list_eq_dec Z.eq_dec) p paths then true else false.

Fixpoint distinct (paths : list path) : bool :=
  match paths with
  | [] => true
  | p :: rest => negb (among p rest) && distinct rest
  end.

Fixpoint descending (score : path -> Z) (paths : list path) : bool :=
  match paths with
  | p :: (q :: _) as rest => (score q <=? score p) && descending score rest
  | _ => true
  end.

(** The verdict on a row's [chosen] paths, in order of rank, with their submitted scores [own]: each
    is a path of the schedule and nowhere behind, its score within its bound, none is there twice,
    none has a better score than the one before, and neither are they too few nor is a sure one
    missing. *)
Definition accepts (k : nat) (offers : path -> list Z) (score bound : path -> Z) (levels : nat)
    (own : path -> Z) (chosen : list path) : bool :=
  forallb (fun p => (length p =? levels)%nat && passes k offers score bound p) chosen &&
  forallb (fun p => Z.abs (own p - score p) <=? bound p) chosen &&
  distinct chosen && descending own chosen &&
  (length (threshold k offers score bound (levels - 1)) <=? length chosen)%nat &&
  (length chosen <=? k)%nat &&
  forallb (fun p => among p chosen) (sure k offers score bound levels).

(** ** No false alarm *)

(** What a right search keeps is accepted.
    SPEC 8.2; `judge_selection`. *)
Theorem right_searches_pass : forall k offers score bound own levels kept,
  (forall p, NoDup (offers p)) -> (forall p, Z.abs (own p - score p) <= bound p) ->
  (0 < levels)%nat -> right_search k offers own levels kept ->
  descending own (kept levels) = true ->
  accepts k offers score bound levels own (kept levels) = true.
Proof. exact Judge.right_searches_pass. Qed.

(** Three steps, two paths kept: of the anchors 9, 6 and 3, with scores 100, 99 and 50, then of
    three anchors each.  A level adds 1 to the bound; the search sees 6 before 9, and 8 before 9. *)
Definition three_each (p : path) : list Z :=
  match p with
  | [] => [9; 6; 3]
  | [a] => [a; a - 1; a - 2]
  | _ => []
  end.
Definition first_score (a : Z) : Z := if a =? 9 then 100 else if a =? 6 then 99 else 50.
Definition exact_score (p : path) : Z :=
  match p with
  | [a] => first_score a
  | [b; a] => first_score a + b
  | _ => 0
  end.
Definition one_a_level (p : path) : Z := Z.of_nat (length p).
Definition seen_score (p : path) : Z :=
  match p with
  | [6] => 100
  | [9] => 99
  | [8; 9] => 110
  | _ => exact_score p
  end.
Definition kept_of_three (m : nat) : list path :=
  match m with
  | O => [[]]
  | 1%nat => [[6]; [9]]
  | _ => [[8; 9]; [9; 9]]
  end.

(** Decide statements about a few paths. *)
Ltac each_of those := repeat (destruct those as [<- | those]; [| ]); try now destruct those.
Ltac few_paths :=
  split; [repeat (apply NoDup_cons; [cbn; intuition discriminate |]); apply NoDup_nil |];
  split; [intros x x_in; cbn in x_in |- *; each_of x_in; tauto |];
  split; [reflexivity |];
  intros x y x_in y_in dropped; cbn in x_in, y_in, dropped;
  each_of x_in; each_of y_in; first [tauto | vm_compute; discriminate].
Ltac levels_of_two :=
  split; [reflexivity |]; intros [| [| m]] range; [few_paths | few_paths | lia].

Lemma three_each_distinct : forall p, NoDup (three_each p).
Proof.
  intros [| a [| b p]]; cbn [three_each]; repeat (apply NoDup_cons; [cbn; lia |]); apply NoDup_nil.
Qed.

Lemma seen_within : forall p, Z.abs (seen_score p - exact_score p) <= one_a_level p.
Proof.
  assert (same : forall p, Z.abs (exact_score p - exact_score p) <= one_a_level p).
  { intros p. unfold one_a_level. lia. }
  intros [| a p]; [apply (same []) |].
  destruct (list_eq_dec Z.eq_dec (a :: p) [6]) as [-> | not_6]; [vm_compute; discriminate |].
  destruct (list_eq_dec Z.eq_dec (a :: p) [9]) as [-> | not_9]; [vm_compute; discriminate |].
  destruct (list_eq_dec Z.eq_dec (a :: p) [8; 9]) as [-> | not_89]; [vm_compute; discriminate |].
  assert (other : seen_score (a :: p) = exact_score (a :: p)); [| rewrite other; apply same].
  unfold seen_score. repeat match goal with
  | |- match ?x with _ => _ end = _ => is_var x; destruct x; try reflexivity; try congruence
  end.
Qed.

Lemma seen_search : right_search 2 three_each seen_score 2 kept_of_three.
Proof. levels_of_two. Qed.

Example eight_before_nine :
  accepts 2 three_each exact_score one_a_level 2 seen_score [[8; 9]; [9; 9]] = true.
Proof.
  exact (right_searches_pass 2 three_each exact_score one_a_level seen_score 2 kept_of_three
    three_each_distinct seen_within ltac:(lia) seen_search eq_refl).
Qed.

Print Assumptions right_searches_pass.
Print Assumptions three_each_distinct.
Print Assumptions seen_within.
Print Assumptions seen_search.
Print Assumptions eight_before_nine.

(** ** What is wrong is wrong *)

(** A refused path no right search keeps, a sure one every right search, and none keeps fewer
    than are asked for.
    SPEC 8.2; `RowOracle` in `reference/judge/possible_paths.hpp`. *)
Theorem wrong_is_wrong : forall k offers score bound own levels kept,
  (forall p, NoDup (offers p)) -> (forall p, Z.abs (own p - score p) <= bound p) ->
  right_search k offers own levels kept ->
  (forall m p, (m <= levels)%nat -> passes k offers score bound p = false -> ~ In p (kept m)) /\
  (forall m p, (m <= levels)%nat -> In p (sure k offers score bound m) -> In p (kept m)) /\
  (forall m, (m < levels)%nat ->
     (length (threshold k offers score bound m) <= length (kept (S m)) <= k)%nat).
Proof. exact Judge.wrong_is_wrong. Qed.

(** Through anchor 3, 49 behind the threshold of level 1, no scores off by at most 1 a level lead.
    *)
Example never_through_three : forall own kept,
  (forall p, Z.abs (own p - exact_score p) <= one_a_level p) ->
  right_search 2 three_each own 2 kept -> ~ In [3; 3] (kept 2%nat) /\ In [9] (kept 1%nat).
Proof.
  intros own kept near right.
  destruct (wrong_is_wrong 2 three_each exact_score one_a_level own 2 kept three_each_distinct near
    right) as (refused & sure_kept & _).
  split; [apply refused; [lia | reflexivity] |].
  apply sure_kept; [lia | now vm_compute; left].
Qed.

Print Assumptions wrong_is_wrong.
Print Assumptions never_through_three.

(** ** What is accepted is near the best *)

(** Two steps, scores off by at most ε: what is accepted is at most 2ε worse than the worst of
    the oracle's best k.
    SPEC 8.2; `regret_of`. *)
Theorem two_steps_regret : forall k offers score bound own chosen eps oracle p,
  (forall p, NoDup (offers p)) -> (forall p, 0 <= bound p <= Z.of_nat (length p) * eps) ->
  accepts k offers score bound 1 own chosen = true -> In p chosen ->
  best_of (fun p q => score q <= score p) k (children offers []) oracle ->
  exists y, In y oracle /\ score y - score p <= 2 * eps.
Proof. exact Judge.two_steps_regret. Qed.

(** Anchors with scores 100, 99 and 50, one is kept: 6, of score 99, is accepted, 3 is not. *)
Example one_behind : accepts 1 three_each exact_score one_a_level 1 exact_score [[3]] = false /\
  exists y, In y [[9]] /\ exact_score y - exact_score [6] <= 2.
Proof.
  split; [reflexivity |].
  apply (two_steps_regret 1 three_each exact_score one_a_level exact_score [[6]] 1 [[9]] [6]
    three_each_distinct).
  - intros p. unfold one_a_level. lia.
  - reflexivity.
  - now left.
  - few_paths.
Qed.

Print Assumptions two_steps_regret.
Print Assumptions one_behind.

(** More steps: fewer than k children of sure paths are better by more than 2ε for each level.
    SPEC 8.2; `regret_of`. *)
Theorem accepted_is_near : forall k offers score bound levels own chosen eps later key parent,
  (forall p, NoDup (offers p)) -> (0 < k)%nat ->
  (forall p, 0 <= bound p <= Z.of_nat (length p) * eps) ->
  accepts k offers score bound levels own chosen = true -> In (later ++ key :: parent) chosen ->
  let beats y := 2 * (Z.of_nat (S (length parent)) * eps) <? score y - score (key :: parent) in
  (length (filter beats (flat_map (children offers) (sure k offers score bound (length parent))))
    < k)%nat.
Proof. exact Judge.accepted_is_near. Qed.

(** Of the paths to 8 and 9 above, in three steps: fewer than two of six are better than that to 8
    by more than 4. *)
Example eight_is_near :
  flat_map (children three_each) (sure 2 three_each exact_score one_a_level 1) =
    [[9; 9]; [8; 9]; [7; 9]; [6; 6]; [5; 6]; [4; 6]] /\
  (length (filter (fun y => 4 <? exact_score y - exact_score [8; 9])%Z
    [[9; 9]; [8; 9]; [7; 9]; [6; 6]; [5; 6]; [4; 6]]%Z) < 2)%nat.
Proof.
  split; [reflexivity |].
  apply (accepted_is_near 2 three_each exact_score one_a_level 2 seen_score [[8; 9]; [9; 9]] 1
    [] 8 [9] three_each_distinct ltac:(lia)).
  - intros p. unfold one_a_level. lia.
  - exact eight_before_nine.
  - now left.
Qed.

(** The converse of [right_searches_pass] is not true.  Where a near-tie leaves no path sure the
    levels below have no threshold: after anchors 1 and 2 with the same score, one of which is kept,
    the judge takes the child 3 of 1, 100 worse than the other, which no search keeps, and takes no
    path at all. *)
Definition two_each (p : path) : list Z :=
  match p with
  | [] => [1; 2]
  | [a] => [4; 3]
  | _ => []
  end.
Definition tied_score (p : path) : Z := match p with [4; _] => 100 | _ => 0 end.

Example tie_asks_nothing_below :
  sure 1 two_each tied_score one_a_level 1 = [] /\
  accepts 1 two_each tied_score one_a_level 2 tied_score [[3; 1]] = true /\
  accepts 1 two_each tied_score one_a_level 2 tied_score [] = true.
Proof. repeat split. Qed.

Example nobody_keeps_it : forall own kept,
  (forall p, Z.abs (own p - tied_score p) <= one_a_level p) ->
  right_search 1 two_each own 2 kept -> ~ In [3; 1] (kept 2%nat).
Proof.
  intros own kept near [_ step] kept_3.
  destruct (step 1%nat ltac:(lia)) as (_ & from & size & better).
  pose proof (from _ kept_3) as of_1. apply in_flat_map in of_1.
  destruct of_1 as ([| a [| b p]] & parent & child); cbn in child;
    [destruct child as [[=] | [[=] | []]] | | destruct child].
  destruct child as [[=] | [[=] | []]]. subst a.
  assert (fair : In [4; 1] (flat_map (children two_each) (kept 1%nat))).
  { apply in_flat_map. exists [1]. split; [assumption | cbn; tauto]. }
  destruct (in_dec (list_eq_dec Z.eq_dec) [4; 1] (kept 2%nat)) as [both | dropped].
  - assert (two : (2 <= length (kept 2%nat))%nat); [| lia].
    apply (NoDup_incl_length (l := [[4; 1]; [3; 1]])).
    + repeat (apply NoDup_cons; [cbn; intuition discriminate |]). apply NoDup_nil.
    + intros x [<- | [<- | []]]; assumption.
  - specialize (better _ _ kept_3 fair dropped).
    pose proof (near [4; 1]) as of_4. pose proof (near [3; 1]) as of_3. cbn in of_3, of_4. lia.
Qed.

Print Assumptions accepted_is_near.
Print Assumptions eight_is_near.
Print Assumptions tie_asks_nothing_below.
Print Assumptions nobody_keeps_it.

(** In three steps a right search may end further behind the oracle's own than any number.
    SPEC 8.2; `Threshold`. *)
Theorem oracle_may_be_far_ahead : forall gap, 0 <= gap ->
  exists offers score own kept oracle p q,
    (forall p, NoDup (offers p)) /\ (forall p, Z.abs (own p - score p) <= 1) /\
    right_search 1 offers own 2 kept /\ right_search 1 offers score 2 oracle /\
    kept 2%nat = [p] /\ oracle 2%nat = [q] /\ gap < score q - score p.
Proof. exact Judge.oracle_may_be_far_ahead. Qed.

Example a_thousand_ahead : exists offers score own kept oracle p q,
  right_search 1 offers own 2 kept /\ right_search 1 offers score 2 oracle /\
  kept 2%nat = [p] /\ oracle 2%nat = [q] /\
  Z.abs (own p - score p) <= 1 /\ 1000 < score q - score p.
Proof.
  destruct (oracle_may_be_far_ahead 1000 ltac:(lia))
    as (offers & score & own & kept & oracle & p & q & _ & near & mine & its & is_p & is_q & gap).
  exists offers, score, own, kept, oracle, p, q. repeat (split; [assumption |]).
  split; [apply near | exact gap].
Qed.

Print Assumptions oracle_may_be_far_ahead.
Print Assumptions a_thousand_ahead.
