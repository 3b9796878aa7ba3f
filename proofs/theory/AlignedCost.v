(** * What the aligned rule costs (SPEC 2.3, 2.5.6)

    Below an aligned level the parts of a part divide it, for both are powers of two: what a step
    offers there is [2^d], and the [d] of the steps add up to the [c] of level 1's parts, shared as
    evenly as integers can be.  At level 1 the border of the segment costs up to two parts more. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality AmGm LowerBound LevelCost Cost Aligned.
Import ListNotations.
Open Scope Z_scope.

(** ** Level 1 *)

(** The parts but for the newest and the oldest lie inside the segment, and leave it two keys. *)
Theorem parts_of_segment : forall w M (n : segment),
  0 < n - w ->
  (last_searched w M Aligned n - 2) * part M (beyond w n) <= n - w - 2.
Proof.
  intros w M n some. cbn [last_searched]. unfold last_stripe. cbn [held ends beyond].
  destruct (Z.leb_spec (n - w) 0); [lia |].
  replace (ends n - w - (n - w)) with (ends n - n) by lia.
  assert (s_pos := part_positive M (beyond w n)). set (s := part M (beyond w n)) in *.
  assert (newest := division_bounds (ends n - w - 1) s s_pos).
  assert (oldest := division_bounds (ends n - n) s s_pos). nia.
Qed.

(** Where the segment begins at a border, as with [start = 0], but one. *)
Theorem parts_from_border : forall w M (n : segment),
  0 < n - w -> (part M (beyond w n) | ends n - n) ->
  (last_searched w M Aligned n - 1) * part M (beyond w n) <= n - w - 1.
Proof.
  intros w M n some border. cbn [last_searched]. unfold last_stripe. cbn [held ends beyond].
  destruct (Z.leb_spec (n - w) 0); [lia |].
  replace (ends n - w - (n - w)) with (ends n - n) by lia.
  assert (s_pos := part_positive M (beyond w n)). set (s := part M (beyond w n)) in *.
  assert (newest := division_bounds (ends n - w - 1) s s_pos).
  destruct border as (q & border). rewrite border, Z.div_mul by lia. nia.
Qed.

(** From [x s <= h] and [h^(2(M-1)) <= 2^M s^(2M)]: [x <= sqrt 2 h^(1/M)]. *)
Lemma few_parts : forall M h x,
  0 < M -> 0 < h -> 0 <= x -> x * 2 ^ part_exponent M h <= h -> x ^ (2 * M) <= 2 ^ M * h ^ 2.
Proof.
  intros M h x M_pos h_pos x_nonneg inside.
  destruct (part_exponent_spec M h M_pos ltac:(lia)) as (c_nonneg & reaches & _).
  set (c := part_exponent M h) in *. set (s := 2 ^ c) in *.
  assert (s_pos : 0 < s) by (apply Z.pow_pos_nonneg; lia).
  assert (h_power : 0 < h ^ (2 * (M - 1))) by (apply Z.pow_pos_nonneg; lia).
  assert (x_power : 0 <= x ^ (2 * M)) by (apply Z.pow_nonneg; lia).
  apply (Z.mul_le_mono_pos_r _ _ _ h_power).
  replace (2 ^ (M * (2 * c + 1))) with (2 ^ M * s ^ (2 * M)) in reaches.
  2: { unfold s. rewrite <- Z.pow_mul_r, <- Z.pow_add_r by nia. f_equal. lia. }
  apply Z.le_trans with (2 ^ M * (x * s) ^ (2 * M)).
  - rewrite Z.pow_mul_l. apply (Z.mul_le_mono_nonneg_l _ _ _ x_power) in reaches. lia.
  - rewrite <- Z.mul_assoc. apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; lia |].
    rewrite <- Z.pow_add_r by lia. replace (2 + 2 * (M - 1)) with (2 * M) by lia.
    apply Z.pow_le_mono_l. nia.
Qed.

