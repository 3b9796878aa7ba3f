(** * Sharpness: no factor below M closes every gap (SPEC 2.5.3)

    Let level 1 have stripes [i^M] and a backward reach of [c * n^((M-1)/M)] keys, [c = u/v < M].
    With [S] large and [n = S^M - 1] keys, the oldest anchor stands for [(S-1)^M], and behind it lie
    [S^M - 1 - (S-1)^M] keys, about [M S^(M-1)].  The reach is less, about [c S^(M-1)].  The oldest
    key is left out, and a forward reach does not help: no anchor is older than that key.  What the
    levels below do does not matter either, for none of them ever sees it. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality Completeness Sufficiency.
Import ListNotations.
Open Scope Z_scope.

(** ** The integers *)

(** The binomial expansion, cut off from above: [(1 - 1/S)^k <= 1 - k/S + (k(k-1)/2)/S^2].  From
    [k] to [k + 1]: multiply by [S - 1]. *)
Lemma binomial_above : forall S k,
  1 <= S -> 0 <= k -> 2 * ((S - 1) ^ k * (S * S)) <= S ^ k * (2 * S * S - 2 * k * S + k * (k - 1)).
Proof.
  intros S k S_pos. revert k. apply natlike_ind; [rewrite !Z.pow_0_r; lia |].
  intros k k_nonneg IH. rewrite !Z.pow_succ_r by exact k_nonneg.
  assert (power_nonneg : 0 <= S ^ k) by (apply Z.pow_nonneg; lia).
  apply (Z.mul_le_mono_nonneg_l _ _ (S - 1) ltac:(lia)) in IH.
  assert (cut_off : 0 <= k * (k - 1)) by nia.
  assert (step : (S - 1) * (2 * S * S - 2 * k * S + k * (k - 1)) <=
                 S * (2 * S * S - 2 * Z.succ k * S + Z.succ k * (Z.succ k - 1))) by lia.
  apply (Z.mul_le_mono_nonneg_l _ _ _ power_nonneg) in step. lia.
Qed.

(** [u S^(M-1) <= v (S^M - (S-1)^M - 2)] for [u < M v] and large [S].  Since [u <= M v - 1], the
    expansion leaves [v (M(M-1)/2 + 2 / S^(M-2)) <= S] to show. *)
Lemma reach_too_short : forall M u v S,
  2 <= M -> 0 < v -> u < M * v -> v * (M * (M - 1) + 4) <= 2 * S ->
  u * S ^ (M - 1) <= (S ^ M - (S - 1) ^ M - 2) * v.
Proof.
  intros M u v S M_large v_pos small S_large.
  assert (S_pos : 1 <= S) by nia.
  assert (unit_pos : 0 < S ^ (M - 2)) by (apply Z.pow_pos_nonneg; lia).
  set (unit := S ^ (M - 2)) in *.
  assert (one_less : S ^ (M - 1) = unit * S).
  { unfold unit. replace (M - 1) with (Z.succ (M - 2)) by lia. rewrite Z.pow_succ_r by lia. lia. }
  assert (whole : S ^ M = unit * (S * S)).
  { replace M with (Z.succ (M - 1)) at 1 by lia. rewrite Z.pow_succ_r, one_less by lia. lia. }
  assert (older : 2 * (S - 1) ^ M <= unit * (2 * S * S - 2 * M * S + M * (M - 1))).
  { apply (Z.mul_le_mono_pos_r _ _ (S * S)); [lia |].
    assert (above := binomial_above S M S_pos ltac:(lia)). rewrite whole in above. lia. }
  assert (gap : unit * (2 * M * S - M * (M - 1)) - 4 <= 2 * (S ^ M - (S - 1) ^ M - 2))
    by (rewrite whole; lia).
  apply (Z.mul_le_mono_nonneg_r _ _ v ltac:(lia)) in gap.
  rewrite one_less.
  assert (reach : u * (unit * S) <= (M * v - 1) * (unit * S))
    by (apply Z.mul_le_mono_nonneg_r; lia).
  assert (rest : unit * (v * (M * (M - 1) + 4)) <= unit * (2 * S))
    by (apply Z.mul_le_mono_nonneg_l; lia).
  assert (four : 4 * v <= unit * (4 * v)) by nia.
  lia.
Qed.

(** The least [S] that this argument allows; the [w + 2] keeps the oldest key outside the window. *)
Definition sharp_root (M : Z) (c : ratio) (w : Z) : Z :=
  Z.max (w + 2) (ceil_div (den c * (M * (M - 1) + 4)) 2).

Definition sharp_length (M : Z) (c : ratio) (w : Z) : Z := sharp_root M c w ^ M - 1.

(** For the paper's two steps and the factor 19/10 it is the first length with a hole: query 898. *)
Example sharp_length_19_10 : sharp_length 2 (Ratio 19 10) 0 = 899.
Proof. reflexivity. Qed.

(** ** One level *)

Definition sharp_level (M : Z) (c f : ratio) : level :=
  Power (Ratio M 1) c f (Ratio (M - 1) M).

Lemma sharp_level_good : forall M c f,
  0 < M -> good_factor c -> good_factor f -> good_level (sharp_level M c f).
Proof.
  intros M c f M_pos c_good f_good.
  unfold sharp_level, good_level, good_exponent, good_span_exponent. cbn [num den].
  repeat split; try lia; apply c_good || apply f_good.
Qed.

(** The reach in a segment of that length is short: what is claimed of the ceiling is
    [u^M n^(M-1) <= (v (S^M - (S-1)^M - 2))^M], and the left side is at most [(u S^(M-1))^M]. *)
Lemma sharp_reach : forall M c w,
  2 <= M -> good_factor c -> num c < M * den c -> 0 <= w ->
  let S := sharp_root M c w in
  ceil_power c (sharp_length M c w) (Ratio (M - 1) M) <= S ^ M - (S - 1) ^ M - 2.
Proof.
  intros M c w M_large c_good small w_nonneg. cbv zeta. unfold sharp_length.
  assert (good := c_good). destruct good as [v_pos u_nonneg].
  assert (S_large : den c * (M * (M - 1) + 4) <= 2 * sharp_root M c w).
  { destruct (ceil_div_spec (den c * (M * (M - 1) + 4)) 2 ltac:(lia)) as [half _].
    unfold sharp_root. lia. }
  assert (S_above : w + 2 <= sharp_root M c w) by apply Z.le_max_l.
  set (S := sharp_root M c w) in *.
  assert (short := reach_too_short M (num c) (den c) S M_large v_pos small S_large).
  set (gap := S ^ M - (S - 1) ^ M - 2) in *.
  assert (row_pos : 0 < S ^ (M - 1)) by (apply Z.pow_pos_nonneg; lia).
  assert (n_nonneg : 0 < S ^ M) by (apply Z.pow_pos_nonneg; lia).
  assert (gap_nonneg : 0 <= gap) by nia.
  apply ceil_power_le_iff; [exact c_good | split; cbn [num den]; lia | lia | exact gap_nonneg |].
  cbn [num den].
  apply (Z.le_trans _ ((num c * S ^ (M - 1)) ^ M)); [| apply Z.pow_le_mono_l; nia].
  rewrite Z.pow_mul_l. apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; lia |].
  rewrite <- Z.pow_mul_r, (Z.mul_comm (M - 1) M), Z.pow_mul_r by lia.
  apply Z.pow_le_mono_l. lia.
Qed.

(** The oldest of [n = S^M - 1] keys is neither in the window nor in any span.  A stripe [i] of the
    segment has [i^M <= n < S^M], so [i <= S - 1], and its span ends at
    [i^M + B <= (S-1)^M + B < n]. *)
Theorem oldest_key_excluded : forall M c f w,
  2 <= M -> good_factor c -> good_factor f -> num c < M * den c -> 0 <= w ->
  let l := sharp_level M c f in
  window l w <= sharp_length M c w - 1 /\
  forall (n : segment) i, held n = sharp_length M c w ->
    is_stripe w M l n i -> ~ within (n - 1) (span_of w M l n i).
Proof.
  intros M c f w M_large c_good f_good small w_nonneg. cbv zeta.
  assert (short := sharp_reach M c w M_large c_good small w_nonneg).
  assert (S_above : w + 2 <= sharp_root M c w) by apply Z.le_max_l.
  cbv zeta in short.
  assert (n_is : sharp_length M c w = sharp_root M c w ^ M - 1) by reflexivity.
  set (S := sharp_root M c w) in *.
  assert (stripe_is : forall i, 0 <= i -> floor_power i (Ratio M 1) = i ^ M)
    by (intros i i_nonneg; apply floor_power_integer; lia).
  split.
  - unfold sharp_level, window. rewrite stripe_is by lia.
    assert (less : (w + 1) ^ M < S ^ M) by (apply pow_lt_iff; lia). lia.
  - intros n i long searched inside. unfold is_stripe, within in searched, inside.
    unfold sharp_level in searched, inside.
    cbn [first_stripe last_searched span_of near far] in searched, inside.
    rewrite <- long in short.
    assert (e_good : good_exponent (Ratio M 1)) by (split; cbn [num den]; lia).
    destruct (power_stripe_range M _ n i w ltac:(lia) e_good w_nonneg searched) as [_ in_segment].
    rewrite stripe_is in in_segment, inside by lia.
    assert (newer : i < S) by (apply (pow_lt_iff M); lia).
    assert (at_most : i ^ M <= (S - 1) ^ M) by (apply Z.pow_le_mono_l; lia). lia.
Qed.

(** ** Schedules *)

(** Whatever the levels below, the query [n - 1] places after its first key does not reach it. *)
Theorem oldest_key_unreachable : forall c f rest w start,
  let M := Z.of_nat (length rest) + 2 in
  good_factor c -> good_factor f -> num c < M * den c -> 0 <= w ->
  ~ reachable (Schedule (sharp_level M c f :: rest) w) start
      (start + sharp_length M c w - 1) start.
Proof.
  intros c f rest w start M c_good f_good small w_nonneg.
  assert (steps : forall l, steps_of (l :: rest) = M)
    by (intro l; unfold M, steps_of; cbn [length]; lia).
  assert (M_large : 2 <= M) by lia.
  destruct (oldest_key_excluded M c f w M_large c_good f_good small w_nonneg) as [outside excluded].
  set (n := sharp_length M c w) in *. set (l := sharp_level M c f) in *.
  unfold reachable. cbn [window_of levels window_index].
  replace (start + n - 1 - start) with (n - 1) by lia.
  intros [in_window | [path path_leads]]; [lia |].
  destruct path as [| i path']; cbn [leads] in path_leads; [exact path_leads |].
  rewrite steps in path_leads. destruct path_leads as (searched & inside & _).
  assert (long : held (seen start (start + n - 1)) = n) by (cbn [held seen]; lia).
  apply (excluded _ i long searched). rewrite long. exact inside.
Qed.

Corollary sharp_not_covered : forall c f rest w start,
  let M := Z.of_nat (length rest) + 2 in
  good_factor c -> good_factor f -> num c < M * den c -> 0 <= w ->
  ~ covered (Schedule (sharp_level M c f :: rest) w) start (start + sharp_length M c w).
Proof.
  intros c f rest w start M c_good f_good small w_nonneg all_covered.
  apply (oldest_key_unreachable c f rest w start c_good f_good small w_nonneg).
  assert (M_large : 2 <= M) by lia.
  destruct (oldest_key_excluded M c f w M_large c_good f_good small w_nonneg) as [outside _].
  assert (some := window_ge_index _ w (sharp_level_good M c f ltac:(lia) c_good f_good) w_nonneg).
  apply all_covered; fold M; lia.
Qed.

(** The constant is sharp: with sufficient levels below, and with any forward factor and window,
    factor [c] closes the gaps of every length if and only if [c >= M]. *)
Theorem sharp_constant : forall c f rest w start,
  let M := Z.of_nat (length rest) + 2 in
  good_factor c -> good_factor f -> 0 <= w -> Forall good_level rest -> sufficient_levels rest ->
  (forall len, covered (Schedule (sharp_level M c f :: rest) w) start len) <->
  M * den c <= num c.
Proof.
  intros c f rest w start M c_good f_good w_nonneg rest_good rest_enough.
  assert (M_pos : 0 < M) by lia. split.
  - intro all_covered. apply Z.le_ngt. intro small.
    exact (sharp_not_covered c f rest w start c_good f_good small w_nonneg (all_covered _)).
  - intros large len. apply sufficient_covered; cbn [levels window_index].
    + split; [| exact w_nonneg].
      constructor; [apply sharp_level_good; assumption | exact rest_good].
    + cbn [sufficient_levels]. split; [| exact rest_enough].
      replace (steps_of (sharp_level M c f :: rest)) with M
        by (unfold M, steps_of; cbn [length]; lia).
      repeat split; exact large.
Qed.

(** One level alone, the same equivalence: [covers] of Sufficiency.v is coverage of every
    segment. *)
Theorem sharp_constant_of_level : forall M c f,
  2 <= M -> good_factor c -> good_factor f ->
  (covers M (sharp_level M c f) <-> M * den c <= num c).
Proof.
  intros M c f M_large c_good f_good. split.
  - intro all_covered. apply Z.le_ngt. intro small.
    destruct (oldest_key_excluded M c f 0 M_large c_good f_good small ltac:(lia))
      as [outside excluded].
    destruct (all_covered 0 (first_keys (sharp_length M c 0)) (sharp_length M c 0 - 1))
      as (i & chosen & inside); [lia | cbn [held first_keys]; lia |].
    exact (excluded (first_keys (sharp_length M c 0)) i eq_refl chosen inside).
  - intro large. apply power_covers; [lia | assumption ..].
Qed.

(** ** Below tight and even levels

    A tight level above changes nothing.  Its stripes [i^e], [e >= 2], lie further and further
    apart, and the oldest span ends with the segment: with [R] large and [R^e - 1 + s] keys it holds
    the [s] oldest.  It alone leads to the oldest key, which the level below does not reach from
    there if it does not in a segment of [s] keys. *)

(** In the segments of some length no path leads to the oldest key, nor does the window have it. *)
Definition leaves_out (w : Z) (ls : list level) : Prop :=
  exists m, 0 < m /\ first_window w ls <= m - 1 /\
    forall (n : segment) path, held n = m -> ~ leads w ls n path (m - 1).

Lemma leaves_out_below : forall e ls w,
  2 <= e -> 0 <= w -> leaves_out 0 ls -> leaves_out w (Tight (Ratio e 1) :: ls).
Proof.
  intros e ls w e_large w_nonneg (s & s_pos & _ & excluded).
  set (R := Z.max (w + 1) s).
  assert (stripe_is : forall i, 0 <= i -> floor_power i (Ratio e 1) = i ^ e)
    by (intros i i_nonneg; apply floor_power_integer; lia).
  assert (first : (w + 1) ^ e <= R ^ e) by (apply Z.pow_le_mono_l; lia).
  assert (R_pos : 0 < R ^ e) by (apply Z.pow_pos_nonneg; lia).
  assert (next : R ^ e + R < (R + 1) ^ e).
  { replace e with (Z.succ (e - 1)) by lia. rewrite !Z.pow_succ_r by lia.
    assert (less : R ^ (e - 1) < (R + 1) ^ (e - 1)) by (apply pow_lt_iff; lia).
    assert (some : 0 < R ^ (e - 1)) by (apply Z.pow_pos_nonneg; lia). nia. }
  exists (R ^ e - 1 + s). split; [lia | split].
  - cbn [first_window window]. rewrite stripe_is by lia. lia.
  - intros n path long path_leads. destruct path as [| i path']; [exact path_leads |].
    cbn [leads] in path_leads. destruct path_leads as (searched & inside & rest_leads).
    unfold is_stripe in searched. cbn [first_stripe] in searched.
    unfold within in inside. cbn [span_of near far] in inside, rest_leads.
    rewrite long, !stripe_is in inside by lia. rewrite stripe_is in rest_leads by lia.
    assert (oldest : i = R).
    { apply (root_unique e i R (R ^ e - 1 + s)); lia. }
    subst i. apply (excluded (segment_of w (steps_of (Tight (Ratio e 1) :: ls))
                                (Tight (Ratio e 1)) n R) path').
    { cbn [held segment_of span_of]. unfold size. cbn [near far].
      rewrite long, !stripe_is by lia. lia. }
    replace (R ^ e - 1 + s - 1 - (R ^ e - 1)) with (s - 1) in rest_leads by lia. exact rest_leads.
Qed.

(** Nor does an even level.  With [r = ceil (s^(1/(M-1)))] and [s r] keys outside the window it has
    [r] parts of [s] keys, as [(r-1)^M < s r <= r^M], and the oldest part is the [s] oldest keys. *)
Lemma even_part_of : forall M s, 2 <= M -> 0 < s ->
  let r := ceil_root (M - 1) s in 0 < r /\ stride M (s * r) = s.
Proof.
  intros M s M_large s_pos r.
  destruct (ceil_root_spec (M - 1) s ltac:(lia) ltac:(lia)) as (r_nonneg & above & least).
  fold r in r_nonneg, above, least.
  assert (r_pos : 0 < r).
  { destruct (Z.eq_dec r 0) as [zero | some]; [| lia].
    rewrite zero, Z.pow_0_l in above by lia. lia. }
  assert (one_more : forall x, x ^ M = x ^ (M - 1) * x).
  { intros x. replace M with (Z.succ (M - 1)) at 1 by lia. rewrite Z.pow_succ_r by lia. ring. }
  assert (root : ceil_root M (s * r) = r).
  { apply Z.le_antisymm.
    - apply ceil_root_le_iff; [lia | nia | lia |]. rewrite one_more. nia.
    - apply Z.le_ngt. intro less.
      assert (fits : s * r <= (r - 1) ^ M) by (apply ceil_root_le_iff; [lia | nia | lia | lia]).
      rewrite one_more in fits. specialize (least (r - 1) ltac:(lia)). nia. }
  split; [exact r_pos |]. unfold stride. rewrite root. apply Z.le_antisymm.
  - apply ceil_div_le_iff; lia.
  - destruct (ceil_div_spec (s * r) r r_pos) as [enough _]. nia.
Qed.

Lemma leaves_out_below_even : forall ls w,
  0 <= w -> leaves_out 0 ls -> leaves_out w (Even :: ls).
Proof.
  intros ls w w_nonneg (s & s_pos & _ & excluded).
  set (M := steps_of (Even :: ls)).
  assert (M_large : 2 <= M) by (unfold M, steps_of; cbn [length]; lia).
  destruct (even_part_of M s M_large s_pos) as [r_pos part_is].
  set (r := ceil_root (M - 1) s) in *.
  exists (w + s * r). split; [nia | split; [cbn [first_window window]; nia |]].
  intros n path long path_leads. destruct path as [| i path']; [exact path_leads |].
  cbn [leads] in path_leads. fold M in path_leads.
  assert (beyond_window : n - w = s * r) by lia.
  destruct path_leads as (_ & inside & rest_leads).
  unfold within in inside. cbn [span_of near far] in inside, rest_leads.
  rewrite beyond_window, part_is in inside, rest_leads.
  assert (oldest : i = r) by nia. subst i.
  apply (excluded (segment_of w M Even n r) path').
  - cbn [held segment_of span_of]. unfold size. cbn [near far].
    rewrite beyond_window, part_is. nia.
  - replace (w + s * r - 1 - (w + (r - 1) * s)) with (s - 1) in rest_leads by ring.
    exact rest_leads.
Qed.

(** Levels that split so: even ones, and tight ones with an integer exponent of at least two. *)
Definition splits (l : level) : Prop :=
  match l with
  | Tight e => den e = 1 /\ 2 <= num e
  | Even => True
  | _ => False
  end.

Lemma splits_good : forall l, splits l -> good_level l.
Proof.
  intros [[a b] | e b f q | |] split_so; try destruct split_so; cbn [num den] in *; [| exact I].
  split; cbn [num den]; lia.
Qed.

Lemma leaves_out_oldest : forall above c f rest w,
  let M := Z.of_nat (length rest) + 2 in
  Forall splits above -> good_factor c -> good_factor f -> num c < M * den c -> 0 <= w ->
  leaves_out w (above ++ sharp_level M c f :: rest).
Proof.
  intros above c f rest w M all_split c_good f_good small. revert w.
  induction all_split as [| l above l_splits all_split IH]; intros w w_nonneg.
  - assert (M_large : 2 <= M) by lia.
    destruct (oldest_key_excluded M c f w M_large c_good f_good small w_nonneg)
      as [outside excluded].
    assert (some := window_ge_index _ w (sharp_level_good M c f ltac:(lia) c_good f_good) w_nonneg).
    exists (sharp_length M c w). split; [lia | split; [exact outside |]].
    intros n path long path_leads. destruct path as [| i path']; [exact path_leads |].
    cbn [app leads] in path_leads.
    replace (steps_of (sharp_level M c f :: rest)) with M in path_leads
      by (unfold M, steps_of; cbn [length]; lia).
    destruct path_leads as (searched & inside & _).
    apply (excluded n i long searched). rewrite long. exact inside.
  - cbn [app]. destruct l as [[a b] | e b f' q | |]; try destruct l_splits; cbn [num den] in *.
    + subst b. apply leaves_out_below; [assumption | exact w_nonneg | apply IH; lia].
    + apply leaves_out_below_even; [exact w_nonneg | apply IH; lia].
Qed.

(** So factor [M] is sharp at every level that stands below such ones, [M] the steps left there. *)
Theorem sharp_constant_below : forall above c f rest w start,
  let M := Z.of_nat (length rest) + 2 in
  Forall splits above -> good_factor c -> good_factor f -> 0 <= w ->
  Forall good_level rest -> sufficient_levels rest ->
  (forall len, covered (Schedule (above ++ sharp_level M c f :: rest) w) start len) <->
  M * den c <= num c.
Proof.
  intros above c f rest w start M all_split c_good f_good w_nonneg rest_good rest_enough. split.
  - intro all_covered. apply Z.le_ngt. intro small.
    destruct (leaves_out_oldest above c f rest w all_split c_good f_good small w_nonneg)
      as (n & n_pos & outside & excluded). fold M in outside, excluded.
    destruct (all_covered (start + n) (start + n - 1) start) as [windowed | [path path_leads]];
      [lia | lia | |]; cbn [levels window_index] in *.
    + change (start + n - 1 - start < first_window w (above ++ sharp_level M c f :: rest))
        in windowed. lia.
    + apply (excluded (seen start (start + n - 1)) path); [cbn [held seen]; lia |].
      replace (start + n - 1 - start) with (n - 1) in path_leads by lia. exact path_leads.
  - intros large len. apply sufficient_covered; cbn [levels].
    + split; [| exact w_nonneg]. apply Forall_app. split.
      * eapply Forall_impl; [| exact all_split]. exact splits_good.
      * constructor; [apply sharp_level_good; assumption || lia | exact rest_good].
    + induction all_split as [| l above l_splits all_split IH]; cbn [app sufficient_levels].
      * split; [| exact rest_enough].
        replace (steps_of (sharp_level M c f :: rest)) with M
          by (unfold M, steps_of; cbn [length]; lia).
        repeat split; exact large.
      * split; [destruct l; try destruct l_splits; exact I | exact IH].
Qed.
