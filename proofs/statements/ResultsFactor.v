(** * What is proved: which spans of the power rule leave no gap

    As in Results.v, of which it takes the schedules [paper] and [released]: theorems, each with an
    example and with what both rest on. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Results.
From Multistep Require Sufficiency Released Sharpness.
Import ListNotations.
Open Scope Z_scope.

(** ** Factor M is enough (Sufficiency.v, Released.v) *)

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

(** Power levels have stripes [i^M], reach [b n^((M-1)/M)] with [b >= M], and any forward factor;
    the other rules need nothing. *)
Definition sufficient (M : Z) (l : level) : Prop :=
  match l with
  | Tight _ | Even | Aligned => True
  | Power e b _ q => e = Ratio M 1 /\ q = Ratio (M - 1) M /\ M * den b <= num b
  end.

Fixpoint sufficient_levels (ls : list level) : Prop :=
  match ls with
  | [] => True
  | l :: rest => sufficient (steps_of ls) l /\ sufficient_levels rest
  end.

Theorem factor_M_covers : forall s start len,
  good s -> sufficient_levels (levels s) -> covered s start len.
Proof. exact Sufficiency.sufficient_covered. Qed.

Example two_levels : covered (Schedule [default_power 3; default_power 2] 5) 7 (10 ^ 6).
Proof. apply factor_M_covers; repeat constructor; computed. Qed.

Print Assumptions factor_M_covers.
Print Assumptions two_levels.

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

Theorem far_reaching_covers : forall s start len,
  good s -> Forall far_reaching (levels s) -> covered s start len.
Proof. exact Released.far_reaching_covered. Qed.

Example released_covers : forall start len, covered released start len.
Proof. intros start len. apply far_reaching_covers; repeat constructor; computed. Qed.

Print Assumptions far_reaching_covers.
Print Assumptions released_covers.

(** ** No smaller factor is (Sharpness.v)

    With a smaller factor at level 1, where [M = N], and any levels below: of [n] keys, the oldest is
    out of reach. *)
Definition sharp_root (M : Z) (c : ratio) (w : Z) : Z :=
  Z.max (w + 2) (ceil_div (den c * (M * (M - 1) + 4)) 2).

Theorem smaller_factor_excludes : forall c f rest w start,
  let M := Z.of_nat (length rest) + 2 in
  let first := Power (Ratio M 1) c f (Ratio (M - 1) M) in
  let n := sharp_root M c w ^ M - 1 in
  good_factor c -> good_factor f -> num c < M * den c -> 0 <= w ->
  ~ reachable (Schedule (first :: rest) w) start (start + n - 1) start.
Proof. exact Sharpness.oldest_key_unreachable. Qed.

(** For two steps and 19/10 these are 899 keys, those of query 898. *)
Example sharp_for_19_10 :
  sharp_root 2 (Ratio 19 10) 0 ^ 2 - 1 = 899 /\
  ~ reachable (paper (Ratio 19 10) (Ratio 0 1)) 0 898 0.
Proof.
  split; [reflexivity |].
  apply (smaller_factor_excludes (Ratio 19 10) (Ratio 0 1) [] 0 0); computed.
Qed.

Print Assumptions smaller_factor_excludes.
Print Assumptions sharp_for_19_10.

(** [M] is the number of steps; [c] and [f] are level 1's factors. *)
Theorem factor_M_is_sharp : forall c f rest w start,
  let M := Z.of_nat (length rest) + 2 in
  let first := Power (Ratio M 1) c f (Ratio (M - 1) M) in
  good_factor c -> good_factor f -> 0 <= w -> Forall good_level rest -> sufficient_levels rest ->
  (forall len, covered (Schedule (first :: rest) w) start len) <-> M * den c <= num c.
Proof. exact Sharpness.sharp_constant. Qed.

Example factors_2_and_19_10 :
  (forall len, covered (paper (Ratio 2 1) (Ratio 0 1)) 0 len) /\
  ~ (forall len, covered (paper (Ratio 19 10) (Ratio 0 1)) 0 len).
Proof.
  assert (sharp := fun b b_good => factor_M_is_sharp b (Ratio 0 1) [] 0 0 b_good
    (conj eq_refl (Z.le_refl 0)) (Z.le_refl 0) (Forall_nil _) I).
  split; [apply sharp; computed |].
  rewrite (sharp (Ratio 19 10)) by computed. now vm_compute.
Qed.

Print Assumptions factor_M_is_sharp.
Print Assumptions factors_2_and_19_10.

(** The same at a level that stands below even ones and tight ones of integer exponents, default or
    not, in any mixture. *)
Definition splits (l : level) : Prop :=
  match l with
  | Tight e => den e = 1 /\ 2 <= num e
  | Even => True
  | _ => False
  end.

Theorem factor_M_is_sharp_below : forall above c f rest w start,
  let M := Z.of_nat (length rest) + 2 in
  let first := Power (Ratio M 1) c f (Ratio (M - 1) M) in
  Forall splits above -> good_factor c -> good_factor f -> 0 <= w ->
  Forall good_level rest -> sufficient_levels rest ->
  (forall len, covered (Schedule (above ++ first :: rest) w) start len) <->
  M * den c <= num c.
Proof. exact Sharpness.sharp_constant_below. Qed.

(** Four steps: level 1 tight with the default exponent, level 2 even, level 3 of the power rule. *)
Example factor_19_10_at_level_3 :
  let third c := Power (Ratio 2 1) c (Ratio 0 1) (Ratio 1 2) in
  (forall len, covered (Schedule [default_tight 4; Even; third (Ratio 2 1)] 0) 0 len) /\
  ~ (forall len, covered (Schedule [default_tight 4; Even; third (Ratio 19 10)] 0) 0 len).
Proof.
  intros third.
  assert (sharp := fun b b_good =>
    factor_M_is_sharp_below [default_tight 4; Even] b (Ratio 0 1) [] 0 0
    ltac:(repeat constructor; computed) b_good ltac:(computed) ltac:(lia) (Forall_nil _) I).
  split; [apply sharp; computed |].
  intros all_covered. apply (sharp (Ratio 19 10)) in all_covered; [| computed].
  now vm_compute in all_covered.
Qed.

Print Assumptions factor_M_is_sharp_below.
Print Assumptions factor_19_10_at_level_3.