(** A part is one key, or less than [sqrt 2 h^((M-1)/M)] keys. *)
Lemma short_part : forall M h,
  0 < M -> 0 < h ->
  let c := part_exponent M h in c = 0 \/ (2 ^ c) ^ (2 * M) < 2 ^ M * h ^ (2 * (M - 1)).
Proof.
  intros M h M_pos h_pos c.
  destruct (part_exponent_spec M h M_pos ltac:(lia)) as (c_nonneg & _ & least).
  fold c in c_nonneg, least.
  destruct (Z.eq_dec c 0) as [zero | more]; [now left | right].
  specialize (least (c - 1) ltac:(lia)).
  assert (two_pos : 0 < 2 ^ M) by (apply Z.pow_pos_nonneg; lia).
  replace ((2 ^ c) ^ (2 * M)) with (2 ^ M * 2 ^ (M * (2 * (c - 1) + 1))).
  - apply Z.mul_lt_mono_pos_l; lia.
  - rewrite <- Z.pow_mul_r, <- Z.pow_add_r by nia. f_equal. lia.
Qed.

(** ** Below an aligned level

    With [M] steps left for the [2^c] keys of a part, a step gets [c / M] of the [c] halvings,
    rounded to the nearest integer. *)

Definition share (M c : Z) : Z := (2 * c + M) / (2 * M).

Lemma share_ge_iff : forall M c d, 0 < M -> (d <= share M c <-> 2 * M * d <= 2 * c + M).
Proof.
  intros M c d M_pos. unfold share.
  assert (here := division_bounds (2 * c + M) (2 * M) ltac:(lia)). nia.
Qed.

Lemma share_range : forall M c, 0 < M -> 0 <= c -> 0 <= share M c <= c.
Proof.
  intros M c M_pos c_nonneg. split; [apply share_ge_iff; lia |].
  assert (not_more := share_ge_iff M c (c + 1) M_pos). nia.
Qed.

Lemma share_1 : forall c, share 1 c = c.
Proof. intros c. apply quotient_unique; lia. Qed.

(** [h = 2^c] in the rule. *)
Lemma part_exponent_of_power : forall M c,
  0 < M -> 0 <= c -> part_exponent M (2 ^ c) = c - share M c.
Proof.
  intros M c M_pos c_nonneg. assert (range := share_range M c M_pos c_nonneg).
  assert (same : forall m, 0 <= m -> (part_exponent M (2 ^ c) <= m <-> c - share M c <= m)).
  { intros m m_nonneg. rewrite part_exponent_le_iff by (try apply Z.pow_nonneg; lia).
    rewrite <- Z.pow_mul_r, <- Z.pow_le_mono_r_iff by nia.
    assert (enough := share_ge_iff M c (c - m) M_pos). lia. }
  assert (nonneg : 0 <= part_exponent M (2 ^ c)) by apply Z.le_max_l.
  assert (one := same (part_exponent M (2 ^ c)) nonneg).
  assert (other := same (c - share M c) ltac:(lia)). lia.
Qed.

(** What the [steps] left offer for [2^c] keys. *)
Fixpoint shares (steps : nat) (c : Z) : list Z :=
  match steps with
  | O => []
  | S k => let d := share (Z.of_nat steps) c in 2 ^ d :: shares k (c - d)
  end.

(** The segment is a part of [2^c] keys, or the rest of one. *)
Definition in_part (n : segment) (c : Z) : Prop :=
  nominal n = 2 ^ c /\ 0 < n /\ exists q, q * 2 ^ c <= ends n - n /\ ends n <= (q + 1) * 2 ^ c.

Lemma part_in_part : forall w M (n : segment) i,
  0 < M -> 0 <= w -> is_stripe w M Aligned n i ->
  in_part (segment_of w M Aligned n i) (part_exponent M (nominal n - w)).
Proof.
  intros w M n i M_pos w_nonneg chosen.
  assert (order := span_in_segment w M Aligned n i M_pos I w_nonneg chosen).
  split; [reflexivity | split; [cbn [held segment_of]; unfold size; lia |]].
  exists (part_at M (beyond w n) i). cbn [held ends segment_of]. unfold size.
  change (2 ^ part_exponent M (nominal n - w)) with (part M (beyond w n)).
  cbn [span_of near far]. lia.
