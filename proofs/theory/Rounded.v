(** * Stripes that are not powers (SPEC 2.5.3, rounded exponents)

    Whoever computes stripes in floating point has others than [i^e].  Under the tight rule any
    stripes will do that begin with 1 and grow; under the power rule those whose gaps the reaches
    close.  Stripes that are off by [delta] at most widen a gap by [2 delta] at most: so much more
    reach covers. *)

From Coq Require Import ZArith Lia.
From Multistep Require Import Schedule Powers Released.
Open Scope Z_scope.

Definition grows (P : Z -> Z) : Prop := P 1 = 1 /\ forall i, 1 <= i -> P i < P (i + 1).

Lemma grows_apart : forall P, grows P -> forall i j, 1 <= i -> i <= j -> P i + (j - i) <= P j.
Proof.
  intros P [_ next] i j i_pos order. replace j with (i + (j - i)) at 2 by lia.
  assert (steps : 0 <= j - i) by lia. revert steps. generalize (j - i).
  apply natlike_ind; [rewrite !Z.add_0_r; lia |]. intros k k_nonneg IH.
  specialize (next (i + k) ltac:(lia)). replace (i + Z.succ k) with (i + k + 1) by lia. lia.
Qed.

(** The last stripe that is not beyond a number. *)
Lemma last_stripe_exists : forall P, grows P -> forall x, 1 <= x ->
  exists i, 1 <= i /\ P i <= x < P (i + 1).
Proof.
  intros P growing x x_pos. pose proof growing as [first next].
  replace x with (1 + (x - 1)) by lia. assert (steps : 0 <= x - 1) by lia. revert steps.
  generalize (x - 1). apply natlike_ind.
  - exists 1. specialize (next 1 ltac:(lia)). lia.
  - intros k k_nonneg (i & i_pos & below & above).
    destruct (Z.le_gt_cases (P (i + 1)) (1 + Z.succ k)) as [passed | still].
    + exists (i + 1). specialize (next (i + 1) ltac:(lia)). lia.
    + exists i. lia.
Qed.

Theorem any_stripes_partition : forall P n d,
  grows P -> 0 <= d < n ->
  exists i, (1 <= i /\ P i <= n /\ P i - 1 <= d < Z.min n (P (i + 1) - 1)) /\
    forall j, 1 <= j -> P j - 1 <= d < Z.min n (P (j + 1) - 1) -> j = i.
Proof.
  intros P n d growing range.
  destruct (last_stripe_exists P growing (d + 1) ltac:(lia)) as (i & i_pos & below & above).
  exists i. split; [lia |]. intros j j_pos its.
  destruct (Z.lt_trichotomy j i) as [newer | [same | older]]; [exfalso | exact same | exfalso].
  - pose proof (grows_apart P growing (j + 1) i ltac:(lia) ltac:(lia)). lia.
  - pose proof (grows_apart P growing (i + 1) j ltac:(lia) ltac:(lia)). lia.
Qed.

(** A span reaches [B] keys back from its anchor and [F] forward. *)
Theorem closed_gaps_cover : forall P B F n d,
  grows P -> 0 <= B -> 0 <= F ->
  (forall i, 1 <= i -> P (i + 1) <= n -> P (i + 1) - P i <= B + F + 1) ->
  (forall i, 1 <= i -> P i <= n < P (i + 1) -> n - P i <= B) ->
  0 <= d < n ->
  exists i, 1 <= i /\ P i <= n /\ Z.max 0 (P i - 1 - F) <= d < Z.min n (P i + B).
Proof.
  intros P B F n d growing B_nonneg F_nonneg gaps oldest range.
  destruct (last_stripe_exists P growing (d + 1) ltac:(lia)) as (i & i_pos & below & above).
  destruct (Z.lt_ge_cases d (P i + B)) as [reached | beyond]; [exists i; lia |].
  destruct (Z.le_gt_cases (P (i + 1)) n) as [inside | outside].
  - exists (i + 1). specialize (gaps i i_pos inside). lia.
  - specialize (oldest i i_pos ltac:(lia)). lia.
Qed.

(** Stripes within [delta] of others whose gaps are closed: a gap widens by [2 delta] at most.  The
    last one inside may be the last but one of the others; the forward reach, which closes a gap
    from behind, is of no use to the oldest keys then. *)
Theorem spare_reach_covers : forall P exact delta B_exact F_exact B F n d,
  grows P -> 0 <= delta -> 0 <= B_exact -> 0 <= F_exact -> 0 <= F ->
  (forall i, 1 <= i -> P i <= n \/ exact i <= n -> Z.abs (P i - exact i) <= delta) ->
  (forall i, 1 <= i -> exact (i + 1) <= n -> exact (i + 1) - exact i <= B_exact + F_exact + 1) ->
  (forall i, 1 <= i -> exact i <= n < exact (i + 1) -> n - exact i <= B_exact) ->
  B_exact + F_exact + 2 * delta <= B ->
  0 <= d < n ->
  exists i, 1 <= i /\ P i <= n /\ Z.max 0 (P i - 1 - F) <= d < Z.min n (P i + B).
