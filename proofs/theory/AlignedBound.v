(** * The aligned rule against the lower bound (SPEC 2.5.6)

    What [N] aligned steps offer in all for [h] keys that begin at a border, and that it is near
    [N h^(1/N)], for two steps and for three. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers AmGm LowerBound Aligned AlignedCost AlignedWork.
Import ListNotations.
Open Scope Z_scope.

(** The choices of all steps together, [N = k + 2]. *)
Definition offered_in_all (k : nat) (h : Z) : Z :=
  let c := part_exponent (Z.of_nat k + 2) h in (h - 1) / 2 ^ c + 1 + total (shares (S k) c).

(** ** Two steps *)

(** [T - 1] is at most [3 / sqrt 2 h^(1/2)], and the 1 is little from [h = 2^10] on. *)
Theorem two_steps_in_all : forall h,
  2 ^ 10 <= h -> (100 * offered_in_all 0 h) ^ 2 < 108 ^ 2 * (2 ^ 2 * h).
Proof.
  intros h large. change (2 ^ 10) with 1024 in large.
  unfold offered_in_all. change (Z.of_nat 0 + 2) with 2.
  assert (near := two_steps_are_near h ltac:(lia)). cbv zeta in near.
  set (c := part_exponent 2 h) in *. set (s := 2 ^ c) in *.
  assert (s_pos : 0 < s) by (apply Z.pow_pos_nonneg; [lia | apply Z.le_max_l]).
  assert (all : total (shares 1 c) = s)
    by (cbn [shares total fold_right]; change (Z.of_nat 1) with 1; rewrite share_1; unfold s; lia).
  rewrite all.
  assert (less : (h - 1) / s <= h / s) by (apply Z.div_le_mono; lia).
  assert (x_nonneg : 0 <= (h - 1) / s) by (apply Z.div_pos; lia).
  set (T := (h - 1) / s + 1 + s).
  assert (T_near : 2 * (T - 1) ^ 2 <= 9 * h).
  { apply Z.le_trans with (2 := near). apply Z.mul_le_mono_nonneg_l; [lia |].
    apply Z.pow_le_mono_l. unfold T. lia. }
  assert (T_pos : 1 <= T) by (unfold T; lia). clearbody T.
  apply Z.nle_gt. intros far. rewrite !Z.pow_2_r in *.
  assert (T_large : 69 <= T) by nia. nia.
Qed.

(** ** Three steps

    With [c = 2 q + r], [g = 2^q] and [G = g^3] the parts have [s = 2^r g^2] keys, the later steps
    offer [(2 + r) g], and [h] lies within a factor [2^(3/4)] of [s^(3/2)].  In that range
    [(h + 2 G)^3 <= 34 h G^2] and [(h + 6 G)^3 <= 272 h G^2]: cubics in [h / G] that lie below zero
    between their roots. *)

Lemma cubic_0 : forall h G,
  0 < h -> 0 < G -> 10 * h <= 17 * G -> 10 * G <= 17 * h -> (h + 2 * G) ^ 3 <= 34 * h * G ^ 2.
Proof.
  intros h G h_pos G_pos above below.
  assert (inside : 0 <= (17 * h - 10 * G) * (17 * G - 10 * h) * (10 * h + 83 * G))
    by (repeat apply Z.mul_nonneg_nonneg; lia).
  assert (hhG : 0 < h * h * G) by (repeat apply Z.mul_pos_pos; lia).
  assert (hGG : 0 < h * G * G) by (repeat apply Z.mul_pos_pos; lia).
  assert (GGG : 0 < G * G * G) by (repeat apply Z.mul_pos_pos; lia). lia.
Qed.

Lemma cubic_1 : forall h G,
  0 < h -> 0 < G -> 100 * h <= 476 * G -> 168 * G <= 100 * h -> (h + 6 * G) ^ 3 <= 272 * h * G ^ 2.
Proof.
  intros h G h_pos G_pos above below.
  assert (inside : 0 <= (100 * h - 168 * G) * (476 * G - 100 * h) * (100 * h + 2444 * G))
    by (repeat apply Z.mul_nonneg_nonneg; lia).
  assert (edge : 0 <= (100 * h - 168 * G) * (G * G)) by (apply Z.mul_nonneg_nonneg; nia).
  assert (GGG : 0 < G * G * G) by (repeat apply Z.mul_pos_pos; lia). lia.
Qed.

(** A rational factor [u / v] above the fourth root of [d]. *)
Lemma fourth_root : forall x y d u v,
  0 <= x -> 0 <= y -> 0 < u -> 0 < v -> d * v ^ 4 <= u ^ 4 -> x ^ 4 <= d * y ^ 4 -> v * x <= u * y.
Proof.
  intros x y d u v x_nonneg y_nonneg u_pos v_pos above small.
  apply (pow_le_iff 4); [lia | nia | nia |]. rewrite !Z.pow_mul_l.
  assert (v_power : 0 < v ^ 4) by (apply Z.pow_pos_nonneg; lia).
  assert (y_power : 0 <= y ^ 4) by (apply Z.pow_nonneg; lia). nia.
Qed.

Lemma three_steps_are_near : forall h,
  8 < h -> let T := offered_in_all 1 h in 1 <= T /\ (T - 1) ^ 3 <= 34 * h.
Proof.
  intros h large. unfold offered_in_all. change (Z.of_nat 1 + 2) with 3.
  destruct (part_exponent_spec 3 h ltac:(lia) ltac:(lia)) as (c_nonneg & reaches & _).
  assert (short := short_part 3 h ltac:(lia) ltac:(lia)). cbv zeta in short.
  set (c := part_exponent 3 h) in *. change (2 * (3 - 1)) with 4 in *. change (2 * 3) with 6 in *.
  destruct short as [zero | short].
  { rewrite zero in reaches. change (2 ^ (3 * (2 * 0 + 1))) with 8 in reaches.
    assert (grows : 8 ^ 4 <= h ^ 4) by (apply Z.pow_le_mono_l; lia).
    change (8 ^ 4) with 4096 in grows. lia. }
  destruct (shares_are_even 2 c ltac:(lia) c_nonneg) as [_ all].
  change (Z.of_nat 2) with 2 in all. rewrite all.
  assert (division := Z.div_mod c 2 ltac:(lia)).
  assert (remainder := Z.mod_pos_bound c 2 ltac:(lia)).
  assert (q_nonneg : 0 <= c / 2) by (apply Z.div_pos; lia).
  set (q := c / 2) in *. set (r := c mod 2) in *. set (g := 2 ^ q).
  assert (g_pos : 0 < g) by (apply Z.pow_pos_nonneg; lia).
  assert (s_is : 2 ^ c = 2 ^ r * g ^ 2).
  { unfold g. rewrite <- Z.pow_mul_r, <- Z.pow_add_r by lia. f_equal. lia. }
  assert (s_pos : 0 < 2 ^ c) by (apply Z.pow_pos_nonneg; lia).
  assert (long : h ^ 4 <= 8 * (2 ^ c) ^ 6).
  { replace (8 * (2 ^ c) ^ 6) with (2 ^ (3 * (2 * c + 1))); [exact reaches |].
    change 8 with (2 ^ 3). rewrite <- Z.pow_mul_r, <- Z.pow_add_r by lia. f_equal. lia. }
  change (2 ^ 3) with 8 in short.
  assert (here := division_bounds (h - 1) (2 ^ c) s_pos).
  assert (x_nonneg : 0 <= (h - 1) / 2 ^ c) by (apply Z.div_pos; lia).
  set (x := (h - 1) / 2 ^ c) in *. rewrite s_is in *. clearbody x g.
  assert (G_pos : 0 < g ^ 3) by (apply Z.pow_pos_nonneg; lia).
  assert (cube : forall a b, 0 <= a -> a <= b -> a ^ 3 <= b ^ 3)
    by (intros; apply Z.pow_le_mono_l; lia).
  assert (sixth : 0 < (g ^ 3) ^ 2) by (apply Z.pow_pos_nonneg; lia).
  assert (cases : r = 0 \/ r = 1) by lia. destruct cases as [is | is]; rewrite is in *.
  - change (2 ^ 0) with 1 in *. rewrite Z.mul_1_l in *.
    assert (twelfth : (g ^ 2) ^ 6 = (g ^ 3) ^ 4) by ring. rewrite twelfth in *.
    assert (bound := cubic_0 h (g ^ 3) ltac:(lia) G_pos
      (fourth_root h (g ^ 3) 8 17 10 ltac:(lia) ltac:(lia) eq_refl eq_refl ltac:(lia) long)
      (fourth_root (g ^ 3) h 8 17 10 ltac:(lia) ltac:(lia) eq_refl eq_refl ltac:(lia) ltac:(lia))).
    replace (x + 1 + (2 + 0) * g - 1) with (x + 2 * g) by lia. split; [lia |].
    apply (Z.mul_le_mono_pos_r _ _ _ sixth). apply Z.le_trans with (2 := bound).
    replace ((x + 2 * g) ^ 3 * (g ^ 3) ^ 2) with (((x + 2 * g) * g ^ 2) ^ 3) by ring.
    apply cube; [nia |]. replace (g ^ 3) with (g * g ^ 2) by ring. lia.
  - change (2 ^ 1) with 2 in *.
    assert (twelfth : (2 * g ^ 2) ^ 6 = 64 * (g ^ 3) ^ 4) by ring. rewrite twelfth in *.
    assert (bound := cubic_1 h (g ^ 3) ltac:(lia) G_pos
      (fourth_root h (g ^ 3) 512 476 100 ltac:(lia) ltac:(lia) eq_refl eq_refl ltac:(lia)
         ltac:(lia))).
    assert (below : 168 * g ^ 3 <= 100 * h).
    { apply (pow_le_iff 4); [lia | lia | lia |]. rewrite !Z.pow_mul_l. lia. }
    specialize (bound below).
    replace (x + 1 + (2 + 1) * g - 1) with (x + 3 * g) by lia. split; [lia |].
    apply (Z.mul_le_mono_pos_r _ _ (8 * (g ^ 3) ^ 2)); [lia |].
    apply Z.le_trans with ((h + 6 * g ^ 3) ^ 3); [| lia].
    replace ((x + 3 * g) ^ 3 * (8 * (g ^ 3) ^ 2)) with (((x + 3 * g) * (2 * g ^ 2)) ^ 3) by ring.
    apply cube; [nia |]. replace (g ^ 3) with (g * g ^ 2) by ring. lia.
Qed.

(** The 1 is little from [h = 4700] on; below that, all lengths are computed. *)
Definition near_enough (h : Z) : bool := (100 * offered_in_all 1 h) ^ 3 <? 110 ^ 3 * (3 ^ 3 * h).

Lemma short_lengths : forallb near_enough (interval (2 ^ 10) 4700) = true.
Proof. vm_compute. reflexivity. Qed.

Theorem three_steps_in_all : forall h,
  2 ^ 10 <= h -> (100 * offered_in_all 1 h) ^ 3 < 110 ^ 3 * (3 ^ 3 * h).
Proof.
  intros h large. destruct (Z.lt_ge_cases h 4700) as [short | long].
  { assert (all := short_lengths). rewrite forallb_forall in all.
    specialize (all h (proj2 (in_interval _ _ _) (conj large short))). now apply Z.ltb_lt. }
  destruct (three_steps_are_near h ltac:(lia)) as [T_pos near].
  set (T := offered_in_all 1 h) in *. clearbody T.
  apply Z.nle_gt. intros far.
  assert (T_large : 55 <= T).
  { destruct (Z.le_gt_cases 55 T) as [|small]; [assumption |].
    assert (cube : T ^ 3 <= 54 ^ 3) by (apply Z.pow_le_mono_l; lia).
    change (54 ^ 3) with 157464 in cube. rewrite Z.pow_mul_l in far.
    change (100 ^ 3) with 1000000 in far. change (110 ^ 3) with 1331000 in far. lia. }
  replace T with (T - 55 + 55) in far, near by lia.
  assert (y_nonneg : 0 <= T - 55) by lia. set (y := T - 55) in *. clearbody y.
  assert (square : 0 <= y * y) by nia. assert (third : 0 <= y * y * y) by nia.
  change (110 ^ 3) with 1331000 in far. lia.
Qed.

(** ** As a schedule's cost *)

(** Where key 0 is the oldest, level 1 begins at a border. *)
Lemma offered_by_schedule : forall k w t,
  0 <= w -> 0 < t + 1 - w ->
  exists cs,
    costs_at_most w (repeat Aligned (S k)) (seen 0 t) cs /\ nonnegative cs /\
    length cs = S (S k) /\ total cs = offered_in_all k (t + 1 - w).
Proof.
  intros k w t w_nonneg some. set (h := t + 1 - w) in *.
  set (c := part_exponent (Z.of_nat k + 2) h).
  exists ((h - 1) / 2 ^ c + 1 :: shares (S k) c).
  assert (same : held (seen 0 t) - w = h) by (cbn [held seen]; unfold h; lia).
  assert (same_nominal : nominal (seen 0 t) - w = h) by (cbn [nominal seen]; unfold h; lia).
  assert (offers := aligned_offers_from_border k w (seen 0 t) w_nonneg
    ltac:(rewrite same; exact some)).
  cbv zeta in offers. rewrite same, same_nominal in offers. fold c in offers.
  assert (c_nonneg : 0 <= c) by apply Z.le_max_l.
  assert (s_pos : 0 < 2 ^ c) by (apply Z.pow_pos_nonneg; lia).
  split; [apply offers; exists 0; cbn [ends held seen]; lia | split; [| split]].
  - constructor; [assert (0 <= (h - 1) / 2 ^ c) by (apply Z.div_pos; lia); lia |].
    eapply Forall_impl; [| exact (shares_positive (S k) c c_nonneg)]. intros x x_pos.
    cbv beta in *. lia.
  - cbn [length]. f_equal. exact (shares_length (S k) c).
  - unfold offered_in_all. fold c. reflexivity.
Qed.

Theorem two_steps_near_bound : forall w t,
  0 <= w -> 2 ^ 10 <= t + 1 - w ->
  exists cs,
    costs_at_most w [Aligned] (seen 0 t) cs /\ length cs = 2%nat /\
    (100 * total cs) ^ 2 < 108 ^ 2 * (2 ^ 2 * (t + 1 - w)).
Proof.
  intros w t w_nonneg large. change (2 ^ 10) with 1024 in large.
  destruct (offered_by_schedule 0 w t w_nonneg ltac:(lia)) as (cs & cheap & _ & steps & all).
  exists cs. rewrite all. split; [exact cheap | split; [exact steps | now apply two_steps_in_all]].
Qed.

Theorem three_steps_near_bound : forall w t,
  0 <= w -> 2 ^ 10 <= t + 1 - w ->
  exists cs,
    costs_at_most w [Aligned; Aligned] (seen 0 t) cs /\ length cs = 3%nat /\
    (100 * total cs) ^ 3 < 110 ^ 3 * (3 ^ 3 * (t + 1 - w)).
Proof.
  intros w t w_nonneg large. change (2 ^ 10) with 1024 in large.
  destruct (offered_by_schedule 1 w t w_nonneg ltac:(lia)) as (cs & cheap & _ & steps & all).
  exists cs. rewrite all. split; [exact cheap | split; [exact steps |]].
  now apply three_steps_in_all.
Qed.
