(** * Every span is causal (SPEC 2.2 - 2.4)

    Whatever the rule, the exponents, the factors and the window: the spans of a segment lie inside
    the segment, none is empty, and those of level 1 do not touch the window.  A span is itself the
    segment of the next level, so a path never leaves the eligible keys [start, t]. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers.
Import ListNotations.
Open Scope Z_scope.

(** ** Levels *)

Lemma steps_of_pos : forall ls, 0 < steps_of ls.
Proof. intro ls. unfold steps_of. lia. Qed.

(** A window holds no negative number of keys, and at least [w]. *)
Lemma window_ge_index : forall l w, good_level l -> 0 <= w -> w <= window l w.
Proof.
  intros l w l_good w_nonneg. destruct l as [e | e b f q | |]; cbn [window].
  - assert (le := floor_power_ge_index (w + 1) e l_good ltac:(lia)). lia.
  - assert (le := floor_power_ge_index (w + 1) e (proj1 l_good) ltac:(lia)). lia.
  - lia.
  - lia.
Qed.

(** With [w = 0] there is no window. *)
Lemma window_0 : forall l, good_level l -> window l 0 = 0.
Proof.
  intros l l_good. destruct l as [e | e b f q | |]; cbn [window].
  - rewrite Z.add_0_l, floor_power_1; [reflexivity | exact l_good].
  - rewrite Z.add_0_l, floor_power_1; [reflexivity | exact (proj1 l_good)].
  - reflexivity.
  - reflexivity.
Qed.

(** A segment without keys has no stripe. *)
Lemma last_stripe_empty : forall M l (n : segment), n <= 0 -> last_stripe M l n = 0.
Proof. intros M l n empty. unfold last_stripe. destruct (Z.leb_spec n 0); [reflexivity | lia]. Qed.

(** The stripes that are powers, said once for the rules tight and power: those skipped belong to
    the window, and the others are inside the segment. *)
Lemma power_stripe_range : forall M e (n : segment) i w,
  0 < M -> good_exponent e -> 0 <= w -> w + 1 <= i <= last_stripe M (Tight e) n ->
  0 < floor_power (w + 1) e <= floor_power i e /\ floor_power i e <= n.
Proof.
  intros M e n i w M_pos e_good w_nonneg range.
  assert (n_pos : 0 < n).
  { destruct (Z.leb_spec n 0) as [empty |]; [| lia].
    rewrite (last_stripe_empty M (Tight e) n empty) in range. lia. }
  assert (first := floor_power_ge_index (w + 1) e e_good ltac:(lia)).
  assert (order := floor_power_le e (w + 1) i e_good ltac:(lia) ltac:(lia)).
  assert (inside := last_stripe_spec M (Tight e) n i M_pos e_good ltac:(lia) ltac:(lia)).
  cbn [stripe] in inside. lia.
Qed.

(** Without a window nothing is left out. *)
Lemma beyond_0 : forall n, beyond 0 n = n.
Proof. intros [m e h]. unfold beyond. cbn [held ends nominal]. f_equal; lia. Qed.

(** The spans of a segment, in order: the window's end, the span's beginning, its anchor, its end,
    the segment's end.  Under the power rule the beginning and the end are clipped at just these
    two places; a tight span ends where the next stripe begins, and stripes grow; the rules even and
    aligned count only stripes that begin inside the segment. *)
Lemma span_in_segment : forall w M l (n : segment) i,
  0 < M -> good_level l -> 0 <= w -> is_stripe w M l n i ->
  window l w <= near (span_of w M l n i) <= anchor w M l n i /\
  anchor w M l n i < far (span_of w M l n i) <= n.
Proof.
  intros w M l n i M_pos l_good w_nonneg chosen. unfold is_stripe in chosen.
  destruct l as [e | e b f q | |];
    cbn [first_stripe last_searched window span_of near far stripe anchor] in *.
  - destruct (power_stripe_range M e n i w M_pos l_good w_nonneg chosen) as [order inside].
    assert (next := floor_power_lt e i (i + 1) l_good ltac:(lia) ltac:(lia)). lia.
  - destruct l_good as (e_good & b_good & f_good & q_good).
    destruct (power_stripe_range M e n i w M_pos e_good w_nonneg chosen) as [order inside].
    assert (forward := ceil_power_nonneg f n q f_good q_good ltac:(lia)).
    assert (backward := ceil_power_nonneg b n q b_good q_good ltac:(lia)). lia.
  - assert (some : 0 < n - w).
    { destruct (Z.leb_spec (n - w) 0) as [empty |]; [| lia].
      rewrite (last_stripe_empty M Even (beyond w n) empty) in chosen. lia. }
    assert (s_pos := stride_positive M (n - w) M_pos some).
    assert (inside := last_stripe_spec M Even (beyond w n) i M_pos I).
    cbn [stripe held beyond] in inside |- *. nia.
  - assert (some : 0 < n - w).
    { destruct (Z.leb_spec (n - w) 0) as [empty |]; [| lia].
      rewrite (last_stripe_empty M Aligned (beyond w n) empty) in chosen. lia. }
    assert (inside := last_stripe_spec M Aligned (beyond w n) i M_pos I).
    assert (s_pos := part_positive M (beyond w n)).
    assert (newest := Z.mul_div_le (ends n - w - 1) (part M (beyond w n)) s_pos).
    unfold part_at in *. cbn [stripe held ends beyond] in inside |- *. unfold part_at in inside.
    cbn [ends beyond] in inside |- *. set (s := part M (beyond w n)) in *.
    set (J := (ends n - w - 1) / s) in *. nia.
Qed.

(** So no span is empty. *)
Theorem spans_lie_in_their_segment : forall w M l (n : segment) i,
  0 < M -> good_level l -> 0 <= w -> is_stripe w M l n i ->
  let s := span_of w M l n i in window l w <= near s /\ near s < far s /\ far s <= n.
Proof.
  intros w M l n i M_pos l_good w_nonneg chosen.
  assert (order := span_in_segment w M l n i M_pos l_good w_nonneg chosen). cbv zeta. lia.
Qed.

(** It holds its anchor. *)
Theorem span_holds_anchor : forall w M l (n : segment) i,
  0 < M -> good_level l -> 0 <= w -> is_stripe w M l n i ->
  within (anchor w M l n i) (span_of w M l n i).
Proof.
  intros w M l n i M_pos l_good w_nonneg chosen. unfold within.
  assert (order := span_in_segment w M l n i M_pos l_good w_nonneg chosen). lia.
Qed.

Theorem span_is_causal : forall w M l (n : segment) i,
  0 < M -> good_level l -> 0 <= w -> is_stripe w M l n i ->
  0 <= near (span_of w M l n i) /\ far (span_of w M l n i) <= n.
Proof.
  intros w M l n i M_pos l_good w_nonneg chosen.
  assert (order := span_in_segment w M l n i M_pos l_good w_nonneg chosen).
  assert (some := window_ge_index l w l_good w_nonneg). lia.
Qed.

(** The window and the spans have no key in common. *)
Theorem window_disjoint : forall w M l (n : segment) i d,
  0 < M -> good_level l -> 0 <= w -> is_stripe w M l n i ->
  within d (span_of w M l n i) -> window l w <= d.
Proof.
  intros w M l n i d M_pos l_good w_nonneg chosen inside. unfold within in inside.
  assert (order := span_in_segment w M l n i M_pos l_good w_nonneg chosen). lia.
Qed.

(** A query whose window holds all its keys sees its window alone: no stripe is searched. *)
Theorem window_alone : forall w M l (n : segment) i,
  0 < M -> good_level l -> 0 <= w -> n <= window l w -> ~ is_stripe w M l n i.
Proof.
  intros w M l n i M_pos l_good w_nonneg all_in_window chosen.
  assert (order := span_in_segment w M l n i M_pos l_good w_nonneg chosen). lia.
Qed.

(** ** Paths *)

(** The window of the first of the levels that remain; without levels there is none. *)
Definition first_window (w : Z) (ls : list level) : Z :=
  match ls with
  | [] => 0
  | l :: _ => window l w
  end.

Lemma first_window_nonneg : forall ls w, Forall good_level ls -> 0 <= w -> 0 <= first_window w ls.
Proof.
  intros ls w ls_good w_nonneg. destruct ls as [| l rest]; cbn [first_window]; [lia |].
  assert (some := window_ge_index l w (Forall_inv ls_good) w_nonneg). lia.
Qed.

(** A path's goal lies in its segment and outside its window. *)
Lemma leads_in_segment : forall ls w (n : segment) path d,
  Forall good_level ls -> 0 <= w -> leads w ls n path d -> first_window w ls <= d < n.
Proof.
  intros ls w n path d ls_good w_nonneg path_leads.
  destruct ls as [| l rest]; destruct path as [| i path']; cbn [leads] in path_leads; try easy.
  destruct path_leads as (chosen & inside & _).
  assert (l_good := Forall_inv ls_good).
  assert (order := span_in_segment w _ l n i (steps_of_pos _) l_good w_nonneg chosen).
  unfold within in inside. cbn [first_window]. lia.
Qed.

(** The spans that a path goes through, as distances from the query.  [newest] is the distance at
    which the segment searched begins. *)
Fixpoint spans_along (newest w : Z) (ls : list level) (n : segment) (path : list Z) : list span :=
  match ls, path with
  | l :: rest, i :: path' =>
      let s := span_of w (steps_of ls) l n i in
      Span (newest + near s) (newest + far s) ::
        spans_along (newest + near s) 0 rest (segment_of w (steps_of ls) l n i) path'
  | _, _ => []
  end.

(** Every choice on the way is a stripe that is searched. *)
Fixpoint choices (w : Z) (ls : list level) (n : segment) (path : list Z) : Prop :=
  match ls, path with
  | [], [] => True
  | l :: rest, i :: path' =>
      is_stripe w (steps_of ls) l n i /\ choices 0 rest (segment_of w (steps_of ls) l n i) path'
  | _, _ => False
  end.

Lemma leads_choices : forall ls w (n : segment) path d, leads w ls n path d -> choices w ls n path.
Proof.
  induction ls as [| l rest IH]; intros w n path d path_leads;
    destruct path as [| i path']; cbn [leads choices] in *; try easy.
  destruct path_leads as (chosen & _ & rest_leads). split; [exact chosen |].
  exact (IH _ _ _ _ rest_leads).
Qed.

(** By induction on the levels: each span lies in its segment, which is the span before it. *)
Lemma spans_along_nested : forall ls newest w (n : segment) path,
  Forall good_level ls -> 0 <= w -> choices w ls n path ->
  Forall (fun s => newest + first_window w ls <= near s < far s /\ far s <= newest + n)
         (spans_along newest w ls n path).
Proof.
  induction ls as [| l rest IH]; intros newest w n path ls_good w_nonneg chosen;
    destruct path as [| i path']; cbn [choices spans_along] in *; try constructor; try easy;
    destruct chosen as [chosen rest_chosen]; inversion ls_good as [| ? ? l_good rest_good]; subst;
    assert (order := span_in_segment w _ l n i (steps_of_pos _) l_good w_nonneg chosen);
    cbn [first_window near far].
  - lia.
  - set (s := span_of w (steps_of (l :: rest)) l n i) in *.
    assert (inner := IH (newest + near s) 0 (segment_of w (steps_of (l :: rest)) l n i) path'
                       rest_good ltac:(lia) rest_chosen).
    eapply Forall_impl; [| exact inner]. intros inner_span nested. cbv beta in nested.
    assert (some := first_window_nonneg rest 0 rest_good ltac:(lia)).
    cbn [held segment_of] in nested. fold s in nested. unfold size in nested. lia.
Qed.

(** Every span of every level on a query's way holds eligible keys alone, none of them in the
    window, and at least one. *)
Theorem spans_are_causal : forall s start t path sp,
  good s -> choices (window_index s) (levels s) (seen start t) path ->
  In sp (spans_along 0 (window_index s) (levels s) (seen start t) path) ->
  near sp < far sp /\
  forall j, within (t - j) sp -> start <= j <= t /\ window_of s <= t - j.
Proof.
  intros s start t path sp [levels_good w_nonneg] chosen among.
  assert (nested := spans_along_nested _ 0 _ _ _ levels_good w_nonneg chosen).
  rewrite Forall_forall in nested. specialize (nested sp among). cbn [held seen] in nested.
  assert (same : window_of s = first_window (window_index s) (levels s)) by reflexivity.
  assert (some := first_window_nonneg _ _ levels_good w_nonneg).
  split; [lia |]. intros j inside. unfold within in inside. lia.
Qed.

(** A path leads to an eligible key outside the window, and to no other. *)
Theorem path_is_causal : forall s start t j path,
  good s -> leads (window_index s) (levels s) (seen start t) path (t - j) ->
  start <= j <= t /\ window_of s <= t - j.
Proof.
  intros s start t j path [levels_good w_nonneg] path_leads.
  assert (inside := leads_in_segment _ _ _ _ _ levels_good w_nonneg path_leads).
  cbn [held seen] in inside.
  assert (some := first_window_nonneg _ _ levels_good w_nonneg).
  assert (same : window_of s = first_window (window_index s) (levels s)) by reflexivity. lia.
Qed.

(** Key [j] is the anchor of a stripe that is searched, in the segment [n] or, below, in what one of
    its stripes stands for. *)
Fixpoint scored (w : Z) (ls : list level) (n : segment) (j : Z) : Prop :=
  match ls with
  | [] => False
  | l :: rest =>
      exists i, is_stripe w (steps_of ls) l n i /\
        (j = ends n - 1 - anchor w (steps_of ls) l n i \/
         scored 0 rest (segment_of w (steps_of ls) l n i) j)
  end.

Lemma scored_in_segment : forall ls w (n : segment) j,
  Forall good_level ls -> 0 <= w -> scored w ls n j ->
  ends n - n <= j /\ j < ends n - first_window w ls.
Proof.
  induction ls as [| l rest IH]; intros w n j ls_good w_nonneg found; [contradiction found |].
  destruct found as (i & chosen & found). inversion ls_good as [| ? ? l_good rest_good]; subst.
  assert (order := span_in_segment w _ l n i (steps_of_pos _) l_good w_nonneg chosen).
  cbn [first_window]. destruct found as [-> | found]; [lia |].
  assert (inner := IH 0 _ j rest_good ltac:(lia) found).
  assert (some := first_window_nonneg rest 0 rest_good ltac:(lia)).
  cbn [held ends segment_of] in inner. unfold size in inner. lia.
Qed.

(** Whatever is scored is an eligible key outside the window. *)
Theorem anchors_are_eligible : forall s start t j,
  good s -> scored (window_index s) (levels s) (seen start t) j ->
  start <= j <= t /\ window_of s <= t - j.
Proof.
  intros s start t j [levels_good w_nonneg] found.
  assert (inside := scored_in_segment _ _ _ _ levels_good w_nonneg found).
  cbn [held ends seen] in inside.
  assert (some := first_window_nonneg _ _ levels_good w_nonneg).
  assert (same : window_of s = first_window (window_index s) (levels s)) by reflexivity. lia.
Qed.

(** ** Stripes keep their distance

    As a query moves on, its segment grows from [n] keys to [n' >= n].  Under the rules tight and
    power a stripe, once there, stays, and its anchor at the same distance from the query. *)

Definition keeps_distance (l : level) : Prop :=
  match l with
  | Tight _ | Power _ _ _ _ => True
  | Even | Aligned => False
  end.

Theorem stripes_keep_their_distance : forall w M l (n n' : segment) i,
  0 < M -> good_level l -> 0 <= w -> keeps_distance l -> n <= n' -> is_stripe w M l n i ->
  is_stripe w M l n' i /\ anchor w M l n' i = anchor w M l n i.
Proof.
  intros w M l n n' i M_pos l_good w_nonneg keeps grows chosen.
  destruct l as [e | e b f q | |]; cbn [keeps_distance] in keeps; [| | contradiction ..];
    (split; [| reflexivity]); unfold is_stripe in *; cbn [first_stripe last_searched] in *.
  - destruct (power_stripe_range M e n i w M_pos l_good w_nonneg chosen) as [order inside].
    split; [lia |]. apply last_stripe_spec; cbn [stripe]; assumption || lia.
  - destruct (power_stripe_range M e n i w M_pos (proj1 l_good) w_nonneg chosen) as [order inside].
    split; [lia |]. apply last_stripe_spec; cbn [stripe]; assumption || lia.
Qed.

(** In terms of stripes. *)
Corollary stripes_stay : forall w M l (n n' : segment) i,
  0 < M -> good_level l -> l <> Even -> l <> Aligned -> 0 <= w -> n <= n' -> is_stripe w M l n i ->
  is_stripe w M l n' i /\ stripe M l n' i = stripe M l n i.
Proof.
  intros w M l n n' i M_pos l_good uneven unaligned w_nonneg grows chosen.
  destruct l as [e | e b f q | |]; [| | now contradiction uneven | now contradiction unaligned];
    split; try reflexivity;
    apply (stripes_keep_their_distance w M _ n); try assumption; exact I.
Qed.

(** A tight span does not change at all, but for the oldest, which the segment's end clips. *)
Theorem tight_spans_keep_their_distance : forall w M e (n n' : segment) i,
  0 < M -> good_exponent e -> 0 <= w -> n <= n' -> w + 1 <= i < last_stripe M (Tight e) n ->
  span_of w M (Tight e) n' i = span_of w M (Tight e) n i.
Proof.
  intros w M e n n' i M_pos e_good w_nonneg grows range.
  destruct (power_stripe_range M e n (i + 1) w M_pos e_good w_nonneg ltac:(lia)) as [_ inside].
  cbn [span_of]. f_equal. lia.
Qed.

(** ** Paths stay *)

(** All rules but the aligned one go by the number of a segment's keys alone. *)
Definition by_size (ls : list level) : Prop := Forall (fun l => l <> Aligned) ls.

Lemma leads_by_size : forall ls w (n n' : segment) path d,
  by_size ls -> held n = held n' -> leads w ls n path d -> leads w ls n' path d.
Proof.
  intros ls. induction ls as [|l rest IH]; intros w n n' [|i path] d free same led;
    cbn [leads] in *; try contradiction; [rewrite <- same; exact led |].
  apply Forall_cons_iff in free. destruct free as [unaligned rest_free].
  assert (same_span :
    span_of w (steps_of (l :: rest)) l n i = span_of w (steps_of (l :: rest)) l n' i).
  { destruct l; cbn [span_of]; rewrite ?same; try reflexivity. now contradiction unaligned. }
  destruct led as (searched & inside & led). rewrite <- same_span. split; [|split; [exact inside|]].
  - unfold is_stripe in *. destruct l; try (now contradiction unaligned);
      cbn [last_searched first_stripe] in *; unfold last_stripe in *;
      cbn [held beyond] in *; rewrite <- same; exact searched.
  - apply (IH 0 (segment_of w (steps_of (l :: rest)) l n i)); [exact rest_free | | exact led].
    cbn [held segment_of]. now rewrite same_span.
Qed.

(** Below a tight level 1 a path that does not end in the oldest span is the same for every longer
    prefix. *)
Theorem paths_stay : forall e rest w (n n' : segment) i path d,
  good_exponent e -> by_size rest -> 0 <= w -> n <= n' ->
  i < last_stripe (steps_of (Tight e :: rest)) (Tight e) n ->
  leads w (Tight e :: rest) n (i :: path) d -> leads w (Tight e :: rest) n' (i :: path) d.
Proof.
  intros e rest w n n' i path d e_good free w_nonneg longer newer led.
  cbn [leads] in *. destruct led as (searched & inside & led).
  assert (M_pos : 0 < steps_of (Tight e :: rest)) by (unfold steps_of; lia).
  assert (range : w + 1 <= i < last_stripe (steps_of (Tight e :: rest)) (Tight e) n)
    by (unfold is_stripe in searched; cbn [first_stripe] in searched; lia).
  pose proof (tight_spans_keep_their_distance w _ e n n' i M_pos e_good w_nonneg longer range)
    as same.
  destruct (stripes_keep_their_distance w _ (Tight e) n n' i M_pos e_good w_nonneg I longer
              searched) as [searched' _].
  rewrite same. split; [exact searched' | split; [exact inside |]].
  apply (leads_by_size rest 0 (segment_of w (steps_of (Tight e :: rest)) (Tight e) n i));
    [exact free | | exact led].
  cbn [held segment_of]. now rewrite same.
Qed.
