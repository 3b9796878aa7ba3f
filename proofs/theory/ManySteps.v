(** * In any number of steps, and with several paths kept (SPEC 2.5.9)

    What the product of the choices says besides the lower bound of so many steps: a choice among
    three is the cheapest, and who keeps [k] paths takes every step behind the first [k] times. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule AmGm LowerBound.
Import ListNotations.
Open Scope Z_scope.

(** However many the steps: a choice among [c] counts most where [c] is 3. *)
Lemma cube_below_power : forall c, 0 <= c -> c ^ 3 <= 3 ^ c.
Proof.
  apply natlike_ind; [vm_compute; discriminate |]. intros c c_nonneg IH.
  destruct (Z.le_gt_cases 3 c) as [large | small].
  - unfold Z.succ. rewrite Z.pow_add_r, Z.pow_1_r by lia.
    replace (c ^ 3) with (c * c * c) in IH by ring.
    replace ((c + 1) ^ 3) with ((c + 1) * (c + 1) * (c + 1)) by ring.
    assert (square : 3 * c <= c * c) by nia.
    assert (cube : 3 * (c * c) <= c * c * c) by nia. lia.
  - assert (cases : c = 0 \/ c = 1 \/ c = 2) by lia.
    destruct cases as [-> | [-> | ->]]; vm_compute; discriminate.
Qed.

Lemma product_cubed : forall cs, nonnegative cs -> product cs ^ 3 <= 3 ^ total cs.
Proof.
  intros cs cs_nonneg.
  induction cs_nonneg as [|c cs c_nonneg cs_nonneg IH]; [vm_compute; discriminate |].
  cbn [product total fold_right]. fold (product cs). fold (total cs).
  pose proof (product_nonneg cs cs_nonneg). pose proof (total_nonneg cs cs_nonneg).
  rewrite Z.pow_mul_l, Z.pow_add_r by lia.
  apply Z.mul_le_mono_nonneg; try (apply Z.pow_nonneg; lia); [| exact IH].
  now apply cube_below_power.
Qed.

Lemma product_bound_to_cube_bound : forall cs n,
  nonnegative cs -> 0 <= n -> n <= product cs -> n ^ 3 <= 3 ^ total cs.
Proof.
  intros cs n cs_nonneg n_nonneg few.
  apply Z.le_trans with (product cs ^ 3); [apply Z.pow_le_mono_l; lia | now apply product_cubed].
Qed.

Theorem any_number_of_steps : forall state offered key cs (from : state) n,
  0 <= n -> nonnegative cs -> offers_at_most offered cs from ->
  (forall j, 0 <= j < n -> reaches offered key (length cs) from j) ->
  n ^ 3 <= 3 ^ total cs.
Proof.
  intros state offered key cs from n n_nonneg cs_nonneg bounded all_reached.
  apply product_bound_to_cube_bound; [exact cs_nonneg | exact n_nonneg |].
  pose proof (reached_at_most_product _ offered key cs from 0 n cs_nonneg bounded all_reached). lia.
Qed.

(** With [k] paths kept, every step behind the first is taken [k] times. *)
Lemma product_bound_to_paths_bound : forall k c cs n,
  0 <= k -> nonnegative (c :: cs) -> n <= product (c :: cs) ->
  let N := count (c :: cs) in N ^ N * (k ^ (N - 1) * n) <= (c + k * total cs) ^ N.
Proof.
  intros k c cs n k_nonneg all_nonneg few N.
  apply Forall_cons_iff in all_nonneg. destruct all_nonneg as [c_nonneg cs_nonneg].
  set (times := map (Z.mul k) cs).
  assert (times_nonneg : nonnegative times).
  { unfold times, nonnegative in *. rewrite Forall_map.
    eapply Forall_impl; [|exact cs_nonneg]. intros x x_nonneg.
    now apply Z.mul_nonneg_nonneg. }
  assert (times_total : total times = k * total cs).
  { unfold times. clear. induction cs as [|x cs IH]; [cbn; lia|].
    cbn [map total fold_right]. fold (total cs). fold (total (map (Z.mul k) cs)).
    rewrite IH. ring. }
  assert (times_product : product times = k ^ count cs * product cs).
  { unfold times. clear few N times times_nonneg times_total cs_nonneg.
    induction cs as [|x cs IH]; [reflexivity|].
    rewrite count_cons, Z.pow_add_r, Z.pow_1_r by (try apply count_nonneg; lia).
    cbn [map product fold_right]. fold (product cs). fold (product (map (Z.mul k) cs)).
    rewrite IH. ring. }
  assert (same : count (c :: times) = N)
    by (unfold N, times, count; cbn [length]; now rewrite map_length).
  rewrite <- times_total, <- same.
  change (c + total times) with (total (c :: times)).
  apply product_bound_to_total_bound; [now constructor |].
  rewrite same. unfold N. rewrite count_cons. replace (count cs + 1 - 1) with (count cs) by lia.
  cbn [product fold_right] in few |- *. fold (product cs) in few. fold (product times).
  rewrite times_product.
  assert (power_nonneg : 0 <= k ^ count cs) by now apply Z.pow_nonneg.
  nia.
Qed.

Theorem paths_pay : forall state offered key k c cs (from : state) n,
  0 <= k -> nonnegative (c :: cs) -> offers_at_most offered (c :: cs) from ->
  (forall j, 0 <= j < n -> reaches offered key (length (c :: cs)) from j) ->
  let N := count (c :: cs) in N ^ N * (k ^ (N - 1) * n) <= (c + k * total cs) ^ N.
Proof.
  intros state offered key k c cs from n k_nonneg nonneg bounded all_reached.
  apply product_bound_to_paths_bound; [exact k_nonneg | exact nonneg |].
  pose proof (reached_at_most_product _ offered key (c :: cs) from 0 n nonneg bounded all_reached).
  lia.
Qed.

(** Both for the schedules of this project. *)
Theorem covering_schedules_pay_for_paths : forall s start len k c cs,
  good s -> covered s start len -> 0 <= k -> nonnegative (c :: cs) ->
  length (c :: cs) = S (length (levels s)) ->
  costs_at_most (window_index s) (levels s) (seen start (len - 1)) (c :: cs) ->
  let N := count (c :: cs) in
  let n := len - start - window_of s in
  N ^ N * (k ^ (N - 1) * n) <= (c + k * total cs) ^ N /\ (0 <= n -> n ^ 3 <= 3 ^ (c + total cs)).
Proof.
  intros s start len k c cs s_good all_covered k_nonneg nonneg steps cheap N n.
  pose proof (schedule_product_bound s start len (c :: cs) s_good all_covered nonneg steps cheap)
    as few.
  split; [now apply product_bound_to_paths_bound |]. intros n_nonneg.
  now apply (product_bound_to_cube_bound (c :: cs) n nonneg n_nonneg).
Qed.
