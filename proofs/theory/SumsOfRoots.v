(** * Sums of roots and of rational powers (SPEC 2.5.4, 2.5.10)

    The sum of the powers [n^(a/d)] of [0 ... L - 1] is at most their integral from 0 to [L],
    [d / (d + a) L^(1 + a/d)]; for [N]-th roots this is [N / (N + 1) L^(1 + 1/N)].  So much do the
    queries of a context cost together where each costs the power of the keys that it sees. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import AmGm LowerBound LevelCost.
Import ListNotations.
Open Scope Z_scope.

(** [a <= u z^(1/N)] and [b <= v z^(1/N)] add up: the larger of [a / u] and [b / v] bounds
    [(a + b) / (u + v)]. *)
Lemma multiples_add : forall N z a u b v,
  0 < N -> 0 <= a -> 0 <= u -> 0 <= b -> 0 < v ->
  a ^ N <= u ^ N * z -> b ^ N <= v ^ N * z -> (a + b) ^ N <= (u + v) ^ N * z.
Proof.
  intros N z a u b v N_pos a_nonneg u_nonneg b_nonneg v_pos a_small b_small.
  assert (by_larger : forall y q, 0 <= y -> 0 < q -> (a + b) * q <= y * (u + v) ->
    y ^ N <= q ^ N * z -> (a + b) ^ N <= (u + v) ^ N * z).
  { intros y q y_nonneg q_pos larger y_small.
    assert (q_power : 0 < q ^ N) by (apply Z.pow_pos_nonneg; lia).
    assert (sum_power : 0 <= (u + v) ^ N) by (apply Z.pow_nonneg; lia).
    apply (Z.mul_le_mono_pos_r _ _ (q ^ N) q_power). rewrite <- Z.pow_mul_l.
    apply Z.le_trans with ((y * (u + v)) ^ N); [apply pow_mono; nia |].
    rewrite Z.pow_mul_l. apply (Z.mul_le_mono_nonneg_r _ _ _ sum_power) in y_small. lia. }
  destruct (Z.le_gt_cases (a * v) (b * u)) as [second | first].
  - apply (by_larger b v); lia.
  - assert (u_pos : 0 < u).
    { destruct (Z.eq_dec u 0) as [zero | some]; [| lia]. rewrite zero, Z.pow_0_l in a_small by lia.
      assert (a_zero : a = 0); [| lia]. destruct (Z.eq_dec a 0) as [is | positive]; [exact is |].
      assert (0 < a ^ N) by (apply Z.pow_pos_nonneg; lia). lia. }
    apply (by_larger a u); lia.
Qed.

Lemma total_app : forall xs ys, total (xs ++ ys) = total xs + total ys.
Proof.
  intros xs ys. induction xs as [|x xs IH]; [reflexivity|].
  cbn [app total fold_right]. fold (total xs). fold (total (xs ++ ys)). lia.
Qed.

Lemma product_app : forall xs ys, product (xs ++ ys) = product xs * product ys.
Proof.
  intros xs ys. induction xs as [|x xs IH]; [symmetry; apply Z.mul_1_l|].
  change (x * product (xs ++ ys) = x * product xs * product ys). rewrite IH. ring.
Qed.

Lemma product_repeat : forall x k, product (repeat x k) = x ^ Z.of_nat k.
Proof.
  intros x k. induction k as [|k IH]; [reflexivity|].
  change (x * product (repeat x k) = x ^ Z.of_nat (S k)).
  rewrite IH, Nat2Z.inj_succ, Z.pow_succ_r; lia.
Qed.

(** One step of the sum: the mean of [d + a] numbers, [d] of them [d m + (d + a)] and [a] of them
    [d m]. *)
Lemma integral_grows : forall a d m,
  0 <= a -> 0 < d -> 0 <= m -> (d * m + (d + a)) ^ d * m ^ a <= d ^ d * (m + 1) ^ (d + a).
Proof.
  intros a d m a_nonneg d_pos m_nonneg.
  set (large := d * m + (d + a)). assert (large_nonneg : 0 <= large) by (unfold large; nia).
  assert (small_nonneg : 0 <= d * m) by nia.
  assert (mean := mean_inequality (repeat large (Z.to_nat d) ++ repeat (d * m) (Z.to_nat a))).
  unfold count in mean. rewrite app_length, Nat2Z.inj_add, !repeat_length in mean.
  rewrite total_app, product_app, !total_repeat, !product_repeat, !Z2Nat.id in mean by lia.
  replace (d * large + a * (d * m)) with ((d + a) * (d * (m + 1))) in mean
    by (unfold large; ring).
  rewrite !Z.pow_mul_l, (Z.pow_add_r d d a) in mean by lia.
  assert (d_power : 0 < d ^ a) by (apply Z.pow_pos_nonneg; lia).
  assert (power : 0 < (d + a) ^ (d + a)) by (apply Z.pow_pos_nonneg; lia).
  assert (factor : 0 < (d + a) ^ (d + a) * d ^ a) by (apply Z.mul_pos_pos; assumption).
  apply (Z.mul_le_mono_pos_l _ _ _ factor).
  assert (nonnegative_all : nonnegative (repeat large (Z.to_nat d) ++ repeat (d * m) (Z.to_nat a))).
  { apply Forall_app. split; apply Forall_forall; intros x x_in; apply repeat_spec in x_in; lia. }
  specialize (mean nonnegative_all). lia.
Qed.

Lemma interval_next : forall low m,
  0 <= m -> interval low (low + (m + 1)) = interval low (low + m) ++ [low + m].
Proof.
  intros low m m_nonneg. unfold interval.
  replace (Z.to_nat (low + (m + 1) - low)) with (S (Z.to_nat (low + m - low))) by lia.
  rewrite seq_S, map_app. cbn [map]. do 2 f_equal. lia.
Qed.

(** [x <= c d / (d + a) L^(1 + a/d)], [c] times the integral of [n^(a/d)] from 0 to [L]. *)
Definition below_power_integral (c a d L x : Z) : Prop :=
  0 <= x /\ ((d + a) * x) ^ d <= (c * d) ^ d * L ^ (d + a).

(** [x <= c (n + j)^(a/d)] for [n = 0 ... m - 1]: their sum is at most [c] times the integral of the
    power from 0 to [m + j]. *)
Theorem powers_add_up : forall a d c j low x m,
  0 <= a -> 0 < d -> 0 <= c -> 0 <= j -> 0 <= m ->
  (forall n, 0 <= n < m -> 0 <= x (low + n) /\ x (low + n) ^ d <= c ^ d * (n + j) ^ a) ->
  below_power_integral c a d (m + j) (total (map x (interval low (low + m)))).
Proof.
  intros a d c j low x m a_nonneg d_pos c_nonneg j_nonneg m_nonneg. unfold below_power_integral.
  rewrite (Z.mul_comm c), (Z.pow_mul_l d c). assert (K_nonneg := Z.pow_nonneg c d c_nonneg).
  set (K := c ^ d) in *. clearbody K. revert m m_nonneg.
  apply (natlike_ind (fun m =>
    (forall n, 0 <= n < m -> 0 <= x (low + n) /\ x (low + n) ^ d <= K * (n + j) ^ a) ->
    let sum := total (map x (interval low (low + m))) in
    0 <= sum /\ ((d + a) * sum) ^ d <= d ^ d * K * (m + j) ^ (d + a))).
  - intros _. rewrite Z.add_0_r. unfold interval. rewrite Z.sub_diag. cbn [map seq Z.to_nat].
    cbn [total fold_right]. split; [lia|]. rewrite Z.mul_0_r, Z.pow_0_l by lia.
    repeat apply Z.mul_nonneg_nonneg; try apply Z.pow_nonneg; lia.
  - intros m m_nonneg IH each. rewrite <- Z.add_1_r, interval_next, map_app, total_app by lia.
    cbn [map total fold_right]. rewrite Z.add_0_r.
    destruct IH as [sum_nonneg sum_small]; [intros n range; apply each; lia|].
    destruct (each m ltac:(lia)) as [last_nonneg last_small].
    set (sum := total (map x (interval low (low + m)))) in *. set (last := x (low + m)) in *.
    split; [lia|]. rewrite Z.mul_add_distr_l.
    assert (shifted : 0 <= m + j) by lia. assert (counted : 0 <= d + a) by lia.
    assert (power : 0 <= (m + j) ^ a) by (apply Z.pow_nonneg, shifted).
    assert (split_power : (m + j) ^ (d + a) = (m + j) ^ d * (m + j) ^ a)
      by (apply Z.pow_add_r; lia).
    assert (step := multiples_add d (K * (m + j) ^ a) ((d + a) * sum) (d * (m + j))
      ((d + a) * last) (d + a) d_pos ltac:(apply Z.mul_nonneg_nonneg; lia)
      ltac:(apply Z.mul_nonneg_nonneg; lia) ltac:(apply Z.mul_nonneg_nonneg; lia) ltac:(lia)).
    apply Z.le_trans with ((d * (m + j) + (d + a)) ^ d * (K * (m + j) ^ a)).
    + apply step.
      * rewrite (Z.pow_mul_l d). apply Z.le_trans with (1 := sum_small).
        rewrite split_power. apply Z.eq_le_incl. ring.
      * rewrite Z.pow_mul_l. apply Z.mul_le_mono_nonneg_l;
          [apply Z.pow_nonneg, counted | exact last_small].
    + clear step sum_small last_small split_power.
      assert (grows := integral_grows a d (m + j) a_nonneg d_pos shifted).
      apply (Z.mul_le_mono_nonneg_l _ _ K K_nonneg) in grows.
      replace (m + 1 + j) with (m + j + 1) by ring.
      apply Z.le_trans with (K * ((d * (m + j) + (d + a)) ^ d * (m + j) ^ a));
        [apply Z.eq_le_incl; ring |]. apply Z.le_trans with (1 := grows).
      apply Z.eq_le_incl. ring.
Qed.

(** The [N]-th roots: [a / d = 1 / N]. *)
Definition below_integral (c N L x : Z) : Prop :=
  0 <= x /\ ((N + 1) * x) ^ N <= (c * N) ^ N * L ^ (N + 1).

Theorem roots_add_up : forall N c j low x m,
  0 < N -> 0 <= c -> 0 <= j -> 0 <= m ->
  (forall n, 0 <= n < m -> 0 <= x (low + n) /\ x (low + n) ^ N <= c ^ N * (n + j)) ->
  below_integral c N (m + j) (total (map x (interval low (low + m)))).
Proof.
  intros N c j low x m N_pos c_nonneg j_nonneg m_nonneg each.
  apply (powers_add_up 1 N); try assumption; [discriminate |].
  intros n range. rewrite Z.pow_1_r. apply each, range.
Qed.

(** For a number [y] just above it. *)
Lemma below_power_integral_at_most : forall c a d L x y,
  0 <= a -> 0 < d -> 0 <= y -> (c * d) ^ d * L ^ (d + a) < ((d + a) * (y + 1)) ^ d ->
  below_power_integral c a d L x -> x <= y.
Proof.
  intros c a d L x y a_nonneg d_pos y_nonneg above [x_nonneg small].
  assert (less : (d + a) * x < (d + a) * (y + 1)); [| nia].
  apply (Z.pow_lt_mono_l_iff _ _ d); lia.
Qed.

Lemma below_integral_at_most : forall c N L x y,
  0 < N -> 0 <= y -> (c * N) ^ N * L ^ (N + 1) < ((N + 1) * (y + 1)) ^ N ->
  below_integral c N L x -> x <= y.
Proof.
  intros c N L x y. apply (below_power_integral_at_most c 1 N). discriminate.
Qed.

(** What is linear in something for each query is so in all. *)
Lemma linear_in_all : forall (f x : Z -> Z) q a b xs,
  (forall t, In t xs -> q * f t <= a * x t + b) ->
  q * total (map f xs) <= a * total (map x xs) + b * count xs.
Proof.
  intros f x q a b xs each. rewrite <- !total_map_times, (Z.mul_comm b).
  induction xs as [|t xs IH]; [reflexivity|].
  rewrite count_cons. cbn [map total fold_right].
  fold (total (map (fun t => q * f t) xs)). fold (total (map (fun t => a * x t) xs)).
  assert (head := each t (or_introl eq_refl)).
  assert (tail := IH (fun t' t'_in => each t' (or_intror t'_in))). lia.
