(** * What the aligned rule costs, against [n^(1/N)]

    AlignedCost.v has what the steps offer; here it is compared with the [N]-th root of the number
    of keys, and added up over all queries of a context. *)

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

(** Less sharp and shorter: [x <= 2 h^(1/N)]. *)
Lemma twice_the_root : forall k h x,
  0 < h -> 0 <= x ->
  let N := Z.of_nat k + 2 in
  x ^ (2 * N * (N - 1)) <= 2 ^ (N * (2 * N - 3)) * h ^ (2 * (N - 1)) -> x ^ N <= 2 ^ N * h.
Proof.
  intros k h x h_pos x_nonneg N small.
  assert (two_power : 0 < 2 ^ N) by (apply Z.pow_pos_nonneg; lia).
  apply (pow_le_iff (2 * (N - 1))); [lia | apply Z.pow_nonneg, x_nonneg | nia |].
  rewrite <- Z.pow_mul_r by lia. replace (N * (2 * (N - 1))) with (2 * N * (N - 1)) by lia.
  apply Z.le_trans with (1 := small). rewrite Z.pow_mul_l, <- Z.pow_mul_r by lia.
  apply Z.mul_le_mono_nonneg_r; [apply Z.pow_nonneg; lia | apply Z.pow_le_mono_r; nia].
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

(** ** A query and a context *)

Lemma costs_weaken : forall ls w n cs cs',
  costs_at_most w ls n cs -> Forall2 Z.le cs cs' -> costs_at_most w ls n cs'.
