(** * What all queries of a context cost together (SPEC 2.5.4, 2.5.10)

    Query [t] costs a multiple of the root of the [t + 1] keys that it sees, and a little more. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality AmGm LowerBound LevelCost Cost Optimality.
From Multistep Require Import Aligned AlignedCost AlignedWork SumsOfRoots.
Import ListNotations.
Open Scope Z_scope.

Lemma repeat_nonnegative : forall c k, 0 <= c -> nonnegative (repeat c k).
Proof.
  intros c k c_nonneg. apply Forall_forall. intros x x_in. apply repeat_spec in x_in. lia.
Qed.

(** A fraction above a root: [x <= r^(1/m) y] and [r^(1/m) <= p / q]. *)
Lemma fraction_above : forall m p q r x y,
  0 < m -> 0 <= p -> 0 <= q -> 0 <= x -> 0 <= y ->
  r * q ^ m <= p ^ m -> x ^ m <= r * y ^ m -> q * x <= p * y.
Proof.
  intros m p q r x y m_pos p_nonneg q_nonneg x_nonneg y_nonneg above small.
  apply (pow_le_iff m); [exact m_pos | apply Z.mul_nonneg_nonneg; assumption
                        | apply Z.mul_nonneg_nonneg; assumption |].
  rewrite !Z.pow_mul_l.
  apply Z.le_trans with (q ^ m * (r * y ^ m)).
  - apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; exact q_nonneg | exact small].
  - rewrite Z.mul_assoc, (Z.mul_comm _ r).
    apply Z.mul_le_mono_nonneg_r; [apply Z.pow_nonneg; exact y_nonneg | exact above].
Qed.

(** ** Tight, then even *)

(** A window takes stripes away, and changes nothing in the others. *)
Lemma tight_offers_beyond_window : forall w e rest n cs,
  0 <= w -> costs_at_most 0 (Tight e :: rest) n cs -> costs_at_most w (Tight e :: rest) n cs.
Proof.
  intros w e rest n [|c cs] w_nonneg offers; [exact offers|].
  cbn [costs_at_most] in *. unfold anchor_count, is_stripe in *.
  cbn [first_stripe last_searched] in *. destruct offers as [few later].
  split; [lia|]. intros i range. apply (later i). lia.
Qed.

(** The distance of two powers, from above: [(R + 1)^N - R^N <= N (R + 1)^(N - 1)]. *)
Lemma powers_near : forall R N,
  0 <= R -> 0 < N -> (R + 1) ^ N - R ^ N <= N * (R + 1) ^ (N - 1).
Proof.
  intros R N R_nonneg N_pos. replace N with (Z.succ (N - 1)) at 1 2 3 by lia.
  assert (k_nonneg : 0 <= N - 1) by lia. revert k_nonneg. generalize (N - 1). clear N N_pos.
  apply (natlike_ind (fun k => (R + 1) ^ Z.succ k - R ^ Z.succ k <= Z.succ k * (R + 1) ^ k)).
  - cbn [Z.succ Z.add]. rewrite !Z.pow_1_r, Z.pow_0_r. lia.
  - intros k k_nonneg IH. rewrite (Z.pow_succ_r _ (Z.succ k)), (Z.pow_succ_r R (Z.succ k)) by lia.
    assert (smaller : R ^ Z.succ k <= (R + 1) ^ Z.succ k) by (apply pow_mono; lia).
    rewrite (Z.pow_succ_r (R + 1) k) in * by lia.
    assert (power : 0 <= (R + 1) ^ k) by (apply Z.pow_nonneg; lia). nia.
Qed.

(** [N^(1/(N-1)) <= p / q]: the later steps offer less than [p / q (R + 1) + 1] each. *)
Lemma later_steps : forall N R p q,
  2 <= N -> 0 <= R -> 0 <= p -> 0 < q -> N * q ^ (N - 1) <= p ^ (N - 1) ->
  q * ceil_root (N - 1) ((R + 1) ^ N - R ^ N) <= p * (R + 1) + q.
