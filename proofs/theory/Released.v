(** * Power rules of any exponent, and the released model's (SPEC 2.5.2)

    Stripes [i^e] with [e = a/c], and [E] an integer at least [e].  Beyond the last anchor lie at
    most about [E n^(1 - 1/e)] keys, as in Sufficiency.v; so a reach of [b n^q] with
    [q >= 1 - 1/e] and [b >= E 2^(1 - 1/e)] leaves no gap.  The power of 2 pays for the floors. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality Completeness Sufficiency.
Import ListNotations.
Open Scope Z_scope.

(** ** The integers *)

(** [x >= R^e] and [y <= (R+1)^e] are near each other: [x/y >= (R/(R+1))^e >= (R/(R+1))^E], and
    that is at least [1 - E/(R+1)], by Bernoulli. *)
Lemma anchors_near : forall a c E R x y,
  0 < c -> c <= a <= E * c -> 0 <= R -> 0 <= x -> 0 <= y ->
  R ^ a <= x ^ c -> y ^ c <= (R + 1) ^ a -> (y - x) * (R + 1) <= E * y.
Proof.
  intros a c E R x y c_pos e_range R_nonneg x_nonneg y_nonneg above below.
  assert (E_pos : 0 < E) by nia.
  assert (R_power : 0 <= R ^ E) by (apply Z.pow_nonneg; lia).
  assert (next_power : 0 < (R + 1) ^ E) by (apply Z.pow_pos_nonneg; lia).
  assert (ratio : R ^ E * y <= x * (R + 1) ^ E).
  { apply (pow_le_iff c); [lia | | |]; try (apply Z.mul_nonneg_nonneg; lia).
    rewrite !Z.pow_mul_l, <- !Z.pow_mul_r by lia.
    assert (split : forall z, z ^ (E * c) = z ^ a * z ^ (E * c - a))
      by (intro z; rewrite <- Z.pow_add_r by lia; f_equal; lia).
    rewrite !split.
    assert (R_a : 0 <= R ^ a) by (apply Z.pow_nonneg; lia).
    assert (y_c : 0 <= y ^ c) by (apply Z.pow_nonneg; lia).
    assert (grows : 0 <= R ^ (E * c - a) <= (R + 1) ^ (E * c - a))
      by (split; [apply Z.pow_nonneg | apply Z.pow_le_mono_l]; lia).
    assert (first : R ^ a * y ^ c <= x ^ c * (R + 1) ^ a)
      by (apply Z.mul_le_mono_nonneg; assumption).
    apply Z.le_trans with (R ^ a * y ^ c * R ^ (E * c - a)); [lia |].
    apply Z.le_trans with (x ^ c * (R + 1) ^ a * (R + 1) ^ (E * c - a)); [| lia].
    apply Z.mul_le_mono_nonneg; try apply Z.mul_nonneg_nonneg; lia. }
  destruct (Z.le_gt_cases (R + 1) E) as [small | large].
  { assert (0 <= x * (R + 1)) by (apply Z.mul_nonneg_nonneg; lia).
    assert (0 <= y * (E - (R + 1))) by (apply Z.mul_nonneg_nonneg; lia). lia. }
  assert (inequality := bernoulli R E R_nonneg ltac:(lia)).
  enough (y * (R + 1 - E) <= x * (R + 1)) by lia.
  apply (Z.mul_le_mono_pos_r _ _ _ next_power).
  apply (Z.mul_le_mono_nonneg_l _ _ _ y_nonneg) in inequality.
  apply (Z.mul_le_mono_nonneg_r _ _ (R + 1)) in ratio; [lia | lia].
Qed.

(** With [D = y - x]: [D^a y^c <= D^a (R+1)^a <= (E y)^a]. *)
Lemma anchors_near_power : forall a c E R x y,
  0 < c -> c <= a <= E * c -> 0 <= R -> 0 <= x <= y -> 0 < y ->
  R ^ a <= x ^ c -> y ^ c <= (R + 1) ^ a -> (y - x) ^ a <= E ^ a * y ^ (a - c).
Proof.
  intros a c E R x y c_pos e_range R_nonneg order y_pos above below.
  assert (near : (y - x) * (R + 1) <= E * y) by (apply (anchors_near a c E R); assumption || lia).
  assert (y_power : 0 < y ^ c) by (apply Z.pow_pos_nonneg; lia).
  apply (Z.mul_le_mono_pos_r _ _ _ y_power).
  rewrite <- Z.mul_assoc, <- Z.pow_add_r by lia. replace (a - c + c) with a by lia.
  rewrite <- Z.pow_mul_l.
  apply Z.le_trans with (((y - x) * (R + 1)) ^ a).
  - rewrite Z.pow_mul_l. apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; lia | exact below].
  - apply Z.pow_le_mono_l. split; [apply Z.mul_nonneg_nonneg; lia | exact near].
