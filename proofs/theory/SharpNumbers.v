(** * Sharpness, however the exponents are written (SPEC 2.5.3)

    Sharpness.v writes [e = M] and [q = (M - 1) / M] in one way; here they are any ratios that are
    these numbers, and the exponents of the tight levels above any that are integers. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality Sufficiency Numbers Sharpness.
Import ListNotations.
Open Scope Z_scope.

Lemma default_alike : forall e c f q (rest : list level),
  let M := Z.of_nat (length rest) + 2 in
  same_number e (Ratio M 1) -> same_number q (Ratio (M - 1) M) -> good_level (Power e c f q) ->
  alike (Power e c f q) (sharp_level M c f).
Proof. intros e c f q rest M e_is q_is l_good. apply power_alike; assumption || lia. Qed.

Theorem oldest_key_unreachable : forall e c f q rest w start,
  let M := Z.of_nat (length rest) + 2 in
  let n := sharp_root M c w ^ M - 1 in
  same_number e (Ratio M 1) -> same_number q (Ratio (M - 1) M) -> good_level (Power e c f q) ->
  num c < M * den c -> 0 <= w ->
  ~ reachable (Schedule (Power e c f q :: rest) w) start (start + n - 1) start.
Proof.
  intros e c f q rest w start M n e_is q_is l_good small w_nonneg reached.
  destruct (l_good) as (_ & c_good & f_good & _).
  apply (Sharpness.oldest_key_unreachable c f rest w start c_good f_good small w_nonneg).
  apply (reachable_alike (Power e c f q :: rest)); [| exact w_nonneg | exact reached].
  constructor; [now apply default_alike | apply all_alike_refl].
Qed.

(** Even levels, and tight ones whose exponent is an integer of at least two. *)
Definition splits (l : level) : Prop :=
  match l with
  | Tight e => 0 < den e /\ num e mod den e = 0 /\ 2 * den e <= num e
  | Even => True
  | _ => False
  end.

Definition in_integers (l : level) : level :=
  match l with
  | Tight e => Tight (Ratio (num e / den e) 1)
  | _ => l
  end.

Lemma in_integers_alike : forall l, splits l -> alike l (in_integers l).
Proof.
  intros [e | e b f q | |] split_so; try contradiction; cbn [in_integers]; [| now left].
  destruct split_so as (c_pos & whole & large). right.
  assert (division := Z.div_mod (num e) (den e) ltac:(lia)).
  cbn [good_level same_exponents]. unfold good_exponent, same_number. cbn [num den]. nia.
Qed.

Lemma in_integers_splits : forall l, splits l -> Sharpness.splits (in_integers l).
Proof.
  intros [e | e b f q | |] split_so; try contradiction; [| exact I].
  destruct split_so as (c_pos & whole & large). cbn [in_integers Sharpness.splits num den].
  split; [reflexivity | apply Z.div_le_lower_bound; lia].
Qed.

Theorem sharp_constant_below : forall above e c f q rest w start,
  let M := Z.of_nat (length rest) + 2 in
  Forall splits above -> same_number e (Ratio M 1) -> same_number q (Ratio (M - 1) M) ->
  good_level (Power e c f q) -> 0 <= w -> Forall good_level rest -> sufficient_levels rest ->
  (forall stop, covered (Schedule (above ++ Power e c f q :: rest) w) start stop) <->
  M * den c <= num c.
Proof.
  intros above e c f q rest w start M all_split e_is q_is l_good w_nonneg rest_good rest_enough.
  destruct (l_good) as (_ & c_good & f_good & _).
  assert (split_so : Forall Sharpness.splits (map in_integers above)).
  { apply Forall_map. eapply Forall_impl; [| exact all_split]. exact in_integers_splits. }
  assert (sharp := Sharpness.sharp_constant_below (map in_integers above) c f rest w start
                     split_so c_good f_good w_nonneg rest_good rest_enough).
  cbv zeta in sharp. fold M in sharp. rewrite <- sharp.
  assert (same : Forall2 alike (above ++ Power e c f q :: rest)
                   (map in_integers above ++ sharp_level M c f :: rest)).
  { clear sharp split_so. induction all_split as [| l above l_splits all_split IH]; cbn [app map].
    - constructor; [now apply default_alike | apply all_alike_refl].
    - constructor; [now apply in_integers_alike | exact IH]. }
  split; intros all_covered stop; now apply (covered_alike _ _ w start stop same w_nonneg).
Qed.

(** At level 1. *)
Theorem sharp_constant : forall e c f q rest w start,
  let M := Z.of_nat (length rest) + 2 in
  same_number e (Ratio M 1) -> same_number q (Ratio (M - 1) M) ->
  good_level (Power e c f q) -> 0 <= w -> Forall good_level rest -> sufficient_levels rest ->
  (forall stop, covered (Schedule (Power e c f q :: rest) w) start stop) <-> M * den c <= num c.
Proof. intros. now apply (sharp_constant_below []). Qed.