Qed.

(** A part of [2^c] keys has [2^d] parts of [2^(c-d)]; the rest of one has no more. *)
Lemma parts_of_part : forall M (n : segment) c,
  0 < M -> 0 <= c -> in_part n c -> last_searched 0 M Aligned n <= 2 ^ share M c.
Proof.
  intros M n c M_pos c_nonneg (nominal_is & some & q & begins & stops).
  cbn [last_searched]. rewrite beyond_0. unfold last_stripe, part. rewrite nominal_is.
  rewrite part_exponent_of_power by assumption.
  assert (range := share_range M c M_pos c_nonneg).
  destruct (Z.leb_spec n 0); [lia |].
  set (d := share M c) in *. set (s := 2 ^ (c - d)).
  assert (s_pos : 0 < s) by (apply Z.pow_pos_nonneg; lia).
  assert (whole : 2 ^ c = 2 ^ d * s) by (unfold s; rewrite <- Z.pow_add_r by lia; f_equal; lia).
  rewrite whole in *.
  assert (newest := division_bounds (ends n - 1) s s_pos).
  assert (oldest := division_bounds (ends n - n) s s_pos).
  assert (first : q * 2 ^ d <= (ends n - n) / s) by nia.
  assert (last : (ends n - 1) / s < (q + 1) * 2 ^ d) by nia. lia.
Qed.

(** Exactly so many where the part is whole. *)
Theorem parts_of_whole_part : forall M (n : segment) c q,
  0 < M -> 0 <= c -> n = Segment (2 ^ c) ((q + 1) * 2 ^ c) (2 ^ c) ->
  last_searched 0 M Aligned n = 2 ^ share M c /\
  forall i, is_stripe 0 M Aligned n i ->
    held (segment_of 0 M Aligned n i) = 2 ^ (c - share M c).
Proof.
  intros M n c q M_pos c_nonneg n_is. subst n. unfold is_stripe.
  assert (range := share_range M c M_pos c_nonneg).
  cbn [last_searched first_stripe segment_of held]. rewrite beyond_0.
  unfold size. cbn [span_of near far]. rewrite beyond_0.
  unfold last_stripe, part_at, part. cbn [held ends nominal].
  rewrite part_exponent_of_power by assumption.
  set (d := share M c) in *. set (s := 2 ^ (c - d)).
  assert (s_pos : 0 < s) by (apply Z.pow_pos_nonneg; lia).
  assert (d_pos : 0 < 2 ^ d) by (apply Z.pow_pos_nonneg; lia).
  assert (whole : 2 ^ c = 2 ^ d * s) by (unfold s; rewrite <- Z.pow_add_r by lia; f_equal; lia).
  rewrite whole. destruct (Z.leb_spec (2 ^ d * s) 0); [nia |].
  assert (newest : ((q + 1) * (2 ^ d * s) - 1) / s = (q + 1) * 2 ^ d - 1)
    by (apply quotient_unique; [exact s_pos | nia]).
  assert (oldest : ((q + 1) * (2 ^ d * s) - 2 ^ d * s) / s = q * 2 ^ d)
    by (apply quotient_unique; [exact s_pos | nia]).
  rewrite newest, oldest. split; [lia |]. intros i chosen.
  set (j := (q + 1) * 2 ^ d - 1 - (i - 1)).
  assert (inside : q * 2 ^ d <= j <= (q + 1) * 2 ^ d - 1) by (unfold j; lia). nia.
Qed.

(** ** All levels *)

Lemma steps_of_repeat : forall k, steps_of (repeat Aligned k) = Z.of_nat k + 1.
Proof. intros k. unfold steps_of. rewrite repeat_length. reflexivity. Qed.

Lemma shares_cost : forall k (n : segment) c,
  0 <= c -> in_part n c -> costs_at_most 0 (repeat Aligned k) n (shares (S k) c).