Qed.

(** ** One level *)

(** What the power rule must meet. *)
Definition far_reaching (l : level) : Prop :=
  match l with
  | Tight _ | Even | Aligned => True
  | Power e b _ q =>
      let E := ceil_div (num e) (den e) in
      (E * den b) ^ num e * 2 ^ (num e - den e) <= num b ^ num e /\
      (num e - den e) * den q <= num e * num q
  end.

(** [D^a <= E^a (2 n)^(a-c)] is within reach: compare the powers [a * den q]. *)
Lemma reach_at_least : forall e b q n D,
  good_exponent e -> good_factor b -> good_span_exponent q -> 0 < n -> 0 <= D ->
  let E := ceil_div (num e) (den e) in
  (E * den b) ^ num e * 2 ^ (num e - den e) <= num b ^ num e ->
  (num e - den e) * den q <= num e * num q ->
  D ^ num e <= E ^ num e * (2 * n) ^ (num e - den e) ->
  D <= ceil_power b n q.
Proof.
  intros e b q n D e_good b_good q_good n_pos D_nonneg E factor exponent small.
  destruct (ceil_power_spec b n q b_good q_good ltac:(lia)) as (B_nonneg & reach & _).
  set (B := ceil_power b n q) in *. clearbody E B.
  destruct e_good as [c_pos e_large]. destruct b_good as [v_pos u_nonneg].
  destruct q_good as [q_pos q_range].
  set (a := num e) in *. set (c := den e) in *. set (u := num b) in *. set (v := den b) in *.
  clearbody a c u v.
  assert (within_reach : (D * v) ^ (a * den q) <= (B * v) ^ (a * den q)).
  { apply Z.le_trans with ((u ^ a * n ^ (a - c)) ^ den q).
    - rewrite Z.pow_mul_r by (clear -c_pos e_large q_pos; lia). apply Z.pow_le_mono_l. split.
      + apply Z.pow_nonneg, Z.mul_nonneg_nonneg; [exact D_nonneg | clear -v_pos; lia].
      + rewrite Z.pow_mul_l in factor, small |- *.
        assert (v_power : 0 < v ^ a) by (apply Z.pow_pos_nonneg; clear -v_pos c_pos e_large; lia).
        assert (n_power : 0 <= n ^ (a - c)) by (apply Z.pow_nonneg; clear -n_pos; lia).
        apply (Z.mul_le_mono_nonneg_r _ _ _ n_power) in factor.
        apply (Z.mul_le_mono_pos_r _ _ _ v_power) in small.
        clear -factor small. lia.
    - apply Z.le_trans with ((u ^ den q * n ^ num q) ^ a).
      + clear -exponent u_nonneg n_pos c_pos e_large q_pos q_range.
        rewrite !Z.pow_mul_l, <- !Z.pow_mul_r by lia. rewrite (Z.mul_comm (den q) a).
        apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; exact u_nonneg |].
        apply Z.pow_le_mono_r; lia.
      + rewrite (Z.mul_comm a), Z.pow_mul_r by (clear -c_pos e_large q_pos; lia).
        apply Z.pow_le_mono_l. split; [| exact reach].
        apply Z.mul_nonneg_nonneg; apply Z.pow_nonneg; [exact u_nonneg | clear -n_pos; lia]. }
  clear factor exponent small reach.
  apply (Z.mul_le_mono_pos_r _ _ v v_pos).
  assert (power_pos : 0 < a * den q) by (apply Z.mul_pos_pos; lia).
  assert (D_v : 0 <= D * v) by (apply Z.mul_nonneg_nonneg; lia).
  assert (B_v : 0 <= B * v) by (apply Z.mul_nonneg_nonneg; lia).
  exact (proj1 (pow_le_iff (a * den q) (D * v) (B * v) power_pos D_v B_v) within_reach).
