(** * Two steps: anchors like [n^p] and spans like [n^q] need [p + q >= 1] (SPEC 2.5.7)

    Counting once more: [n^p] anchors with spans of [n^q] keys are [n^(p+q)] keys, fewer than [n] as
    soon as [n] outgrows the constants.  With [p = a/d] and [q = b/d] over one denominator,
    [x = O(n^p)] is [x^d <= K n^a]. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality AmGm LowerBound LevelCost.
Import ListNotations.
Open Scope Z_scope.

(** [(x y)^d <= K K' n^(a+b) <= K K' n^(d-1) < n^d]. *)
Lemma low_exponents_product : forall x y n a b d K K',
  0 <= a -> 0 <= b -> a + b < d -> 0 <= x -> 0 <= y -> 0 < n ->
  x ^ d <= K * n ^ a -> y ^ d <= K' * n ^ b -> K * K' < n -> x * y < n.
Proof.
  intros x y n a b d K K' a_nonneg b_nonneg low x_nonneg y_nonneg n_pos x_small y_small n_large.
  apply (pow_lt_iff d); [lia | nia | lia |]. rewrite Z.pow_mul_l.
  assert (x_power : 0 <= x ^ d) by (apply Z.pow_nonneg; exact x_nonneg).
  assert (y_power : 0 <= y ^ d) by (apply Z.pow_nonneg; exact y_nonneg).
  assert (n_power : 0 < n ^ (a + b)) by (apply Z.pow_pos_nonneg; lia).
  apply Z.le_lt_trans with (K * n ^ a * (K' * n ^ b)).
  { apply Z.mul_le_mono_nonneg; assumption. }
  replace (K * n ^ a * (K' * n ^ b)) with (K * K' * n ^ (a + b))
    by (rewrite Z.pow_add_r by lia; ring).
  apply Z.lt_le_trans with (n * n ^ (a + b)); [apply Z.mul_lt_mono_pos_r; assumption|].
  rewrite <- (Z.pow_1_r n) at 1. rewrite <- Z.pow_add_r by lia.
  apply Z.pow_le_mono_r; lia.
Qed.

(** Two-step schemes, one for each number [n] of keys, that offer at most [anchors n] and then at
    most [spans n] choices: with [p + q < 1] each one for more than [K K'] keys excludes a key. *)
Theorem two_step_exponents : forall state offered key (start : Z -> state)
    anchors spans a b d K K',
  0 <= a -> 0 <= b -> a + b < d ->
  (forall n, 0 < n ->
     offers_at_most offered [anchors n; spans n] (start n) /\
     0 <= anchors n /\ anchors n ^ d <= K * n ^ a /\
     0 <= spans n /\ spans n ^ d <= K' * n ^ b) ->
  forall n, 0 < n -> K * K' < n -> exists j, 0 <= j < n /\ ~ reaches offered key 2 (start n) j.
Proof.
  intros state offered key start anchors spans a b d K K' a_nonneg b_nonneg low small n n_pos
    n_large.
  destruct (small n n_pos) as (offers & anchors_nonneg & few & spans_nonneg & short).
  apply (too_few_choices_exclude _ offered key [anchors n; spans n]); [| exact offers |].
  - repeat constructor; assumption.
  - cbn [product fold_right]. rewrite Z.mul_1_r.
    apply (low_exponents_product (anchors n) (spans n) n a b d K K'); assumption.
Qed.

(** The same as a statement about all [n]: coverage for every [n] needs [p + q >= 1]. *)
Corollary coverage_needs_exponents : forall state offered key (start : Z -> state)
    anchors spans a b d K K',
  0 <= a -> 0 <= b -> 0 <= K -> 0 <= K' ->
  (forall n, 0 < n ->
     offers_at_most offered [anchors n; spans n] (start n) /\
     0 <= anchors n /\ anchors n ^ d <= K * n ^ a /\
     0 <= spans n /\ spans n ^ d <= K' * n ^ b) ->
  (forall n j, 0 <= j < n -> reaches offered key 2 (start n) j) ->
  d <= a + b.
Proof.
  intros state offered key start anchors spans a b d K K'
    a_nonneg b_nonneg K_nonneg K'_nonneg small all_reached.
  destruct (Z_le_gt_dec d (a + b)) as [enough|low]; [exact enough|].
  destruct (two_step_exponents _ offered key start anchors spans a b d K K' a_nonneg b_nonneg
              ltac:(lia) small
              (K * K' + 1) ltac:(nia) ltac:(lia)) as (j & range & excluded).
  contradiction excluded. apply all_reached, range.
Qed.

(** ** The power rule of this project

    With stripes [i^e] there are about [n^(1/e)] anchors, so that [p = 1/e]; the spans have [q]. *)

(** [last^(num e) < (n+1)^(den e) <= (2 n)^(den e)] *)
Lemma power_anchor_count : forall M e b f q (n : segment),
  good_exponent e -> 0 < n ->
  anchor_count 0 M (Power e b f q) n ^ num e <= 2 ^ den e * n ^ den e.
Proof.
  intros M e b f q n [e_pos e_large] n_pos. unfold anchor_count.
  cbn [last_searched first_stripe]. unfold last_stripe. destruct (Z.leb_spec n 0); [lia|].
  assert (power_pos : 1 <= (n + 1) ^ den e) by (apply pow_at_least_1; lia).
  destruct (root_spec (num e) ((n + 1) ^ den e - 1)) as (last_nonneg & below & _); [lia | lia |].
  set (last := root (num e) ((n + 1) ^ den e - 1)) in *.
  replace (Z.max 0 (last - (0 + 1) + 1)) with last by lia. rewrite <- Z.pow_mul_l.
  assert (doubled : (n + 1) ^ den e <= (2 * n) ^ den e) by (apply pow_mono; lia). lia.
Qed.

(** Two steps of the power rule with [1/e + q < 1] leave a key out of every context longer than a
    bound that depends on the exponents and on an integer [K] above the factors. *)
Theorem power_rule_needs_exponents : forall e b f q K n,
  good_exponent e -> good_span_exponent q ->
  1 <= K -> factor_at_most K b -> factor_at_most K f ->
  den e * den q + num q * num e < num e * den q ->
  2 ^ (den e * den q) * (5 * K) ^ (num e * den q) < n ->
  exists j, 0 <= j < n /\ ~ reachable (Schedule [Power e b f q] 0) 0 (n - 1) j.
Proof.
  intros e b f q K n e_good q_good K_pos b_small f_small low n_large.
  assert (ranges := conj e_good q_good).
  destruct ranges as [[e_pos e_large] [q_pos q_num]].
  assert (n_pos : 0 < n).
  { apply Z.le_lt_trans with (2 := n_large).
    apply Z.mul_nonneg_nonneg; apply Z.pow_nonneg; lia. }
  set (l := Power e b f q) in *. set (M := steps_of [l]).
  set (B := ceil_power b n q). set (F := ceil_power f n q).
  assert (all : held (seen 0 (n - 1)) = n) by (cbn [held seen]; lia).
  set (count_1 := anchor_count 0 M l (seen 0 (n - 1))).
  assert (B_nonneg : 0 <= B) by (apply ceil_power_nonneg; try apply b_small; try lia; exact q_good).
  assert (F_nonneg : 0 <= F) by (apply ceil_power_nonneg; try apply f_small; try lia; exact q_good).
  assert (count_nonneg : 0 <= count_1) by (unfold count_1, anchor_count; lia).
  assert (few : count_1 ^ (num e * den q) <= 2 ^ (den e * den q) * n ^ (den e * den q)).
  { rewrite !Z.pow_mul_r by lia. rewrite <- Z.pow_mul_l. apply pow_mono. split.
    - apply Z.pow_nonneg; exact count_nonneg.
    - pose proof (power_anchor_count M e b f q (seen 0 (n - 1)) e_good) as bound.
      rewrite all in bound. exact (bound n_pos). }
  assert (short : (B + F + 1) ^ (num e * den q)
                  <= (5 * K) ^ (num e * den q) * n ^ (num q * num e)).
  { rewrite (Z.mul_comm (num e)), !Z.pow_mul_r by lia. rewrite <- Z.pow_mul_l.
    apply pow_mono. split.
    - apply Z.pow_nonneg; lia.
    - apply power_span_cost; assumption. }
  destruct (too_few_choices_exclude _ places_after distance_of [count_1; B + F + 1]
              (Searching 0 [l] (seen 0 (n - 1)) 0) n)
    as (distance & range & excluded).
  - repeat constructor; lia.
  - apply costs_bound_offers; [repeat constructor; lia|].
    cbn [costs_at_most]. split; [apply Z.le_refl|]. intros i _. cbn [held segment_of].
    pose proof (power_span_size 0 M e b f q (seen 0 (n - 1)) i) as bound. rewrite all in bound.
    exact bound.
  - cbn [product fold_right]. rewrite Z.mul_1_r.
    apply (low_exponents_product _ _ n (den e * den q) (num q * num e) (num e * den q) _ _)
      with (7 := few) (8 := short);
      [apply Z.mul_nonneg_nonneg; lia | apply Z.mul_nonneg_nonneg; lia | lia ..].
  - exists (n - 1 - distance). split; [lia|]. intros [windowed | (path & led)].
    + unfold window_of in windowed. cbn [levels window_index] in windowed.
      subst l. cbn [window] in windowed. rewrite floor_power_1 in windowed by exact e_good. lia.
    + apply excluded. cbn [levels window_index] in led.
      replace (n - 1 - (n - 1 - distance)) with distance in led by lia.
      exact (path_is_choice [l] 0 (seen 0 (n - 1)) path 0 distance led).
Qed.
