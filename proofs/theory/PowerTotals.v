(** * What two steps of the power rule cost (SPEC 2.5.10)

    The presets [paper] and [released]: stripes [i^e] and spans of about [n^(1/e)] keys.  The last
    stripe inside [n] keys is a root, and a span has at most [B + F + 1] keys: so a query costs a
    multiple of [n^(1/e)] and a little more, and all queries cost the sum of these powers. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality AmGm LowerBound LevelCost Cost SumsOfRoots.
Import ListNotations.
Open Scope Z_scope.

(** ** One query *)

Lemma power_offers : forall e b f q w (n : segment),
  0 < n ->
  costs_at_most w [Power e b f q] n
    [Z.max 0 (root (num e) ((n + 1) ^ den e - 1) - w);
     ceil_power b n q + ceil_power f n q + 1].
Proof.
  intros e b f q w n n_pos. cbn [costs_at_most]. unfold anchor_count.
  cbn [first_stripe last_searched]. unfold last_stripe.
  destruct (Z.leb_spec n 0) as [empty | _]; [lia|]. split; [lia|].
  intros i _. cbn [held segment_of]. apply power_span_size.
Qed.

(** A window takes [w] stripes.  Where it takes all [R] of [n] keys and more, it has room for
    [w - R] keys besides these [n], for stripes are distinct. *)
Lemma window_beyond_last : forall e w n,
  good_exponent e -> 0 < n ->
  let R := root (num e) ((n + 1) ^ den e - 1) in
  R < w -> n + (w - R) <= window (Tight e) w.
Proof.
  intros e w n e_good n_pos R beyond_last. cbn [window].
  assert (power_pos : 0 < (n + 1) ^ den e)
    by (apply Z.pow_pos_nonneg; [lia | destruct e_good; lia]).
  destruct (root_spec (num e) ((n + 1) ^ den e - 1)) as (R_nonneg & _);
    [destruct e_good; lia | lia |]. fold R in R_nonneg.
  assert (outside : n < floor_power (R + 1) e).
  { apply Z.nle_gt. intros inside. apply last_power_stripe in inside; [fold R in inside; lia | | |];
      assumption || lia. }
  assert (climb : forall k, 0 <= k -> floor_power (R + 1) e + k <= floor_power (R + 1 + k) e).
  { apply natlike_ind; [rewrite !Z.add_0_r; lia|]. intros k k_nonneg IH.
    assert (step := floor_power_step (R + 1 + k) e e_good ltac:(lia)).
    replace (R + 1 + Z.succ k) with (R + 1 + k + 1) by lia. lia. }
  specialize (climb (w - R) ltac:(lia)).
  replace (R + 1 + (w - R)) with (w + 1) in climb by lia. lia.
Qed.

Lemma power_query : forall top_k e b f q w (n : segment) work,
  0 <= top_k -> good_exponent e -> good_factor b -> good_factor f -> good_span_exponent q ->
  0 <= w -> 0 < n ->
  let s := Schedule [Power e b f q] w in
  query_work top_k s n work ->
  work <= root (num e) ((n + 1) ^ den e - 1) + top_k * (ceil_power b n q + ceil_power f n q + 1)
          + window_of s - w.
Proof.
  intros top_k e b f q w n work top_k_nonneg e_good b_good f_good q_good w_nonneg n_pos s
    (searched & is_search & ->).
  assert (offers := power_offers e b f q w n n_pos).
  assert (B_nonneg := ceil_power_nonneg b n q b_good q_good ltac:(lia)).
  assert (F_nonneg := ceil_power_nonneg f n q f_good q_good ltac:(lia)).
  assert (beyond_last := window_beyond_last e w n e_good n_pos). cbv zeta in beyond_last.
  set (R := root (num e) ((n + 1) ^ den e - 1)) in *.
  set (S' := ceil_power b n q + ceil_power f n q + 1) in *.
  change (window_of s) with (window (Tight e) w).
  assert (product_nonneg : 0 <= top_k * S') by (apply Z.mul_nonneg_nonneg; lia).
  destruct (Z.lt_ge_cases R w) as [all | some].
  - specialize (beyond_last all).
    apply (search_work_at_most top_k _ 0 [0]) in is_search; try assumption.
    + change (count [n]) with 1 in is_search. cbn [total fold_right] in is_search. lia.
    + repeat constructor; lia.
    + reflexivity.
    + constructor; [| constructor]. cbn [costs_at_most levels window_index s] in *.
      split; [lia|]. intros i chosen. unfold anchor_count, is_stripe in *.
      cbn [first_stripe last_searched] in *. lia.
  - apply (search_work_at_most top_k _ (R - w) [S']) in is_search; try assumption.
    + change (count [n]) with 1 in is_search. cbn [total fold_right] in is_search. lia.
    + repeat constructor; lia.
    + reflexivity.
    + constructor; [| constructor]. rewrite Z.max_r in offers by lia. exact offers.
Qed.

(** ** All queries

    [x^d <= (1 + top_k (K + K'))^d (n + 1)^a]: the anchors and the reach back and forward of a query
    with [n] keys, each at most a multiple of one power. *)
Definition anchors_and_reach (top_k K K' a d n : Z) : Z :=
  root d ((n + 1) ^ a - 1) + top_k * (root d (K ^ d * n ^ a) + root d (K' ^ d * n ^ a)).

Lemma reach_power : forall K d z, 0 < d -> 0 <= K -> 0 <= z ->
  0 <= root d (K ^ d * z) /\ root d (K ^ d * z) ^ d <= K ^ d * z.
Proof.
  intros K d z d_pos K_nonneg z_nonneg.
  assert (room : 0 <= K ^ d * z) by (apply Z.mul_nonneg_nonneg; [apply Z.pow_nonneg|]; assumption).
  destruct (root_spec d _ d_pos room) as (nonneg & below & _). split; assumption.
Qed.

Lemma anchors_and_reach_power : forall top_k K K' a d n z,
  0 <= top_k -> 0 <= K -> 0 <= K' -> 0 <= a -> 0 < d -> 0 < n ->
  n ^ a <= z -> (n + 1) ^ a - 1 <= z ->
  let x := anchors_and_reach top_k K K' a d n in
  0 <= x /\ x ^ d <= (1 + top_k * (K + K')) ^ d * z.
Proof.
  intros top_k K K' a d n z top_k_nonneg K_nonneg K'_nonneg a_nonneg d_pos n_pos above anchors.
  cbv zeta. unfold anchors_and_reach.
  assert (power_pos : 0 < n ^ a) by (apply Z.pow_pos_nonneg; lia).
  assert (next_pos : 0 < (n + 1) ^ a) by (apply Z.pow_pos_nonneg; lia).
  destruct (root_spec d ((n + 1) ^ a - 1) d_pos ltac:(lia)) as (R_nonneg & R_small & _).
  destruct (reach_power K d (n ^ a) d_pos K_nonneg ltac:(lia)) as (B_nonneg & B_small).
  destruct (reach_power K' d (n ^ a) d_pos K'_nonneg ltac:(lia)) as (F_nonneg & F_small).
  set (R := root d ((n + 1) ^ a - 1)) in *. set (B := root d (K ^ d * n ^ a)) in *.
  set (F := root d (K' ^ d * n ^ a)) in *.
  assert (B_part := Z.mul_nonneg_nonneg _ _ top_k_nonneg B_nonneg).
  assert (F_part := Z.mul_nonneg_nonneg _ _ top_k_nonneg F_nonneg).
  assert (K_part := Z.mul_nonneg_nonneg _ _ top_k_nonneg K_nonneg).
  assert (K'_part := Z.mul_nonneg_nonneg _ _ top_k_nonneg K'_nonneg).
  split; [lia|].
  assert (times : forall x k, 0 <= k -> x ^ d <= k ^ d * n ^ a ->
    (top_k * x) ^ d <= (top_k * k) ^ d * z).
  { intros x k k_nonneg small. rewrite !Z.pow_mul_l, <- Z.mul_assoc.
    apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; lia|].
    apply Z.le_trans with (1 := small).
    apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; lia | exact above]. }
  replace (R + top_k * (B + F)) with (top_k * B + (top_k * F + R)) by ring.
  replace (1 + top_k * (K + K')) with (top_k * K + (top_k * K' + 1)) by ring.
  apply multiples_add; try lia; [apply times; assumption|].
  apply multiples_add; try lia; [apply times; assumption|]. rewrite Z.pow_1_l; lia.
Qed.

(** [e = d/a] and [q = a/d].  A forward reach of none is not rounded, [r = 0]; and where [a = 1] the
    anchors are the root of [n], [j = 1], not of [n + 1]. *)
Lemma power_context_cost : forall top_k w a d b f K K' j r start len work,
  0 <= top_k -> 0 <= w -> 0 <= len -> 0 < a <= d -> 1 <= j ->
  factor_at_most K b -> good_factor f -> 0 <= K -> 0 <= K' ->
  (forall n, 0 < n -> (n + 1) ^ a - 1 <= (n - 1 + j) ^ a) ->
  (forall n, 0 < n -> ceil_power f n (Ratio a d) <= root d (K' ^ d * n ^ a) + r) ->
  let s := Schedule [Power (Ratio d a) b f (Ratio a d)] w in
  (forall t, start <= t < start + len -> query_work top_k s (seen start t) (work t)) ->
  exists powers, below_power_integral (1 + top_k * (K + K')) a d (len + j) powers /\
    total (map work (interval start (start + len)))
    <= powers + (top_k * (2 + r) + window_of s - w) * len.
Proof.
  intros top_k w a d b f K K' j r start len work top_k_nonneg w_nonneg len_nonneg a_range j_pos
    b_small f_good K_nonneg K'_nonneg anchors forward s works.
  assert (factor : 0 <= top_k * (K + K')) by (apply Z.mul_nonneg_nonneg; lia).
  destruct (context_total_of_powers (1 + top_k * (K + K')) a d j 1 1
              (top_k * (2 + r) + window_of s - w) work
              (fun t => anchors_and_reach top_k K K' a d (t + 1 - start)) start len)
    as (powers & small & all); try lia.
  2: { exists powers. split; [exact small | lia]. }
  intros t range. specialize (works t range).
  assert (n_pos : 0 < t + 1 - start) by lia.
  assert (q_good : good_span_exponent (Ratio a d)) by (split; cbn [num den]; lia).
  assert (e_good : good_exponent (Ratio d a)) by (split; cbn [num den]; lia).
  apply power_query in works; try assumption; [| apply b_small].
  cbn [num den] in works. fold s in works.
  change (held (seen start t)) with (t + 1 - start) in works.
  assert (backward := reach_cost K b _ _ n_pos q_good b_small). cbn [num den] in backward.
  specialize (forward _ n_pos). specialize (anchors _ n_pos).
  replace (t - start + j) with (t + 1 - start - 1 + j) by lia.
  set (n := t + 1 - start) in *. split.
  - unfold anchors_and_reach. set (B := ceil_power b n (Ratio a d)) in *.
    set (F := ceil_power f n (Ratio a d)) in *.
    assert (spans : top_k * (B + F + 1)
      <= top_k * (root d (K ^ d * n ^ a) + root d (K' ^ d * n ^ a) + (2 + r)))
      by (apply Z.mul_le_mono_nonneg_l; lia).
    lia.
  - apply anchors_and_reach_power; try assumption; try lia.
    apply pow_mono. lia.
Qed.

Theorem paper_context_cost : forall top_k w start len work,
  0 <= top_k -> 0 <= w -> 0 <= len ->
  let s := Schedule [Power (Ratio 2 1) (Ratio 2 1) (Ratio 0 1) (Ratio 1 2)] w in
  (forall t, start <= t < start + len -> query_work top_k s (seen start t) (work t)) ->
  exists roots, below_integral (1 + 2 * top_k) 2 (len + 1) roots /\
    total (map work (interval start (start + len)))
    <= roots + (2 * top_k + window_of s - w) * len.
Proof.
  intros top_k w start len work top_k_nonneg w_nonneg len_nonneg s works.
  destruct (power_context_cost top_k w 1 2 (Ratio 2 1) (Ratio 0 1) 2 0 1 0 start len work)
    as (roots & small & all); try lia; try assumption.
  - split; [split|]; cbn [num den]; lia.
  - split; cbn [num den]; lia.
  - intros n n_pos. assert (none : ceil_power (Ratio 0 1) n (Ratio 1 2) = 0) by reflexivity.
    rewrite none. destruct (reach_power 0 2 (n ^ 1)); [lia | lia | apply Z.pow_nonneg; lia | lia].
  - exists roots. fold s in all. split; [| lia].
    replace (1 + 2 * top_k) with (1 + top_k * (2 + 0)) by ring. exact small.
Qed.

Theorem released_context_cost : forall top_k w start len work,
  0 <= top_k -> 0 <= w -> 0 <= len ->
  let s := Schedule [Power (Ratio 20 11) (Ratio 3 1) (Ratio 1 1) (Ratio 11 20)] w in
  (forall t, start <= t < start + len -> query_work top_k s (seen start t) (work t)) ->
  exists powers, below_power_integral (1 + 4 * top_k) 11 20 (len + 2) powers /\
    total (map work (interval start (start + len)))
    <= powers + (3 * top_k + window_of s - w) * len.
Proof.
  intros top_k w start len work top_k_nonneg w_nonneg len_nonneg s works.
  destruct (power_context_cost top_k w 11 20 (Ratio 3 1) (Ratio 1 1) 3 1 2 1 start len work)
    as (powers & small & all); try lia; try assumption.
  - split; [split|]; cbn [num den]; lia.
  - split; cbn [num den]; lia.
  - intros n n_pos. apply (reach_cost 1 (Ratio 1 1) n (Ratio 11 20) n_pos);
      [split | split; [split|]]; cbn [num den]; lia.
  - exists powers. fold s in all. split; [| lia].
    replace (1 + 4 * top_k) with (1 + top_k * (3 + 1)) by ring. exact small.
Qed.