Qed.

(** Take for [d] the last stripe that is not older: [P(R) <= d + 1 < P(R + 1)].  The two floors are
    taken off by [x = P(R) + 1] and [y = d + 2], and [y <= 2 n]. *)
Lemma far_reaching_covers : forall M l,
  0 < M -> good_level l -> far_reaching l -> covers M l.
Proof.
  intros M l M_pos l_good reaches_far. destruct l as [e | e b f q | |];
    [now apply partition_covers | | now apply partition_covers ..].
  intros w n d w_nonneg outside.
  destruct l_good as (e_good & b_good & f_good & q_good).
  assert (some := window_ge_index (Tight e) w e_good w_nonneg). cbn [window] in outside, some.
  assert (at_least : forall (m : segment) i, 0 <= m -> 1 <= i ->
    (floor_power i e <= m <-> i <= last_stripe M (Tight e) m))
    by (intros m i m_nonneg i_pos; apply (last_stripe_spec M (Tight e)); assumption).
  assert (at_least_d := at_least (first_keys (d + 1))). cbn [held first_keys] in at_least_d.
  set (R := last_stripe M (Tight e) (first_keys (d + 1))) in *.
  assert (first : w + 1 <= R) by (apply at_least_d; lia).
  assert (not_older : floor_power R e <= d + 1) by (apply at_least_d; lia).
  assert (next := at_least_d (R + 1) ltac:(lia) ltac:(lia)).
  exists R. split; [split; [exact first | apply at_least; lia] |].
  unfold within. cbn [span_of near far window].
  assert (forward := ceil_power_nonneg f n q f_good q_good ltac:(lia)).
  enough (d + 1 - floor_power R e <= ceil_power b n q) by lia.
  destruct (floor_power_spec R e e_good ltac:(lia)) as (P_nonneg & _ & above).
  assert (below := floor_power_ge_iff (R + 1) e (d + 2) e_good ltac:(lia) ltac:(lia)).
  apply (reach_at_least e b q n); try assumption;
    [lia | lia | exact (proj1 reaches_far) | exact (proj2 reaches_far) |].
  assert (e_pos := proj1 e_good). assert (e_large := proj2 e_good).
  destruct (ceil_div_spec (num e) (den e) e_pos) as [integer _].
  set (E := ceil_div (num e) (den e)) in *.
  assert (E_pos : 0 < E) by (apply (Z.mul_pos_cancel_r E (den e)); lia).
  apply Z.le_trans with (E ^ num e * (d + 2) ^ (num e - den e)).
  - replace (d + 1 - floor_power R e) with (d + 2 - (floor_power R e + 1)) by lia.
    apply (anchors_near_power (num e) (den e) E R); try lia.
  - apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; lia | apply Z.pow_le_mono_l; lia].
Qed.

(** ** All levels *)

Lemma far_reaching_all_cover : forall s,
  good s -> Forall far_reaching (levels s) -> all_cover (levels s).
Proof.
  intros [ls w] [ls_good _] enough. cbn [levels] in *.
  induction ls_good as [| l rest l_good rest_good IH]; [exact I | inversion enough; subst].
  split; [apply far_reaching_covers; auto using steps_of_pos | now apply IH].
Qed.
