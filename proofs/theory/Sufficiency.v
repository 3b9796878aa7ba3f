(** * Sufficiency: factor M closes every gap (SPEC 2.5.2)

    Spans of the power rule overlap, or leave gaps.  With stripes [i^M] and a backward reach of
    [b * n^((M-1)/M)] keys they leave none if [b >= M], for every [n] and every forward factor, in
    any mixture with tight, even and aligned levels. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality Completeness Numbers.
Import ListNotations.
Open Scope Z_scope.

(** ** The integers *)

(** Bernoulli's [(1 - 1/(R+1))^k >= 1 - k/(R+1)], without fractions.  From [k] to [k + 1]: multiply
    both sides by [R] and use [(R + 1)(R - k) <= R (R + 1 - k)]. *)
Lemma bernoulli : forall R k, 0 <= R -> 0 <= k -> (R + 1) ^ k * (R + 1 - k) <= R ^ k * (R + 1).
Proof.
  intros R k R_nonneg. revert k. apply natlike_ind; [rewrite !Z.pow_0_r; lia |].
  intros k k_nonneg IH. rewrite !Z.pow_succ_r by exact k_nonneg.
  assert (power_nonneg : 0 <= (R + 1) ^ k) by (apply Z.pow_nonneg; lia).
  apply (Z.mul_le_mono_nonneg_l _ _ R R_nonneg) in IH.
  assert (step : (R + 1) * (R + 1 - Z.succ k) <= R * (R + 1 - k)) by lia.
  apply (Z.mul_le_mono_nonneg_l _ _ _ power_nonneg) in step. lia.
Qed.

(** The keys beyond the last anchor are few: [(n - R^M)(R + 1) <= M n].  That is
    [n (R + 1 - M) <= R^M (R + 1)], trivial if [R + 1 <= M], and Bernoulli for
    [n < (R + 1)^M] otherwise. *)
Lemma keys_beyond_anchor : forall M R n,
  0 < M -> 0 <= R -> R ^ M <= n < (R + 1) ^ M -> (n - R ^ M) * (R + 1) <= M * n.
Proof.
  intros M R n M_pos R_nonneg [below above].
  assert (power_nonneg : 0 <= R ^ M) by (apply Z.pow_nonneg, R_nonneg).
  enough (n * (R + 1 - M) <= R ^ M * (R + 1)) by lia.
  destruct (Z.le_gt_cases (R + 1) M) as [small | large].
  - assert (0 <= n * (M - (R + 1))) by (apply Z.mul_nonneg_nonneg; lia).
    assert (0 <= R ^ M * (R + 1)) by (apply Z.mul_nonneg_nonneg; lia). lia.
  - assert (n * (R + 1 - M) <= (R + 1) ^ M * (R + 1 - M))
      by (apply Z.mul_le_mono_nonneg_r; lia).
    assert (inequality := bernoulli R M R_nonneg ltac:(lia)). lia.
Qed.

(** With [D = n - R^M]: [D^M n <= D^M (R + 1)^M <= (M n)^M], so
    [D^M <= M^M n^(M-1) <= B^M]. *)
Theorem reach_suffices : forall M R n B,
  0 < M -> 0 <= R -> R ^ M <= n < (R + 1) ^ M -> 0 <= B -> M ^ M * n ^ (M - 1) <= B ^ M ->
  n - R ^ M <= B.
Proof.
  intros M R n B M_pos R_nonneg bounds B_nonneg reach.
  assert (few := keys_beyond_anchor M R n M_pos R_nonneg bounds).
  assert (power_nonneg : 0 <= R ^ M) by (apply Z.pow_nonneg, R_nonneg).
  set (D := n - R ^ M) in *. assert (D_nonneg : 0 <= D) by lia.
  destruct (Z.eq_dec n 0) as [zero | nonzero]; [lia |]. assert (n_pos : 0 < n) by lia.
  apply (pow_le_iff M); [exact M_pos | exact D_nonneg | exact B_nonneg |].
  apply (Z.le_trans _ (M ^ M * n ^ (M - 1))); [| exact reach].
  apply (Z.mul_le_mono_pos_r _ _ n n_pos).
  assert (next : D ^ M * n <= D ^ M * (R + 1) ^ M)
    by (apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg |]; lia).
  assert (all : (D * (R + 1)) ^ M <= (M * n) ^ M) by (apply Z.pow_le_mono_l; nia).
  rewrite !Z.pow_mul_l in all.
  assert (one_less : n ^ M = n ^ (M - 1) * n).
  { replace M with (Z.succ (M - 1)) at 1 by lia. rewrite Z.pow_succ_r by lia. lia. }
  rewrite one_less in all. lia.
Qed.

(** ** One level

    A level that covers leads to every key outside its window by some stripe. *)

Definition covers (M : Z) (l : level) : Prop :=
  forall w (n : segment) d, 0 <= w -> window l w <= d < n ->
    exists i, is_stripe w M l n i /\ within d (span_of w M l n i).