Proof.
  intros P exact delta B_exact F_exact B F n d growing delta_nonneg B_nonneg F_nonneg some near gaps
    oldest spare.
  apply closed_gaps_cover; try assumption; [lia | |].
  - intros i i_pos inside. pose proof growing as [_ next]. specialize (next i i_pos).
    pose proof (near i i_pos ltac:(lia)). pose proof (near (i + 1) ltac:(lia) ltac:(lia)).
    specialize (gaps i i_pos). specialize (oldest i i_pos). lia.
  - intros i i_pos last. pose proof (near i i_pos ltac:(lia)).
    specialize (near (i + 1) ltac:(lia)). specialize (gaps i i_pos).
    specialize (oldest i i_pos). lia.
Qed.

(** Neighbouring stripes of [i^e] are at most [E n^(1 - 1/e) + 1] apart. *)
Theorem near_powers_cover : forall P e delta B F n d,
  good_exponent e -> grows P -> 0 <= delta -> 0 <= F -> 2 * delta <= B ->
  (forall i, 1 <= i -> P i <= n \/ floor_power i e <= n ->
     Z.abs (P i - floor_power i e) <= delta) ->
  ceil_div (num e) (den e) ^ num e * (n + 1) ^ (num e - den e) <= (B - 2 * delta) ^ num e ->
  0 <= d < n ->
  exists i, 1 <= i /\ P i <= n /\ Z.max 0 (P i - 1 - F) <= d < Z.min n (P i + B).
Proof.
  intros P e delta B F n d e_good growing delta_nonneg some spare near reach range.
  pose proof e_good as [den_pos num_large].
  assert (apart : forall i y, 1 <= i -> floor_power i e < y -> y <= n + 1 ->
    y <= floor_power (i + 1) e -> y - floor_power i e <= B - 2 * delta + 1).
  { intros i y i_pos older inside newer.
    destruct (floor_power_spec i e e_good ltac:(lia)) as (here_nonneg & _ & above).
    destruct (floor_power_spec (i + 1) e e_good ltac:(lia)) as (_ & below & _).
    set (D := y - (floor_power i e + 1)). assert (D_nonneg : 0 <= D) by (unfold D; lia).
    destruct (ceil_div_spec (num e) (den e) den_pos) as [enough _].
    assert (small : D ^ num e <= ceil_div (num e) (den e) ^ num e * y ^ (num e - den e)).
    { apply anchors_near_power with (R := i); try assumption; try lia.
      apply Z.le_trans with (floor_power (i + 1) e ^ den e); [| exact below].
      apply Z.pow_le_mono_l. lia. }
    assert (D <= B - 2 * delta); [| unfold D in *; lia].
    apply (pow_le_iff (num e)); [lia | lia | lia |].
    apply (Z.le_trans _ _ _ small), Z.le_trans with (2 := reach).
    apply Z.mul_le_mono_nonneg_l.
    - apply Z.pow_nonneg. pose proof (E_large := enough). clear - E_large den_pos num_large. nia.
    - apply Z.pow_le_mono_l. lia. }
  apply (spare_reach_covers P (fun i => floor_power i e) delta (B - 2 * delta) 0);
    try assumption; try lia.
  - intros i i_pos inside. pose proof (floor_power_step i e e_good ltac:(lia)).
    specialize (apart i (floor_power (i + 1) e) i_pos). lia.
  - intros i i_pos last. specialize (apart i (n + 1) i_pos). lia.
Qed.

(** The paper's reach, [B >= 2 sqrt n], has 2 to spare for squares. *)
Theorem squares_off_by_one_cover : forall P B F n d,
  grows P -> 0 <= B -> 0 <= F -> 4 * n <= B * B ->
  (forall i, 1 <= i -> P i <= n \/ i * i <= n -> Z.abs (P i - i * i) <= 1) ->
  0 <= d < n ->
  exists i, 1 <= i /\ P i <= n /\ Z.max 0 (P i - 1 - F) <= d < Z.min n (P i + B).
Proof.
  intros P B F n d growing B_nonneg some reach near range.
  apply (spare_reach_covers P (fun i => i * i) 1 (B - 2) 0); try assumption; try lia; [nia | |].
  - intros i i_pos inside. nia.
  - intros i i_pos last.
    destruct (Z.lt_trichotomy (n - i * i) 0) as [| [exactly | more]]; [lia | nia |].
    destruct (Z.le_gt_cases (n - i * i) i); [assert (2 * i < B) by nia; lia |].
    assert (2 * i + 1 < B) by nia. lia.
Qed.