Proof.
  intros N R p q N_large R_nonneg p_nonneg q_pos above. set (gap := (R + 1) ^ N - R ^ N).
  assert (gap_nonneg : 0 <= gap).
  { unfold gap. assert (R ^ N <= (R + 1) ^ N) by (apply pow_mono; lia). lia. }
  destruct (ceil_root_spec (N - 1) gap ltac:(lia) gap_nonneg) as (nonneg & _ & least).
  set (C := ceil_root (N - 1) gap) in *.
  destruct (Z.eq_dec C 0) as [zero | some]; [nia|].
  specialize (least (C - 1) ltac:(lia)).
  assert (near := powers_near R N R_nonneg ltac:(lia)). fold gap in near.
  enough (q * (C - 1) <= p * (R + 1)) by lia.
  apply (fraction_above (N - 1) p q N); lia.
Qed.

Theorem nstep_context_cost : forall top_k k w start len c work,
  0 <= top_k -> 0 <= w -> 0 <= len ->
  let N := Z.of_nat k + 2 in
  let s := Schedule (default_tight N :: repeat Even k) w in
  0 < den c -> 0 <= num c -> N * den c ^ (N - 1) <= num c ^ (N - 1) ->
  (forall t, start <= t < start + len -> query_work top_k s (seen start t) (work t)) ->
  exists roots, below_integral 1 N (len + 1) roots /\
    den c * total (map work (interval start (start + len)))
    <= (den c + top_k * (N - 1) * num c) * roots
       + (top_k * (N - 1) * (num c + den c) + den c * window_of s) * len.
Proof.
  intros top_k k w start len [p q] work top_k_nonneg w_nonneg len_nonneg N s q_pos p_nonneg above
    works. cbn [num den] in *.
  apply (context_total 1 N 1 _ _ _ work (fun t => root N (t + 1 - start))); try lia.
  intros t range. specialize (works t range).
  assert (n_pos : 0 < seen start t) by (cbn [held seen]; lia).
  assert (offers := nstep_offers k (seen start t) n_pos). cbv zeta in offers. fold N in offers.
  change (held (seen start t)) with (t + 1 - start) in offers. cbn [held seen] in n_pos.
  destruct (root_spec N (t + 1 - start) ltac:(lia) ltac:(lia)) as (R_nonneg & below & _).
  set (R := root N (t + 1 - start)) in *. split; [| rewrite Z.pow_1_l by lia; lia].
  assert (later := later_steps N R p q ltac:(lia) R_nonneg p_nonneg q_pos above).
  assert (gap_nonneg : 0 <= (R + 1) ^ N - R ^ N).
  { assert (R ^ N <= (R + 1) ^ N) by (apply pow_mono; lia). lia. }
  destruct (ceil_root_spec (N - 1) _ ltac:(lia) gap_nonneg) as (C_nonneg & _ & _).
  set (C := ceil_root (N - 1) ((R + 1) ^ N - R ^ N)) in *.
  apply (query_work_at_most top_k s (seen start t) R (repeat C (S k))) in works.
  - rewrite total_repeat in works. replace (Z.of_nat (S k)) with (N - 1) in works by lia.
    assert (all : top_k * (N - 1) * (q * C) <= top_k * (N - 1) * (p * (R + 1) + q))
      by (apply Z.mul_le_mono_nonneg_l; nia).
    apply (Z.mul_le_mono_nonneg_l _ _ q) in works; [|lia]. lia.
  - exact top_k_nonneg.
  - apply Forall_cons; [exact R_nonneg | apply repeat_nonnegative, C_nonneg].
  - cbn [levels s length]. rewrite !repeat_length. reflexivity.
  - apply tight_offers_beyond_window; [exact w_nonneg | exact offers].
Qed.

(** ** Even or aligned at every level *)