Lemma covers_alike : forall M l l', alike l l' -> covers M l' -> covers M l.
Proof.
  intros M l l' same l'_covers w n d w_nonneg outside.
  rewrite (alike_window l l' w same w_nonneg) in outside.
  destruct (l'_covers w n d w_nonneg outside) as (i & chosen & inside). exists i.
  apply (alike_is_stripe w M l l') in chosen; [| exact same]. split; [exact chosen |].
  assert (i_pos := stripe_positive w M l n i w_nonneg chosen).
  assert (some := stripe_has_keys w M l n i w_nonneg chosen).
  rewrite (alike_span_of w M l l') by (assumption || lia). exact inside.
Qed.

Lemma partition_covers : forall M l, 0 < M -> good_level l -> partitioning l -> covers M l.
Proof.
  intros M l M_pos l_good partitions w n d w_nonneg outside.
  exists (choice w M l n d). apply choice_spec; auto.
Qed.

(** The backward reach of factor [b >= M] in a segment of [n] keys. *)
Lemma backward_reach : forall M b n,
  0 < M -> good_factor b -> M * den b <= num b -> 0 <= n ->
  M ^ M * n ^ (M - 1) <= ceil_power b n (Ratio (M - 1) M) ^ M.
Proof.
  intros M b n M_pos b_good large n_nonneg.
  assert (q_good : good_span_exponent (Ratio (M - 1) M)) by (split; cbn [num den]; lia).
  destruct (ceil_power_spec b n _ b_good q_good n_nonneg) as (_ & reach & _).
  cbn [num den] in reach. destruct b_good as [v_pos u_nonneg].
  assert (factor : (M * den b) ^ M <= num b ^ M) by (apply Z.pow_le_mono_l; nia).
  assert (power_nonneg : 0 <= n ^ (M - 1)) by (apply Z.pow_nonneg, n_nonneg).
  apply (Z.mul_le_mono_nonneg_r _ _ _ power_nonneg) in factor.
  rewrite Z.pow_mul_l in factor, reach.
  assert (v_power : 0 < den b ^ M) by (apply Z.pow_pos_nonneg; lia).
  apply (Z.mul_le_mono_pos_r _ _ _ v_power). lia.
Qed.

(** What the power rule must meet, and the other rules meet anyway. *)
Definition sufficient (M : Z) (l : level) : Prop :=
  match l with
  | Tight _ | Even | Aligned => True
  | Power e b _ q =>
      same_number e (Ratio M 1) /\ same_number q (Ratio (M - 1) M) /\ M * den b <= num b
  end.

(** Take for [d] the last stripe that is not older: [R^M <= d + 1 < (R + 1)^M].  By the inequality
    above, for [d + 1] keys, its span reaches back to [d]; for [n > d] keys it is the longer. *)
Lemma power_covers : forall M b f,
  0 < M -> good_factor b -> good_factor f -> M * den b <= num b ->
  covers M (Power (Ratio M 1) b f (Ratio (M - 1) M)).
Proof.
  intros M b f M_pos b_good f_good large w n d w_nonneg outside.
  set (e := Ratio M 1) in *. set (q := Ratio (M - 1) M) in *. set (l := Power e b f q) in *.
  assert (e_good : good_exponent e) by (split; cbn [e num den]; lia).
  assert (q_good : good_span_exponent q) by (split; cbn [q num den]; lia).
  assert (some := window_ge_index (Tight e) w e_good w_nonneg). cbn [window l] in outside, some.
  destruct (root_spec M (d + 1) M_pos ltac:(lia)) as (R_nonneg & bounds).
  set (R := root M (d + 1)) in *. exists R.
  assert (R_stripe : floor_power R e = R ^ M) by (apply floor_power_integer; assumption).
  assert (first : w + 1 <= R).
  { apply root_ge_iff; [exact M_pos | lia | lia |].
    unfold e in outside. rewrite floor_power_integer in outside by lia. lia. }
  assert (searched := last_stripe_spec M (Tight e) n R M_pos e_good ltac:(lia) ltac:(lia)).
  cbn [stripe] in searched.
  split; [split; [exact first | apply searched; lia] |].
  unfold within, l. cbn [span_of near far window]. rewrite R_stripe.
  assert (forward := ceil_power_nonneg f n q f_good q_good ltac:(lia)).
  assert (backward_nonneg := ceil_power_nonneg b n q b_good q_good ltac:(lia)).
  enough (d + 1 - R ^ M <= ceil_power b n q) by lia.
  apply reach_suffices; [exact M_pos | exact R_nonneg | exact bounds | exact backward_nonneg |].
  apply (Z.le_trans _ (M ^ M * n ^ (M - 1))).
  - apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; lia | apply Z.pow_le_mono_l; lia].
  - apply backward_reach; [exact M_pos | exact b_good | exact large | lia].
Qed.

Lemma sufficient_covers : forall M l, 0 < M -> good_level l -> sufficient M l -> covers M l.
Proof.
  intros M l M_pos l_good enough. destruct l as [e | e b f q | |].
  - apply partition_covers; [exact M_pos | exact l_good | exact I].
  - destruct enough as (e_is & q_is & large).
    apply (covers_alike M _ (Power (Ratio M 1) b f (Ratio (M - 1) M)));
      [now apply power_alike | apply power_covers; tauto || apply l_good].
  - apply partition_covers; [exact M_pos | exact I | exact I].
  - apply partition_covers; [exact M_pos | exact I | exact I].
Qed.

(** ** All levels *)

(** Every level closes its gaps. *)
Fixpoint all_cover (ls : list level) : Prop :=
  match ls with
  | [] => True
  | l :: rest => covers (steps_of ls) l /\ all_cover rest
  end.

(** Level after level, choose a stripe whose span holds the key. *)
Lemma all_cover_leads : forall ls w (n : segment) d,
  Forall good_level ls -> all_cover ls -> 0 <= w -> first_window w ls <= d < n ->
  exists path, leads w ls n path d.
Proof.
  induction ls as [| l rest IH]; intros w n d ls_good all_close w_nonneg outside.
  - exists []. exact outside.
  - inversion ls_good as [| ? ? l_good rest_good]; subst.
    destruct all_close as [l_covers rest_cover].
    destruct (l_covers w n d w_nonneg outside) as (i & chosen & inside).
    destruct (IH 0 (segment_of w (steps_of (l :: rest)) l n i)
                   (d - near (span_of w (steps_of (l :: rest)) l n i))
                   rest_good rest_cover ltac:(lia)) as (path' & rest_leads).
    { rewrite first_window_0 by exact rest_good. cbn [held segment_of].
      unfold within, size in *. lia. }
    exists (i :: path'). cbn [leads]. auto.
Qed.

(** No key is excluded then, for every length, first key and window. *)
Lemma all_cover_covered : forall s start len,
  good s -> all_cover (levels s) -> covered s start len.
Proof.
  intros s start len [levels_good w_nonneg] all_close t j eligible _. unfold reachable.
  destruct (Z.lt_ge_cases (t - j) (window_of s)) as [inside | outside]; [left; exact inside |].
  right.
  assert (range := eligible_distance s start t j (proj1 eligible) outside).
  exact (all_cover_leads _ _ _ _ levels_good all_close w_nonneg range).
Qed.

Fixpoint sufficient_levels (ls : list level) : Prop :=
  match ls with
  | [] => True
  | l :: rest => sufficient (steps_of ls) l /\ sufficient_levels rest
  end.

Lemma sufficient_all_cover : forall s,
  good s -> sufficient_levels (levels s) -> all_cover (levels s).
Proof.
  intros [ls w] [ls_good _] enough. cbn [levels] in *.
  induction ls_good as [| l rest l_good rest_good IH]; [exact I |].
  destruct enough as [l_enough rest_enough].
  split; [apply sufficient_covers; auto using steps_of_pos | exact (IH rest_enough)].
Qed.

(** Of any mixture of rules. *)
Theorem sufficient_covered : forall s start len,
  good s -> sufficient_levels (levels s) -> covered s start len.
Proof.
  intros s start len s_good enough. apply all_cover_covered; [exact s_good |].
  now apply sufficient_all_cover.
Qed.

(** ** The defaults of the power rule at every level *)

Fixpoint power_levels (steps : nat) : list level :=
  match steps with
  | O => []
  | S k => default_power (Z.of_nat k + 2) :: power_levels k
  end.

Lemma power_levels_good : forall k, Forall good_level (power_levels k).
Proof.
  induction k as [| k IH]; cbn [power_levels]; constructor; [| exact IH].
  unfold default_power, good_level, good_exponent, good_factor, good_span_exponent.
  cbn [num den]. lia.
Qed.

Lemma power_levels_sufficient : forall k, sufficient_levels (power_levels k).
Proof.
  induction k as [| k IH]; cbn [power_levels sufficient_levels]; [exact I | split; [| exact IH]].
  assert (steps : steps_of (default_power (Z.of_nat k + 2) :: power_levels k) = Z.of_nat k + 2).
  { assert (count : length (power_levels k) = k).
    { clear IH. induction k as [| k' IH]; cbn [power_levels length]; auto. }
    unfold steps_of. cbn [length]. rewrite count. lia. }
  rewrite steps. unfold default_power, sufficient, same_number. cbn [num den]. lia.
Qed.

Corollary default_power_covered : forall k w start len,
  0 <= w -> covered (Schedule (power_levels k) w) start len.
Proof.
  intros k w start len w_nonneg. apply sufficient_covered; cbn [levels].
  - split; [apply power_levels_good | exact w_nonneg].
  - apply power_levels_sufficient.
Qed.
