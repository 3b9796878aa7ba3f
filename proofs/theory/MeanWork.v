(** * The mean work of a path is at least [N n^(1/N)] (SPEC 2.5.8)

    Of all paths of a scheme, each with the choices that its steps offered on the way: [P] paths
    with [T] choices in all have [N^N P^(N+1) <= T^N], and where [n] keys are reached, [n <= P].  By
    induction on the steps: a node with [c] choices adds [c] to each path below it, and the bounds
    of its children add up by Hölder's inequality, here as a sum of tangents. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Causality AmGm LowerBound.
Import ListNotations.
Open Scope Z_scope.

(** Paths of so many steps. *)
Fixpoint paths {state : Type} (offered : state -> list state) (steps : nat) (from : state) : Z :=
  match steps with
  | O => 1
  | S k => total (map (paths offered k) (offered from))
  end.

(** The choices offered on their way, of all of them together. *)
Fixpoint work {state : Type} (offered : state -> list state) (steps : nat) (from : state) : Z :=
  match steps with
  | O => 0
  | S k => total (map (fun next => work offered k next
                                   + count (offered from) * paths offered k next)
                      (offered from))
  end.

Lemma total_map_nonneg : forall (A : Type) (f : A -> Z) xs,
  (forall x, 0 <= f x) -> 0 <= total (map f xs).
Proof.
  intros A f xs f_nonneg. apply total_nonneg. unfold nonnegative. rewrite Forall_map.
  apply Forall_forall. intros x _. apply f_nonneg.
Qed.

Lemma paths_nonneg : forall state offered steps (from : state), 0 <= paths offered steps from.
Proof.
  intros state offered steps. induction steps as [|k IH]; intros from; cbn [paths]; [lia|].
  apply total_map_nonneg, IH.
Qed.

Lemma work_nonneg : forall state offered steps (from : state), 0 <= work offered steps from.
Proof.
  intros state offered steps. induction steps as [|k IH]; intros from; cbn [work]; [lia|].
  apply total_map_nonneg. intros next. specialize (IH next).
  pose proof (paths_nonneg _ offered k next). pose proof (count_nonneg _ (offered from)). nia.
Qed.

(** The bound of one node, [k^k P^(k+1) <= T^k], seen as a line in [P] and [T] that touches it. *)
Lemma tangent : forall k P T s V,
  0 <= k -> 0 <= P -> 0 <= T -> 0 <= s -> 0 <= V ->
  k ^ k * P ^ (k + 1) <= T ^ k ->
  (k + 1) * s ^ k * V * P <= V ^ (k + 1) + s ^ (k + 1) * T.
Proof.
  intros k P T s V k_nonneg P_nonneg T_nonneg s_nonneg V_nonneg bound.
  pose proof (Z.pow_nonneg V (k + 1) V_nonneg). pose proof (Z.pow_nonneg s (k + 1) s_nonneg).
  destruct (Z.eq_dec k 0) as [-> | k_nonzero].
  { cbn [Z.add] in *. rewrite !Z.pow_0_r, !Z.pow_1_r in *. nia. }
  destruct (Z.eq_dec T 0) as [-> | T_nonzero].
  { rewrite Z.pow_0_l in bound by lia.
    assert (weight_pos : 0 < k ^ k) by (apply Z.pow_pos_nonneg; lia).
    assert (P_zero : P = 0).
    { destruct (Z.eq_dec P 0) as [zero | P_nonzero]; [exact zero|].
      assert (0 < P ^ (k + 1)) by (apply Z.pow_pos_nonneg; lia). nia. }
    rewrite P_zero. nia. }
  assert (T_power_pos : 0 < T ^ k) by (apply Z.pow_pos_nonneg; lia).
  apply (Z.mul_le_mono_pos_l _ _ (k * T ^ k)); [nia|].
  pose proof (weighted_mean k (s * T) (k * P * V) k_nonneg ltac:(nia) ltac:(nia)) as mean.
  assert (grown : (k * P * V) ^ (k + 1) <= k * T ^ k * V ^ (k + 1)).
  { rewrite !Z.pow_mul_l. replace (k ^ (k + 1)) with (k ^ k * k)
      by (rewrite Z.pow_add_r, Z.pow_1_r by lia; ring).
    apply Z.mul_le_mono_nonneg_r; [assumption | nia]. }
  rewrite !(Z.pow_mul_l s T), (Z.pow_add_r T k 1), Z.pow_1_r in mean by lia.
  nia.
Qed.

(** Tangents of children add up. *)
Lemma tangents : forall state (offered : state -> list state) k s V xs,
  0 <= s -> 0 <= V ->
  (forall from, let N := Z.of_nat k in
     N ^ N * paths offered k from ^ (N + 1) <= work offered k from ^ N) ->
  let N := Z.of_nat k in
  (N + 1) * s ^ N * V * total (map (paths offered k) xs)
  <= count xs * V ^ (N + 1) + s ^ (N + 1) * total (map (work offered k) xs).
Proof.
  intros state offered k s V xs s_nonneg V_nonneg each N.
  induction xs as [|x xs IH]; [cbn; lia|].
  cbn [map total fold_right].
  fold (total (map (paths offered k) xs)). fold (total (map (work offered k) xs)).
  rewrite count_cons.
  pose proof (tangent N (paths offered k x) (work offered k x) s V ltac:(lia)
                (paths_nonneg _ offered k x)
                (work_nonneg _ offered k x) s_nonneg V_nonneg (each x)) as one.
  lia.
Qed.

(** [c] children with [P] paths and [S] of work: the tangents at [s = N P] and [V = S]. *)
Lemma children_bound : forall state (offered : state -> list state) k xs,
  (forall from, let N := Z.of_nat k in
     N ^ N * paths offered k from ^ (N + 1) <= work offered k from ^ N) ->
  let N := Z.of_nat k in
  N ^ N * total (map (paths offered k) xs) ^ (N + 1)
  <= count xs * total (map (work offered k) xs) ^ N.
Proof.
  intros state offered k xs each N.
  set (P := total (map (paths offered k) xs)). set (S := total (map (work offered k) xs)).
  assert (P_nonneg : 0 <= P) by (apply total_map_nonneg, paths_nonneg).
  assert (S_nonneg : 0 <= S) by (apply total_map_nonneg, work_nonneg).
  pose proof (count_nonneg _ xs) as c_nonneg. set (c := count xs) in *.
  assert (N_nonneg : 0 <= N) by lia.
  destruct (Z.eq_dec N 0) as [zero | N_nonzero].
  { pose proof (tangents _ offered k 0 1 xs ltac:(lia) ltac:(lia) each) as sum.
    fold N P S c in sum. cbn zeta in sum. rewrite zero in *. cbn [Z.add] in *.
    rewrite !Z.pow_0_r, !Z.pow_1_r in *. lia. }
  destruct (Z.eq_dec S 0) as [S_zero | S_nonzero].
  { pose proof (tangents _ offered k (c + 1) 1 xs ltac:(lia) ltac:(lia) each) as sum.
    cbn zeta in sum. fold N P S c in sum. rewrite S_zero in *. rewrite Z.pow_1_l in sum by lia.
    assert (large : c + 1 <= (c + 1) ^ N).
    { replace (c + 1) with ((c + 1) ^ 1) at 1 by apply Z.pow_1_r.
      apply Z.pow_le_mono_r; lia. }
    assert (P_zero : P = 0) by nia.
    rewrite P_zero, !Z.pow_0_l by lia. lia. }
  pose proof (tangents _ offered k (N * P) S xs ltac:(nia) S_nonneg each) as sum.
  cbn zeta in sum. fold N P S c in sum.
  rewrite !Z.pow_mul_l, !(Z.pow_add_r _ N 1), !Z.pow_1_r in * by lia.
  apply (Z.mul_le_mono_pos_l _ _ S); [lia|].
  set (X := N ^ N) in *. set (Y := P ^ N) in *. set (Z := S ^ N) in *.
  assert (twice : N * X * Y * P * S + X * Y * P * S <= c * Z * S + N * X * Y * P * S).
  { apply Z.le_trans with ((N + 1) * (X * Y) * S * P); [apply Z.eq_le_incl; ring|].
    apply Z.le_trans with (1 := sum). apply Z.eq_le_incl. ring. }
  apply Z.le_trans with (X * Y * P * S); [apply Z.eq_le_incl; ring|].
  apply Z.le_trans with (c * Z * S); [lia | apply Z.eq_le_incl; ring].
Qed.

Theorem mean_work : forall state offered steps (from : state),
  let N := Z.of_nat steps in
  N ^ N * paths offered steps from ^ (N + 1) <= work offered steps from ^ N.
Proof.
  intros state offered steps. induction steps as [|k IH]; intros from N; [reflexivity|].
  cbn [paths work].
  rewrite (total_map_add _ (work offered k)), total_map_times.
  pose proof (children_bound _ offered k (offered from) IH) as bound. cbn zeta in bound.
  set (xs := offered from) in *.
  set (P := total (map (paths offered k) xs)) in *. set (S := total (map (work offered k) xs)) in *.
  assert (P_nonneg : 0 <= P) by (apply total_map_nonneg, paths_nonneg).
  assert (S_nonneg : 0 <= S) by (apply total_map_nonneg, work_nonneg).
  pose proof (count_nonneg _ xs) as c_nonneg. set (c := count xs) in *.
  set (K := Z.of_nat k) in *. assert (K_nonneg : 0 <= K) by lia.
  assert (next : N = K + 1) by lia. rewrite next.
  assert (weight_pos : 0 < K ^ K).
  { destruct (Z.eq_dec K 0) as [-> | nonzero]; [reflexivity | apply Z.pow_pos_nonneg; lia]. }
  apply (Z.mul_le_mono_pos_l _ _ (K ^ K) weight_pos).
  pose proof (one_more_number K S (c * P) K_nonneg S_nonneg ltac:(nia)) as more.
  apply Z.le_trans with ((K + 1) ^ (K + 1) * (S ^ K * (c * P))); [| exact more].
  replace (P ^ (K + 1 + 1)) with (P ^ (K + 1) * P)
    by (rewrite (Z.pow_add_r P (K + 1) 1), Z.pow_1_r by lia; reflexivity).
  pose proof (Z.pow_nonneg (K + 1) (K + 1) ltac:(lia)) as outer_nonneg.
  apply Z.le_trans with ((K + 1) ^ (K + 1) * (K ^ K * P ^ (K + 1) * P));
    [apply Z.eq_le_incl; ring|].
  apply Z.mul_le_mono_nonneg_l; [exact outer_nonneg|].
  apply Z.le_trans with (c * S ^ K * P); [| apply Z.eq_le_incl; ring].
  apply Z.mul_le_mono_nonneg_r; assumption.
Qed.

Lemma keys_are_paths : forall state offered key steps (from : state),
  count (keys offered key steps from) = paths offered steps from.
Proof.
  intros state offered key steps.
  induction steps as [|k IH]; intros from; cbn [keys paths]; [reflexivity|].
  induction (offered from) as [|x xs more]; [reflexivity|].
  cbn [flat_map map total fold_right]. fold (total (map (paths offered k) xs)).
  rewrite <- more, <- (IH x). unfold count. rewrite app_length. lia.
Qed.

(** ** The schedules of this project *)

(** Pairs of a path and a key of its final span; and the anchors that the paths score with the keys
    of their final spans, of all pairs. *)
Fixpoint schedule_paths (w : Z) (ls : list level) (n : segment) : Z :=
  match ls with
  | [] => Z.max 0 n
  | l :: rest =>
      total (map (fun i => schedule_paths 0 rest (segment_of w (steps_of ls) l n i))
               (searched_stripes w (steps_of ls) l n))
  end.

Fixpoint schedule_work (w : Z) (ls : list level) (n : segment) : Z :=
  match ls with
  | [] => Z.max 0 n * Z.max 0 n
  | l :: rest =>
      total (map (fun i => let chosen := segment_of w (steps_of ls) l n i in
                           schedule_work 0 rest chosen
                           + anchor_count w (steps_of ls) l n * schedule_paths 0 rest chosen)
               (searched_stripes w (steps_of ls) l n))
  end.

Lemma total_constant : forall (A : Type) c (xs : list A),
  total (map (fun _ => c) xs) = count xs * c.
Proof.
  intros A c xs. induction xs as [|x xs IH]; [reflexivity|].
  cbn [map total fold_right]. fold (total (map (fun _ => c) xs)). rewrite IH, count_cons. ring.
Qed.

Lemma scheme_paths : forall ls w (n : segment) newest,
  paths places_after (S (length ls)) (Searching w ls n newest) = schedule_paths w ls n.
Proof.
  intros ls. induction ls as [|l rest IH]; intros w n newest.
  - cbn [length paths places_after schedule_paths].
    rewrite map_map, total_constant, count_interval. lia.
  - cbn [length schedule_paths]. cbn [paths]. cbn [places_after].
    rewrite map_map. f_equal. apply map_ext. intros i. apply IH.
Qed.

Lemma scheme_work : forall ls w (n : segment) newest,
  work places_after (S (length ls)) (Searching w ls n newest) = schedule_work w ls n.
Proof.
  intros ls. induction ls as [|l rest IH]; intros w n newest.
  - cbn [length work paths places_after schedule_work].
    rewrite map_map, total_constant, count_map, count_interval. lia.
  - cbn [length schedule_work]. cbn [work]. cbn [places_after].
    rewrite map_map, count_map, count_searched_stripes. f_equal. apply map_ext. intros i.
    set (chosen := segment_of w (steps_of (l :: rest)) l n i).
    set (nearest := newest + near (span_of w (steps_of (l :: rest)) l n i)).
    rewrite <- (IH 0 chosen nearest), <- (scheme_paths rest 0 chosen nearest). reflexivity.
Qed.

Theorem mean_work_of_covering_schedules : forall s start len,
  good s -> covered s start len ->
  let N := Z.of_nat (S (length (levels s))) in
  let n := len - start - window_of s in
  let P := schedule_paths (window_index s) (levels s) (seen start (len - 1)) in
  let T := schedule_work (window_index s) (levels s) (seen start (len - 1)) in
  n <= P /\ N ^ N * P ^ (N + 1) <= T ^ N.
Proof.
  intros [ls w] start len s_good all_covered N n P T. cbn [levels window_index] in *.
  set (from := Searching w ls (seen start (len - 1)) 0).
  assert (same : P = paths places_after (S (length ls)) from) by (symmetry; apply scheme_paths).
  split.
  - rewrite same, <- (keys_are_paths _ places_after distance_of).
    assert (room : len - start - window_of (Schedule ls w)
                   <= count (keys places_after distance_of (S (length ls)) from)).
    { apply interval_needs_room. intros d range. apply reaches_is_in_keys.
      pose proof (window_of_nonneg (Schedule ls w) s_good) as window_nonneg.
      destruct (all_covered (len - 1) (len - 1 - d)) as [windowed | [path led]]; try lia.
      replace (len - 1 - (len - 1 - d)) with d in led by lia.
      apply (path_is_choice ls w (seen start (len - 1)) path 0 d led). }
    exact room.
  - unfold P, T. rewrite <- (scheme_paths ls w _ 0), <- (scheme_work ls w _ 0). apply mean_work.
Qed.