(** [ceil (n^(1/N))] is 1 more than a number whose [N]-th power is below [n]. *)
Theorem even_context_cost : forall top_k k w start len work,
  0 <= top_k -> 0 <= w -> 0 <= len ->
  let N := Z.of_nat k + 2 in
  let s := Schedule (repeat Even (S k)) w in
  (forall t, start <= t < start + len -> query_work top_k s (seen start t) (work t)) ->
  exists roots, below_integral 1 N len roots /\
    total (map work (interval start (start + len)))
    <= (1 + top_k * (N - 1)) * roots + (1 + top_k * (N - 1) + w) * len.
Proof.
  intros top_k k w start len work top_k_nonneg w_nonneg len_nonneg N s works.
  destruct (context_total 1 N 0 1 (1 + top_k * (N - 1)) (1 + top_k * (N - 1) + w) work
              (fun t => ceil_root N (t + 1 - start) - 1) start len) as (roots & small & all);
    try lia.
  2: { exists roots. rewrite Z.add_0_r in small. split; [exact small | lia]. }
  intros t range. specialize (works t range).
  destruct (ceil_root_spec N (t + 1 - start) ltac:(lia) ltac:(lia)) as (_ & above & least).
  assert (C_pos := ceil_root_positive N (t + 1 - start) ltac:(lia) ltac:(lia)).
  specialize (least (ceil_root N (t + 1 - start) - 1) ltac:(lia)).
  set (C := ceil_root N (t + 1 - start)) in *.
  split; [| rewrite Z.pow_1_l by lia; lia].
  apply (query_work_at_most top_k s (seen start t) C (repeat C (S k))) in works.
  - rewrite total_repeat in works. change (window_of s) with w in works.
    replace (Z.of_nat (S k)) with (N - 1) in works by lia. lia.
  - exact top_k_nonneg.
  - apply (repeat_nonnegative C (S (S k))). lia.
  - cbn [levels s]. rewrite !repeat_length. reflexivity.
  - apply even_cost_beyond_window; [lia|]. cbn [held seen window_index s]. fold N. lia.
Qed.

(** Where the window has all keys, an aligned level 1 offers nothing. *)
Lemma nothing_beyond_window : forall w rest (n : segment) c cs,
  n - w <= 0 -> 0 <= c -> costs_at_most w (Aligned :: rest) n (c :: cs).
Proof.
  intros w rest n c cs all c_nonneg. cbn [costs_at_most]. unfold anchor_count, is_stripe.
  cbn [first_stripe last_searched]. rewrite last_stripe_empty by (cbn [held beyond]; lia).
  split; [lia | intros i range; lia].
Qed.

(** The same of powers: where [(x^N)^m <= r^N h^m]. *)
Lemma by_powers : forall N m r p q x h,
  0 <= N -> 0 < m -> 0 <= r -> 0 <= p -> 0 <= q -> 0 <= x -> 0 <= h ->
  r * q ^ m <= p ^ m -> (x ^ N) ^ m <= r ^ N * h ^ m -> (q * x) ^ N <= p ^ N * h.
Proof.
  intros N m r p q x h N_nonneg m_pos r_nonneg p_nonneg q_nonneg x_nonneg h_nonneg above small.
  assert (m_nonneg : 0 <= m) by (apply Z.lt_le_incl, m_pos).
  rewrite Z.pow_mul_l. apply (fraction_above m _ _ (r ^ N));
    [exact m_pos | apply Z.pow_nonneg, p_nonneg | apply Z.pow_nonneg, q_nonneg
    | apply Z.pow_nonneg, x_nonneg | exact h_nonneg | | exact small].
  rewrite (pow_swap q), (pow_swap p), <- Z.pow_mul_l by assumption. apply pow_mono.
  split; [| exact above]. apply Z.mul_nonneg_nonneg; [| apply Z.pow_nonneg]; assumption.
Qed.