Proof.
  induction k as [| k IH]; intros n c c_nonneg inside.
  - cbn [shares repeat costs_at_most]. destruct inside as (_ & _ & q & begins & stops).
    change (Z.of_nat 1) with 1. rewrite share_1. lia.
  - assert (steps : steps_of (Aligned :: repeat Aligned k) = Z.of_nat (S (S k)))
      by (change (Aligned :: repeat Aligned k) with (repeat Aligned (S k));
          rewrite steps_of_repeat; lia).
    change (repeat Aligned (S k)) with (Aligned :: repeat Aligned k).
    set (d := share (Z.of_nat (S (S k))) c).
    change (shares (S (S k)) c) with (2 ^ d :: shares (S k) (c - d)).
    assert (range := share_range (Z.of_nat (S (S k))) c ltac:(lia) c_nonneg). fold d in range.
    cbn [costs_at_most]. rewrite steps. unfold anchor_count. cbn [first_stripe]. split.
    + assert (few := parts_of_part (Z.of_nat (S (S k))) n c ltac:(lia) c_nonneg inside).
      fold d in few. assert (some : 0 < 2 ^ d) by (apply Z.pow_pos_nonneg; lia). lia.
    + intros i chosen. apply IH; [lia |].
      assert (part_of := part_in_part 0 (Z.of_nat (S (S k))) n i ltac:(lia) ltac:(lia) chosen).
      rewrite Z.sub_0_r, (proj1 inside), part_exponent_of_power in part_of by lia.
      exact part_of.
Qed.

(** Level 1 offers what it offers, and below it all is shared. *)
Lemma offers_below_first : forall k w (n : segment) first,
  0 <= w -> 0 < n - w -> last_searched w (Z.of_nat k + 2) Aligned n <= first -> 0 <= first ->
  costs_at_most w (repeat Aligned (S k)) n
    (first :: shares (S k) (part_exponent (Z.of_nat k + 2) (nominal n - w))).
Proof.
  intros k w n first w_nonneg some few nonneg.
  assert (steps : steps_of (Aligned :: repeat Aligned k) = Z.of_nat k + 2)
    by (change (Aligned :: repeat Aligned k) with (repeat Aligned (S k));
        rewrite steps_of_repeat; lia).
  change (repeat Aligned (S k)) with (Aligned :: repeat Aligned k).
  cbn [costs_at_most]. rewrite steps. unfold anchor_count. cbn [first_stripe]. split; [lia |].
  intros i chosen. apply shares_cost; [apply Z.le_max_l |].
  apply part_in_part; lia || assumption.
Qed.

(** It has at most two parts more than whole ones, *)
Theorem aligned_offers : forall k w (n : segment),
  0 <= w -> 0 < n - w ->
  let c := part_exponent (Z.of_nat k + 2) (nominal n - w) in
  costs_at_most w (repeat Aligned (S k)) n ((n - w - 2) / 2 ^ c + 2 :: shares (S k) c).
Proof.
  intros k w n w_nonneg some c.
  assert (s_pos : 0 < 2 ^ c) by (apply Z.pow_pos_nonneg; [lia | apply Z.le_max_l]).
  assert (few := parts_of_segment w (Z.of_nat k + 2) n some).
  change (part (Z.of_nat k + 2) (beyond w n)) with (2 ^ c) in few.
  assert (here := division_bounds (n - w - 2) (2 ^ c) s_pos).
  apply offers_below_first; try assumption; nia.
Qed.

(** and one where the segment begins at a border. *)
Theorem aligned_offers_from_border : forall k w (n : segment),
  0 <= w -> 0 < n - w ->
  let c := part_exponent (Z.of_nat k + 2) (nominal n - w) in
  (2 ^ c | ends n - n) ->
  costs_at_most w (repeat Aligned (S k)) n ((n - w - 1) / 2 ^ c + 1 :: shares (S k) c).
