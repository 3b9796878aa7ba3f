(** * Aligned parts: where they lie, and that they stay (SPEC 2.3)

    A part of the aligned rule is [s = 2^c] keys between two multiples of [s], counted from key 0.
    The query does not occur in that, and so while [c] stays the same a part that is whole stays
    what it is as queries move on, with all that the levels below make of it. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality Completeness Sufficiency.
Import ListNotations.
Open Scope Z_scope.

(** ** Parts *)

Lemma division_bounds : forall a s, 0 < s -> a / s * s <= a < (a / s + 1) * s.
Proof.
  intros a s s_pos. assert (division := Z.div_mod a s ltac:(lia)).
  assert (remainder := Z.mod_pos_bound a s s_pos). lia.
Qed.

Lemma quotient_unique : forall a s q, 0 < s -> q * s <= a < (q + 1) * s -> a / s = q.
Proof. intros a s q s_pos bounds. assert (here := division_bounds a s s_pos). nia. Qed.

(** The keys of stripe [i]: those of part [j] that the segment has and the window has not. *)
Theorem parts_are_blocks : forall w M (n : segment) i k,
  let s := part M (beyond w n) in
  let j := part_at M (beyond w n) i in
  within (ends n - 1 - k) (span_of w M Aligned n i) <->
  j * s <= k < (j + 1) * s /\ ends n - n <= k < ends n - w.
Proof. intros w M n i k. unfold within. cbn [span_of near far]. lia. Qed.

(** Its anchor is its newest key. *)
Theorem anchor_is_newest : forall w M (n : segment) i,
  anchor w M Aligned n i = near (span_of w M Aligned n i).
Proof. intros w M n i. cbn [anchor span_of near stripe ends beyond]. lia. Qed.

(** Each key of the segment outside the window lies in one part. *)
Theorem parts_partition : forall w M (n : segment) k,
  0 < M -> ends n - n <= k < ends n - w ->
  exists! i, is_stripe w M Aligned n i /\ within (ends n - 1 - k) (span_of w M Aligned n i).
Proof.
  intros w M n k M_pos range.
  assert (the_part := fun i => aligned_choice w M n (ends n - 1 - k) i M_pos ltac:(lia)).
  eexists. split; [apply the_part; reflexivity |].
  intros i chosen. symmetry. now apply the_part.
Qed.

(** No part is empty, and it lies inside the segment and outside the window. *)
Theorem parts_are_causal : forall w M (n : segment) i,
  0 < M -> 0 <= w -> is_stripe w M Aligned n i ->
  let s := span_of w M Aligned n i in
  let a := ends n - 1 - anchor w M Aligned n i in
  ends n - n <= ends n - far s /\ ends n - far s <= a /\ a = ends n - near s - 1 /\
  ends n - near s <= ends n - w.
Proof.
  intros w M n i M_pos w_nonneg chosen s a. unfold a, s.
  assert (order := span_in_segment w M Aligned n i M_pos I w_nonneg chosen).
  assert (newest := anchor_is_newest w M n i). cbn [window] in order. lia.
Qed.

(** The stripes searched are the parts from the oldest key's to the newest key's. *)
Lemma is_part_iff : forall w M (n : segment) i,
  0 < n - w ->
  (is_stripe w M Aligned n i <->
   (ends n - n) / part M (beyond w n) <= part_at M (beyond w n) i
     <= (ends n - w - 1) / part M (beyond w n)).
Proof.
  intros w M n i some. unfold is_stripe, part_at. cbn [first_stripe last_searched].
  unfold last_stripe. cbn [held ends beyond].
  replace (ends n - w - (n - w)) with (ends n - n) by lia.
  destruct (Z.leb_spec (n - w) 0); lia.
Qed.

Lemma part_needs_keys : forall w M (n : segment) i, is_stripe w M Aligned n i -> 0 < n - w.
Proof.
  intros w M n i chosen. destruct (Z.lt_ge_cases 0 (n - w)) as [some | none]; [exact some |].
  unfold is_stripe in chosen. cbn [first_stripe last_searched] in chosen.
  rewrite last_stripe_empty in chosen by (cbn [held beyond]; lia). lia.
Qed.

(** ** Parts stay *)

(** A whole part, said without the query: [q] is its number and [b] the segment's oldest key. *)
Lemma whole_part : forall w M (n : segment) i,
  let s := part M (beyond w n) in
  let q := part_at M (beyond w n) i in
  (q + 1) * s <= ends n - w ->
  segment_of w M Aligned n i =
  Segment ((q + 1) * s - Z.max (ends n - n) (q * s)) ((q + 1) * s) s.
Proof.
  intros w M n i s q whole. unfold segment_of. cbn [span_of]. unfold size. cbn [near far].
  fold s. fold q. f_equal; lia.
Qed.

(** How far the number of a part's stripe moves, from the segment [n] to the segment [n']. *)
Definition shift (w s : Z) (n n' : segment) : Z :=
  (ends n' - w - 1) / s - (ends n - w - 1) / s.

(** Two segments with the same oldest key and the same [s]: each part that is whole in both is a
    stripe of both or of neither, and the same segment for the levels below. *)
Theorem parts_stay : forall w M (n n' : segment) i,
  0 < n - w -> 0 < n' - w -> ends n' - n' = ends n - n ->
  part M (beyond w n') = part M (beyond w n) ->
  let s := part M (beyond w n) in
  let i' := i + shift w s n n' in
  (part_at M (beyond w n) i + 1) * s <= Z.min (ends n - w) (ends n' - w) ->
  (is_stripe w M Aligned n' i' <-> is_stripe w M Aligned n i) /\
  segment_of w M Aligned n' i' = segment_of w M Aligned n i.
Proof.
  intros w M n n' i some some' same_start same_part s i' whole.
  assert (s_pos : 0 < s) by apply part_positive.
  assert (same_number : part_at M (beyond w n') i' = part_at M (beyond w n) i).
  { unfold i', shift, part_at. rewrite same_part. cbn [ends beyond]. fold s. lia. }
  split.
  - rewrite !is_part_iff by assumption. rewrite same_number, same_part, same_start. fold s.
    set (q := part_at M (beyond w n) i) in *.
    assert (inside := division_bounds (ends n - w - 1) s s_pos).
    assert (inside' := division_bounds (ends n' - w - 1) s s_pos).
    assert (q <= (ends n - w - 1) / s) by nia. assert (q <= (ends n' - w - 1) / s) by nia. lia.
  - rewrite !whole_part; rewrite ?same_number, ?same_part, ?same_start;
      [reflexivity | fold s; lia ..].
Qed.

(** So a key of such a part has the same ways below it for the query [t] as for the query [t']. *)
Theorem paths_stay : forall w rest start t t' i path k,
  let M := steps_of (Aligned :: rest) in
  let s := part M (beyond w (seen start t)) in
  let i' := i + shift w s (seen start t) (seen start t') in
  0 <= w -> w <= t - start -> t <= t' -> part M (beyond w (seen start t')) = s ->
  (k / s + 1) * s <= t + 1 - w ->
  (leads w (Aligned :: rest) (seen start t') (i' :: path) (t' - k) <->
   leads w (Aligned :: rest) (seen start t) (i :: path) (t - k)).
Proof.
  intros w rest start t t' i path k M s i' w_nonneg some later same_part whole.
  assert (s_pos : 0 < s) by apply part_positive.
  set (n := seen start t) in *. set (n' := seen start t') in *.
  assert (n_is : held n = t + 1 - start /\ ends n = t + 1) by (split; reflexivity).
  assert (n'_is : held n' = t' + 1 - start /\ ends n' = t' + 1) by (split; reflexivity).
  assert (same_number : part_at M (beyond w n') i' = part_at M (beyond w n) i).
  { unfold i', shift, part_at. rewrite same_part. cbn [ends beyond]. fold s. lia. }
  assert (here := parts_are_blocks w M n i k). cbv zeta in here.
  assert (there := parts_are_blocks w M n' i' k). cbv zeta in there.
  rewrite same_part, same_number in there. fold s in here, there.
  replace (ends n - 1 - k) with (t - k) in here by lia.
  replace (ends n' - 1 - k) with (t' - k) in there by lia.
  assert (number : forall q, q * s <= k < (q + 1) * s -> q = k / s)
    by (intros q bounds; symmetry; now apply quotient_unique).
  cbn [leads]. fold M.
  destruct (Z.eq_dec (part_at M (beyond w n) i) (k / s)) as [same | other].
  2: { split; intros (_ & inside & _); [apply there in inside | apply here in inside];
         contradiction other; apply number; apply inside. }
  destruct (parts_stay w M n n' i) as [same_stripe same_segment]; try lia.
  fold s i' in same_stripe, same_segment.
  assert (below := division_bounds k s s_pos).
  assert (same_place : t' - k - near (span_of w M Aligned n' i')
                       = t - k - near (span_of w M Aligned n i)).
  { assert (borders := f_equal ends same_segment). cbn [segment_of ends] in borders. lia. }
  rewrite same_stripe, same_segment, same_place, there, here, same. intuition lia.
Qed.

(** [c] stays the same while [h^(M-1)] stays between two powers that are a factor [2^M] apart. *)
Theorem part_exponent_iff : forall M h c,
  0 < M -> 0 <= h -> 0 < c ->
  (part_exponent M h = c <->
   2 ^ (M * (2 * c - 1)) < h ^ (2 * (M - 1)) <= 2 ^ (M * (2 * c + 1))).
Proof.
  intros M h c M_pos h_nonneg c_pos.
  assert (at_most := part_exponent_le_iff M h c M_pos h_nonneg ltac:(lia)).
  assert (less := part_exponent_le_iff M h (c - 1) M_pos h_nonneg ltac:(lia)).
  replace (2 * (c - 1) + 1) with (2 * c - 1) in less by lia. lia.
Qed.

(** ** Aligned at every level *)

Lemma aligned_good : forall k w, 0 <= w -> good (Schedule (repeat Aligned k) w).
Proof.
  intros k w w_nonneg. split; [| exact w_nonneg]. apply Forall_forall. intros l l_in.
  apply repeat_spec in l_in. subst l. exact I.
Qed.

Lemma aligned_partition : forall k, Forall partitioning (repeat Aligned k).
Proof.
  intros k. apply Forall_forall. intros l l_in. apply repeat_spec in l_in. subst l. exact I.
Qed.

Theorem aligned_covers : forall k w start len,
  0 <= w -> covered (Schedule (repeat Aligned k) w) start len.
Proof.
  intros k w start len w_nonneg.
  apply complete_covered; [now apply aligned_good | apply aligned_partition].
Qed.

Theorem aligned_has_one_path : forall k w start t j,
  0 <= w -> start <= j <= t -> w <= t - j ->
  exists! path, leads w (repeat Aligned k) (seen start t) path (t - j).
Proof.
  intros k w start t j w_nonneg eligible outside.
  apply (unique (Schedule (repeat Aligned k) w) start t j).
  - now apply aligned_good.
  - apply aligned_partition.
  - exact eligible.
  - destruct k; cbn [window_of levels window_index repeat window]; lia.
Qed.