(** [2^(1 - 1/(2N - 2)) <= p / q]: each step offers at most [p / q h^(1/N)], level 1 two more. *)
Lemma aligned_steps : forall k h p q,
  0 < h -> 0 <= p -> 0 < q ->
  let N := Z.of_nat k + 2 in
  2 ^ (2 * N - 3) * q ^ (2 * N - 2) <= p ^ (2 * N - 2) ->
  let c := part_exponent N h in
  Forall (fun x => (q * x) ^ N <= p ^ N * h) (Z.max 0 ((h - 2) / 2 ^ c) :: shares (S k) c).
Proof.
  intros k h p q h_pos p_nonneg q_pos N above c.
  assert (N_large : 2 <= N) by lia. assert (N_nonneg : 0 <= N) by lia.
  assert (m_pos : 0 < 2 * N - 2) by lia. assert (m_nonneg : 0 <= 2 * N - 2) by lia.
  assert (r_nonneg : 0 <= 2 * N - 3) by lia.
  assert (two_power : 0 <= 2 ^ (2 * N - 3)) by (apply Z.pow_nonneg; lia).
  assert (squares : 2 * q ^ 2 <= p ^ 2).
  { apply (pow_le_iff (N - 1)); [lia | | apply Z.pow_nonneg; lia |].
    { apply Z.mul_nonneg_nonneg; [| apply Z.pow_nonneg]; lia. }
    rewrite Z.pow_mul_l, <- !Z.pow_mul_r by lia.
    replace (2 * (N - 1)) with (2 * N - 2) by ring. apply Z.le_trans with (2 := above).
    apply Z.mul_le_mono_nonneg_r; [apply Z.pow_nonneg | apply Z.pow_le_mono_r]; lia. }
  destruct (steps_are_few k h h_pos) as [first later]. fold N c in first, later.
  assert (positive := shares_positive (S k) c ltac:(apply Z.le_max_l)).
  constructor.
  - apply (by_powers N 2 2); try assumption; try reflexivity; try discriminate;
      [apply Z.lt_le_incl, q_pos | apply Z.le_max_l | apply Z.lt_le_incl, h_pos |].
    rewrite <- Z.pow_mul_r, (Z.mul_comm N); [exact first | exact N_nonneg | discriminate].
  - rewrite Forall_forall in *. intros x x_in. specialize (later x x_in).
    specialize (positive x x_in). cbv beta in later, positive.
    apply (by_powers N (2 * N - 2) (2 ^ (2 * N - 3))); try assumption;
      [apply Z.lt_le_incl, q_pos | apply Z.lt_le_incl, positive | apply Z.lt_le_incl, h_pos |].
    rewrite <- !Z.pow_mul_r by assumption.
    replace (N * (2 * N - 2)) with (2 * N * (N - 1)) by ring.
    replace (2 * N - 2) with (2 * (N - 1)) by ring.
    rewrite (Z.mul_comm (2 * N - 3)). exact later.
Qed.

Theorem aligned_context_cost : forall top_k k w start len c work,
  0 <= top_k -> 0 <= w -> 0 <= len ->
  let N := Z.of_nat k + 2 in
  let s := Schedule (repeat Aligned (S k)) w in
  0 < den c -> 0 <= num c -> 2 ^ (2 * N - 3) * den c ^ (2 * N - 2) <= num c ^ (2 * N - 2) ->
  (forall t, start <= t < start + len -> query_work top_k s (seen start t) (work t)) ->
  exists roots, below_integral (num c) N (len + 1) roots /\
    den c * total (map work (interval start (start + len)))
    <= (1 + top_k * (N - 1)) * roots + den c * (2 + w) * len.
