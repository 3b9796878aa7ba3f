(** * What is proved: which keys are reached

    Above each theorem stand a sentence, its section of SPEC.md and its part of the C++; below it an
    example with numbers and Coq's word on what both rest on.  Readable with Schedule.v alone: what
    else a statement needs is defined before it.  The proofs are in the files named. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule.
From Multistep Require Powers Causality Completeness Numerals Checker.
Import ListNotations.
Open Scope Z_scope.

(** Decides a statement about numbers by computing it. *)
Ltac computed := vm_compute; repeat split; congruence.

Definition paper (b f : ratio) : schedule :=
  Schedule [Power (Ratio 2 1) b f (Ratio 1 2)] 0.
Definition released_level : level :=
  Power (Ratio 20 11) (Ratio 3 1) (Ratio 1 1) (Ratio 11 20).
Definition released : schedule := Schedule [released_level] 65.

(** ** The integers are the right ones (Powers.v) *)

(** What computes the roots in the statements computes the largest m with m^b ≤ x.
    SPEC 2.1; `ceil_root`. *)
Theorem root_is_exact : forall b x,
  0 < b -> 0 <= x -> 0 <= root b x /\ root b x ^ b <= x < (root b x + 1) ^ b.
Proof. exact Powers.root_spec. Qed.

Example roots_of_63 : map (fun b => root b 63) [1; 2; 3; 6] = [63; 7; 3; 1] /\ 3 ^ 3 <= 63 < 4 ^ 3.
Proof. split; [computed |]. exact (proj2 (root_is_exact 3 63 ltac:(lia) ltac:(lia))). Qed.

Print Assumptions root_is_exact.
Print Assumptions roots_of_63.

(** What computes their ceilings computes the smallest m with x ≤ m^b.
    SPEC 2.1; `ceil_root`. *)
Theorem ceil_root_is_exact : forall b x,
  0 < b -> 0 <= x ->
  0 <= ceil_root b x /\ x <= ceil_root b x ^ b /\ forall m, 0 <= m < ceil_root b x -> m ^ b < x.
Proof. exact Powers.ceil_root_spec. Qed.

Example ceil_roots_of_64 :
  ceil_root 3 64 = 4 /\ ceil_root 3 65 = 5 /\ forall m, 0 <= m < 5 -> m ^ 3 < 65.
Proof.
  split; [computed | split; [computed |]].
  exact (proj2 (proj2 (ceil_root_is_exact 3 65 ltac:(lia) ltac:(lia)))).
Qed.

Print Assumptions ceil_root_is_exact.
Print Assumptions ceil_roots_of_64.

(** What computes floor(i^e) computes the largest m with m^b ≤ i^a, e = a/b ≥ 1.
    SPEC 2.1; `floor_power`. *)
Theorem floor_power_is_exact : forall i e,
  good_exponent e -> 0 <= i -> is_floor_power i e (floor_power i e).
Proof. exact Powers.floor_power_spec. Qed.

(** Stripes of the released model. *)
Example released_stripes :
  map (fun i => floor_power i (Ratio 20 11)) [360; 410; 425] = [44444; 56300; 60102] /\
  44444 ^ 11 <= 360 ^ 20 < 44445 ^ 11.
Proof.
  split; [computed |].
  destruct (floor_power_is_exact 360 (Ratio 20 11) ltac:(computed) ltac:(lia)) as [_ between].
  now replace (floor_power 360 (Ratio 20 11)) with 44444 in between by computed.
Qed.

Print Assumptions floor_power_is_exact.
Print Assumptions released_stripes.

(** What computes ceil(c·n^q) computes the smallest B with (B·v)^b ≥ u^b·n^a, c = u/v, q = a/b.
    SPEC 2.1; `ceil_scaled_power`. *)
Theorem ceil_power_is_exact : forall c n q,
  good_factor c -> good_span_exponent q -> 0 <= n -> is_ceil_power c n q (ceil_power c n q).
Proof. exact Powers.ceil_power_spec. Qed.

(** Its reach at 2^20 keys. *)
Example released_reach :
  let n := 2 ^ 20 in
  ceil_power (Ratio 1 1) n (Ratio 11 20) = 2048 /\
  ceil_power (Ratio 3 1) n (Ratio 11 20) = 6144 /\
  3 ^ 20 * n ^ 11 <= 6144 ^ 20 /\ forall m, 0 <= m < 6144 -> (m * 1) ^ 20 < 3 ^ 20 * n ^ 11.
Proof.
  split; [computed | split; [computed | split; [computed |]]].
  destruct (ceil_power_is_exact (Ratio 3 1) (2 ^ 20) (Ratio 11 20)
              ltac:(computed) ltac:(computed) ltac:(lia)) as (_ & _ & least).
  replace (ceil_power (Ratio 3 1) (2 ^ 20) (Ratio 11 20)) with 6144 in least by computed.
  exact least.
Qed.

Print Assumptions ceil_power_is_exact.
Print Assumptions released_reach.

(** The last stripe is the last one inside the segment.
    SPEC 2.2; `StripePlan::cut`. *)
Theorem last_stripe_is_last : forall M l (n : segment) i,
  0 < M -> good_level l -> 0 <= n -> 1 <= i ->
  (stripe M l n i <= n <-> i <= last_stripe M l n).
Proof. exact Powers.last_stripe_spec. Qed.

Example released_at_2_20 :
  let n := first_keys (2 ^ 20) in
  last_stripe 2 released_level n = 2048 /\ window_of released = 2032 /\
  forall i, 1 <= i -> (stripe 2 released_level n i <= n <-> i <= 2048).
Proof.
  cbv zeta. assert (last : last_stripe 2 released_level (first_keys (2 ^ 20)) = 2048) by computed.
  split; [exact last | split; [computed |]]. rewrite <- last.
  intros i i_pos. apply last_stripe_is_last; [lia | computed | computed | exact i_pos].
Qed.

Print Assumptions last_stripe_is_last.
Print Assumptions released_at_2_20.

(** ** Spans are causal, and stripes stay where they are (Causality.v) *)

(** Every span is non-empty, lies inside its segment, and shares no key with the window.
    SPEC 2.3, 2.4; `Cut::span`. *)
Theorem spans_lie_in_their_segment : forall w M l (n : segment) i,
  0 < M -> good_level l -> 0 <= w -> is_stripe w M l n i ->
  let s := span_of w M l n i in
  window l w <= near s /\ near s < far s /\ far s <= n.
Proof. exact Causality.spans_lie_in_their_segment. Qed.

(** Two steps, query 19: four anchors, at distances 0, 3, 8 and 15. *)
Example spans_of_query_19 :
  let spans l := map (span_of 0 2 l (seen 0 19)) [1; 2; 3; 4] in
  last_stripe 2 (default_tight 2) (seen 0 19) = 4 /\
  spans (default_tight 2) = [Span 0 3; Span 3 8; Span 8 15; Span 15 20] /\
  spans (default_power 2) = [Span 0 10; Span 3 13; Span 8 18; Span 15 20] /\
  forall i, is_stripe 0 2 (default_power 2) (seen 0 19) i ->
            far (span_of 0 2 (default_power 2) (seen 0 19) i) <= 20.
Proof.
  split; [computed | split; [computed | split; [computed |]]]. intros i chosen.
  apply (spans_lie_in_their_segment 0 2 (default_power 2) (seen 0 19));
    [lia | computed | lia | exact chosen].
Qed.

Print Assumptions spans_lie_in_their_segment.
Print Assumptions spans_of_query_19.

(** Every span holds its anchor, the key that is scored for it.
    SPEC 2.2, 2.3; `Cut::anchor`. *)
Theorem spans_hold_their_anchor : forall w M l (n : segment) i,
  0 < M -> good_level l -> 0 <= w -> is_stripe w M l n i ->
  within (anchor w M l n i) (span_of w M l n i).
Proof. exact Causality.span_holds_anchor. Qed.

Example third_anchor_of_query_19 : let l := default_power 2 in
  anchor 0 2 l (seen 0 19) 3 = 8 /\
  within (anchor 0 2 l (seen 0 19) 3) (span_of 0 2 l (seen 0 19) 3).
Proof.
  split; [computed | apply spans_hold_their_anchor]; [lia | computed | lia | computed].
Qed.

Print Assumptions spans_hold_their_anchor.
Print Assumptions third_anchor_of_query_19.

(** Key [j] is scored: it is the anchor of a stripe that is searched, in the segment [n] or, below,
    in what any of its stripes stands for. *)
Fixpoint scored (w : Z) (ls : list level) (n : segment) (j : Z) : Prop :=
  match ls with
  | [] => False
  | l :: rest =>
      exists i, is_stripe w (steps_of ls) l n i /\
        (j = ends n - 1 - anchor w (steps_of ls) l n i \/
         scored 0 rest (segment_of w (steps_of ls) l n i) j)
  end.

(** Whatever search scores, the anchor of any stripe of any level below any choices, is a key of
    [start, t] outside the window.
    SPEC 2.2, 2.4; `Cut::anchor`. *)
Theorem anchors_are_eligible : forall s start t j,
  good s -> scored (window_index s) (levels s) (seen start t) j ->
  start <= j <= t /\ window_of s <= t - j.
Proof. exact Causality.anchors_are_eligible. Qed.

(** Three steps, query 29: key 22 is the second anchor, key 18 the second in its span; key 30 is
    none. *)
Example anchors_of_three_steps :
  let s := Schedule [default_tight 3; Even] 0 in
  scored 0 (levels s) (seen 0 29) 22 /\ scored 0 (levels s) (seen 0 29) 18 /\
  ~ scored 0 (levels s) (seen 0 29) 30.
Proof.
  intros s. assert (s_good : good s) by (repeat constructor; computed). split; [| split].
  - exists 2. split; [computed | now left].
  - exists 2. split; [computed | right]. exists 2. split; [computed | now left].
  - intros found. destruct (anchors_are_eligible s 0 29 30 s_good found). lia.
Qed.

Print Assumptions anchors_are_eligible.
Print Assumptions anchors_of_three_steps.

(** A path ends at a key of [start, t] outside the window, nowhere else.
    SPEC 2.2, 2.4; `multiplicity`. *)
Theorem paths_lead_to_eligible_keys : forall s start t j path,
  good s -> leads (window_index s) (levels s) (seen start t) path (t - j) ->
  start <= j <= t /\ window_of s <= t - j.
Proof. exact Causality.path_is_causal. Qed.

(** The same with the window of index 1, three keys: stripe 3 leads to key 9, none to key 18. *)
Example paths_of_query_19 :
  let s := Schedule [default_tight 2] 1 in
  window_of s = 3 /\ leads 1 (levels s) (seen 0 19) [3] (19 - 9) /\
  forall path, ~ leads 1 (levels s) (seen 0 19) path (19 - 18).
Proof.
  intros s. assert (s_good : good s) by (repeat constructor; computed).
  split; [computed | split; [computed |]]. intros path led.
  destruct (paths_lead_to_eligible_keys s 0 19 18 path s_good led) as [_ outside].
  now apply outside.
Qed.

Print Assumptions paths_lead_to_eligible_keys.
Print Assumptions paths_of_query_19.

(** As the query moves on, a stripe of the tight or the power rule stays at its distance.
    SPEC 2.2; `StripePlan::cut`. *)
Theorem stripes_keep_their_distance : forall w M l (n n' : segment) i,
  0 < M -> good_level l -> l <> Even -> l <> Aligned -> 0 <= w -> n <= n' -> is_stripe w M l n i ->
  is_stripe w M l n' i /\ stripe M l n' i = stripe M l n i.
Proof. exact Causality.stripes_stay. Qed.

(** From 20 to 48 keys the second anchor stays at distance 3; the even rule's moves from 4 to 7. *)
Example second_stripe :
  let second l n := stripe 2 l n 2 - 1 in
  (forall n : segment, 20 <= n ->
     is_stripe 0 2 (default_power 2) n 2 /\ second (default_power 2) n = 3) /\
  second Even (first_keys 20) = 4 /\ second Even (first_keys 48) = 7.
Proof.
  cbv zeta. split; [| computed]. intros n grows.
  destruct (stripes_keep_their_distance 0 2 (default_power 2) (first_keys 20) n 2) as [stays same];
    [lia | computed | discriminate | discriminate | lia | exact grows | computed |].
  split; [exact stays | rewrite same; reflexivity].
Qed.

Print Assumptions stripes_keep_their_distance.
Print Assumptions second_stripe.

(** Below a tight level 1, without aligned levels, the whole path to a distance stays in every
    longer prefix, if its first span is not the oldest.
    SPEC 2.2, 2.3; `multiplicity`. *)
Theorem paths_stay : forall e rest w (n n' : segment) i path d,
  good_exponent e -> Forall (fun l => l <> Aligned) rest -> 0 <= w -> n <= n' ->
  i < last_stripe (steps_of (Tight e :: rest)) (Tight e) n ->
  leads w (Tight e :: rest) n (i :: path) d -> leads w (Tight e :: rest) n' (i :: path) d.
Proof. exact Causality.paths_stay. Qed.

(** Three steps: distance 19 is part 4 of stripe 2 for 30 keys, and for all longer prefixes. *)
Example distance_19_stays : forall n' : segment,
  30 <= n' -> leads 0 [default_tight 3; Even] n' [2; 4] 19.
Proof.
  intros n' longer. apply (paths_stay _ _ 0 (first_keys 30)); try assumption; try computed.
  repeat constructor. discriminate.
Qed.

Print Assumptions paths_stay.
Print Assumptions distance_19_stays.

(** ** Completeness: one path to every key (Completeness.v) *)

(** The rules whose spans partition a segment. *)
Definition partitioning (l : level) : Prop :=
  match l with
  | Tight _ | Even | Aligned => True
  | Power _ _ _ _ => False
  end.

(** Rules tight, even and aligned, in any mixture, with any exponents ≥ 1: each eligible key outside
    the window has exactly one path.
    SPEC 2.5.1; `multiplicity`. *)
Theorem one_path : forall s start t j,
  good s -> Forall partitioning (levels s) -> start <= j <= t -> window_of s <= t - j ->
  exists! path, leads (window_index s) (levels s) (seen start t) path (t - j).
Proof. exact Completeness.unique. Qed.

Definition nstep3 : schedule := Schedule [default_tight 3; Even] 0.

Lemma nstep3_good : good nstep3 /\ Forall partitioning (levels nstep3).
Proof. repeat constructor; computed. Qed.

(** Query 29, key 10: through the span [[4, 23)] of stripe 2 and the part [[7, 11)] in it. *)
Example path_of_query_29 : forall path,
  leads 0 (levels nstep3) (seen 0 29) path (29 - 10) <-> path = [2; 4].
Proof.
  destruct nstep3_good as [good_s partition].
  destruct (one_path nstep3 0 29 10 good_s partition ltac:(lia) ltac:(vm_compute; congruence))
    as (path & _ & unique).
  assert (here : leads 0 (levels nstep3) (seen 0 29) [2; 4] (29 - 10)) by computed.
  intros other. split; [| now intros ->]. intros led.
  rewrite <- (unique other led). exact (unique [2; 4] here).
Qed.

Print Assumptions one_path.
Print Assumptions nstep3_good.
Print Assumptions path_of_query_29.

(** So every such schedule covers every length.
    SPEC 2.5.1; `verify_all`. *)
Theorem partitions_cover : forall s start stop,
  good s -> Forall partitioning (levels s) -> covered s start stop.
Proof. exact Completeness.complete_covered. Qed.

Example nstep3_covers : forall stop, covered nstep3 0 stop.
Proof. intros stop. apply partitions_cover; apply nstep3_good. Qed.

Print Assumptions partitions_cover.
Print Assumptions nstep3_covers.

(** ** The path is a numeral in powers N, N-1, ..., 1 (Numerals.v) *)

Fixpoint tight_levels (steps : nat) : list level :=
  match steps with
  | O => []
  | S k => default_tight (Z.of_nat k + 2) :: tight_levels k
  end.

Fixpoint greedy (steps : nat) (d : Z) : list Z :=
  match steps with
  | O => []
  | S k =>
      let M := Z.of_nat (S k) in
      let i := root M (d + 1) in
      i :: greedy k (d - (i ^ M - 1))
  end.

Fixpoint value (digits : list Z) : Z :=
  match digits with
  | [] => 0
  | i :: rest => (i ^ Z.of_nat (length digits) - 1) + value rest
  end.

(** The greedy numeral of d, digits i_1 … i_N, has the value d = Σ (i_m^(N−m+1) − 1).
    SPEC 2.5.1; `greedy_path`. *)
Theorem numerals_have_their_value : forall N d,
  (1 <= N)%nat -> 0 <= d -> value (greedy N d) = d.
Proof. exact Numerals.greedy_value. Qed.

(** [12 = (2^3 - 1) + (2^2 - 1) + (3 - 1)] *)
Example numeral_of_12 : greedy 3 12 = [2; 2; 3] /\ value [2; 2; 3] = 12.
Proof. split; [computed |]. exact (numerals_have_their_value 3 12 ltac:(lia) ltac:(lia)). Qed.

Print Assumptions numerals_have_their_value.
Print Assumptions numeral_of_12.

(** Tight everywhere with default exponents: the path to distance d is the numeral of d without its
    last digit.
    SPEC 2.5.1; `greedy_path`. *)
Theorem paths_are_numerals : forall k w start t j path,
  let s := Schedule (tight_levels k) w in
  0 <= w -> start <= j <= t -> window_of s <= t - j ->
  (leads w (levels s) (seen start t) path (t - j) <->
   path = removelast (greedy (S k) (t - j))).
Proof. exact Numerals.key_path_is_numeral. Qed.

(** Three steps, query 29, key 17: the stripes 2 and 2. *)
Example path_to_12 : forall path,
  leads 0 (tight_levels 2) (seen 0 29) path (29 - 17) <-> path = [2; 2].
Proof. intros path. apply (paths_are_numerals 2 0 0 29 17 path); [| | vm_compute]; easy. Qed.

Print Assumptions paths_are_numerals.
Print Assumptions path_to_12.

(** ** The checker is right (Checker.v), as the program made of it is used *)

(** The checker of `Checker.v` answers *covered* exactly where the context is, for any schedule.
    SPEC 9; `verify_all`. *)
Theorem checker_says_covered : forall s start stop,
  Checker.first_hole s start stop = None <-> covered s start stop.
Proof. exact Checker.first_hole_none. Qed.

Example no_hole :
  Checker.first_hole (paper (Ratio 2 1) (Ratio 0 1)) 0 300 = None /\
  covered (paper (Ratio 2 1) (Ratio 0 1)) 0 300.
Proof. rewrite <- checker_says_covered. split; vm_compute; reflexivity. Qed.

Print Assumptions checker_says_covered.
Print Assumptions no_hole.

(** The hole that it finds is one, and every pair before it (smaller query, then smaller key) is
    reached.
    SPEC 9; `CoverageReport::first_excluded`. *)
Theorem checker_says_first_hole : forall s start stop t j,
  Checker.first_hole s start stop = Some (t, j) ->
  start <= j <= t /\ t < stop /\ ~ reachable s start t j /\
  forall t' j', start <= j' <= t' -> t' < t \/ t' = t /\ j' < j -> reachable s start t' j'.
Proof. exact Checker.first_hole_some. Qed.

Example first_holes :
  Checker.first_hole (paper (Ratio 1 1) (Ratio 1 1)) 0 2000 = Some (7, 0) /\
  Checker.first_hole (paper (Ratio 19 10) (Ratio 0 1)) 0 1000 = Some (898, 0) /\
  ~ reachable (paper (Ratio 1 1) (Ratio 1 1)) 0 7 0.
Proof.
  assert (hole : Checker.first_hole (paper (Ratio 1 1) (Ratio 1 1)) 0 2000 = Some (7, 0))
    by (vm_compute; reflexivity).
  split; [exact hole | split; [vm_compute; reflexivity |]].
  apply (checker_says_first_hole _ 0 2000 7 0 hole).
Qed.

Print Assumptions checker_says_first_hole.
Print Assumptions first_holes.
