(** * The even rule at every level is optimal but for rounding (SPEC 2.5.6)

    With [c = ceil (n^(1/N))] no step of an even schedule offers more than [c] choices, so one path
    costs at most [N c].  Since [(c-1)^N < n], the lower bound lies above [N (c-1)], for every
    scheme. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality Completeness AmGm LowerBound.
Import ListNotations.
Open Scope Z_scope.

(** ** One even level

    A segment of [n] keys is cut by [r = ceil (n^(1/M))] into parts of [s = ceil (n/r)] keys. *)

Lemma ceil_root_positive : forall M n, 0 < M -> 0 < n -> 0 < ceil_root M n.
Proof.
  intros M n M_pos n_pos. destruct (ceil_root_spec M n M_pos) as (nonneg & above & _); [lia|].
  destruct (Z.eq_dec (ceil_root M n) 0) as [zero|]; [|lia].
  rewrite zero, Z.pow_0_l in above; lia.
Qed.

Lemma stride_covers : forall M n, 0 < M -> 0 < n -> n <= stride M n * ceil_root M n.
Proof.
  intros M n M_pos n_pos. apply ceil_div_spec, ceil_root_positive; assumption.
Qed.

(** The parts number at most [r]: the last one begins at a distance [(i-1) s <= n - 1 < r s]. *)
Lemma even_last_stripe : forall M (n : segment),
  0 < M -> 0 < n -> last_stripe M Even n <= ceil_root M n.
Proof.
  intros M n M_pos n_pos. unfold last_stripe. destruct (Z.leb_spec n 0); [lia|].
  assert (before_end : (n - 1) / stride M n < ceil_root M n); [|lia].
  apply Z.div_lt_upper_bound; [apply stride_positive; assumption|].
  pose proof (stride_covers M n M_pos n_pos). lia.
Qed.

(** [n <= r^M = r r^(M-1)], and so [ceil (n/r) <= r^(M-1)]. *)
Lemma stride_at_most_power : forall M n,
  0 < M -> 0 < n -> stride M n <= ceil_root M n ^ (M - 1).
Proof.
  intros M n M_pos n_pos. unfold stride.
  apply ceil_div_le_iff; [apply ceil_root_positive; assumption|].
  destruct (ceil_root_spec M n M_pos) as (_ & above & _); [lia|].
  replace M with (M - 1 + 1) in above at 2 by lia.
  rewrite Z.pow_add_r, Z.pow_1_r in above by lia. exact above.
Qed.

Lemma even_span_size : forall w M (n : segment) i, size (span_of w M Even n i) <= stride M (n - w).
Proof. intros w M n i. cbn [span_of size near far]. unfold size. cbn [near far]. lia. Qed.

(** ** All levels

    Nested rounding does no harm: if [n <= c^M] then [r <= c], so that the parts have at most
    [c^(M-1)] keys, and the next level finds the same situation with one step less. *)

Definition evens (search_levels : nat) : list level := repeat Even search_levels.

Lemma even_cost : forall k (n : segment) c,
  0 < c -> n <= c ^ (Z.of_nat k + 1) -> costs_at_most 0 (evens k) n (repeat c (S k)).
Proof.
  intros k. induction k as [|k IH]; intros n c c_pos small.
  - cbn [evens repeat costs_at_most]. rewrite Z.pow_1_r in small. exact small.
  - set (M := Z.of_nat (S k) + 1) in *.
    assert (steps : steps_of (Even :: evens k) = M)
      by (unfold steps_of, evens; cbn [length]; rewrite repeat_length; reflexivity).
    change (evens (S k)) with (Even :: evens k).
    change (repeat c (S (S k))) with (c :: repeat c (S k)).
    cbn [costs_at_most]. rewrite steps. unfold anchor_count, is_stripe.
    cbn [first_stripe last_searched].
    assert (all : held (beyond 0 n) = n) by (cbn [held beyond]; lia).
    destruct (Z_le_gt_dec n 0) as [empty|nonempty].
    { rewrite last_stripe_empty by lia. split; [lia|]. intros i range. lia. }
    assert (M_pos : 0 < M) by lia.
    assert (root_small : ceil_root M n <= c) by (apply ceil_root_le_iff; lia).
    pose proof (even_last_stripe M (beyond 0 n) M_pos ltac:(lia)) as few. rewrite all in few.
    pose proof (ceil_root_positive M n M_pos ltac:(lia)) as root_pos.
    split; [lia|]. intros i _. apply IH; [exact c_pos|].
    cbn [held segment_of].
    cbn [held segment_of].
    pose proof (even_span_size 0 M n i) as span_small. rewrite Z.sub_0_r in span_small.
    pose proof (stride_at_most_power M n M_pos ltac:(lia)) as stride_small.
    assert (power_mono : ceil_root M n ^ (M - 1) <= c ^ (M - 1)) by (apply Z.pow_le_mono_l; lia).
    replace (Z.of_nat k + 1) with (M - 1) by lia. lia.
Qed.

(** Every step of the even schedule offers at most [ceil (n^(1/N))]: anchors at the search levels,
    keys in the final span. *)
Theorem even_offers_ceil_root : forall k (n : segment),
  0 < n ->
  let N := Z.of_nat (S k) in
  costs_at_most 0 (evens k) n (repeat (ceil_root N n) (S k)).
Proof.
  intros k n n_pos N. subst N.
  destruct (ceil_root_spec (Z.of_nat (S k)) n) as (_ & above & _); [lia | lia |].
  apply even_cost.
  - apply ceil_root_positive; lia.
  - replace (Z.of_nat k + 1) with (Z.of_nat (S k)) by lia. exact above.
Qed.

(** With a window the same of the keys outside it: an even level 1 cuts what the window leaves, and
    its parts are those of that segment. *)
Lemma even_part_beyond : forall w M n i,
  segment_of 0 M Even (beyond w n) i = segment_of w M Even n i.
Proof.
  intros w M n i. unfold segment_of. cbn [span_of held ends beyond]. unfold size. cbn [near far].
  rewrite Z.sub_0_r. f_equal; lia.
Qed.

Lemma even_cost_beyond_window : forall k w (n : segment) c,
  0 < c -> n - w <= c ^ (Z.of_nat k + 2) ->
  costs_at_most w (evens (S k)) n (repeat c (S (S k))).
Proof.
  intros k w n c c_pos small.
  assert (offers : costs_at_most 0 (evens (S k)) (beyond w n) (repeat c (S (S k)))).
  { apply even_cost; [exact c_pos |]. cbn [held beyond].
    replace (Z.of_nat (S k) + 1) with (Z.of_nat k + 2) by lia. exact small. }
  change (evens (S k)) with (Even :: evens k) in *.
  change (repeat c (S (S k))) with (c :: repeat c (S k)) in *.
  cbn [costs_at_most] in *. unfold anchor_count, is_stripe in *.
  cbn [first_stripe last_searched] in *. rewrite beyond_0 in offers.
  destruct offers as [few later]. split; [exact few |]. intros i chosen.
  rewrite <- even_part_beyond. exact (later i chosen).
Qed.

Theorem even_offers_beyond_window : forall k w (n : segment),
  0 < n - w ->
  let N := Z.of_nat k + 2 in
  costs_at_most w (evens (S k)) n (repeat (ceil_root N (n - w)) (S (S k))).
Proof.
  intros k w n outside N. apply even_cost_beyond_window.
  - apply ceil_root_positive; lia.
  - apply ceil_root_spec; lia.
Qed.

(** And it excludes nothing. *)
Theorem evens_cover : forall k start len, covered (Schedule (evens k) 0) start len.
Proof.
  intros k start len. apply complete_covered.
  - split; [|reflexivity]. apply Forall_forall. intros l l_in.
    apply repeat_spec in l_in. subst l. exact I.
  - apply Forall_forall. intros l l_in. apply repeat_spec in l_in. subst l. exact I.
Qed.

(** ** The default rules: tight, then even *)

(** Powers lie further and further apart: [(i+1)^(k+1) - i^(k+1)] is [i + 1] times the distance for
    [k], and [i^k] more. *)
Lemma powers_apart : forall i j k,
  0 <= i <= j -> 0 <= k -> (i + 1) ^ k - i ^ k <= (j + 1) ^ k - j ^ k.
Proof.
  intros i j k range. revert k. apply natlike_ind; [rewrite !Z.pow_0_r; lia |].
  intros k k_nonneg IH. rewrite !Z.pow_succ_r by exact k_nonneg.
  assert (smaller : i ^ k <= j ^ k) by (apply Z.pow_le_mono_l; lia).
  assert (some : 0 <= (i + 1) ^ k - i ^ k).
  { assert (i ^ k <= (i + 1) ^ k) by (apply Z.pow_le_mono_l; lia). lia. }
  assert (distance : (i + 1) * ((i + 1) ^ k - i ^ k) <= (j + 1) * ((j + 1) ^ k - j ^ k))
    by (apply Z.mul_le_mono_nonneg; lia).
  lia.
Qed.

(** Level 1 has [R = floor (n^(1/N))] anchors, and its longest span the distance behind the last
    one, which the even levels below share out. *)
Theorem nstep_offers : forall k (n : segment),
  0 < n ->
  let N := Z.of_nat k + 2 in
  let R := root N n in
  costs_at_most 0 (default_tight N :: evens k) n
    (R :: repeat (ceil_root (N - 1) ((R + 1) ^ N - R ^ N)) (S k)).
Proof.
  intros k n n_pos N R.
  assert (N_large : 2 <= N) by lia.
  destruct (root_spec N n ltac:(lia) ltac:(lia)) as (R_nonneg & below & above).
  fold R in R_nonneg, below, above.
  assert (steps : steps_of (default_tight N :: evens k) = N)
    by (unfold steps_of, evens; cbn [length]; rewrite repeat_length; lia).
  assert (stripe_is : forall i, 0 <= i -> floor_power i (Ratio N 1) = i ^ N)
    by (intros i i_nonneg; apply floor_power_integer; lia).
  cbn [costs_at_most]. rewrite steps. unfold anchor_count, is_stripe, default_tight.
  cbn [first_stripe last_searched].
  assert (last : last_stripe N (Tight (Ratio N 1)) n = R).
  { unfold last_stripe. cbn [num den]. rewrite Z.pow_1_r.
    destruct (Z.leb_spec n 0); [lia |]. unfold R. f_equal. lia. }
  rewrite last. split; [lia |]. intros i searched.
  set (gap := (R + 1) ^ N - R ^ N).
  assert (gap_pos : 0 < gap).
  { unfold gap. assert (R ^ N < (R + 1) ^ N) by (apply pow_lt_iff; lia). lia. }
  destruct (ceil_root_spec (N - 1) gap ltac:(lia) ltac:(lia)) as (_ & enough & _).
  apply even_cost; [apply ceil_root_positive; lia |].
  replace (Z.of_nat k + 1) with (N - 1) by lia.
  apply Z.le_trans with (2 := enough).
  cbn [held segment_of span_of]. unfold size. cbn [near far]. rewrite !stripe_is by lia.
  pose proof (powers_apart i R N ltac:(lia) ltac:(lia)). fold gap in H. lia.
Qed.

(** ** Against the lower bound *)

(** A total that meets the lower bound for [n] keys exceeds [N (c - 1)]:
    [(N (c-1))^N < N^N n <= S^N]. *)
Lemma total_near_ceil_root : forall N n S,
  0 < N -> 0 < n -> 0 <= S -> N ^ N * n <= S ^ N -> N * ceil_root N n < S + N.
Proof.
  intros N n S N_pos n_pos S_nonneg enough.
  pose proof (ceil_root_positive N n N_pos n_pos) as root_pos.
  destruct (ceil_root_spec N n N_pos) as (_ & _ & least); [lia|].
  assert (below : (ceil_root N n - 1) ^ N < n) by (apply least; lia).
  assert (less : N * (ceil_root N n - 1) < S); [|lia].
  apply (pow_lt_iff N); [lia | nia | lia |].
  apply Z.lt_le_trans with (N ^ N * n); [|exact enough].
  rewrite Z.pow_mul_l. apply Z.mul_lt_mono_pos_l; [apply Z.pow_pos_nonneg; lia | exact below].
Qed.

(** Optimality: what the even schedule of [N] steps offers in all, at most [N ceil (n^(1/N))], is
    less than [N] above the total of any scheme of [N] steps that excludes none of [n] keys. *)
Theorem even_is_optimal : forall state offered key cs (from : state) n,
  0 < n -> cs <> [] -> nonnegative cs -> offers_at_most offered cs from ->
  (forall j, 0 <= j < n -> reaches offered key (length cs) from j) ->
  let N := count cs in N * ceil_root N n < total cs + N.
Proof.
  intros state offered key cs from n n_pos some_step cs_nonneg bounded all_reached N.
  destruct cs as [|c rest]; [contradiction some_step; reflexivity|].
  apply total_near_ceil_root; [unfold N, count; cbn [length]; lia | exact n_pos | |].
  - apply total_nonneg, cs_nonneg.
  - apply (lower_bound _ offered key (c :: rest) from); assumption.
Qed.
