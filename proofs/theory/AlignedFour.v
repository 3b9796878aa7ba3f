(** * Four aligned steps against the lower bound (SPEC 2.5.6)

    As three steps in AlignedBound.v.  With [c = 3 q + r], [g = 2^q] and [G = g^4] the parts have
    [s = 2^r g^3] keys, the later steps offer [(3 + r) g], and [h] lies within a factor [2^(2/3)] of
    [s^(4/3)].  There [(h + (3 + r) 2^r G)^4 <= 350 16^r h G^3], quartics in [h / G]. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers AmGm LowerBound.
From Multistep Require Import Aligned AlignedCost AlignedWork AlignedBound.
Import ListNotations.
Open Scope Z_scope.

Lemma quartic_0 : forall h G,
  0 < h -> 0 < G -> 10 * h <= 16 * G -> 10 * G <= 16 * h -> (h + 3 * G) ^ 4 <= 350 * h * G ^ 3.
Proof.
  intros h G h_pos G_pos above below.
  assert (inside : 0 <= (16 * h - 10 * G) * (16 * G - 10 * h)
                        * (1000 * (h * h) + 14225 * (h * G) + 84650 * (G * G)))
    by (repeat apply Z.mul_nonneg_nonneg; nia).
  assert (hhhG : 0 < h * h * h * G) by (repeat apply Z.mul_pos_pos; lia).
  assert (hhGG : 0 < h * h * G * G) by (repeat apply Z.mul_pos_pos; lia).
  assert (hGGG : 0 < h * G * G * G) by (repeat apply Z.mul_pos_pos; lia).
  assert (GGGG : 0 < G * G * G * G) by (repeat apply Z.mul_pos_pos; lia). lia.
Qed.

Lemma quartic_1 : forall h G,
  0 < h -> 0 < G -> 10 * h <= 41 * G -> 15 * G <= 10 * h -> (h + 8 * G) ^ 4 <= 5600 * h * G ^ 3.
Proof.
  intros h G h_pos G_pos above below.
  assert (inside : 0 <= (10 * h - 15 * G) * (41 * G - 10 * h)
                        * (1000 * (h * h) + 37600 * (h * G) + 588500 * (G * G)))
    by (repeat apply Z.mul_nonneg_nonneg; nia).
  assert (edge : 0 <= (10 * h - 15 * G) * (G * G * G))
    by (repeat apply Z.mul_nonneg_nonneg; lia).
  assert (hhGG : 0 < h * h * G * G) by (repeat apply Z.mul_pos_pos; lia).
  assert (GGGG : 0 < G * G * G * G) by (repeat apply Z.mul_pos_pos; lia). lia.
Qed.

Lemma quartic_2 : forall h G,
  0 < h -> 0 < G -> 10 * h <= 102 * G -> 39 * G <= 10 * h -> (h + 20 * G) ^ 4 <= 89600 * h * G ^ 3.
Proof.
  intros h G h_pos G_pos above below.
  assert (inside : 0 <= (10 * h - 39 * G) * (102 * G - 10 * h)
                        * (1000 * (h * h) + 94100 * (h * G) + 3688000 * (G * G)))
    by (repeat apply Z.mul_nonneg_nonneg; nia).
  assert (edge : 0 <= (10 * h - 39 * G) * (G * G * G))
    by (repeat apply Z.mul_nonneg_nonneg; lia).
  assert (hhGG : 0 < h * h * G * G) by (repeat apply Z.mul_pos_pos; lia).
  assert (GGGG : 0 < G * G * G * G) by (repeat apply Z.mul_pos_pos; lia). lia.
Qed.

(** [u y >= v x] from [u^6 >= d v^6] and [d y^6 >= x^6], both scaled. *)
Lemma sixth_root : forall x y d e u v,
  0 <= x -> 0 <= y -> 0 < u -> 0 < v -> 0 < e ->
  d * v ^ 6 <= e * u ^ 6 -> e * x ^ 6 <= d * y ^ 6 -> v * x <= u * y.
Proof.
  intros x y d e u v x_nonneg y_nonneg u_pos v_pos e_pos above small.
  apply (pow_le_iff 6); [lia | nia | nia |]. rewrite !Z.pow_mul_l.
  assert (v_power : 0 < v ^ 6) by (apply Z.pow_pos_nonneg; lia).
  assert (y_power : 0 <= y ^ 6) by (apply Z.pow_nonneg; lia).
  apply (Z.mul_le_mono_pos_l _ _ e e_pos).
  apply (Z.mul_le_mono_nonneg_r _ _ _ y_power) in above.
  apply (Z.mul_le_mono_nonneg_l _ _ (v ^ 6)) in small; lia.
Qed.

(** [(x + a g)^4 <= 350 h] from the quartic, for [a = 3 + r] and [p = 2^r]. *)
Lemma steps_from_quartic : forall h x g a p,
  0 <= x -> 0 < g -> 0 <= a -> 0 < p -> x * (p * g ^ 3) <= h ->
  (h + a * p * g ^ 4) ^ 4 <= 350 * p ^ 4 * h * (g ^ 4) ^ 3 -> (x + a * g) ^ 4 <= 350 * h.
Proof.
  intros h x g a p x_nonneg g_pos a_nonneg p_pos inside bound.
  assert (s_pos : 0 < (p * g ^ 3) ^ 4)
    by (apply Z.pow_pos_nonneg; [apply Z.mul_pos_pos; [lia | apply Z.pow_pos_nonneg; lia] | lia]).
  assert (s_is : (p * g ^ 3) ^ 4 = p ^ 4 * (g ^ 4) ^ 3) by ring.
  apply (Z.mul_le_mono_pos_r _ _ _ s_pos).
  replace (350 * h * (p * g ^ 3) ^ 4) with (350 * p ^ 4 * h * (g ^ 4) ^ 3)
    by (rewrite s_is; ring).
  apply Z.le_trans with (2 := bound). rewrite <- Z.pow_mul_l. apply Z.pow_le_mono_l.
  assert (g_power : 0 < g ^ 3) by (apply Z.pow_pos_nonneg; lia).
  split; [repeat (apply Z.mul_nonneg_nonneg || apply Z.add_nonneg_nonneg); lia |].
  replace ((x + a * g) * (p * g ^ 3)) with (x * (p * g ^ 3) + a * p * g ^ 4) by ring. lia.
Qed.

Lemma four_steps_are_near : forall h,
  4 < h -> let T := offered_in_all 2 h in 1 <= T /\ (T - 1) ^ 4 <= 350 * h.
Proof.
  intros h large. unfold offered_in_all. change (Z.of_nat 2 + 2) with 4.
  destruct (part_exponent_spec 4 h ltac:(lia) ltac:(lia)) as (c_nonneg & reaches & _).
  assert (short := short_part 4 h ltac:(lia) ltac:(lia)). cbv zeta in short.
  set (c := part_exponent 4 h) in *. change (2 * (4 - 1)) with 6 in *. change (2 * 4) with 8 in *.
  destruct short as [zero | short].
  { rewrite zero in reaches. change (2 ^ (4 * (2 * 0 + 1))) with 16 in reaches.
    assert (grows : 4 ^ 6 <= h ^ 6) by (apply Z.pow_le_mono_l; lia).
    change (4 ^ 6) with 4096 in grows. lia. }
  destruct (shares_are_even 3 c ltac:(lia) c_nonneg) as [_ all].
  change (Z.of_nat 3) with 3 in all. rewrite all.
  assert (division := Z.div_mod c 3 ltac:(lia)).
  assert (remainder := Z.mod_pos_bound c 3 ltac:(lia)).
  assert (q_nonneg : 0 <= c / 3) by (apply Z.div_pos; lia).
  set (q := c / 3) in *. set (r := c mod 3) in *. set (g := 2 ^ q).
  assert (g_pos : 0 < g) by (apply Z.pow_pos_nonneg; lia).
  assert (s_is : 2 ^ c = 2 ^ r * g ^ 3).
  { unfold g. rewrite <- Z.pow_mul_r, <- Z.pow_add_r by lia. f_equal. lia. }
  assert (s_pos : 0 < 2 ^ c) by (apply Z.pow_pos_nonneg; lia).
  assert (long : h ^ 6 <= 16 * (2 ^ c) ^ 8).
  { replace (16 * (2 ^ c) ^ 8) with (2 ^ (4 * (2 * c + 1))); [exact reaches |].
    change 16 with (2 ^ 4). rewrite <- Z.pow_mul_r, <- Z.pow_add_r by lia. f_equal. lia. }
  change (2 ^ 4) with 16 in short.
  assert (here := division_bounds (h - 1) (2 ^ c) s_pos).
  assert (x_nonneg : 0 <= (h - 1) / 2 ^ c) by (apply Z.div_pos; lia).
  set (x := (h - 1) / 2 ^ c) in *. rewrite s_is in *. clearbody x g.
  assert (G_pos : 0 < g ^ 4) by (apply Z.pow_pos_nonneg; lia).
  assert (twenty_fourth : forall p, (p * g ^ 3) ^ 8 = p ^ 8 * (g ^ 4) ^ 6) by (intros p; ring).
  rewrite twenty_fourth in *.
  replace (x + 1 + (3 + r) * g - 1) with (x + (3 + r) * g) by lia. split; [nia |].
  apply (steps_from_quartic h x g (3 + r) (2 ^ r)); try lia; try (apply Z.pow_pos_nonneg; lia).
  assert (cases : r = 0 \/ r = 1 \/ r = 2) by lia.
  destruct cases as [is | [is | is]]; rewrite is in *.
  - change (2 ^ 0) with 1 in *. change (1 ^ 8) with 1 in *.
    assert (bound := quartic_0 h (g ^ 4) ltac:(lia) G_pos
      (sixth_root h (g ^ 4) 16 1 16 10 ltac:(lia) ltac:(lia) eq_refl eq_refl eq_refl ltac:(lia)
         ltac:(lia))
      (sixth_root (g ^ 4) h 16 1 16 10 ltac:(lia) ltac:(lia) eq_refl eq_refl eq_refl ltac:(lia)
         ltac:(lia))).
    change (1 ^ 4) with 1. rewrite Z.mul_1_r. lia.
  - change (2 ^ 1) with 2 in *. change (2 ^ 8) with 256 in *.
    assert (bound := quartic_1 h (g ^ 4) ltac:(lia) G_pos
      (sixth_root h (g ^ 4) 4096 1 41 10 ltac:(lia) ltac:(lia) eq_refl eq_refl eq_refl ltac:(lia)
         ltac:(lia))
      (sixth_root (g ^ 4) h 1 16 10 15 ltac:(lia) ltac:(lia) eq_refl eq_refl eq_refl ltac:(lia)
         ltac:(lia))).
    change (2 ^ 4) with 16. change (350 * 16) with 5600. change ((3 + 1) * 2) with 8. exact bound.
  - change (2 ^ 2) with 4 in *. change (4 ^ 8) with 65536 in *.
    assert (bound := quartic_2 h (g ^ 4) ltac:(lia) G_pos
      (sixth_root h (g ^ 4) 1048576 1 102 10 ltac:(lia) ltac:(lia) eq_refl eq_refl eq_refl
         ltac:(lia) ltac:(lia))
      (sixth_root (g ^ 4) h 1 4096 10 39 ltac:(lia) ltac:(lia) eq_refl eq_refl eq_refl ltac:(lia)
         ltac:(lia))).
    change (4 ^ 4) with 256. change (350 * 256) with 89600. change ((3 + 2) * 4) with 20.
    exact bound.
Qed.

(** The 1 is little from [h = 6000] on; below that, all lengths are computed. *)
Definition near_enough (h : Z) : bool := (100 * offered_in_all 2 h) ^ 4 <? 111 ^ 4 * (4 ^ 4 * h).

Lemma short_lengths : forallb near_enough (interval (2 ^ 10) 6000) = true.
Proof. vm_compute. reflexivity. Qed.

Theorem four_steps_in_all : forall h,
  2 ^ 10 <= h -> (100 * offered_in_all 2 h) ^ 4 < 111 ^ 4 * (4 ^ 4 * h).
Proof.
  intros h large. destruct (Z.lt_ge_cases h 6000) as [short | long].
  { assert (all := short_lengths). rewrite forallb_forall in all.
    specialize (all h (proj2 (in_interval _ _ _) (conj large short))). now apply Z.ltb_lt. }
  destruct (four_steps_are_near h ltac:(lia)) as [T_pos near].
  set (T := offered_in_all 2 h) in *. clearbody T.
  apply Z.nle_gt. intros far. rewrite Z.pow_mul_l in far.
  change (100 ^ 4) with 100000000 in far. change (111 ^ 4) with 151807041 in far.
  change (4 ^ 4) with 256 in far.
  assert (T_large : 39 <= T).
  { destruct (Z.le_gt_cases 39 T) as [|small]; [assumption |].
    assert (power : T ^ 4 <= 38 ^ 4) by (apply Z.pow_le_mono_l; lia).
    change (38 ^ 4) with 2085136 in power. lia. }
  replace T with (T - 39 + 39) in far, near by lia.
  assert (y_nonneg : 0 <= T - 39) by lia. set (y := T - 39) in *. clearbody y.
  assert (square : 0 <= y * y) by nia. assert (third : 0 <= y * y * y) by nia.
  assert (fourth : 0 <= y * y * y * y) by nia. lia.
Qed.

Theorem four_steps_near_bound : forall w t,
  0 <= w -> 2 ^ 10 <= t + 1 - w ->
  exists cs,
    costs_at_most w [Aligned; Aligned; Aligned] (seen 0 t) cs /\ length cs = 4%nat /\
    (100 * total cs) ^ 4 < 111 ^ 4 * (4 ^ 4 * (t + 1 - w)).
Proof.
  intros w t w_nonneg large. change (2 ^ 10) with 1024 in large.
  destruct (offered_by_schedule 2 w t w_nonneg ltac:(lia)) as (cs & cheap & _ & steps & all).
  exists cs. rewrite all. split; [exact cheap | split; [exact steps |]].
  now apply four_steps_in_all.
Qed.