Proof.
  intros top_k k w start len [p q] work top_k_nonneg w_nonneg len_nonneg N s q_pos p_nonneg above
    works. cbn [num den] in *.
  apply (context_total p N 1 _ _ _ work (fun t => root N (p ^ N * (t + 1 - start)))); try lia.
  intros t range. specialize (works t range).
  assert (p_power : 0 <= p ^ N) by (apply Z.pow_nonneg; lia).
  assert (N_pos : 0 < N) by lia. assert (q_nonneg : 0 <= q) by lia.
  assert (room : 0 <= p ^ N * (t + 1 - start)) by (apply Z.mul_nonneg_nonneg; lia).
  destruct (root_spec N (p ^ N * (t + 1 - start)) N_pos room) as (X_nonneg & X_small & _).
  set (X := root N (p ^ N * (t + 1 - start))) in *.
  replace (t - start + 1) with (t + 1 - start) by lia. split; [| split; assumption].
  set (n := seen start t) in *. assert (same : held n = t + 1 - start) by reflexivity.
  assert (few : exists c1 cs, Forall (fun x => 0 <= x /\ q * x <= X) (c1 :: cs) /\
            length cs = S k /\ costs_at_most w (repeat Aligned (S k)) n (c1 + 2 :: cs)).
  { destruct (Z_le_gt_dec (n - w) 0) as [all | some].
    - exists 0, (repeat 0 (S k)). split; [| split; [apply repeat_length |]].
      + apply Forall_forall. intros x x_in. apply (repeat_spec (S (S k)) 0) in x_in. lia.
      + apply nothing_beyond_window; [exact all | lia].
    - assert (h_small : n - w <= n) by lia. set (h := n - w) in *. set (c := part_exponent N h).
      exists (Z.max 0 ((h - 2) / 2 ^ c)), (shares (S k) c).
      assert (steps := aligned_steps k h p q ltac:(lia) p_nonneg q_pos above). cbv zeta in steps.
      fold N c in steps. split; [| split; [apply shares_length |]].
      + assert (nonneg : Forall (fun x => 0 <= x) (Z.max 0 ((h - 2) / 2 ^ c) :: shares (S k) c)).
        { constructor; [lia |]. eapply Forall_impl; [| apply shares_positive, Z.le_max_l].
          intros x x_pos. cbv beta in x_pos. lia. }
        rewrite Forall_forall in *. intros x x_in. specialize (nonneg x x_in).
        specialize (steps x x_in). cbv beta in nonneg, steps. split; [exact nonneg |].
        apply root_ge_iff; [exact N_pos | exact room | apply Z.mul_nonneg_nonneg; assumption |].
        apply Z.le_trans with (1 := steps).
        apply Z.mul_le_mono_nonneg_l; [exact p_power | rewrite <- same; exact h_small].
      + assert (offers := aligned_offers k w n w_nonneg ltac:(fold h; lia)). cbv zeta in offers.
        change (nominal n - w) with h in offers. fold h N c in offers.
        change (repeat Aligned (S k)) with (Aligned :: repeat Aligned k) in *.
        destruct offers as [first later]. split; [lia | exact later]. }
  destruct few as (c1 & cs & each & steps & offers). apply Forall_cons_iff in each.
  destruct each as [[c1_nonneg c1_small] each].
  assert (later := linear_in_all (fun x => x) (fun _ => 0) q 0 X cs).
  rewrite map_id in later. unfold count in later. rewrite steps in later.
  replace (Z.of_nat (S k)) with (N - 1) in later by lia.
  rewrite Forall_forall in each.
  specialize (later ltac:(intros x x_in; specialize (each x x_in); lia)).
  rewrite <- Forall_forall in each.
  apply (query_work_at_most top_k s n (c1 + 2) cs) in works.
  - change (window_of s) with w in works.
    apply (Z.mul_le_mono_nonneg_l _ _ q) in works; [| lia].
    apply (Z.mul_le_mono_nonneg_l _ _ top_k top_k_nonneg) in later. lia.
  - exact top_k_nonneg.
  - apply Forall_cons; [lia |]. eapply Forall_impl; [| exact each]. intros x range'. apply range'.
  - cbn [levels s]. rewrite repeat_length. exact steps.
  - exact offers.
Qed.
