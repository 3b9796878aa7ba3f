(** * A checker that is proved right

    [first_hole s start len] looks for the first query of a context of [len] keys that cannot reach
    one of its eligible keys.  It finds one exactly when there is one, for every schedule, good or
    bad.  Extract.v makes an OCaml program of it, which the tests hold against the C++ checker
    ([verify_all] in reference/schedule/coverage.cpp). *)

From Coq Require Import ZArith List Lia Bool.
From Multistep Require Import Schedule SpanLists.
Import ListNotations.
Open Scope Z_scope.

(** ** The distances that the levels reach *)

Definition stripes (w steps_left : Z) (l : level) (n : segment) : list Z :=
  let first := first_stripe w l in
  range first (Z.to_nat (last_searched w steps_left l n - first + 1)).

(** [span_of], with what the spans of one segment share computed once. *)
Definition spans_of (w steps_left : Z) (l : level) (n : segment) : Z -> span :=
  match l with
  | Tight e => fun i => span_of w steps_left (Tight e) n i
  | Power e b f q =>
      let newest := window l w in
      let forward := ceil_power f n q in
      let backward := ceil_power b n q in
      fun i =>
        let p := floor_power i e in
        Span (Z.max newest (p - 1 - forward)) (Z.min n (p + backward))
  | Even =>
      let s := stride steps_left (n - w) in
      fun i => Span (w + (i - 1) * s) (w + Z.min (n - w) (i * s))
  | Aligned =>
      let s := part steps_left (beyond w n) in
      let newest := (ends n - w - 1) / s in
      fun i =>
        let j := newest - (i - 1) in
        Span (ends n - Z.min (ends n - w) ((j + 1) * s)) (ends n - Z.max (ends n - n) (j * s))
  end.

(** [segment_of], the same way. *)
Definition segments_of (w steps_left : Z) (l : level) (n : segment) : span -> segment :=
  match l with
  | Tight _ | Power _ _ _ _ | Even =>
      fun s => Segment (size s) (ends n - near s) (size s)
  | Aligned =>
      let nominal := part steps_left (beyond w n) in
      fun s => Segment (size s) (ends n - near s) nominal
  end.

(** What one level reaches in the segment [n], where [below m] is what the levels below it reach in
    the segment [m]. *)
Definition through (w steps_left : Z) (l : level) (n : segment) (below : segment -> list span) :
    list span :=
  let span_at := spans_of w steps_left l n in
  let segment_at := segments_of w steps_left l n in
  join (flat_map (fun i => let s := span_at i in map (inside s) (below (segment_at s)))
                 (stripes w steps_left l n)).

Fixpoint reached (ls : list level) (w : Z) (n : segment) : list span :=
  match ls with
  | [] => [Span 0 n]
  | l :: rest => through w (steps_of ls) l n (reached rest 0)
  end.

Lemma in_stripes : forall w M l (n : segment) i, In i (stripes w M l n) <-> is_stripe w M l n i.
Proof.
  intros w M l n i. unfold stripes, is_stripe. rewrite in_range. lia.
Qed.

Lemma spans_of_span_of : forall w M l n i, spans_of w M l n i = span_of w M l n i.
Proof. intros w M [e | e b f q | |] n i; reflexivity. Qed.

Lemma segments_of_segment_of : forall w M l n i,
  segments_of w M l n (spans_of w M l n i) = segment_of w M l n i.
Proof.
  intros w M l n i. rewrite spans_of_span_of. destruct l as [e | e b f q | |]; reflexivity.
Qed.

Lemma covers_through : forall w M l n below d,
  covers (through w M l n below) d <->
  exists i, let s := span_of w M l n i in
    is_stripe w M l n i /\ within d s /\ covers (below (segment_of w M l n i)) (d - near s).
Proof.
  intros w M l n below d. unfold through. rewrite covers_join, covers_flat_map.
  split; intros (i & first & second); exists i; cbv zeta in *.
  - rewrite covers_inside, segments_of_segment_of, spans_of_span_of, in_stripes in *. tauto.
  - rewrite covers_inside, segments_of_segment_of, spans_of_span_of, in_stripes in *. tauto.
Qed.

(** By induction on the levels: the union of the spans of all paths is what is reached. *)
Theorem reached_leads : forall ls w n d,
  covers (reached ls w n) d <-> exists path, leads w ls n path d.
Proof.
  induction ls as [| l rest IH]; intros w n d.
  - cbn [reached]. rewrite covers_cons. split.
    + intros [held | none]; [now exists [] | now apply covers_nil in none].
    + intros ([| i path] & led); [now left | destruct led].
  - cbn [reached]. rewrite covers_through. split.
    + intros (i & isi & held & led). apply IH in led. destruct led as (path & led).
      exists (i :: path). cbn [leads]. auto.
    + intros ([| i path] & led); [destruct led |]. destruct led as (isi & held & led).
      exists i. cbv zeta. rewrite IH. eauto.
