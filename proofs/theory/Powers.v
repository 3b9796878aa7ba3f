(** * Exact powers are what they should be (SPEC 2.1)

    Schedule.v computes [floor (i^e)] and [ceil (c * n^q)] by an integer root.  Here these functions
    are shown to meet the inequalities that define the floor and the ceiling, and the inequalities
    to have one solution each.  The last section turns this into what the other files need: stripes
    grow strictly, and a segment of [n] keys has the stripes [1 ... last_stripe] and no others. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule.
Open Scope Z_scope.

(** ** Powers and order *)

Lemma pow_le_iff : forall b x y, 0 < b -> 0 <= x -> 0 <= y -> (x ^ b <= y ^ b <-> x <= y).
Proof. intros. symmetry. apply Z.pow_le_mono_l_iff; lia. Qed.

Lemma pow_lt_iff : forall b x y, 0 < b -> 0 <= x -> 0 <= y -> (x ^ b < y ^ b <-> x < y).
Proof. intros. symmetry. apply Z.pow_lt_mono_l_iff; lia. Qed.

(** ** Roots

    The loop keeps [m^b <= x < (m + 2^bits)^b]: the answer lies among the next [2^bits] numbers. *)

Lemma root_bits_spec : forall b x bits m,
  0 <= m -> m ^ b <= x < (m + 2 ^ Z.of_nat bits) ^ b ->
  0 <= root_bits bits b x m /\ root_bits bits b x m ^ b <= x < (root_bits bits b x m + 1) ^ b.
Proof.
  intros b x. induction bits as [| k IH]; intros m m_nonneg bounds.
  - simpl. auto.
  - assert (halves : 2 ^ Z.of_nat (S k) = 2 ^ Z.of_nat k + 2 ^ Z.of_nat k).
    { rewrite Nat2Z.inj_succ, Z.pow_succ_r; lia. }
    assert (0 < 2 ^ Z.of_nat k) by (apply Z.pow_pos_nonneg; lia).
    cbn [root_bits]. destruct (Z.leb_spec ((m + 2 ^ Z.of_nat k) ^ b) x); apply IH; try lia.
    rewrite halves, Z.add_assoc in bounds. lia.
Qed.

(** The loop starts with enough bits: [x < 2^(log2 x + 1) <= (2^bits)^b]. *)
Lemma root_bits_suffice : forall b x,
  0 < b -> x < (2 ^ Z.of_nat (Z.to_nat (Z.log2 (Z.max 1 x) / b + 1))) ^ b.
Proof.
  intros b x b_pos.
  assert (log_nonneg := Z.log2_nonneg (Z.max 1 x)).
  assert (0 <= Z.log2 (Z.max 1 x) / b) by (apply Z.div_pos; lia).
  rewrite Z2Nat.id by lia. rewrite <- Z.pow_mul_r by lia.
  assert (log_bound := proj2 (Z.log2_spec (Z.max 1 x) ltac:(lia))).
  assert (enough : Z.succ (Z.log2 (Z.max 1 x)) <= (Z.log2 (Z.max 1 x) / b + 1) * b).
  { assert (division := Z.div_mod (Z.log2 (Z.max 1 x)) b ltac:(lia)).
    assert (remainder := Z.mod_pos_bound (Z.log2 (Z.max 1 x)) b b_pos). lia. }
  apply (Z.pow_le_mono_r 2) in enough; lia.
Qed.

Lemma root_spec : forall b x,
  0 < b -> 0 <= x -> 0 <= root b x /\ root b x ^ b <= x < (root b x + 1) ^ b.
Proof.
  intros b x b_pos x_nonneg. apply root_bits_spec; [lia |]. split.
  - rewrite Z.pow_0_l; lia.
  - rewrite Z.add_0_l. apply root_bits_suffice, b_pos.
Qed.

(** A root is characterised by which numbers lie below it. *)
Lemma root_ge_iff : forall b x m, 0 < b -> 0 <= x -> 0 <= m -> (m <= root b x <-> m ^ b <= x).
Proof.
  intros b x m b_pos x_nonneg m_nonneg.
  destruct (root_spec b x b_pos x_nonneg) as (r_nonneg & below & above). split; intro small.
  - apply (pow_le_iff b) in small; lia.
  - assert (m ^ b < (root b x + 1) ^ b) as smaller by lia.
    apply pow_lt_iff in smaller; lia.
Qed.

Lemma root_unique : forall b m m' x,
  0 < b -> 0 <= m -> 0 <= m' -> m ^ b <= x < (m + 1) ^ b -> m' ^ b <= x < (m' + 1) ^ b -> m = m'.
Proof.
  intros b m m' x b_pos m_nonneg m'_nonneg bounds bounds'.
  assert (m ^ b < (m' + 1) ^ b) as less by lia. apply pow_lt_iff in less; try lia.
  assert (m' ^ b < (m + 1) ^ b) as less' by lia. apply pow_lt_iff in less'; lia.
Qed.

Lemma ceil_root_spec : forall b x,
  0 < b -> 0 <= x ->
  0 <= ceil_root b x /\ x <= ceil_root b x ^ b /\ forall m, 0 <= m < ceil_root b x -> m ^ b < x.
Proof.
  intros b x b_pos x_nonneg. unfold ceil_root.
  destruct (root_spec b x b_pos x_nonneg) as (r_nonneg & below & above).
  destruct (Z.ltb_spec (root b x ^ b) x) as [strict | exact];
    (split; [lia | split; [lia |]]); intros m range.
  - assert (m ^ b <= root b x ^ b) by (apply pow_le_iff; lia). lia.
  - assert (m ^ b < root b x ^ b) by (apply pow_lt_iff; lia). lia.
Qed.

Lemma ceil_root_le_iff : forall b x m,
  0 < b -> 0 <= x -> 0 <= m -> (ceil_root b x <= m <-> x <= m ^ b).
Proof.
  intros b x m b_pos x_nonneg m_nonneg.
  destruct (ceil_root_spec b x b_pos x_nonneg) as (r_nonneg & above & least). split; intro large.
  - apply (pow_le_iff b) in large; lia.
  - destruct (Z.le_gt_cases (ceil_root b x) m) as [done | less]; [exact done |].
    specialize (least m ltac:(lia)). lia.
Qed.

Lemma ceil_div_spec : forall x y, 0 < y -> x <= ceil_div x y * y < x + y.
Proof.
  intros x y y_pos. unfold ceil_div.
  assert (division := Z.div_mod (- x) y ltac:(lia)).
  assert (remainder := Z.mod_pos_bound (- x) y y_pos). lia.
Qed.

Lemma ceil_div_le_iff : forall x y m, 0 < y -> (ceil_div x y <= m <-> x <= m * y).
Proof.
  intros x y m y_pos. destruct (ceil_div_spec x y y_pos) as (above & least). split; intro large.
  - apply (Z.mul_le_mono_nonneg_r _ _ y) in large; lia.
  - destruct (Z.le_gt_cases (ceil_div x y) m) as [done | less]; [exact done |].
    assert (m + 1 <= ceil_div x y) as next by lia.
    apply (Z.mul_le_mono_nonneg_r _ _ y) in next; lia.
Qed.

(** ** Floors of powers *)

Lemma floor_power_spec : forall i e,
  good_exponent e -> 0 <= i -> is_floor_power i e (floor_power i e).
Proof.
  intros i e [den_pos _] i_nonneg. apply root_spec; [exact den_pos | apply Z.pow_nonneg, i_nonneg].
Qed.

Lemma floor_power_unique : forall i e m m',
  good_exponent e -> is_floor_power i e m -> is_floor_power i e m' -> m = m'.
Proof.
  intros i e m m' [den_pos _] [m_nonneg bounds] [m'_nonneg bounds'].
  apply (root_unique (den e) m m' (i ^ num e)); assumption.
Qed.

Lemma floor_power_ge_iff : forall i e m,
  good_exponent e -> 0 <= i -> 0 <= m -> (m <= floor_power i e <-> m ^ den e <= i ^ num e).
Proof.
  intros i e m [den_pos _] i_nonneg m_nonneg.
  apply root_ge_iff; [exact den_pos | apply Z.pow_nonneg, i_nonneg | exact m_nonneg].
Qed.

Lemma floor_power_nonneg : forall i e, good_exponent e -> 0 <= i -> 0 <= floor_power i e.
Proof. intros i e e_good i_nonneg. apply (floor_power_spec i e e_good i_nonneg). Qed.

Lemma floor_power_1 : forall e, good_exponent e -> floor_power 1 e = 1.
Proof.
  intros e e_good. assert (good := e_good). destruct good as [den_pos num_large].
  apply (floor_power_unique 1 e); [exact e_good | apply floor_power_spec; [exact e_good | lia] |].
  unfold is_floor_power. rewrite !Z.pow_1_l by lia. split; [lia | split; [lia |]].
  apply Z.pow_gt_1; lia.
Qed.

Lemma floor_power_0 : forall e, good_exponent e -> floor_power 0 e = 0.
Proof.
  intros e e_good. assert (good := e_good). destruct good as [den_pos num_large].
  apply (floor_power_unique 0 e); [exact e_good | apply floor_power_spec; [exact e_good | lia] |].
  unfold is_floor_power. rewrite !Z.pow_0_l, Z.pow_1_l by lia. lia.
Qed.

(** Exponents are at least 1, so a stripe is never nearer than its index. *)
Lemma floor_power_ge_index : forall i e, good_exponent e -> 0 <= i -> i <= floor_power i e.
Proof.
  intros i e e_good i_nonneg. assert (good := e_good). destruct good as [den_pos num_large].
  apply floor_power_ge_iff; [exact e_good | lia | lia |].
  destruct (Z.eq_dec i 0) as [zero | nonzero].
  - subst i. rewrite !Z.pow_0_l; lia.
  - apply Z.pow_le_mono_r; lia.
Qed.

(** With [e = a/b >= 1] and [m = floor (i^e) >= i]: [(m+1) i <= (i+1) m], hence
    [(m+1)^b i^b <= (i+1)^b m^b <= (i+1)^b i^a], and dividing by [i^b] gives
    [(m+1)^b <= (i+1)^b i^(a-b) <= (i+1)^a]. *)
Lemma floor_power_step : forall i e,
  good_exponent e -> 0 <= i -> floor_power i e + 1 <= floor_power (i + 1) e.
Proof.
  intros i e e_good i_nonneg. assert (good := e_good). destruct good as [den_pos num_large].
  destruct (Z.eq_dec i 0) as [zero | nonzero].
  { subst i. rewrite floor_power_0 by exact e_good.
    apply floor_power_ge_index; [exact e_good | lia]. }
  assert (i_le_m := floor_power_ge_index i e e_good i_nonneg).
  destruct (floor_power_spec i e e_good i_nonneg) as (m_nonneg & below & _).
  apply floor_power_ge_iff; [exact e_good | lia | lia |].
  set (m := floor_power i e) in *. set (a := num e) in *. set (b := den e) in *.
  assert (i_power : 0 < i ^ b) by (apply Z.pow_pos_nonneg; lia).
  assert (next_power : 0 < (i + 1) ^ b) by (apply Z.pow_pos_nonneg; lia).
  apply (Z.mul_le_mono_pos_r _ _ (i ^ b) i_power).
  assert (cross : ((m + 1) * i) ^ b <= ((i + 1) * m) ^ b) by (apply Z.pow_le_mono_l; nia).
  rewrite !Z.pow_mul_l in cross.
  assert (split_i : i ^ a = i ^ (a - b) * i ^ b) by (rewrite <- Z.pow_add_r by lia; f_equal; lia).
  assert (split_next : (i + 1) ^ a = (i + 1) ^ b * (i + 1) ^ (a - b))
    by (rewrite <- Z.pow_add_r by lia; f_equal; lia).
  assert (grows : i ^ (a - b) <= (i + 1) ^ (a - b)) by (apply Z.pow_le_mono_l; lia).
  assert (first : (i + 1) ^ b * m ^ b <= (i + 1) ^ b * i ^ a)
    by (apply Z.mul_le_mono_nonneg_l; lia).
  assert (second : (i + 1) ^ b * i ^ (a - b) <= (i + 1) ^ b * (i + 1) ^ (a - b))
    by (apply Z.mul_le_mono_nonneg_l; lia).
  apply (Z.mul_le_mono_nonneg_r _ _ (i ^ b)) in second; [| lia].
  rewrite split_next. rewrite split_i in first. lia.
Qed.

Lemma floor_power_lt : forall e i j,
  good_exponent e -> 0 <= i -> i < j -> floor_power i e < floor_power j e.
Proof.
  intros e i j e_good i_nonneg less.
  assert (climb : forall k, 0 <= k -> floor_power i e < floor_power (i + 1 + k) e).
  { apply natlike_ind.
    - rewrite Z.add_0_r. assert (step := floor_power_step i e e_good i_nonneg). lia.
    - intros k k_nonneg IH. replace (i + 1 + Z.succ k) with (i + 1 + k + 1) by lia.
      assert (step := floor_power_step (i + 1 + k) e e_good ltac:(lia)). lia. }
  specialize (climb (j - i - 1) ltac:(lia)). replace (i + 1 + (j - i - 1)) with j in climb by lia.
  exact climb.
Qed.

Lemma floor_power_le : forall e i j,
  good_exponent e -> 0 <= i -> i <= j -> floor_power i e <= floor_power j e.
Proof.
  intros e i j e_good i_nonneg le.
  destruct (Z.eq_dec i j) as [same | differ]; [subst; lia |].
  assert (less := floor_power_lt e i j e_good i_nonneg ltac:(lia)). lia.
Qed.

Lemma floor_power_integer : forall i M, 0 < M -> 0 <= i -> floor_power i (Ratio M 1) = i ^ M.
Proof.
  intros i M M_pos i_nonneg.
  assert (power_nonneg : 0 <= i ^ M) by (apply Z.pow_nonneg, i_nonneg).
  assert (e_good : good_exponent (Ratio M 1)) by (split; simpl; lia).
  apply (floor_power_unique i (Ratio M 1)); [exact e_good | apply floor_power_spec; assumption |].
  unfold is_floor_power. cbn [num den]. rewrite !Z.pow_1_r. lia.
Qed.

(** ** Ceilings of powers

    [ceil_power] rounds twice, first the root and then the quotient; rounding up twice is rounding
    up once, since [ceil (y / v) <= m] is [ceil y <= m v]. *)

Lemma ceil_power_le_iff : forall c n q m,
  good_factor c -> good_span_exponent q -> 0 <= n -> 0 <= m ->
  (ceil_power c n q <= m <-> num c ^ den q * n ^ num q <= (m * den c) ^ den q).
Proof.
  intros c n q m [v_pos u_nonneg] [b_pos _] n_nonneg m_nonneg. unfold ceil_power.
  rewrite ceil_div_le_iff by exact v_pos. apply ceil_root_le_iff; [exact b_pos | | nia].
  apply Z.mul_nonneg_nonneg; apply Z.pow_nonneg; assumption.
Qed.

Lemma ceil_power_nonneg : forall c n q,
  good_factor c -> good_span_exponent q -> 0 <= n -> 0 <= ceil_power c n q.
Proof.
  intros c n q [v_pos u_nonneg] [b_pos _] n_nonneg. unfold ceil_power.
  assert (x_nonneg : 0 <= num c ^ den q * n ^ num q)
    by (apply Z.mul_nonneg_nonneg; apply Z.pow_nonneg; assumption).
  destruct (ceil_root_spec (den q) _ b_pos x_nonneg) as (root_nonneg & _).
  destruct (ceil_div_spec (ceil_root (den q) (num c ^ den q * n ^ num q)) (den c) v_pos). nia.
Qed.

Lemma ceil_power_spec : forall c n q,
  good_factor c -> good_span_exponent q -> 0 <= n -> is_ceil_power c n q (ceil_power c n q).
Proof.
  intros c n q c_good q_good n_nonneg.
  assert (nonneg := ceil_power_nonneg c n q c_good q_good n_nonneg).
  split; [exact nonneg | split].
  - apply ceil_power_le_iff; [assumption .. | lia].
  - intros m' range. apply Z.lt_nge. intro large.
    apply ceil_power_le_iff in large; [lia | assumption .. | lia].
Qed.

Lemma ceil_power_unique : forall c n q m m',
  is_ceil_power c n q m -> is_ceil_power c n q m' -> m = m'.
Proof.
  intros c n q m m' (m_nonneg & above & least) (m'_nonneg & above' & least').
  destruct (Z.lt_trichotomy m m') as [less | [same | more]]; [| exact same |].
  - specialize (least' m ltac:(lia)). lia.
  - specialize (least m' ltac:(lia)). lia.
Qed.

(** ** Parts of the aligned rule

    [2^(M (2c + 1)) >= x] is [M (2c + 1) >= log2 x], the logarithm rounded up, and that is solved
    for the smallest [c] by two divisions. *)

Lemma part_exponent_le_iff : forall M h c,
  0 < M -> 0 <= h -> 0 <= c ->
  (part_exponent M h <= c <-> h ^ (2 * (M - 1)) <= 2 ^ (M * (2 * c + 1))).
Proof.
  intros M h c M_pos h_nonneg c_nonneg. unfold part_exponent.
  assert (power_nonneg : 0 <= h ^ (2 * (M - 1))) by (apply Z.pow_nonneg, h_nonneg).
  assert (two_pos : 0 < 2 ^ (M * (2 * c + 1))) by (apply Z.pow_pos_nonneg; nia).
  set (x := h ^ (2 * (M - 1))) in *.
  assert (rounded : Z.log2_up x <= M * (2 * c + 1) <-> x <= 2 ^ (M * (2 * c + 1))).
  { destruct (Z.eq_dec x 0) as [zero | nonzero].
    - rewrite zero. change (Z.log2_up 0) with 0. nia.
    - symmetry. apply Z.log2_up_le_pow2. lia. }
  rewrite <- rounded, (Z.mul_comm M), <- ceil_div_le_iff by exact M_pos.
  rewrite Z.max_lub_iff, ceil_div_le_iff by lia. lia.
Qed.

Lemma part_exponent_spec : forall M h,
  0 < M -> 0 <= h -> is_part_exponent M h (part_exponent M h).
Proof.
  intros M h M_pos h_nonneg.
  assert (nonneg : 0 <= part_exponent M h) by apply Z.le_max_l.
  split; [exact nonneg | split].
  - apply part_exponent_le_iff; lia.
  - intros c' range reaches. apply part_exponent_le_iff in reaches; lia.
Qed.

Lemma part_positive : forall M n, 0 < part M n.
Proof. intros M n. apply Z.pow_pos_nonneg; [lia | apply Z.le_max_l]. Qed.

(** ** Stripes of a segment *)

Lemma stride_positive : forall M n, 0 < M -> 0 < n -> 0 < stride M n.
Proof.
  intros M n M_pos n_pos. unfold stride.
  destruct (ceil_root_spec M n M_pos ltac:(lia)) as (r_nonneg & above & _).
  assert (r_pos : 0 < ceil_root M n).
  { destruct (Z.eq_dec (ceil_root M n) 0) as [zero | nonzero]; [| lia].
    rewrite zero, Z.pow_0_l in above; lia. }
  destruct (ceil_div_spec n (ceil_root M n) r_pos). nia.
Qed.

Lemma last_power_stripe : forall e n i,
  good_exponent e -> 0 <= n -> 0 <= i ->
  (floor_power i e <= n <-> i <= root (num e) ((n + 1) ^ den e - 1)).
Proof.
  intros e n i e_good n_nonneg i_nonneg. assert (good := e_good). destruct good as [den_pos _].
  assert (0 < (n + 1) ^ den e) by (apply Z.pow_pos_nonneg; lia).
  rewrite root_ge_iff by (destruct e_good; lia).
  assert (next := floor_power_ge_iff i e (n + 1) e_good i_nonneg ltac:(lia)). lia.
Qed.

Lemma last_stripe_spec : forall M l (n : segment) i,
  0 < M -> good_level l -> 0 <= n -> 1 <= i -> (stripe M l n i <= n <-> i <= last_stripe M l n).
Proof.
  intros M l n i M_pos l_good n_nonneg i_pos. unfold last_stripe.
  assert (powers : forall e, good_exponent e ->
    floor_power i e <= n <->
    i <= (if n <=? 0 then 0 else root (num e) ((n + 1) ^ den e - 1))).
  { intros e e_good. destruct (Z.leb_spec n 0) as [empty | some].
    - assert (i_le := floor_power_ge_index i e e_good ltac:(lia)). lia.
    - apply last_power_stripe; [exact e_good | lia | lia]. }
  destruct l as [e | e b f q | |]; cbn [stripe].
  - apply powers, l_good.
  - apply powers, l_good.
  - destruct (Z.leb_spec n 0) as [empty | some].
    + assert (zero : held n = 0) by lia. rewrite zero. replace (stride M 0) with 0; [lia |].
      unfold stride, ceil_div. reflexivity.
    + assert (s_pos := stride_positive M n M_pos some).
      assert (quotient : i - 1 <= (n - 1) / stride M n <-> stride M n * (i - 1) <= n - 1).
      { split; intro le.
        - assert (lower := Z.mul_div_le (n - 1) (stride M n) s_pos). nia.
        - apply Z.div_le_lower_bound; lia. }
      lia.
  - unfold part_at. assert (s_pos := part_positive M n). set (s := part M n) in *.
    destruct (Z.leb_spec n 0) as [empty | some]; [nia |].
    set (j := (ends n - 1) / s - (i - 1)).
    assert (oldest : (ends n - n) / s <= j <-> ends n - n < (j + 1) * s).
    { assert (division := Z.div_mod (ends n - n) s ltac:(lia)).
      assert (remainder := Z.mod_pos_bound (ends n - n) s s_pos). nia. }
    lia.
Qed.
