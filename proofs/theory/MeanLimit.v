(** * The mean work of the default rules, from above (SPEC 2.5.6, 2.5.8)

    Level 1 is tight and the levels below are even.  Stripe [i] stands for the distances from
    [i^N - 1] to [(i + 1)^N - 2], as far as there are keys.  A path into it scores [R] anchors at
    level 1, [R = floor (n^(1/N))], and at most [ceil (((i + 1)^N - i^N)^(1/(N-1)))] choices in each
    of the [N - 1] later steps, which is less than [c (i + 1) + 1] for any [c >= N^(1/(N-1))].

    Each key has one path.  The key at distance [d] lies in stripe [i = floor ((d + 1)^(1/N))], so
    that the sum of [i] over all keys is a sum of roots, at most [N / (N + 1) (n + 1)^(1 + 1/N)].
    On average a path costs [1 + (N - 1) c N / (N + 1)] times [n^(1/N)], and a constant more. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality AmGm LowerBound MeanWork Optimality.
From Multistep Require Import LevelCost SumsOfRoots Totals.
Import ListNotations.
Open Scope Z_scope.

(** ** Sums over stripes and over keys *)

Lemma interval_split : forall a b c,
  a <= b <= c -> interval a c = interval a b ++ interval b c.
Proof.
  intros a b c order. replace b with (a + Z.of_nat (Z.to_nat (b - a))) by lia.
  set (k := Z.to_nat (b - a)). unfold interval.
  replace (Z.to_nat (c - a)) with (k + Z.to_nat (c - (a + Z.of_nat k)))%nat by lia.
  replace (Z.to_nat (a + Z.of_nat k - a)) with k by lia.
  rewrite seq_app, map_app. f_equal. cbn [Nat.add].
  generalize (Z.to_nat (c - (a + Z.of_nat k))). intros m.
  replace k with (k + 0)%nat at 1 by lia. generalize 0%nat.
  induction m as [|m IH]; intros first; [reflexivity|].
  cbn [seq map]. f_equal; [lia|]. rewrite <- IH. f_equal. f_equal. lia.
Qed.

(** Differences of [b] add up. *)
Lemma differences_add_up : forall (f b : Z -> Z) m,
  0 <= m -> (forall i, 1 <= i <= m -> f i = b i - b (i - 1)) ->
  total (map f (interval 1 (m + 1))) = b m - b 0.
Proof.
  intros f b m m_nonneg. revert m m_nonneg.
  apply (natlike_ind (fun m => (forall i, 1 <= i <= m -> f i = b i - b (i - 1)) ->
                               total (map f (interval 1 (m + 1))) = b m - b 0)).
  - intros _. rewrite Z.sub_diag. reflexivity.
  - intros m m_nonneg IH each. unfold Z.succ in *.
    replace (m + 1 + 1) with (1 + (m + 1)) by ring.
    rewrite interval_next, map_app, total_app by exact m_nonneg.
    cbn [map total fold_right]. rewrite (Z.add_comm 1 m), IH by (intros i range; apply each; lia).
    rewrite (each (m + 1)) by lia. replace (m + 1 - 1) with m by ring. ring.
Qed.

Lemma total_map_same : forall (f g : Z -> Z) xs,
  (forall x, In x xs -> f x = g x) -> total (map f xs) = total (map g xs).
Proof. intros f g xs same. f_equal. apply map_ext_in, same. Qed.

(** ** Work and pairs *)

Lemma schedule_paths_nonneg : forall ls w n, 0 <= schedule_paths w ls n.
Proof.
  intros ls. induction ls as [|l rest IH]; intros w n; cbn [schedule_paths]; [lia|].
  apply total_map_nonneg. intros i. apply IH.
Qed.

(** Where no path costs more than [cs] in all, the pairs do not on average either. *)
Lemma work_of_cheap_paths : forall ls w n cs,
  costs_at_most w ls n cs -> schedule_work w ls n <= total cs * schedule_paths w ls n.
Proof.
  intros ls. induction ls as [|l rest IH]; intros w n cs cheap.
  - destruct cs as [|c [|c' cs]]; try contradiction. cbn [costs_at_most] in cheap.
    cbn [schedule_work schedule_paths total fold_right].
    destruct (Z.le_gt_cases n 0) as [none | some].
    + rewrite Z.max_l by exact none. lia.
    + rewrite Z.max_r by lia. apply Z.mul_le_mono_nonneg_r; lia.
  - destruct cs as [|c cs]; [contradiction|]. cbn [costs_at_most] in cheap.
    destruct cheap as [few later]. cbn [schedule_work schedule_paths total fold_right].
    fold (total cs). set (M := steps_of (l :: rest)) in *.
    set (paths_in := fun i => schedule_paths 0 rest (segment_of w M l n i)).
    assert (linear := linear_in_all
      (fun i => schedule_work 0 rest (segment_of w M l n i) + anchor_count w M l n * paths_in i)
      paths_in 1 (c + total cs) 0 (searched_stripes w M l n)).
    rewrite Z.mul_1_l, Z.add_0_r in linear. apply linear. intros i i_in.
    apply in_searched_stripes in i_in.
    assert (below := IH 0 (segment_of w M l n i) cs (later i i_in)). fold (paths_in i) in below.
    assert (nonneg : 0 <= paths_in i) by apply schedule_paths_nonneg.
    apply (Z.mul_le_mono_nonneg_r _ _ _ nonneg) in few. lia.
Qed.

(** Even levels share out the keys: each has one path. *)
Lemma even_paths : forall k (n : segment), schedule_paths 0 (evens k) n = Z.max 0 n.
Proof.
  intros k. induction k as [|k IH]; intros n; [reflexivity|].
  change (evens (S k)) with (Even :: evens k). cbn [schedule_paths].
  set (M := steps_of (Even :: evens k)). assert (M_pos : 0 < M) by (unfold M, steps_of; lia).
  unfold searched_stripes. cbn [first_stripe last_searched]. rewrite beyond_0.
  destruct (Z.le_gt_cases n 0) as [none | some].
  { rewrite last_stripe_empty by exact none. rewrite Z.max_l by exact none. reflexivity. }
  assert (s_pos := stride_positive M n M_pos ltac:(lia)).
  unfold last_stripe. destruct (Z.leb_spec n 0); [lia|].
  set (s := stride M n) in *. set (m := (n - 1) / s).
  assert (division := Z.div_mod (n - 1) s ltac:(lia)). fold m in division.
  assert (remainder := Z.mod_pos_bound (n - 1) s s_pos).
  assert (m_nonneg : 0 <= m) by (apply Z.div_pos; lia).
  rewrite (differences_add_up _ (fun i => Z.min n (i * s))) by
    (try lia; intros i range; rewrite IH; cbn [held segment_of span_of]; unfold size;
     cbn [near far]; rewrite Z.sub_0_r; fold s; nia).
  nia.
Qed.

(** ** Tight, then even *)

(** How many of [n] keys lie in the stripes up to [i]. *)
Definition border (N n i : Z) : Z := Z.min n ((i + 1) ^ N - 1).

(** The key at distance [d] lies in stripe [floor ((d + 1)^(1/N))]. *)
Lemma roots_of_stripe : forall N n i,
  0 < N -> 1 <= i <= root N n -> 0 <= n ->
  i * (border N n i - border N n (i - 1))
  = total (map (root N) (interval 1 (border N n i + 1)))
    - total (map (root N) (interval 1 (border N n (i - 1) + 1))).
Proof.
  intros N n i N_pos range n_nonneg.
  assert (inside : i ^ N <= n) by (apply root_ge_iff; lia).
  assert (grows : i ^ N < (i + 1) ^ N) by (apply pow_lt_iff; lia).
  assert (i_power : 0 < i ^ N) by (apply Z.pow_pos_nonneg; lia).
  unfold border. replace (i - 1 + 1) with i by ring. rewrite (Z.min_r n (i ^ N - 1)) by lia.
  set (last := Z.min n ((i + 1) ^ N - 1)).
  rewrite (interval_split 1 (i ^ N - 1 + 1) (last + 1)), map_app, total_app by lia.
  enough (total (map (root N) (interval (i ^ N - 1 + 1) (last + 1)))
          = i * (last - (i ^ N - 1))) by lia.
  rewrite (total_map_same _ (fun _ => i)).
  - rewrite total_constant, count_interval. lia.
  - intros x x_in. apply in_interval in x_in.
    destruct (root_spec N x N_pos ltac:(lia)) as (nonneg & x_range).
    apply (root_unique N _ _ x); lia.
Qed.

(** [n] keys: as many pairs; and their work is at most
    [R n + (N - 1) (c (F + n) + n)] with [F <= N / (N + 1) (n + 1)^(1 + 1/N)]. *)
Theorem nstep_mean_work : forall k (n : segment) c,
  0 < n ->
  let N := Z.of_nat k + 2 in
  let ls := default_tight N :: evens k in
  0 < den c -> 0 <= num c -> N * den c ^ (N - 1) <= num c ^ (N - 1) ->
  schedule_paths 0 ls n = n /\
  exists roots, below_integral 1 N (n + 1) roots /\
    den c * schedule_work 0 ls n
    <= (N - 1) * num c * roots + (den c * root N n + (N - 1) * (num c + den c)) * n.
Proof.
  intros k n [p q] n_pos N ls q_pos p_nonneg above. cbn [num den] in *.
  assert (N_large : 2 <= N) by lia.
  assert (steps : steps_of ls = N)
    by (unfold ls, steps_of, evens; cbn [length]; rewrite repeat_length; lia).
  assert (stripe_is : forall i, 0 <= i -> floor_power i (Ratio N 1) = i ^ N)
    by (intros i i_nonneg; apply floor_power_integer; lia).
  set (R := root N n).
  destruct (root_spec N n ltac:(lia) ltac:(lia)) as (R_nonneg & below & beyond_n).
  fold R in R_nonneg, below, beyond_n.
  assert (last : last_stripe N (Tight (Ratio N 1)) n = R).
  { unfold last_stripe. cbn [num den]. rewrite Z.pow_1_r.
    destruct (Z.leb_spec n 0); [lia |]. unfold R. f_equal. lia. }
  assert (searched : searched_stripes 0 N (default_tight N) n = interval 1 (R + 1)).
  { unfold searched_stripes, default_tight. cbn [first_stripe last_searched]. now rewrite last. }
  assert (anchors : anchor_count 0 N (default_tight N) n = R).
  { unfold anchor_count, default_tight. cbn [first_stripe last_searched]. rewrite last. lia. }
  set (chosen := segment_of 0 N (default_tight N) n).
  set (keys i := border N n i - border N n (i - 1)).
  assert (last_border : border N n R = n) by (unfold border; lia).
  assert (first_border : border N n 0 = 0)
    by (unfold border; rewrite Z.add_0_l, Z.pow_1_l by lia; lia).
  assert (sizes : forall i, 1 <= i <= R -> held (chosen i) = keys i /\ 0 < keys i /\ keys i <= (i + 1) ^ N - i ^ N).
  { intros i range. assert (inside : i ^ N <= n) by (apply root_ge_iff; unfold R in range; lia).
    assert (grows : i ^ N < (i + 1) ^ N) by (apply pow_lt_iff; lia).
    unfold keys, border, chosen, default_tight. cbn [held segment_of span_of]. unfold size.
    cbn [near far]. rewrite !stripe_is by lia. replace (i - 1 + 1) with i by ring. lia. }
  assert (paths_are : forall i, 1 <= i <= R -> schedule_paths 0 (evens k) (chosen i) = keys i).
  { intros i range. rewrite even_paths. destruct (sizes i range) as (-> & some & _). lia. }
  assert (all_keys : total (map keys (interval 1 (R + 1))) = n).
  { rewrite (differences_add_up keys (border N n)) by (exact R_nonneg || reflexivity). lia. }
  split.
  { unfold ls. cbn [schedule_paths]. fold ls. rewrite steps, searched. fold chosen.
    rewrite (total_map_same _ keys); [exact all_keys|].
    intros i i_in. apply in_interval in i_in. apply paths_are. lia. }
  exists (total (map (root N) (interval 1 (1 + n)))). split.
  { apply roots_add_up; try lia. intros d range. rewrite Z.pow_1_l by lia.
    destruct (root_spec N (1 + d) ltac:(lia) ltac:(lia)) as (nonneg & small & _). lia. }
  assert (weighted : total (map (fun i => i * keys i) (interval 1 (R + 1)))
                     = total (map (root N) (interval 1 (1 + n)))).
  { rewrite (differences_add_up _ (fun i => total (map (root N) (interval 1 (border N n i + 1)))))
      by (exact R_nonneg || (intros i range; apply roots_of_stripe; unfold R in range; lia)).
    rewrite last_border, first_border, (Z.add_comm n 1). unfold interval at 2. cbn. ring. }
  rewrite <- weighted. unfold ls. cbn [schedule_work]. fold ls.
  rewrite steps, searched, anchors. fold chosen.
  set (A := q * R + (N - 1) * (p + q)). set (B := (N - 1) * p).
  assert (linear := linear_in_all
    (fun i => schedule_work 0 (evens k) (chosen i) + R * schedule_paths 0 (evens k) (chosen i))
    (fun i => A * keys i + B * (i * keys i)) q 1 0 (interval 1 (R + 1))).
  rewrite (total_map_add _ (fun i => A * keys i)), (total_map_times _ keys), all_keys,
    (total_map_times _ (fun i => i * keys i)) in linear.
  assert (each : forall i, In i (interval 1 (R + 1)) ->
    q * (schedule_work 0 (evens k) (chosen i) + R * schedule_paths 0 (evens k) (chosen i))
    <= 1 * (A * keys i + B * (i * keys i)) + 0).
  { intros i i_in. apply in_interval in i_in. assert (range : 1 <= i <= R) by lia.
    destruct (sizes i range) as (size_is & some & short). rewrite (paths_are i range).
    set (gap := (i + 1) ^ N - i ^ N) in *. set (C := ceil_root (N - 1) gap).
    assert (C_pos : 0 < C) by (apply ceil_root_positive; lia).
    destruct (ceil_root_spec (N - 1) gap ltac:(lia) ltac:(lia)) as (_ & room & _).
    fold C in room. assert (cheap : costs_at_most 0 (evens k) (chosen i) (repeat C (S k))).
    { apply even_cost; [exact C_pos|]. replace (Z.of_nat k + 1) with (N - 1) by lia. lia. }
    apply work_of_cheap_paths in cheap. rewrite total_repeat, (paths_are i range) in cheap.
    replace (Z.of_nat (S k)) with (N - 1) in cheap by lia.
    assert (later := later_steps N i p q N_large ltac:(lia) p_nonneg q_pos above).
    fold gap C in later.
    apply (Z.mul_le_mono_nonneg_l _ _ q) in cheap; [|lia].
    apply (Z.mul_le_mono_nonneg_l _ _ ((N - 1) * keys i)) in later;
      [|apply Z.mul_nonneg_nonneg; lia].
    unfold A, B. lia. }
  specialize (linear each). unfold A, B in linear. lia.
Qed.

(** ** In the limit

    With [(R + 1)^N > n >= R^N] the sum of roots is at most [N / (N + 1) (n + 1) (R + 1)], so that
    the mean is at most a multiple of [R] and a constant.  The constant fits into what the ratio
    leaves, where [R] is large. *)
Theorem nstep_mean_limit : forall k (n : segment) c ratio,
  let N := Z.of_nat k + 2 in
  let ls := default_tight N :: evens k in
  0 < den c -> 0 <= num c -> N * den c ^ (N - 1) <= num c ^ (N - 1) ->
  0 < den ratio ->
  let excess := num ratio * N * (N + 1) * den c
                - den ratio * ((N + 1) * den c + (N - 1) * N * num c) in
  0 < excess ->
  let constant := (N - 1) * ((4 * N + 1) * num c + (N + 1) * den c) in
  ceil_div (den ratio * constant) excess ^ N <= n ->
  (den ratio * schedule_work 0 ls n) ^ N <= (num ratio * N) ^ N * n ^ (N + 1).
Proof.
  intros k n c [a b] N ls q_pos p_nonneg above b_pos excess excess_pos constant
    large.
  assert (N_large : 2 <= N) by lia.
  assert (constant_pos : 0 < constant).
  { apply Z.mul_pos_pos; [lia|]. apply Z.add_nonneg_pos; [apply Z.mul_nonneg_nonneg; lia|].
    apply Z.mul_pos_pos; lia. }
  destruct (ceil_div_spec (den (Ratio a b) * constant) excess excess_pos) as [far _].
  cbn [den] in far, b_pos, large. set (least := ceil_div (b * constant) excess) in *.
  assert (least_pos : 0 < least).
  { apply (Z.mul_pos_cancel_r _ excess); [exact excess_pos|].
    assert (0 < b * constant) by (apply Z.mul_pos_pos; assumption). lia. }
  assert (n_pos : 0 < n).
  { apply Z.lt_le_trans with (2 := large). apply Z.pow_pos_nonneg; lia. }
  apply root_ge_iff in large; [|lia | lia | lia].
  destruct (nstep_mean_work k n c n_pos q_pos p_nonneg above) as (_ & roots & [nonneg small] & all).
  cbv zeta in all. fold N ls in all, small. destruct c as [p q]. cbn [num den] in *.
  assert (weight_nonneg : 0 <= a * N).
  { assert (limit : 0 <= b * ((N + 1) * q + (N - 1) * N * p)).
    { apply Z.mul_nonneg_nonneg; [lia|]. apply Z.add_nonneg_nonneg; [|apply Z.mul_nonneg_nonneg];
        try apply Z.mul_nonneg_nonneg; lia. }
    apply Z.lt_le_incl, (Z.mul_pos_cancel_r _ ((N + 1) * q)); [apply Z.mul_pos_pos; lia|].
    unfold excess in excess_pos. lia. }
  assert (T_nonneg : 0 <= schedule_work 0 ls n).
  { rewrite <- (scheme_work ls 0 n 0). apply work_nonneg. }
  destruct (root_spec N n ltac:(lia) ltac:(lia)) as (R_nonneg & below & beyond_n).
  set (T := schedule_work 0 ls n) in *. set (R := root N n) in *.
  assert (R_small : R <= n).
  { apply Z.le_trans with (2 := below). destruct (Z.eq_dec R 0) as [-> | some].
    - rewrite Z.pow_0_l; lia.
    - rewrite <- (Z.pow_1_r R) at 1. apply Z.pow_le_mono_r; lia. }
  assert (roots_small : (N + 1) * roots <= N * (n + 1) * (R + 1)).
  { apply (pow_le_iff N); [lia | apply Z.mul_nonneg_nonneg; lia
                            | repeat apply Z.mul_nonneg_nonneg; lia |].
    apply Z.le_trans with (1 := small). rewrite Z.mul_1_l, !Z.pow_mul_l.
    rewrite (Z.pow_add_r (n + 1) N 1), Z.pow_1_r, Z.mul_assoc by lia.
    apply Z.mul_le_mono_nonneg_l; [|lia]. apply Z.mul_nonneg_nonneg; apply Z.pow_nonneg; lia. }
  assert (linear : b * T <= a * N * (R * n)).
  { apply (Z.mul_le_mono_pos_l _ _ ((N + 1) * q)); [apply Z.mul_pos_pos; lia|].
    apply Z.le_trans with (b * (((N + 1) * q + (N - 1) * N * p) * (R * n) + constant * n)).
    - assert (product : (n + 1) * (R + 1) <= R * n + 3 * n)
        by (clear - R_small n_pos; lia).
      apply (Z.mul_le_mono_nonneg_l _ _ N) in product; [|lia].
      assert (B_nonneg : 0 <= (N - 1) * p) by (apply Z.mul_nonneg_nonneg; lia).
      assert (sum : (N + 1) * ((N - 1) * p * roots) <= (N - 1) * p * (N * (R * n + 3 * n))).
      { rewrite Z.mul_assoc, (Z.mul_comm (N + 1)), <- Z.mul_assoc.
        apply Z.mul_le_mono_nonneg_l; lia. }
      replace ((N + 1) * q * (b * T)) with (b * ((N + 1) * (q * T))) by ring.
      apply Z.mul_le_mono_nonneg_l; [lia|].
      apply (Z.mul_le_mono_nonneg_l _ _ (N + 1)) in all; [|lia]. unfold constant. lia.
    - apply (Z.mul_le_mono_nonneg_l _ _ excess) in large; [|lia].
      assert (enough : b * constant * n <= excess * R * n)
        by (apply Z.mul_le_mono_nonneg_r; lia).
      unfold excess in enough. clear - enough. lia. }
  apply Z.le_trans with ((a * N * (R * n)) ^ N).
  { apply pow_mono. split; [apply Z.mul_nonneg_nonneg; lia | exact linear]. }
  rewrite (Z.pow_mul_l (a * N)), (Z.pow_mul_l R), (Z.pow_add_r n N 1), Z.pow_1_r by lia.
  apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; exact weight_nonneg|].
  rewrite Z.mul_comm. apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; lia | exact below].
Qed.
