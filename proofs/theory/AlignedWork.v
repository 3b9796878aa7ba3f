(** * What the aligned rule costs, against [n^(1/N)]

    AlignedCost.v has what the steps offer; here it is compared with the [N]-th root of the number
    of keys. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality AmGm LowerBound LevelCost Cost Aligned.
From Multistep Require Import AlignedCost.
Import ListNotations.
Open Scope Z_scope.

(** ** Each step *)

Lemma shares_positive : forall steps c, 0 <= c -> Forall (fun x => 0 < x) (shares steps c).
Proof.
  induction steps as [| k IH]; intros c c_nonneg; [constructor |].
  assert (range := share_range (Z.of_nat (S k)) c ltac:(lia) c_nonneg).
  change (shares (S k) c)
    with (2 ^ share (Z.of_nat (S k)) c :: shares k (c - share (Z.of_nat (S k)) c)).
  constructor; [apply Z.pow_pos_nonneg; lia | apply IH; lia].
Qed.

(** A share [2^u] has [u (N - 1) <= c + N - 2], and [2^c] is at most [sqrt 2 h^((N-1)/N)]. *)
Theorem shares_are_few : forall k h,
  0 < h ->
  let N := Z.of_nat k + 2 in
  Forall (fun x => x ^ (2 * N * (N - 1)) <= 2 ^ (N * (2 * N - 3)) * h ^ (2 * (N - 1)))
         (shares (S k) (part_exponent N h)).
Proof.
  intros k h h_pos N. set (c := part_exponent N h).
  assert (c_nonneg : 0 <= c) by apply Z.le_max_l.
  set (u := ceil_div c (N - 1)).
  assert (enough : c <= u * (N - 1) < c + (N - 1)) by (apply ceil_div_spec; lia).
  assert (u_nonneg : 0 <= u) by nia.
  assert (small := shares_at_most (S k) c u).
  replace (Z.of_nat (S k)) with (N - 1) in small by lia. specialize (small ltac:(nia)).
  assert (positive := shares_positive (S k) c c_nonneg).
  rewrite Forall_forall in *. intros x x_in.
  specialize (small x x_in). specialize (positive x x_in). cbv beta in small, positive.
  assert (h_power : 0 < h ^ (2 * (N - 1))) by (apply Z.pow_pos_nonneg; lia).
  apply Z.le_trans with ((2 ^ u) ^ (2 * N * (N - 1))); [apply pow_mono; lia |].
  destruct (short_part N h ltac:(lia) h_pos) as [zero | short].
  - fold c in zero. replace u with 0 by nia. rewrite Z.pow_0_r, Z.pow_1_l by nia.
    assert (two_power : 0 < 2 ^ (N * (2 * N - 3))) by (apply Z.pow_pos_nonneg; nia). nia.
  - fold c in short. apply Z.le_trans with (2 ^ (2 * N * (N - 2)) * (2 ^ c) ^ (2 * N)).
    + rewrite <- !Z.pow_mul_r, <- Z.pow_add_r by nia. apply Z.pow_le_mono_r; nia.
    + replace (N * (2 * N - 3)) with (2 * N * (N - 2) + N) by lia.
      rewrite Z.pow_add_r, <- (Z.mul_assoc (2 ^ _)) by nia.
      apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg|]; lia.
Qed.

(** Level 1: [(h - 2) / s] parts besides the two at the ends, at most [sqrt 2 h^(1/N)]. *)
Theorem first_step_is_few : forall M h,
  0 < M -> 0 < h ->
  let x := (h - 2) / 2 ^ part_exponent M h in 0 <= x -> x ^ (2 * M) <= 2 ^ M * h ^ 2.
Proof.
  intros M h M_pos h_pos x x_nonneg. apply few_parts; try assumption.
  assert (s_pos : 0 < 2 ^ part_exponent M h) by (apply Z.pow_pos_nonneg; [lia | apply Z.le_max_l]).
  assert (here := division_bounds (h - 2) (2 ^ part_exponent M h) s_pos). fold x in here. lia.
