(** * Stripes that are not powers (SPEC 2.5.3, rounded exponents)

    Whoever computes stripes in floating point has others than [i^e].  Under the tight rule any
    stripes will do that begin with 1 and grow; under the power rule those whose gaps the reaches
    close. *)

From Coq Require Import ZArith Lia.
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