Proof.
  intros k w n w_nonneg some c border.
  assert (s_pos : 0 < 2 ^ c) by (apply Z.pow_pos_nonneg; [lia | apply Z.le_max_l]).
  assert (few := parts_from_border w (Z.of_nat k + 2) n some border).
  change (part (Z.of_nat k + 2) (beyond w n)) with (2 ^ c) in few.
  assert (here := division_bounds (n - w - 1) (2 ^ c) s_pos).
  apply offers_below_first; try assumption; nia.
Qed.

(** ** How even the shares are

    [u] at least [c / M] bounds all shares, and with [q = c / M], rounded down, each is [q] or
    [q + 1]: what is left after one share has an average on the same side of [u], or between the
    same two integers. *)

Lemma shares_at_most : forall steps c u,
  0 <= c <= Z.of_nat steps * u -> Forall (fun x => x <= 2 ^ u) (shares steps c).
Proof.
  induction steps as [| k IH]; intros c u range; [constructor |].
  set (M := Z.of_nat (S k)) in *. assert (M_pos : 0 < M) by lia.
  change (shares (S k) c) with (2 ^ share M c :: shares k (c - share M c)).
  assert (within_c := share_range M c M_pos ltac:(lia)).
  assert (next := share_ge_iff M c (u + 1) M_pos).
  assert (rounded := share_ge_iff M c (share M c + 1) M_pos).
  constructor; [apply Z.pow_le_mono_r; nia |]. apply IH.
  replace (Z.of_nat k) with (M - 1) by lia. nia.
Qed.

Lemma shares_total_between : forall steps c q,
  0 <= q -> Z.of_nat steps * q <= c <= Z.of_nat steps * (q + 1) ->
  Forall (fun x => x = 2 ^ q \/ x = 2 ^ (q + 1)) (shares steps c) /\
  total (shares steps c) = (Z.of_nat steps + (c - Z.of_nat steps * q)) * 2 ^ q.
Proof.
  induction steps as [| k IH]; intros c q q_nonneg range.
  { split; [constructor |]. cbn [shares total fold_right]. nia. }
  set (M := Z.of_nat (S k)) in *. assert (M_pos : 0 < M) by lia.
  change (shares (S k) c) with (2 ^ share M c :: shares k (c - share M c)).
  assert (low := share_ge_iff M c q M_pos).
  assert (high := share_ge_iff M c (q + 2) M_pos).
  assert (up := share_ge_iff M c (q + 1) M_pos).
  assert (double : 2 ^ (q + 1) = 2 * 2 ^ q) by (rewrite Z.pow_add_r by lia; lia).
  assert (cases : share M c = q /\ 2 * c + M < 2 * M * (q + 1) \/
                  share M c = q + 1 /\ 2 * M * (q + 1) <= 2 * c + M) by nia.
  cbn [total fold_right]. fold (total (shares k (c - share M c))).
  destruct cases as [[is side] | [is side]]; rewrite is in *;
    (destruct (IH (c - share M c) q q_nonneg) as [each all];
     [rewrite is; replace (Z.of_nat k) with (M - 1) by lia; nia |]);
    rewrite is in each, all; (split; [constructor; [tauto | exact each] |]);
    rewrite all; replace (Z.of_nat k) with (M - 1) by lia; rewrite ?double; ring.
Qed.

Theorem shares_are_even : forall m c,
  (0 < m)%nat -> 0 <= c ->
  let q := c / Z.of_nat m in
  let r := c mod Z.of_nat m in
  Forall (fun x => x = 2 ^ q \/ x = 2 ^ (q + 1)) (shares m c) /\
  total (shares m c) = (Z.of_nat m + r) * 2 ^ q.
Proof.
  intros m c some c_nonneg q r.
  assert (division := Z.div_mod c (Z.of_nat m) ltac:(lia)). fold q r in division.
  assert (remainder := Z.mod_pos_bound c (Z.of_nat m) ltac:(lia)). fold r in remainder.
  assert (q_nonneg : 0 <= q) by (apply Z.div_pos; lia).
  replace r with (c - Z.of_nat m * q) by lia. apply shares_total_between; [exact q_nonneg | nia].
Qed.