Qed.

(** ** The same from tables

    [table ls count] has [reached ls 0 n] for [n < count] keys, each level's from the one below it,
    where no level of [ls] is aligned: these reach the same distances wherever a segment lies.
    Aligned levels, and what stands above them, are not looked up. *)

Definition is_aligned (l : level) : bool :=
  match l with
  | Tight _ | Power _ _ _ _ | Even => false
  | Aligned => true
  end.

Definition lookup (ls : list level) (spans : list (list span)) (n : segment) : list span :=
  match (if (n <? 0) || existsb is_aligned ls then None else nth_error spans (Z.to_nat n)) with
  | Some known => known
  | None => reached ls 0 n
  end.

Fixpoint table (ls : list level) (count : nat) : list (list span) :=
  match ls with
  | [] => []
  | l :: rest =>
      if existsb is_aligned ls then []
      else
        let below := table rest count in
        map (fun n => through 0 (steps_of ls) l (first_keys n) (lookup rest below)) (range 0 count)
  end.

Lemma through_ext : forall w M l n f g,
  (forall m, f m = g m) -> through w M l n f = through w M l n g.
Proof.
  intros w M l n f g same. unfold through. f_equal.
  apply flat_map_ext. intros i. now rewrite same.
Qed.

(** Without an aligned level only the number of keys matters. *)
Lemma reached_anywhere : forall ls w n n',
  existsb is_aligned ls = false -> held n = held n' -> reached ls w n = reached ls w n'.
