(** * Rationals are numbers, not pairs (SPEC 2.1)

    The exponent 4/2 has the stripes of 2/1: the inequalities that define a floor or a ceiling are
    raised to a power until both have one denominator.  So levels whose exponents are the same
    numbers have the same stripes, spans and paths. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality.
Import ListNotations.
Open Scope Z_scope.

(** ** Exponents *)

(** [m^c <= i^a] if and only if [m^c' <= i^a'], where [a/c = a'/c']. *)
Lemma power_compared : forall i m e e',
  good_exponent e -> good_exponent e' -> same_number e e' -> 0 <= i -> 0 <= m ->
  m ^ den e <= i ^ num e <-> m ^ den e' <= i ^ num e'.
Proof.
  intros i m e e' [c_pos e_large] [c'_pos e'_large]
    same i_nonneg m_nonneg. unfold same_number in same.
  assert (nonneg : forall x k, 0 <= x -> 0 <= x ^ k) by (intros; now apply Z.pow_nonneg).
  rewrite <- (pow_le_iff (den e') (m ^ den e)), <- (pow_le_iff (den e) (m ^ den e')) by auto.
  rewrite <- !Z.pow_mul_r, same, (Z.mul_comm (den e)) by lia. reflexivity.
Qed.

Lemma floor_power_same : forall i e e',
  good_exponent e -> good_exponent e' -> same_number e e' -> 0 <= i ->
  floor_power i e = floor_power i e'.
Proof.
  intros i e e' e_good e'_good same i_nonneg.
  assert (nonneg := floor_power_nonneg i e e_good i_nonneg).
  assert (nonneg' := floor_power_nonneg i e' e'_good i_nonneg).
  apply Z.le_antisymm.
  - apply floor_power_ge_iff, (power_compared i _ e e'); try assumption.
    now apply floor_power_ge_iff.
  - apply floor_power_ge_iff, (power_compared i _ e e'); try assumption.
    now apply floor_power_ge_iff.
Qed.

(** [u^b n^a <= (m v)^b] likewise. *)
Lemma reach_compared : forall c n q q' m,
  good_factor c -> good_span_exponent q -> good_span_exponent q' -> same_number q q' ->
  0 <= n -> 0 <= m ->
  num c ^ den q * n ^ num q <= (m * den c) ^ den q <->
  num c ^ den q' * n ^ num q' <= (m * den c) ^ den q'.
Proof.
  intros c n q q' m [v_pos u_nonneg] [b_pos q_range] [b'_pos q'_range] same n_nonneg m_nonneg.
  unfold same_number in same.
  assert (nonneg : forall x k, 0 <= x -> 0 <= x ^ k) by (intros; now apply Z.pow_nonneg).
  assert (reach_nonneg : 0 <= m * den c) by nia.
  rewrite <- (pow_le_iff (den q') (_ * _)), <- (pow_le_iff (den q) (num c ^ den q' * _))
    by (try apply Z.mul_nonneg_nonneg; auto).
  rewrite !Z.pow_mul_l, <- !Z.pow_mul_r, same, (Z.mul_comm (den q)) by lia. reflexivity.
Qed.

Lemma ceil_power_same : forall c n q q',
  good_factor c -> good_span_exponent q -> good_span_exponent q' -> same_number q q' -> 0 <= n ->
  ceil_power c n q = ceil_power c n q'.
Proof.
  intros c n q q' c_good q_good q'_good same n_nonneg.
  assert (nonneg := ceil_power_nonneg c n q c_good q_good n_nonneg).
  assert (nonneg' := ceil_power_nonneg c n q' c_good q'_good n_nonneg).
  apply Z.le_antisymm.
  - apply ceil_power_le_iff, (reach_compared c n q q'); try assumption.
    now apply ceil_power_le_iff.
  - apply ceil_power_le_iff, (reach_compared c n q q'); try assumption.
    now apply ceil_power_le_iff.
Qed.

(** The last stripe inside [n] keys. *)
Lemma last_power_same : forall e e' n,
  good_exponent e -> good_exponent e' -> same_number e e' -> 0 < n ->
  root (num e) ((n + 1) ^ den e - 1) = root (num e') ((n + 1) ^ den e' - 1).
Proof.
  intros e e' n e_good e'_good same n_pos.
  assert (nonneg : forall x, good_exponent x -> 0 <= root (num x) ((n + 1) ^ den x - 1)).
  { intros x [c_pos x_large]. assert (0 < (n + 1) ^ den x) by (apply Z.pow_pos_nonneg; lia).
    apply root_spec; lia. }
  assert (each := nonneg e e_good). assert (each' := nonneg e' e'_good).
  apply Z.le_antisymm; apply last_power_stripe; try assumption; try lia.
  - rewrite <- (floor_power_same _ e e') by assumption. apply last_power_stripe; assumption || lia.
  - rewrite (floor_power_same _ e e') by assumption. apply last_power_stripe; assumption || lia.
Qed.

(** ** Levels *)

Definition same_exponents (l l' : level) : Prop :=
  match l, l' with
  | Tight e, Tight e' => same_number e e'
  | Power e b f q, Power e' b' f' q' => same_number e e' /\ b = b' /\ f = f' /\ same_number q q'
  | _, _ => l = l'
  end.

(** Two levels that do the same. *)
Definition alike (l l' : level) : Prop :=
  l = l' \/ good_level l /\ good_level l' /\ same_exponents l l'.

Lemma alike_sym : forall l l', alike l l' -> alike l' l.
Proof.
  intros l l' [same | (l_good & l'_good & same)]; [left; now symmetry | right].
  split; [exact l'_good | split; [exact l_good |]].
  destruct l, l'; cbn [same_exponents] in *; unfold same_number in *; intuition congruence.
Qed.

Lemma alike_window : forall l l' w, alike l l' -> 0 <= w -> window l w = window l' w.
Proof.
  intros l l' w [<- | (l_good & l'_good & same)] w_nonneg; [reflexivity |].
  destruct l, l'; cbn [same_exponents good_level window] in *; try discriminate same;
    try reflexivity; f_equal; apply floor_power_same; tauto || lia.
Qed.

Lemma alike_last : forall M l l' (n : segment),
  alike l l' -> last_stripe M l n = last_stripe M l' n.
Proof.
  intros M l l' n [<- | (l_good & l'_good & same)]; [reflexivity |].
  unfold last_stripe. destruct (Z.leb_spec n 0) as [| some]; [reflexivity |].
  destruct l, l'; cbn [same_exponents good_level] in *; try discriminate same; try reflexivity;
    apply last_power_same; tauto.
Qed.

Lemma alike_last_searched : forall w M l l' (n : segment),
  alike l l' -> last_searched w M l n = last_searched w M l' n.
Proof.
  intros w M l l' n same. assert (last := fun m => alike_last M l l' m same).
  destruct same as [<- | (_ & _ & same)]; [reflexivity |].
  destruct l, l'; cbn [same_exponents] in same; try discriminate same; apply last.
Qed.

Lemma alike_first_stripe : forall w l l', alike l l' -> first_stripe w l = first_stripe w l'.
Proof.
  intros w l l' [<- | (_ & _ & same)]; [reflexivity |].
  now destruct l, l'; cbn [same_exponents] in same; try discriminate same.
Qed.

Lemma alike_is_stripe : forall w M l l' (n : segment) i,
  alike l l' -> is_stripe w M l n i <-> is_stripe w M l' n i.
Proof.
  intros w M l l' n i same. unfold is_stripe.
  rewrite (alike_last_searched w M l l' n same), (alike_first_stripe w l l' same). reflexivity.
Qed.

Lemma alike_span_of : forall w M l l' (n : segment) i,
  alike l l' -> 0 <= w -> 0 <= n -> 0 <= i -> span_of w M l n i = span_of w M l' n i.
Proof.
  intros w M l l' n i same w_nonneg n_nonneg i_nonneg.
  assert (windows := alike_window l l' w same w_nonneg).
  destruct same as [<- | (l_good & l'_good & same)]; [reflexivity |].
  destruct l as [e | e b f q | |], l' as [e' | e' b' f' q' | |];
    cbn [same_exponents good_level span_of] in *; try discriminate same; try reflexivity.
  - now rewrite (floor_power_same i e e'), (floor_power_same (i + 1) e e') by (assumption || lia).
  - destruct same as (same_e & <- & <- & same_q). rewrite windows.
    now rewrite (floor_power_same i e e'), (ceil_power_same f n q q'), (ceil_power_same b n q q')
      by (tauto || lia).
Qed.

Lemma stripe_positive : forall w M l (n : segment) i,
  0 <= w -> is_stripe w M l n i -> 1 <= i.
Proof. intros w M l n i w_nonneg [first _]. destruct l; cbn [first_stripe] in first; lia. Qed.

Lemma stripe_has_keys : forall w M l (n : segment) i, 0 <= w -> is_stripe w M l n i -> 0 < n.
Proof.
  intros w M l n i w_nonneg chosen. assert (i_pos := stripe_positive w M l n i w_nonneg chosen).
  destruct (Z.le_gt_cases n 0) as [empty | some]; [| exact some]. destruct chosen as [_ last].
  destruct l; cbn [last_searched] in last; rewrite last_stripe_empty in last;
    cbn [held beyond]; lia.
Qed.

Lemma alike_segment_of : forall w M l l' (n : segment) i,
  alike l l' -> 0 <= w -> is_stripe w M l n i -> segment_of w M l n i = segment_of w M l' n i.
Proof.
  intros w M l l' n i same w_nonneg chosen.
  assert (i_pos := stripe_positive w M l n i w_nonneg chosen).
  assert (some := stripe_has_keys w M l n i w_nonneg chosen).
  unfold segment_of. rewrite (alike_span_of w M l l') by (assumption || lia).
  destruct same as [<- | (_ & _ & same)]; [reflexivity |].
  now destruct l, l'; cbn [same_exponents] in same; try discriminate same.
Qed.

(** ** Schedules *)

Lemma alike_steps : forall ls ls', Forall2 alike ls ls' -> steps_of ls = steps_of ls'.
Proof.
  intros ls ls' all. unfold steps_of.
  induction all; cbn [length] in *; [reflexivity | lia].
Qed.

Lemma leads_alike : forall ls ls', Forall2 alike ls ls' -> forall w (n : segment) path d,
  0 <= w -> leads w ls n path d -> leads w ls' n path d.
Proof.
  intros ls ls' all. induction all as [| l l' rest rest' same all IH];
    intros w n path d w_nonneg led; [exact led |].
  destruct path as [| i path']; cbn [leads] in *; [exact led |].
  assert (steps : steps_of (l' :: rest') = steps_of (l :: rest))
    by (symmetry; apply alike_steps; now constructor).
  rewrite steps. set (M := steps_of (l :: rest)) in *. destruct led as (chosen & inside & led).
  assert (i_pos := stripe_positive w M l n i w_nonneg chosen).
  assert (some := stripe_has_keys w M l n i w_nonneg chosen).
  rewrite <- (alike_span_of w M l l') by (assumption || lia).
  rewrite <- (alike_segment_of w M l l') by assumption.
  split; [now apply (alike_is_stripe w M l l') | split; [exact inside |]].
  apply IH; [lia | exact led].
Qed.

Lemma reachable_alike : forall ls ls' w start t j, Forall2 alike ls ls' -> 0 <= w ->
  reachable (Schedule ls w) start t j -> reachable (Schedule ls' w) start t j.
Proof.
  intros ls ls' w start t j all w_nonneg [windowed | [path led]]; [left | right].
  - destruct all as [| l l' rest rest' same all]; [exact windowed |].
    cbn [window_of levels window_index] in *. now rewrite <- (alike_window l l').
  - exists path. exact (leads_alike ls ls' all w _ path _ w_nonneg led).
Qed.

Lemma all_alike_sym : forall ls ls', Forall2 alike ls ls' -> Forall2 alike ls' ls.
Proof. intros ls ls' all. induction all; constructor; auto using alike_sym. Qed.

Lemma all_alike_refl : forall ls, Forall2 alike ls ls.
Proof. induction ls; constructor; [now left | assumption]. Qed.

Theorem covered_alike : forall ls ls' w start stop, Forall2 alike ls ls' -> 0 <= w ->
  covered (Schedule ls w) start stop <-> covered (Schedule ls' w) start stop.
Proof.
  intros ls ls' w start stop all w_nonneg.
  split; intros all_reached t j range inside;
    [apply (reachable_alike ls) | apply (reachable_alike ls')];
    auto using all_alike_sym.
Qed.

(** The power rule with [e = M] and [q = (M - 1) / M], however they are written. *)
Lemma power_alike : forall M e b f q,
  0 < M -> good_level (Power e b f q) -> same_number e (Ratio M 1) ->
  same_number q (Ratio (M - 1) M) ->
  alike (Power e b f q) (Power (Ratio M 1) b f (Ratio (M - 1) M)).
Proof.
  intros M e b f q M_pos l_good e_is q_is. right. split; [exact l_good |].
  split; [| now cbn [same_exponents]].
  destruct l_good as (_ & b_good & f_good & _).
  repeat split; cbn [num den]; try lia; apply b_good || apply f_good.
Qed.
