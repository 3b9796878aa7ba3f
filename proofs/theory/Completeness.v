(** * Completeness: every key has exactly one path (SPEC 2.5.1)

    The rules tight, even and aligned cut what the window leaves of a segment into spans that
    neither overlap nor leave a gap, so at each level exactly one stripe can lead to a given key.
    This needs no particular exponents, and the levels may follow the three rules in any mixture. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality.
Import ListNotations.
Open Scope Z_scope.

Definition partitioning (l : level) : Prop :=
  match l with
  | Tight _ | Even | Aligned => True
  | Power _ _ _ _ => False
  end.

(** ** One level *)

(** The stripe whose span holds distance [d]: the last one whose anchor is not older. *)
Definition choice (w steps_left : Z) (l : level) (n : segment) (d : Z) : Z :=
  match l with
  | Tight _ | Power _ _ _ _ => last_stripe steps_left l (first_keys (d + 1))
  | Even => (d - w) / stride steps_left (n - w) + 1
  | Aligned =>
      let s := part steps_left (beyond w n) in (ends n - w - 1) / s - (ends n - 1 - d) / s + 1
  end.

(** Tight spans: [P(i) <= d + 1 < P(i + 1)] has one solution [i], since stripes grow.  It is a
    stripe that is searched, since [P(w + 1) <= d + 1 <= n] outside the window. *)
Lemma tight_choice : forall w M e (n : segment) d i,
  0 < M -> good_exponent e -> 0 <= w -> window (Tight e) w <= d < n ->
  (is_stripe w M (Tight e) n i /\ within d (span_of w M (Tight e) n i) <->
   i = choice w M (Tight e) n d).
Proof.
  intros w M e n d i M_pos e_good w_nonneg outside.
  assert (some := window_ge_index (Tight e) w e_good w_nonneg).
  unfold is_stripe, within.
  cbn [first_stripe last_searched span_of near far choice window] in *.
  set (last := last_stripe M (Tight e) (first_keys (d + 1))).
  assert (at_least : forall k, 1 <= k -> (floor_power k e <= d + 1 <-> k <= last)).
  { intros k k_pos. apply (last_stripe_spec M (Tight e) (first_keys (d + 1)));
      [exact M_pos | exact e_good | cbn [held first_keys]; lia | lia]. }
  assert (in_segment : forall k, 1 <= k ->
    (floor_power k e <= n <-> k <= last_stripe M (Tight e) n)).
  { intros k k_pos. apply (last_stripe_spec M (Tight e)); [exact M_pos | exact e_good | lia ..]. }
  split.
  - intros [searched inside].
    assert (reached := at_least i ltac:(lia)).
    assert (not_next := at_least (i + 1) ltac:(lia)). lia.
  - intro same. subst i. assert (first := at_least (w + 1) ltac:(lia)).
    assert (reached := at_least last ltac:(lia)).
    assert (not_next := at_least (last + 1) ltac:(lia)).
    assert (searched := in_segment last ltac:(lia)). lia.
Qed.

(** Even spans: division with remainder. *)
Lemma even_choice : forall w M (n : segment) d i,
  0 < M -> w <= d < n ->
  (is_stripe w M Even n i /\ within d (span_of w M Even n i) <-> i = choice w M Even n d).
Proof.
  intros w M n d i M_pos outside. unfold is_stripe, within.
  cbn [first_stripe last_searched span_of near far choice].
  assert (s_pos := stride_positive M (n - w) M_pos ltac:(lia)).
  assert (in_segment : forall k, 1 <= k ->
    ((k - 1) * stride M (n - w) + 1 <= n - w <-> k <= last_stripe M Even (beyond w n))).
  { intros k k_pos. apply (last_stripe_spec M Even (beyond w n));
      [exact M_pos | exact I | cbn [held beyond]; lia | lia]. }
  assert (division := Z.div_mod (d - w) (stride M (n - w)) ltac:(lia)).
  assert (remainder := Z.mod_pos_bound (d - w) (stride M (n - w)) s_pos).
  assert (quotient_nonneg : 0 <= (d - w) / stride M (n - w)) by (apply Z.div_pos; lia).
  set (s := stride M (n - w)) in *. set (quotient := (d - w) / s) in *. split.
  - intros [searched inside]. assert (i - 1 = quotient); [| lia].
    assert (i - 1 < quotient + 1) by nia. assert (quotient < i) by nia. lia.
  - intro same. subst i. assert (searched := in_segment (quotient + 1) ltac:(lia)). nia.
Qed.

(** Aligned spans: division of keys instead of distances.  Stripe [i] is part
    [j = J - (i - 1)], [J] the newest part; key [k] lies in part [k / s] alone. *)
Lemma aligned_choice : forall w M (n : segment) d i,
  0 < M -> w <= d < n ->
  (is_stripe w M Aligned n i /\ within d (span_of w M Aligned n i) <->
   i = choice w M Aligned n d).
Proof.
  intros w M n d i M_pos outside. unfold is_stripe, within.
  cbn [first_stripe last_searched span_of near far choice]. unfold last_stripe, part_at.
  cbn [held ends beyond]. destruct (Z.leb_spec (n - w) 0) as [empty | some]; [lia |].
  assert (s_pos := part_positive M (beyond w n)). set (s := part M (beyond w n)) in *.
  replace (ends n - w - (n - w)) with (ends n - n) by lia.
  set (J := (ends n - w - 1) / s). set (old := (ends n - n) / s). set (k := ends n - 1 - d).
  assert (newest : J * s <= ends n - w - 1 < (J + 1) * s).
  { assert (division := Z.div_mod (ends n - w - 1) s ltac:(lia)).
    assert (remainder := Z.mod_pos_bound (ends n - w - 1) s s_pos). unfold J. lia. }
  assert (oldest : old * s <= ends n - n < (old + 1) * s).
  { assert (division := Z.div_mod (ends n - n) s ltac:(lia)).
    assert (remainder := Z.mod_pos_bound (ends n - n) s s_pos). unfold old. lia. }
  assert (here : k / s * s <= k < (k / s + 1) * s).
  { assert (division := Z.div_mod k s ltac:(lia)).
    assert (remainder := Z.mod_pos_bound k s s_pos). lia. }
  set (q := k / s) in *. split.
  - intros [searched inside]. set (j := J - (i - 1)) in *.
    assert (lower : j * s <= k < (j + 1) * s) by (unfold k; lia).
    assert (same : j = q) by nia. unfold j in same. lia.
  - intro same. assert (part_q : J - (i - 1) = q) by lia. rewrite part_q.
    assert (before : q <= J) by (unfold k in here; nia).
    assert (behind : old <= q) by (unfold k in here; nia).
    unfold k in here. lia.
Qed.

Lemma choice_spec : forall w M l (n : segment) d i,
  0 < M -> good_level l -> partitioning l -> 0 <= w -> window l w <= d < n ->
  (is_stripe w M l n i /\ within d (span_of w M l n i) <-> i = choice w M l n d).
Proof.
  intros w M l n d i M_pos l_good partitions w_nonneg outside.
  destruct l as [e | e b f q | |]; [| contradiction | |].
  - apply tight_choice; assumption.
  - apply even_choice; assumption.
  - apply aligned_choice; assumption.
Qed.

(** ** All levels *)

(** The path to distance [d], choice by choice. *)
Fixpoint path_to (w : Z) (ls : list level) (n : segment) (d : Z) : list Z :=
  match ls with
  | [] => []
  | l :: rest =>
      let i := choice w (steps_of ls) l n d in
      let s := span_of w (steps_of ls) l n i in
      i :: path_to 0 rest (segment_of w (steps_of ls) l n i) (d - near s)
  end.

(** The window of a level below the first is empty, whatever the level. *)
Lemma first_window_0 : forall ls, Forall good_level ls -> first_window 0 ls = 0.
Proof.
  intros ls ls_good. destruct ls as [| l rest]; cbn [first_window]; [reflexivity |].
  apply window_0. exact (Forall_inv ls_good).
Qed.

(** By induction on the levels: the first choice is forced, and inside its span the rest of the
    path is, by the induction hypothesis, forced too. *)
Theorem leads_iff_path_to : forall ls w (n : segment) d path,
  Forall good_level ls -> Forall partitioning ls -> 0 <= w -> first_window w ls <= d < n ->
  (leads w ls n path d <-> path = path_to w ls n d).
Proof.
  induction ls as [| l rest IH]; intros w n d path ls_good partitions w_nonneg outside.
  - destruct path as [| i path']; cbn [leads path_to first_window] in *; split; easy.
  - inversion ls_good as [| ? ? l_good rest_good]; subst.
    inversion partitions as [| ? ? l_partitions rest_partitions]; subst.
    assert (forced : forall i,
      is_stripe w (steps_of (l :: rest)) l n i /\
      within d (span_of w (steps_of (l :: rest)) l n i) <->
      i = choice w (steps_of (l :: rest)) l n d)
      by (intro i; apply choice_spec; auto using steps_of_pos).
    assert (inner : forall i path', within d (span_of w (steps_of (l :: rest)) l n i) ->
      let s := span_of w (steps_of (l :: rest)) l n i in
      let m := segment_of w (steps_of (l :: rest)) l n i in
      leads 0 rest m path' (d - near s) <-> path' = path_to 0 rest m (d - near s)).
    { intros i path' inside. apply IH; [exact rest_good | exact rest_partitions | lia |].
      rewrite first_window_0 by exact rest_good. cbn [held segment_of].
      unfold within, size in *. lia. }
    destruct path as [| i path']; cbn [leads path_to]; [split; easy |]. split.
    + intros (chosen & inside & rest_leads). apply inner in rest_leads; [| exact inside].
      rewrite rest_leads. rewrite (proj1 (forced i) (conj chosen inside)). reflexivity.
    + intro same. injection same as same_choice same_rest.
      destruct (proj2 (forced i) same_choice) as [chosen inside].
      rewrite <- same_choice in same_rest.
      split; [exact chosen | split; [exact inside |]]. apply inner; assumption.
Qed.

(** ** Schedules *)

Lemma eligible_distance : forall s start t j,
  start <= j -> window_of s <= t - j ->
  first_window (window_index s) (levels s) <= t - j < seen start t.
Proof.
  intros s start t j eligible outside. cbn [held seen].
  assert (same : window_of s = first_window (window_index s) (levels s)) by reflexivity. lia.
Qed.

(** Every eligible key outside the window has one path. *)
Theorem unique : forall s start t j,
  good s -> Forall partitioning (levels s) -> start <= j <= t -> window_of s <= t - j ->
  exists! path, leads (window_index s) (levels s) (seen start t) path (t - j).
Proof.
  intros s start t j [levels_good w_nonneg] partitions eligible outside.
  assert (range := eligible_distance s start t j (proj1 eligible) outside).
  assert (the_path := fun path =>
    leads_iff_path_to _ _ _ _ path levels_good partitions w_nonneg range).
  eexists. split; [apply the_path; reflexivity |].
  intros other other_leads. symmetry. apply the_path. exact other_leads.
Qed.

(** A key inside the window has none: the window and the spans are disjoint. *)
Theorem window_has_no_path : forall s start t j path,
  good s -> t - j < window_of s -> ~ leads (window_index s) (levels s) (seen start t) path (t - j).
Proof.
  intros s start t j path s_good inside path_leads.
  assert (outside := path_is_causal s start t j path s_good path_leads). lia.
Qed.

Theorem complete : forall s start t j,
  good s -> Forall partitioning (levels s) -> start <= j <= t -> reachable s start t j.
Proof.
  intros s start t j s_good partitions eligible. unfold reachable.
  destruct (Z.lt_ge_cases (t - j) (window_of s)) as [inside | outside]; [left; exact inside |].
  right.
  destruct (unique s start t j s_good partitions eligible outside) as (path & path_leads & _).
  exists path. exact path_leads.
Qed.

Corollary complete_covered : forall s start len,
  good s -> Forall partitioning (levels s) -> covered s start len.
Proof.
  intros s start len s_good partitions t j eligible _. apply complete; assumption.
Qed.
