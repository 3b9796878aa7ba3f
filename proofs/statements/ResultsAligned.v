(** * What is proved: the aligned rule (SPEC 2.3)

    As in Results.v: theorems, each with a sentence, an example and what both rest on, to be read
    with Schedule.v and [interval] of ResultsCost.v; what the rule costs is in ResultsAlignedCost.v.
    In the sentences [M] steps are left, [s = 2^c] is the length of a part, and [h] is the nominal
    length of the segment.  What Results.v and ResultsFactor.v say of all good schedules, or of all
    that partition, is not said again: an example here shows it at work. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Results ResultsFactor ResultsCost.
From Multistep Require Aligned Powers.
Import ListNotations.
Open Scope Z_scope.

(** ** How long a part is (Powers.v, Aligned.v) *)

(** What computes c computes the smallest c ≥ 0 with 2^(M(2c+1)) ≥ h^(2(M−1)).
    SPEC 2.3; `aligned_part`. *)
Theorem part_is_exact : forall M h,
  0 < M -> 0 <= h -> is_part_exponent M h (part_exponent M h).
Proof. exact Powers.part_exponent_spec. Qed.

(** The lengths of the parts, level after level, where all are aligned. *)
Fixpoint part_lengths (search_levels : nat) (h : Z) : list Z :=
  match search_levels with
  | O => []
  | S k => let s := 2 ^ part_exponent (Z.of_nat k + 2) h in s :: part_lengths k s
  end.

(** SPEC 14. *)
Example lengths_at_2_20_and_10_7 :
  map (fun k => part_lengths k (2 ^ 20)) [1; 2; 3]%nat
    = [[1024]; [8192; 64]; [32768; 1024; 32]] /\
  map (fun k => part_lengths k (10 ^ 7)) [1; 2; 3]%nat
    = [[4096]; [65536; 256]; [131072; 2048; 32]] /\
  is_part_exponent 2 (2 ^ 20) 10.
Proof.
  split; [computed | split; [computed |]].
  replace 10 with (part_exponent 2 (2 ^ 20)) by computed. apply part_is_exact; lia.
Qed.

Print Assumptions part_is_exact.
Print Assumptions lengths_at_2_20_and_10_7.

(** For c ≥ 1 it is c where 2^(M(2c−1)) < h^(2(M−1)) ≤ 2^(M(2c+1)), and nowhere else.
    SPEC 2.3; `aligned_part`. *)
Theorem part_length_stays : forall M h c,
  0 < M -> 0 <= h -> 0 < c ->
  (part_exponent M h = c <->
   2 ^ (M * (2 * c - 1)) < h ^ (2 * (M - 1)) <= 2 ^ (M * (2 * c + 1))).
Proof. exact Aligned.part_exponent_iff. Qed.

(** Two steps: from 513 to 2048 keys a part has 32. *)
Example parts_of_32 : forall h, 0 <= h -> (part_exponent 2 h = 5 <-> 513 <= h <= 2048).
Proof.
  intros h h_nonneg. rewrite part_length_stays by lia.
  change (2 ^ (2 * (2 * 5 - 1))) with (512 ^ 2). change (2 ^ (2 * (2 * 5 + 1))) with (2048 ^ 2).
  change (2 * (2 - 1)) with 2. rewrite Powers.pow_lt_iff, Powers.pow_le_iff by lia. lia.
Qed.

Print Assumptions part_length_stays.
Print Assumptions parts_of_32.

(** ** Parts (Aligned.v) *)

(** The keys of a span, half-open. *)
Definition keys_of (n : segment) (s : span) : Z * Z := (ends n - far s, ends n - near s).

(** The parts that an aligned level searches in a segment, oldest first. *)
Definition parts (w M : Z) (n : segment) : list (Z * Z) :=
  rev (map (fun i => keys_of n (span_of w M Aligned n i))
           (interval 1 (last_searched w M Aligned n + 1))).

(** A stripe stands for the keys [js, (j+1)s) that the segment has and the window has not.
    SPEC 2.3; `Cut::span`. *)
Theorem parts_are_blocks : forall w M (n : segment) i k,
  let s := part M (beyond w n) in
  let j := part_at M (beyond w n) i in
  within (ends n - 1 - k) (span_of w M Aligned n i) <->
  j * s <= k < (j + 1) * s /\ ends n - n <= k < ends n - w.
Proof. exact Aligned.parts_are_blocks. Qed.

(** SPEC 14: queries 29 and 19 of three steps, parts inside those of query 29, and query 29 of two
    steps with [start = 5] and [w = 3]. *)
Example parts_of_queries :
  parts 0 3 (seen 0 29) = [(0, 8); (8, 16); (16, 24); (24, 30)] /\
  map (fun i => parts 0 2 (segment_of 0 3 Aligned (seen 0 29) i)) [4; 1]
    = [[(0, 2); (2, 4); (4, 6); (6, 8)]; [(24, 26); (26, 28); (28, 30)]] /\
  parts 0 3 (seen 0 19) = [(0, 8); (8, 16); (16, 20)] /\
  parts 0 2 (segment_of 0 3 Aligned (seen 0 19) 1) = [(16, 18); (18, 20)] /\
  parts 3 2 (seen 5 29) = [(5, 8); (8, 12); (12, 16); (16, 20); (20, 24); (24, 27)] /\
  forall k, within (29 - k) (span_of 0 3 Aligned (seen 0 29) 2) <-> 16 <= k < 24.
Proof.
  do 5 (split; [computed |]). intros k.
  rewrite (parts_are_blocks 0 3 (seen 0 29) 2 k : within (29 - k) _ <-> _).
  change (part 3 (beyond 0 (seen 0 29))) with 8.
  change (part_at 3 (beyond 0 (seen 0 29)) 2) with 2. cbn [ends held seen]. lia.
Qed.

Print Assumptions parts_are_blocks.
Print Assumptions parts_of_queries.

(** Each key of a segment outside its window lies in one part, and in no other.
    SPEC 2.3; `Cut::span`. *)
Theorem parts_partition : forall w M (n : segment) k,
  0 < M -> ends n - n <= k < ends n - w ->
  exists! i, is_stripe w M Aligned n i /\ within (ends n - 1 - k) (span_of w M Aligned n i).
Proof. exact Aligned.parts_partition. Qed.

(** Key 10 of query 29 lies in [[8, 16)], the third part from the newest. *)
Example part_of_key_10 : forall i,
  is_stripe 0 3 Aligned (seen 0 29) i /\ within (29 - 10) (span_of 0 3 Aligned (seen 0 29) i) <->
  i = 3.
Proof.
  destruct (parts_partition 0 3 (seen 0 29) 10 ltac:(lia) ltac:(computed)) as (i & here & only).
  assert (third : i = 3) by (apply only; computed). subst i.
  intros i. split; [intros there; symmetry; exact (only i there) | now intros ->].
Qed.

Print Assumptions parts_partition.
Print Assumptions part_of_key_10.

(** No part is empty; its anchor is its newest key; both lie inside the segment and outside the
    window.
    SPEC 2.3; `Cut::anchor`. *)
Theorem parts_are_causal : forall w M (n : segment) i,
  0 < M -> 0 <= w -> is_stripe w M Aligned n i ->
  let '(first, past) := keys_of n (span_of w M Aligned n i) in
  let key := ends n - 1 - anchor w M Aligned n i in
  ends n - n <= first /\ first <= key /\ key = past - 1 /\ past <= ends n - w.
Proof. exact Aligned.parts_are_causal. Qed.

(** SPEC 14: the anchors of query 29, newest first. *)
Example anchors_of_query_29 :
  map (fun i => 29 - anchor 0 3 Aligned (seen 0 29) i) [1; 2; 3; 4]
    = [29; 23; 15; 7] /\
  let '(first, past) := keys_of (seen 0 29) (span_of 0 3 Aligned (seen 0 29) 1) in
  0 <= first /\ first <= 29 /\ 29 = past - 1 /\ past <= 30.
Proof.
  split; [computed |].
  exact (parts_are_causal 0 3 (seen 0 29) 1 ltac:(lia) ltac:(lia) ltac:(computed)).
Qed.

Print Assumptions parts_are_causal.
Print Assumptions anchors_of_query_29.

(** ** Every key is reached, and in one way *)

(** Aligned at every level: each eligible key outside the window has exactly one path.
    SPEC 2.5.1; `multiplicity`. *)
Theorem aligned_has_one_path : forall k w start t j,
  0 <= w -> start <= j <= t -> w <= t - j ->
  exists! path, leads w (repeat Aligned k) (seen start t) path (t - j).
Proof. exact Aligned.aligned_has_one_path. Qed.

(** Query 29, key 10: [[8, 16)] is the third part, and [[10, 12)] the third in it. *)
Example path_to_key_10 : forall path,
  leads 0 (repeat Aligned 2) (seen 0 29) path (29 - 10) <-> path = [3; 3].
Proof.
  destruct (aligned_has_one_path 2 0 0 29 10 ltac:(lia) ltac:(lia) ltac:(lia)) as (path & _ & only).
  assert (here : leads 0 (repeat Aligned 2) (seen 0 29) [3; 3] (29 - 10)) by computed.
  intros other. split; [| now intros ->]. intros led.
  rewrite <- (only other led). exact (only [3; 3] here).
Qed.

Print Assumptions aligned_has_one_path.
Print Assumptions path_to_key_10.

(** So it covers every length, for every number of steps, first key and window.
    SPEC 2.5.1; `verify_all`. *)
Theorem aligned_covers : forall k w start stop,
  0 <= w -> covered (Schedule (repeat Aligned k) w) start stop.
Proof. exact Aligned.aligned_covers. Qed.

Example aligned_covers_10_12 : covered (Schedule (repeat Aligned 3) 100) 7 (10 ^ 12).
Proof. now apply aligned_covers. Qed.

(** In mixtures with all other rules, above and below: Results.v and ResultsFactor.v. *)
Example mixtures_cover : forall start stop,
  covered (Schedule [default_tight 5; Aligned; Even; Aligned] 3) start stop /\
  covered (Schedule [Aligned; default_power 4; Aligned; default_power 2] 5) start stop /\
  covered (Schedule [released_level; Aligned; released_level] 65) start stop.
Proof.
  intros start stop. split; [| split].
  - apply partitions_cover; repeat constructor; computed.
  - apply factor_M_covers; repeat constructor; computed.
  - apply far_reaching_covers; repeat constructor; computed.
Qed.

Print Assumptions aligned_covers.
Print Assumptions aligned_covers_10_12.
Print Assumptions mixtures_cover.

(** ** Parts stay where they are (Aligned.v) *)

(** How far the number of a part's stripe moves, counted from the newest, from the segment [n] to
    the segment [n']. *)
Definition stripe_shift (w s : Z) (n n' : segment) : Z :=
  (ends n' - w - 1) / s - (ends n - w - 1) / s.

(** Two segments with one oldest key and one s have every part in common that ends at or before the
    last border of both, the same segment for the levels below.
    SPEC 2.3; `Cut::below`. *)
Theorem parts_stay : forall w M (n n' : segment) i
  (some : 0 < n - w) (some' : 0 < n' - w) (same_oldest_key : ends n' - n' = ends n - n)
  (same_length : part M (beyond w n') = part M (beyond w n)),
  let s := part M (beyond w n) in
  let i' := i + stripe_shift w s n n' in
  forall whole : (part_at M (beyond w n) i + 1) * s <= Z.min (ends n - w) (ends n' - w),
  (is_stripe w M Aligned n' i' <-> is_stripe w M Aligned n i) /\
  segment_of w M Aligned n' i' = segment_of w M Aligned n i.
Proof. exact Aligned.parts_stay. Qed.

(** Queries 19 and 29: [[8, 16)] is the second part, then the third. *)
Example part_8_16_stays :
  stripe_shift 0 8 (seen 0 19) (seen 0 29) = 1 /\
  (is_stripe 0 3 Aligned (seen 0 29) 3 <-> is_stripe 0 3 Aligned (seen 0 19) 2) /\
  segment_of 0 3 Aligned (seen 0 29) 3 = segment_of 0 3 Aligned (seen 0 19) 2 /\
  segment_of 0 3 Aligned (seen 0 19) 2 = Segment 8 16 8.
Proof.
  split; [reflexivity |].
  destruct (parts_stay 0 3 (seen 0 19) (seen 0 29) 2 ltac:(computed) ltac:(computed)
              ltac:(computed) ltac:(computed) ltac:(computed)) as [same_stripe same].
  split; [exact same_stripe | split; [exact same | reflexivity]].
Qed.

Print Assumptions parts_stay.
Print Assumptions part_8_16_stays.

(** So while s stays the same, a key whose part is whole keeps its paths as the query moves on,
    whatever the rules below; only the stripe's number moves, by one shift for all.
    SPEC 2.3; `greedy_path`. *)
Theorem aligned_paths_stay : forall w rest start t t' i path j,
  let M := steps_of (Aligned :: rest) in
  let s := part M (beyond w (seen start t)) in
  let i' := i + stripe_shift w s (seen start t) (seen start t') in
  forall (w_nonneg : 0 <= w) (keys_outside_window : w <= t - start) (moves_on : t <= t')
    (same_length : part M (beyond w (seen start t')) = s) (whole : (j / s + 1) * s <= t + 1 - w),
  (leads w (Aligned :: rest) (seen start t') (i' :: path) (t' - j) <->
   leads w (Aligned :: rest) (seen start t) (i :: path) (t - j)).
Proof. exact Aligned.paths_stay. Qed.

(** Key 10 with two tight levels below the aligned one: parts of 32 keys from query 64 to query
    160, and [[0, 32)] is the third one at query 69 and the fourth at query 99. *)
Example path_to_10_stays :
  let levels := [Aligned; default_tight 3; default_tight 2] in
  leads 0 levels (seen 0 69) [3; 2; 3] (69 - 10) /\ leads 0 levels (seen 0 99) [4; 2; 3] (99 - 10).
Proof.
  intros levels.
  assert (before : leads 0 levels (seen 0 69) [3; 2; 3] (69 - 10)) by computed.
  split; [exact before |].
  apply (aligned_paths_stay 0 [default_tight 3; default_tight 2] 0 69 99 3 [2; 3] 10);
    try exact before; computed.
Qed.

Print Assumptions aligned_paths_stay.
Print Assumptions path_to_10_stays.