Proof.
  induction ls as [| l rest IH]; intros w n cs cs' cheap order.
  - destruct cs as [| c [| c2 cs2]]; [destruct cheap | | destruct cheap].
    inversion order as [| ? c' ? cs'' le none]; subst. inversion none; subst.
    cbn [costs_at_most] in *. lia.
  - destruct cs as [| c cs]; [destruct cheap |].
    inversion order as [| ? c' ? cs'' le later]; subst. destruct cheap as [few below].
    split; [exact (Z.le_trans _ _ _ few le) |].
    intros i chosen. exact (IH _ _ _ _ (below i chosen) later).
Qed.

Lemma shares_length : forall steps c, length (shares steps c) = steps.
Proof.
  induction steps as [| k IH]; intros c; [reflexivity |]. cbn [shares length]. now rewrite IH.
Qed.

Lemma below_repeat : forall bound xs,
  Forall (fun x => x <= bound) xs -> Forall2 Z.le xs (repeat bound (length xs)).
Proof.
  intros bound xs small. induction small as [| x xs x_small xs_small IH]; constructor; assumption.
Qed.

(** [2 + 2 h^(1/N)] is enough for each step. *)
Definition step_bound (N h : Z) : Z := 2 + root N (2 ^ N * h).

Lemma step_bound_mono : forall N h h',
  0 < N -> 0 <= h <= h' -> 2 <= step_bound N h <= step_bound N h'.
Proof.
  intros N h h' N_pos order. unfold step_bound.
  assert (two_power : 0 < 2 ^ N) by (apply Z.pow_pos_nonneg; lia).
  destruct (root_spec N (2 ^ N * h) N_pos ltac:(nia)) as (nonneg & below & _).
  assert (grows : root N (2 ^ N * h) <= root N (2 ^ N * h')) by (apply root_ge_iff; nia). lia.
Qed.

Lemma aligned_step_bound : forall k w (n : segment),
  0 <= w -> nominal n = n ->
  let N := Z.of_nat k + 2 in
  costs_at_most w (repeat Aligned (S k)) n
    (repeat (step_bound N (Z.max 0 (n - w))) (S (S k))).
Proof.
  intros k w n w_nonneg same N.
  assert (two_power : 0 < 2 ^ N) by (apply Z.pow_pos_nonneg; lia).
  destruct (Z_le_gt_dec (n - w) 0) as [empty | some].
  { change (repeat Aligned (S k)) with (Aligned :: repeat Aligned k).
    change (repeat ?x (S (S k))) with (x :: repeat x (S k)). cbn [repeat costs_at_most].
    unfold anchor_count, is_stripe. cbn [first_stripe last_searched].
    rewrite last_stripe_empty by (cbn [held beyond]; lia).
    assert (bound := step_bound_mono N (Z.max 0 (n - w)) (Z.max 0 (n - w)) ltac:(lia) ltac:(lia)).
    split; [lia | intros i range; lia]. }
  rewrite Z.max_r by lia. set (h := n - w) in *. assert (h_pos : 0 < h) by lia.
  assert (offers := aligned_offers k w n w_nonneg ltac:(fold h; lia)). cbv zeta in offers.
  rewrite same in offers. fold h N in offers.
  apply costs_weaken with (1 := offers).
  assert (root_large : forall x, 0 <= x -> x ^ N <= 2 ^ N * h -> x <= root N (2 ^ N * h))
    by (intros x x_nonneg small; apply root_ge_iff; nia).
  change (repeat ?x (S (S k))) with (x :: repeat x (S k)). unfold step_bound. constructor.
  - set (x := (h - 2) / 2 ^ part_exponent N h).
    assert (root_nonneg := proj1 (root_spec N (2 ^ N * h) ltac:(lia) ltac:(nia))).
    destruct (Z.lt_ge_cases x 0) as [negative | nonneg]; [lia |].
    assert (few := first_step_is_few N h ltac:(lia) h_pos nonneg). cbv zeta in few. fold x in few.
    enough (x <= root N (2 ^ N * h)) by lia. apply root_large; [exact nonneg |].
    apply (pow_le_iff 2); [lia | apply Z.pow_nonneg, nonneg | nia |].
    rewrite <- Z.pow_mul_r, Z.pow_mul_l by lia. rewrite (Z.mul_comm N 2).
    apply Z.le_trans with (1 := few). apply Z.mul_le_mono_nonneg_r; [apply Z.pow_nonneg; lia |].
    rewrite Z.pow_2_r. nia.
  - assert (few := shares_are_few k h h_pos). cbv zeta in few. fold N in few.
    assert (positive := shares_positive (S k) (part_exponent N h) ltac:(apply Z.le_max_l)).
    rewrite <- (shares_length (S k) (part_exponent N h)) at 2. apply below_repeat.
    rewrite Forall_forall in *. intros x x_in. specialize (few x x_in).
    specialize (positive x x_in). cbv beta in few, positive.
    enough (x <= root N (2 ^ N * h)) by lia. apply root_large; [lia |].
    apply (twice_the_root k); [exact h_pos | lia | exact few].
Qed.

(** [L] queries cost at most [L ((1 + top_k (N - 1)) (2 + 2 L^(1/N)) + w)], whatever the paths. *)
Theorem aligned_context_cost : forall top_k k w start len work,
  0 <= top_k -> 0 <= w -> 0 <= len ->
  let s := Schedule (repeat Aligned (S k)) w in
  (forall t, start <= t < start + len -> query_work top_k s (seen start t) (work t)) ->
  let N := Z.of_nat k + 2 in
  total (map work (interval start (start + len)))
    <= len * ((1 + top_k * (N - 1)) * (2 + root N (2 ^ N * len)) + w).
Proof.
  intros top_k k w start len work top_k_nonneg w_nonneg len_nonneg s works N.
  assert (queries : count (interval start (start + len)) = len) by (rewrite count_interval; lia).
  rewrite <- queries at 2. apply total_at_most.
  intros t t_in. apply in_interval in t_in.
  destruct (works t t_in) as (searched & is_search & ->).
  assert (cheap := aligned_step_bound k w (seen start t) w_nonneg eq_refl). cbv zeta in cheap.
  fold N in cheap. set (h := Z.max 0 (seen start t - w)) in *.
  assert (h_range : 0 <= h <= len) by (unfold h; cbn [held seen]; lia).
  assert (bound := step_bound_mono N h len ltac:(lia) h_range).
  assert (few : searched <= (1 + top_k * (N - 1)) * step_bound N h).
  { replace (N - 1) with (Z.of_nat (length (repeat Aligned (S k)))) by (rewrite repeat_length; lia).
    apply (search_work_at_most top_k _ (repeat Aligned (S k)) w [seen start t]);
      [lia | | exact is_search].
    constructor; [rewrite repeat_length; exact cheap | constructor]. }
  assert (grows : (1 + top_k * (N - 1)) * step_bound N h
                  <= (1 + top_k * (N - 1)) * step_bound N len)
    by (apply Z.mul_le_mono_nonneg_l; nia).
  change (2 + root N (2 ^ N * len)) with (step_bound N len). change (window_of s) with w. lia.
Qed.
