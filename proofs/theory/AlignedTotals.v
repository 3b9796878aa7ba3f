(** * What all queries of two, three and four aligned steps cost (SPEC 2.5.4, 2.5.6)

    Where key 0 is the oldest, a query of [h] keys is offered at most [c h^(1/N) + 1] choices, with
    [c] a little above [(9/2)^(1/2)], [34^(1/3)], [350^(1/4)]: 2.122, 3.24, 4.326. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers AmGm LowerBound LevelCost Cost Aligned AlignedCost.
From Multistep Require Import AlignedWork AlignedBound AlignedFour SumsOfRoots Totals.
Import ListNotations.
Open Scope Z_scope.

Definition near_to (N p T h : Z) : Prop := 1 <= T /\ (1000 * (T - 1)) ^ N <= p ^ N * h.

Lemma two_near : forall h, 0 < h -> near_to 2 2122 (offered_in_all 0 h) h.
Proof.
  intros h h_pos. unfold near_to, offered_in_all. change (Z.of_nat 0 + 2) with 2.
  assert (near := two_steps_are_near h h_pos). cbv zeta in near.
  set (c := part_exponent 2 h) in *. set (s := 2 ^ c) in *.
  assert (s_pos : 0 < s) by (apply Z.pow_pos_nonneg; [lia | apply Z.le_max_l]).
  assert (all : total (shares 1 c) = s)
    by (cbn [shares total fold_right]; change (Z.of_nat 1) with 1; rewrite share_1; unfold s; lia).
  rewrite all.
  assert (less : (h - 1) / s <= h / s) by (apply Z.div_le_mono; lia).
  assert (x_nonneg : 0 <= (h - 1) / s) by (apply Z.div_pos; lia).
  split; [lia |]. replace ((h - 1) / s + 1 + s - 1) with ((h - 1) / s + s) by ring.
  assert (squares : ((h - 1) / s + s) ^ 2 <= (h / s + s) ^ 2) by (apply Z.pow_le_mono_l; lia).
  rewrite Z.pow_mul_l. lia.
Qed.

Definition short_near (k : nat) (p h : Z) : bool :=
  let T := offered_in_all k h in
  let N := Z.of_nat k + 2 in (1 <=? T) && ((1000 * (T - 1)) ^ N <=? p ^ N * h).

Lemma short_near_to : forall k p h,
  short_near k p h = true -> near_to (Z.of_nat k + 2) p (offered_in_all k h) h.
Proof.
  intros k p h near. apply andb_prop in near. destruct near as [some small].
  apply Z.leb_le in some, small. split; assumption.
Qed.

Lemma three_near : forall h, 0 < h -> near_to 3 3240 (offered_in_all 1 h) h.
Proof.
  intros h h_pos. destruct (Z_le_gt_dec h 8) as [short | long].
  - assert (all : forallb (short_near 1 3240) (interval 1 9) = true) by (vm_compute; reflexivity).
    rewrite forallb_forall in all. apply (short_near_to 1), all, in_interval. lia.
  - destruct (three_steps_are_near h ltac:(lia)) as [some near].
    split; [exact some |]. rewrite Z.pow_mul_l. lia.
Qed.

Lemma four_near : forall h, 0 < h -> near_to 4 4326 (offered_in_all 2 h) h.
Proof.
  intros h h_pos. destruct (Z_le_gt_dec h 4) as [short | long].
  - assert (all : forallb (short_near 2 4326) (interval 1 5) = true) by (vm_compute; reflexivity).
    rewrite forallb_forall in all. apply (short_near_to 2), all, in_interval. lia.
  - destruct (four_steps_are_near h ltac:(lia)) as [some near].
    split; [exact some |]. rewrite Z.pow_mul_l. lia.
Qed.

Theorem few_aligned_steps_context_cost : forall k p w len work,
  In (k, p) [(0%nat, 2122); (1%nat, 3240); (2%nat, 4326)] -> 0 <= w -> 0 <= len ->
  let N := Z.of_nat k + 2 in
  let s := Schedule (repeat Aligned (S k)) w in
  (forall t, 0 <= t < len -> query_work 1 s (seen 0 t) (work t)) ->
  exists roots, below_integral p N (len + 1) roots /\
    1000 * total (map work (interval 0 len)) <= roots + 1000 * (1 + w) * len.
Proof.
  intros k p w len work known w_nonneg len_nonneg N s works.
  assert (near : forall h, 0 < h -> near_to N p (offered_in_all k h) h).
  { destruct known as [is | [is | [is | []]]]; injection is as <- <-;
      [exact two_near | exact three_near | exact four_near]. }
  assert (p_nonneg : 0 <= p)
    by (destruct known as [is | [is | [is | []]]]; injection is as <- <-; discriminate).
  assert (N_pos : 0 < N) by lia. clear known.
  set (x := fun t => if t + 1 - w <=? 0 then 0 else 1000 * (offered_in_all k (t + 1 - w) - 1)).
  assert (each : forall t, 0 <= t < 0 + len ->
    1000 * work t <= 1 * x t + 1000 * (1 + w) /\ 0 <= x t /\ x t ^ N <= p ^ N * (t - 0 + 1)).
  2: { destruct (context_total p N 1 1000 1 (1000 * (1 + w)) work x 0 len N_pos p_nonneg
                   ltac:(lia) len_nonneg each) as (roots & small & all).
       exists roots. split; [exact small |]. rewrite Z.mul_1_l in all. exact all. }
  intros t range. specialize (works t range). unfold x. clear x.
  assert (p_power : 0 <= p ^ N) by (apply Z.pow_nonneg, p_nonneg).
  destruct (Z.leb_spec (t + 1 - w) 0) as [all | some].
  - apply (query_work_at_most 1 s (seen 0 t) 0 (repeat 0 (S k))) in works.
    + rewrite total_repeat, Z.mul_0_r in works. change (window_of s) with w in works.
      split; [lia | split; [lia |]]. rewrite Z.pow_0_l by exact N_pos.
      apply Z.mul_nonneg_nonneg; [exact p_power | lia].
    + lia.
    + apply (repeat_nonnegative 0 (S (S k))). lia.
    + cbn [levels s]. rewrite !repeat_length. reflexivity.
    + apply nothing_beyond_window; [cbn [held seen window_index s]; lia | lia].
  - destruct (offered_by_schedule k w t w_nonneg some) as (cs & cheap & nonneg & steps & sum).
    destruct (near (t + 1 - w) some) as [T_pos small]. rewrite <- sum in *.
    destruct cs as [|c cs]; [discriminate steps |]. injection steps as steps.
    change (total (c :: cs)) with (c + total cs) in *.
    apply (query_work_at_most 1 s (seen 0 t) c cs) in works;
      [| lia | exact nonneg | cbn [levels s]; rewrite repeat_length; exact steps | exact cheap].
    change (window_of s) with w in works.
    split; [lia | split; [lia |]]. apply Z.le_trans with (1 := small).
    apply Z.mul_le_mono_nonneg_l; [exact p_power | lia].
Qed.