Qed.

Theorem steps_are_few : forall k h,
  0 < h ->
  let N := Z.of_nat k + 2 in
  let c := part_exponent N h in
  Z.max 0 ((h - 2) / 2 ^ c) ^ (2 * N) <= 2 ^ N * h ^ 2 /\
  Forall (fun x => x ^ (2 * N * (N - 1)) <= 2 ^ (N * (2 * N - 3)) * h ^ (2 * (N - 1)))
         (shares (S k) c).
Proof.
  intros k h h_pos N c. split; [| exact (shares_are_few k h h_pos)].
  destruct (Z.le_ge_cases ((h - 2) / 2 ^ c) 0) as [none | some].
  - rewrite Z.max_l, Z.pow_0_l by lia. apply Z.mul_nonneg_nonneg; apply Z.pow_nonneg; lia.
  - rewrite Z.max_r by lia. exact (first_step_is_few N h ltac:(lia) h_pos some).
Qed.

(** Two steps: [s^2 < 2 h] and [h <= 2 s^2], so [(2 h - s^2) (2 s^2 - h) >= 0], which is
    [2 (h + s^2)^2 <= 9 h s^2].  So [h / s + s] is at most [3 / (2 sqrt 2)], 1.0607, times
    [2 sqrt h], and is that for [h = 2 s^2]. *)
Theorem two_steps_are_near : forall h,
  0 < h ->
  let s := 2 ^ part_exponent 2 h in 2 * (h / s + s) ^ 2 <= 9 * h.
Proof.
  intros h h_pos s.
  assert (s_pos : 0 < s) by (apply Z.pow_pos_nonneg; [lia | apply Z.le_max_l]).
  assert (x_range := division_bounds h s s_pos). set (x := h / s) in *.
  assert (x_nonneg : 0 <= x) by (apply Z.div_pos; lia).
  destruct (part_exponent_spec 2 h ltac:(lia) ltac:(lia)) as (c_nonneg & reaches & _).
  assert (short := short_part 2 h ltac:(lia) h_pos). cbv zeta in short.
  set (c := part_exponent 2 h) in *. fold s in short.
  assert (long : h <= 2 * s ^ 2).
  { apply (pow_le_iff 2); [lia | lia | nia |].
    replace (2 * (2 - 1)) with 2 in reaches by lia. apply Z.le_trans with (1 := reaches).
    assert (double : 2 * s ^ 2 = 2 ^ (2 * c + 1))
      by (unfold s; rewrite Z.pow_add_r, (Z.mul_comm 2 c), Z.pow_mul_r by lia; lia).
    rewrite double, <- Z.pow_mul_r by lia. apply Z.pow_le_mono_r; lia. }
  assert (small : s ^ 2 <= 2 * h).
  { destruct short as [zero | short]; [unfold s; rewrite zero, Z.pow_0_r, Z.pow_1_l by lia; lia |].
    apply (pow_le_iff 2); [lia | nia | lia |]. rewrite <- Z.pow_mul_r, Z.pow_mul_l by lia.
    replace (2 * (2 - 1)) with 2 in short by lia. lia. }
  rewrite !Z.pow_2_r in *. assert (square : 0 < s * s) by nia.
  apply (Z.mul_le_mono_pos_r _ _ (s * s) square).
  assert (grows : ((x + s) * s) * ((x + s) * s) <= (h + s * s) * (h + s * s)) by nia.
  assert (between : 0 <= (2 * h - s * s) * (2 * (s * s) - h)) by (apply Z.mul_nonneg_nonneg; lia).
  lia.
Qed.

Lemma shares_length : forall steps c, length (shares steps c) = steps.
Proof.
  induction steps as [| k IH]; intros c; [reflexivity |]. cbn [shares length]. now rewrite IH.
Qed.