Qed.

(** The queries of a context: each costs [(r x + b) / q], with [x <= c n^(a/d)] for the [n] keys
    that it sees, those before it, [j = 0], or itself too, [j = 1]. *)
Lemma context_total_of_powers : forall c a d j q r b (f x : Z -> Z) start len,
  0 <= a -> 0 < d -> 0 <= c -> 0 <= j -> 0 <= len ->
  (forall t, start <= t < start + len ->
    q * f t <= r * x t + b /\ 0 <= x t /\ x t ^ d <= c ^ d * (t - start + j) ^ a) ->
  exists powers, below_power_integral c a d (len + j) powers /\
    q * total (map f (interval start (start + len))) <= r * powers + b * len.
Proof.
  intros c a d j q r b f x start len a_nonneg d_pos c_nonneg j_nonneg len_nonneg each.
  exists (total (map x (interval start (start + len)))). split.
  - apply powers_add_up; try assumption. intros n range.
    destruct (each (start + n) ltac:(lia)) as (_ & x_nonneg & x_small).
    replace (start + n - start) with n in x_small by lia. split; assumption.
  - assert (linear := linear_in_all f x q r b (interval start (start + len))).
    rewrite count_interval, Z.max_r in linear by lia.
    replace (start + len - start) with len in linear by lia. apply linear.
    intros t t_in. apply in_interval in t_in. apply (each t t_in).
Qed.

Lemma context_total : forall c N j q a b (f x : Z -> Z) start len,
  0 < N -> 0 <= c -> 0 <= j -> 0 <= len ->
  (forall t, start <= t < start + len ->
    q * f t <= a * x t + b /\ 0 <= x t /\ x t ^ N <= c ^ N * (t - start + j)) ->
  exists roots, below_integral c N (len + j) roots /\
    q * total (map f (interval start (start + len))) <= a * roots + b * len.
Proof.
  intros c N j q a b f x start len N_pos c_nonneg j_nonneg len_nonneg each.
  apply (context_total_of_powers c 1 N j q a b f x); try assumption; [discriminate |].
  intros t range. rewrite Z.pow_1_r. apply each, range.
Qed.