Proof.
  induction ls as [| l rest IH]; intros w n n' free same; cbn [reached].
  - now rewrite same.
  - cbn [existsb] in free. apply orb_false_elim in free. destruct free as [l_free rest_free].
    assert (same_stripes : stripes w (steps_of (l :: rest)) l n
                           = stripes w (steps_of (l :: rest)) l n').
    { unfold stripes. destruct l as [e | e b f q | |]; try discriminate l_free;
        cbn [last_searched]; unfold last_stripe; cbn [held beyond]; now rewrite same. }
    unfold through. rewrite same_stripes. f_equal. apply flat_map_ext. intros i.
    assert (same_span : spans_of w (steps_of (l :: rest)) l n i
                        = spans_of w (steps_of (l :: rest)) l n' i).
    { destruct l as [e | e b f q | |]; try discriminate l_free; cbn [spans_of span_of];
        now rewrite same. }
    rewrite same_span. cbv zeta. f_equal. apply IH; [exact rest_free |].
    destruct l; try discriminate l_free; reflexivity.
Qed.

Lemma lookup_table : forall ls count n, lookup ls (table ls count) n = reached ls 0 n.
Proof.
  induction ls as [| l rest IH]; intros count n; unfold lookup.
  - destruct ((n <? 0) || existsb is_aligned []); [reflexivity |].
    cbn [table]. now destruct (Z.to_nat n).
  - destruct (Z.ltb_spec n 0) as [negative | natural]; [reflexivity |]. cbn [orb].
    cbn [table]. destruct (existsb is_aligned (l :: rest)) eqn:free; [reflexivity |].
    rewrite nth_error_map.
    destruct (Nat.lt_ge_cases (Z.to_nat n) count) as [below | beyond].
    + rewrite nth_range by assumption. cbn [option_map].
      rewrite Z2Nat.id by assumption. rewrite Z.add_0_l.
      rewrite (reached_anywhere (l :: rest) 0 n (first_keys n) free eq_refl). cbn [reached].
      now apply through_ext.
    + now rewrite nth_range_beyond.
Qed.

(** ** The first hole of a context *)

(** The hole of the query that has [n] eligible keys, with the table of the levels below the
    first. *)
Definition hole_of (s : schedule) (below : list (list span)) (start n : Z) : option (Z * Z) :=
  let t := start + n - 1 in
  let newest := Z.max 0 (window_of s) in
  let spans :=
    match levels s with
    | [] => [Span 0 n]
    | l :: rest =>
        through (window_index s) (steps_of (levels s)) l (seen start t) (lookup rest below)
    end in
  match oldest_missing (Z.to_nat (n - newest)) spans newest (n - 1) with
  | Some d => Some (t, t - d)
  | None => None
  end.

Definition first_hole (s : schedule) (start len : Z) : option (Z * Z) :=
  let count := Z.to_nat (len - start) in
  first_some (hole_of s (table (tl (levels s)) (S count)) start) (range 1 count).

Lemma reachable_covers : forall s start t j,
  reachable s start t j <->
  t - j < window_of s \/ covers (reached (levels s) (window_index s) (seen start t)) (t - j).
Proof.
  intros s start t j. unfold reachable. cbv zeta. now rewrite reached_leads.
Qed.

Lemma hole_of_reached : forall s start n count,
  hole_of s (table (tl (levels s)) count) start n =
  let newest := Z.max 0 (window_of s) in
  let t := start + n - 1 in
  match oldest_missing (Z.to_nat (n - newest))
          (reached (levels s) (window_index s) (seen start t)) newest (n - 1) with
  | Some d => Some (start + n - 1, start + n - 1 - d)
  | None => None
  end.
Proof.
  intros s start n count. unfold hole_of. cbv zeta.
  destruct (levels s) as [| l rest]; cbn [tl reached].
  { cbn [held seen]. now replace (start + n - 1 + 1 - start) with n by lia. }
  now rewrite (through_ext _ _ _ _ _ _ (lookup_table rest count)).
Qed.

(** No hole of the query with [n] keys: it reaches each of them. *)
Lemma hole_of_none : forall s start n count,
  hole_of s (table (tl (levels s)) count) start n = None ->
  forall j, start <= j <= start + n - 1 -> reachable s start (start + n - 1) j.
Proof.
  intros s start n count. rewrite hole_of_reached. cbv zeta.
  set (newest := Z.max 0 (window_of s)).
  destruct (oldest_missing _ _ newest (n - 1)) as [d |] eqn:search; [discriminate |].
  intros _ j inj. apply reachable_covers.
  destruct (Z.lt_ge_cases (start + n - 1 - j) (window_of s)) as [newer | older]; [now left | right].
  apply oldest_missing_none with (2 := search); lia.
Qed.

(** A hole of the query with [n] keys: an eligible key out of reach, and no older one is. *)
Lemma hole_of_some : forall s start n count t j,
  hole_of s (table (tl (levels s)) count) start n = Some (t, j) ->
  t = start + n - 1 /\ start <= j <= t /\ ~ reachable s start t j /\
  forall j', start <= j' < j -> reachable s start t j'.
Proof.
  intros s start n count t j. rewrite hole_of_reached. cbv zeta.
  set (newest := Z.max 0 (window_of s)).
  destruct (oldest_missing _ _ newest (n - 1)) as [d |] eqn:search; [| discriminate].
  apply oldest_missing_some in search. destruct search as (ind & missing & older).
  intros same. injection same as <- <-.
  split; [reflexivity | split; [lia | split]].
  - rewrite reachable_covers.
    replace (start + n - 1 - (start + n - 1 - d)) with d by lia.
    intros [newer | held]; [lia | contradiction].
  - intros j' inj. apply reachable_covers. right. apply older. lia.
Qed.

(** ** The checker is right *)

Theorem first_hole_none : forall s start len,
  first_hole s start len = None <-> covered s start len.
Proof.
  intros s start len. unfold first_hole. cbv zeta. split.
  - rewrite first_some_none. intros none t j inj below.
    specialize (none (t + 1 - start) ltac:(lia)). apply hole_of_none with (j := j) in none; [| lia].
    now replace (start + (t + 1 - start) - 1) with t in none by lia.
  - intros all. apply first_some_none. intros n inn.
    destruct (hole_of s _ start n) as [(t, j) |] eqn:hole; [| reflexivity].
    apply hole_of_some in hole. destruct hole as (-> & inj & missing & _).
    contradiction missing. apply all; lia.
Qed.

Theorem first_hole_some : forall s start len t j,
  first_hole s start len = Some (t, j) ->
  start <= j <= t /\ t < len /\ ~ reachable s start t j /\
  forall t' j', start <= j' <= t' -> t' < t \/ t' = t /\ j' < j -> reachable s start t' j'.
Proof.
  intros s start len t j. unfold first_hole. cbv zeta. intros some.
  apply first_some_some in some. destruct some as (n & inn & hole & earlier).
  apply hole_of_some in hole. destruct hole as (-> & inj & missing & older).
  split; [assumption | split; [lia | split; [assumption |]]].
  intros t' j' eligible [newer | (-> & smaller)]; [| apply older; lia].
  specialize (earlier (t' + 1 - start) ltac:(lia)).
  apply hole_of_none with (j := j') in earlier; [| lia].
  now replace (start + (t' + 1 - start) - 1) with t' in earlier by lia.
Qed.

(** The two say that a hole is found exactly where there is one, so coverage is decidable. *)
Corollary covered_decidable : forall s start len, {covered s start len} + {~ covered s start len}.
Proof.
  intros s start len. destruct (first_hole s start len) as [hole |] eqn:search.
  - right. rewrite <- first_hole_none. congruence.
  - left. now apply first_hole_none.
Defined.
