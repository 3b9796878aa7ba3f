(** * What is proved: which spans of the power rule leave no gap

    As in Results.v, of which it takes the schedules [paper] and [released]: theorems, each with an
    example and with what both rest on. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Results.
From Multistep Require Sufficiency Released SharpNumbers.
Import ListNotations.
Open Scope Z_scope.

(** ** Factor M is enough (Sufficiency.v, Released.v) *)

(** If R^M ≤ n < (R+1)^M and B^M ≥ M^M·n^(M−1) then n − R^M ≤ B.
    SPEC 2.5.2; `power_reach`. *)
Theorem reach_suffices : forall M R n B,
  0 < M -> 0 <= R -> R ^ M <= n < (R + 1) ^ M -> 0 <= B -> M ^ M * n ^ (M - 1) <= B ^ M ->
  n - R ^ M <= B.
Proof. exact Sufficiency.reach_suffices. Qed.

(** 48 keys, the last anchor the 27th: 21 keys behind it, and a reach of 40. *)
Example reach_of_48 :
  3 ^ 3 <= 48 < 4 ^ 3 /\ 3 ^ 3 * 48 ^ (3 - 1) <= 40 ^ 3 /\ 48 - 3 ^ 3 = 21 /\ 48 - 3 ^ 3 <= 40.
Proof. do 3 (split; [computed |]). apply (reach_suffices 3 3 48 40); computed. Qed.

Print Assumptions reach_suffices.
Print Assumptions reach_of_48.

(** A level covers: in every segment each key outside the window is in the span of a stripe. *)
Definition covers (M : Z) (l : level) : Prop :=
  forall w (n : segment) d, 0 <= w -> window l w <= d < n ->
    exists i, is_stripe w M l n i /\ within d (span_of w M l n i).

(** Power levels have stripes [i^M], reach [b n^((M-1)/M)] with [b >= M], and any forward factor;
    the other rules need nothing. *)
Definition sufficient (M : Z) (l : level) : Prop :=
  match l with
  | Tight _ | Even | Aligned => True
  | Power e b _ q =>
      same_number e (Ratio M 1) /\ same_number q (Ratio (M - 1) M) /\ M * den b <= num b
  end.

(** A level of the power rule with e = M, q = (M−1)/M, b ≥ M and any f leaves no gap in any segment;
    nor does a tight, even or aligned one.
    SPEC 2.5.2; `SegmentChecker`. *)
Theorem factor_M_level_covers : forall M l,
  0 < M -> good_level l -> sufficient M l -> covers M l.
Proof. exact Sufficiency.sufficient_covers. Qed.

(** Key 10 of query 29 with the paper's rule, however its exponents are written. *)
Example key_10_is_in_a_span :
  let l := Power (Ratio 4 2) (Ratio 2 1) (Ratio 0 1) (Ratio 3 6) in
  exists i, is_stripe 0 2 l (seen 0 29) i /\ within (29 - 10) (span_of 0 2 l (seen 0 29) i).
Proof. intros l. apply factor_M_level_covers; [lia | repeat split; computed | computed ..]. Qed.

Print Assumptions factor_M_level_covers.
Print Assumptions key_10_is_in_a_span.

(** Any exponent [e >= 1], with [E] the next integer: span exponent [q >= 1 - 1/e] and backward
    factor [b >= E 2^(1 - 1/e)] are enough (Released.v). *)
Definition far_reaching (l : level) : Prop :=
  match l with
  | Tight _ | Even | Aligned => True
  | Power e b _ q =>
      let E := ceil_div (num e) (den e) in
      (E * den b) ^ num e * 2 ^ (num e - den e) <= num b ^ num e /\
      (num e - den e) * den q <= num e * num q
  end.

(** Nor does one with any exponent e ≤ E, E an integer, span exponent q ≥ 1 − 1/e and b ≥
    E·2^(1−1/e).
    SPEC 2.5.2; `SegmentChecker`. *)
Theorem far_reaching_level_covers : forall M l,
  0 < M -> good_level l -> far_reaching l -> covers M l.
Proof. exact Released.far_reaching_covers. Qed.

Example released_level_covers : covers 2 released_level.
Proof. apply far_reaching_level_covers; [lia | repeat split; computed | computed]. Qed.

Print Assumptions far_reaching_level_covers.
Print Assumptions released_level_covers.

Fixpoint all_cover (ls : list level) : Prop :=
  match ls with
  | [] => True
  | l :: rest => covers (steps_of ls) l /\ all_cover rest
  end.

(** A schedule whose levels leave no gap, each for a reason of its own, covers every length.
    SPEC 2.5.2; `verify_all`. *)
Theorem covering_levels_cover : forall s start stop,
  good s -> all_cover (levels s) -> covered s start stop.
Proof. exact Sufficiency.all_cover_covered. Qed.

(** Levels of both kinds: factor 4 with e = 4 and q = 3/4, the released model's factor 5 below it
    with e = 5/2 and q = 3/5, and a tight one. *)
Example both_kinds : forall start stop,
  covered (Schedule [Power (Ratio 8 2) (Ratio 4 1) (Ratio 0 1) (Ratio 3 4);
                     Power (Ratio 5 2) (Ratio 5 1) (Ratio 0 1) (Ratio 3 5); default_tight 2] 7)
          start stop.
Proof.
  intros start stop. apply covering_levels_cover; [repeat constructor; computed |].
  split; [| split; [| split; [| exact I]]].
  - apply factor_M_level_covers; [reflexivity | repeat split; computed | computed].
  - apply far_reaching_level_covers; [reflexivity | repeat split; computed | computed].
  - apply factor_M_level_covers; [reflexivity | computed | exact I].
Qed.

Print Assumptions covering_levels_cover.
Print Assumptions both_kinds.

Fixpoint sufficient_levels (ls : list level) : Prop :=
  match ls with
  | [] => True
  | l :: rest => sufficient (steps_of ls) l /\ sufficient_levels rest
  end.

(** Power rule with e = M, q = (M−1)/M, b ≥ M and any f, mixed with tight, even and aligned levels:
    covered, every length.
    SPEC 2.5.2; `verify_all`. *)
Corollary factor_M_covers : forall s start stop,
  good s -> sufficient_levels (levels s) -> covered s start stop.
Proof. intros. now apply covering_levels_cover, Sufficiency.sufficient_all_cover. Qed.

Example two_levels : covered (Schedule [default_power 3; default_power 2] 5) 7 (10 ^ 6).
Proof. apply factor_M_covers; repeat constructor; computed. Qed.

Print Assumptions factor_M_covers.
Print Assumptions two_levels.

(** Power rule with any exponent e ≤ E, E an integer, span exponent q ≥ 1 − 1/e and b ≥ E·2^(1−1/e),
    mixed with tight, even and aligned levels: covered, every length, and so is `released`.
    SPEC 2.5.2, 2.7; `verify_all`. *)
Corollary far_reaching_covers : forall s start stop,
  good s -> Forall far_reaching (levels s) -> covered s start stop.
Proof. intros. now apply covering_levels_cover, Released.far_reaching_all_cover. Qed.

Example released_covers : forall start stop, covered released start stop.
Proof. intros start stop. apply far_reaching_covers; repeat constructor; computed. Qed.

Print Assumptions far_reaching_covers.
Print Assumptions released_covers.

(** ** No smaller factor is (Sharpness.v)

    With a smaller factor at level 1, where [M = N], and any levels below: of [n] keys, the oldest
    is out of reach. *)
Definition sharp_root (M : Z) (c : ratio) (w : Z) : Z :=
  Z.max (w + 2) (ceil_div (den c * (M * (M - 1) + 4)) 2).

(** With a factor c < M at level 1, for a stated n the oldest of n keys is out of reach, whatever f,
    the window and the levels below.
    SPEC 2.5.3; `verify_all`. *)
Theorem smaller_factor_excludes : forall e c f q rest w start,
  let M := Z.of_nat (length rest) + 2 in
  let n := sharp_root M c w ^ M - 1 in
  same_number e (Ratio M 1) -> same_number q (Ratio (M - 1) M) -> good_level (Power e c f q) ->
  forall smaller : num c < M * den c, 0 <= w ->
  ~ reachable (Schedule (Power e c f q :: rest) w) start (start + n - 1) start.
Proof. exact SharpNumbers.oldest_key_unreachable. Qed.

(** For two steps and 19/10 these are 899 keys, those of query 898. *)
Example sharp_for_19_10 :
  sharp_root 2 (Ratio 19 10) 0 ^ 2 - 1 = 899 /\
  ~ reachable (paper (Ratio 19 10) (Ratio 0 1)) 0 898 0.
Proof.
  split; [reflexivity |].
  apply (smaller_factor_excludes (Ratio 2 1) (Ratio 19 10) (Ratio 0 1) (Ratio 1 2) [] 0 0);
    computed.
Qed.

Print Assumptions smaller_factor_excludes.
Print Assumptions sharp_for_19_10.

(** So M is sharp at level 1, M = N: factor c covers every length if and only if c ≥ M.
    SPEC 2.5.3; `closing_factor`. *)
Theorem factor_M_is_sharp : forall e c f q rest w start,
  let M := Z.of_nat (length rest) + 2 in
  same_number e (Ratio M 1) -> same_number q (Ratio (M - 1) M) ->
  good_level (Power e c f q) -> 0 <= w -> Forall good_level rest -> sufficient_levels rest ->
  (forall stop, covered (Schedule (Power e c f q :: rest) w) start stop) <-> M * den c <= num c.
Proof. exact SharpNumbers.sharp_constant. Qed.

Example factors_2_and_19_10 :
  (forall stop, covered (paper (Ratio 2 1) (Ratio 0 1)) 0 stop) /\
  ~ (forall stop, covered (paper (Ratio 19 10) (Ratio 0 1)) 0 stop).
Proof.
  assert (sharp := fun b b_good => factor_M_is_sharp (Ratio 2 1) b (Ratio 0 1) (Ratio 1 2) [] 0 0
    eq_refl eq_refl b_good (Z.le_refl 0) (Forall_nil _) I).
  split; [apply sharp; computed |].
  unfold paper. rewrite (sharp (Ratio 19 10)) by computed. now vm_compute.
Qed.

Print Assumptions factor_M_is_sharp.
Print Assumptions factors_2_and_19_10.

(** The same at a level that stands below even ones and tight ones of integer exponents, default or
    not, in any mixture. *)
Definition splits (l : level) : Prop :=
  match l with
  | Tight e => 0 < den e /\ num e mod den e = 0 /\ 2 * den e <= num e
  | Even => True
  | _ => False
  end.

(** So it is at a level below even ones and tight ones with integer exponents ≥ 2, in any mixture.
    SPEC 2.5.3; `closing_factor`. *)
Theorem factor_M_is_sharp_below : forall above e c f q rest w start,
  let M := Z.of_nat (length rest) + 2 in
  Forall splits above -> same_number e (Ratio M 1) -> same_number q (Ratio (M - 1) M) ->
  good_level (Power e c f q) -> 0 <= w -> Forall good_level rest -> sufficient_levels rest ->
  (forall stop, covered (Schedule (above ++ Power e c f q :: rest) w) start stop) <->
  M * den c <= num c.
Proof. exact SharpNumbers.sharp_constant_below. Qed.

(** Four steps: level 1 tight with the default exponent, level 2 even, level 3 of the power rule. *)
Example factor_19_10_at_level_3 :
  let third c := Power (Ratio 4 2) c (Ratio 0 1) (Ratio 2 4) in
  (forall stop, covered (Schedule [default_tight 4; Even; third (Ratio 2 1)] 0) 0 stop) /\
  ~ (forall stop, covered (Schedule [default_tight 4; Even; third (Ratio 19 10)] 0) 0 stop).
Proof.
  intros third.
  assert (sharp := fun b b_good =>
    factor_M_is_sharp_below [default_tight 4; Even] (Ratio 4 2) b (Ratio 0 1) (Ratio 2 4) [] 0 0
    ltac:(repeat constructor; computed) eq_refl eq_refl b_good ltac:(lia) (Forall_nil _) I).
  split; [apply sharp; computed |].
  intros all_covered. apply (sharp (Ratio 19 10)) in all_covered; [| computed].
  now vm_compute in all_covered.
Qed.

Print Assumptions factor_M_is_sharp_below.
Print Assumptions factor_19_10_at_level_3.
