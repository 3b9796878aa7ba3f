(** * What is proved: how near the default rules' mean work comes to its lower bound

    As in Results.v: theorems, each with a sentence, an example and what both rest on, to be read
    with Schedule.v and with the definitions of ResultsMeanWork.v and ResultsTotals.v.  The lower
    bound of the mean is in ResultsMeanWork.v; here is what the mean is at most: with the default
    rules, tight and then even, without a window, [c >= N^(1/(N-1))] rational,
    [R = floor (n^(1/N))] and [F = N / (N + 1) (n + 1)^(1 + 1/N)]. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule ResultsMeanWork ResultsTotals.
From Multistep Require SumsOfRoots MeanLimit.
Import ListNotations.
Open Scope Z_scope.

(** ** For every number of keys (MeanLimit.v) *)

(** n keys have n pairs of a path and a key, and their mean work is at most
    R + (N−1)·(c·(F/n + 1) + 1).
    SPEC 2.5.6, 2.5.8; `path_work`. *)
Theorem nstep_mean_work : forall k (n : segment) c,
  0 < n ->
  let N := Z.of_nat k + 2 in
  let ls := default_tight N :: repeat Even k in
  0 < den c -> 0 <= num c -> N * den c ^ (N - 1) <= num c ^ (N - 1) ->
  pairs 0 ls n = n /\
  exists roots, below_integral 1 N (n + 1) roots /\
    den c * work_of_pairs 0 ls n
    <= (N - 1) * num c * roots + (den c * root N n + (N - 1) * (num c + den c)) * n.
Proof. exact MeanLimit.nstep_mean_work. Qed.

Definition three_steps : list level := [default_tight 3; Even].

(** Three steps and [c = 26/15]: the pairs of 20 keys have 181 of work, the bound is 298; those of
    [2^20] have 363.9 on average, the bound is 370.6, and no scheme has less than 304.9. *)
Example nstep3_mean_work :
  (pairs 0 three_steps (first_keys 20) = 20 /\ work_of_pairs 0 three_steps (first_keys 20) = 181 /\
   181 <= 298) /\
  pairs 0 three_steps (first_keys (2 ^ 20)) = 2 ^ 20 /\
  work_of_pairs 0 three_steps (first_keys (2 ^ 20)) = 381556290 /\ 381556290 <= 388613313.
Proof.
  destruct (nstep_mean_work 1 (first_keys 20) (Ratio 26 15) eq_refl eq_refl ltac:(discriminate)
              ltac:(discriminate)) as (few_pairs & few & few_small & few_all).
  destruct (nstep_mean_work 1 (first_keys (2 ^ 20)) (Ratio 26 15) eq_refl eq_refl
              ltac:(discriminate) ltac:(discriminate)) as (all_pairs & roots & small & all).
  apply (SumsOfRoots.below_integral_at_most _ _ _ _ 43) in few_small;
    [| reflexivity | discriminate | reflexivity].
  apply (SumsOfRoots.below_integral_at_most _ _ _ _ 79896612) in small;
    [| reflexivity | discriminate | reflexivity].
  assert (few_work : work_of_pairs 0 three_steps (first_keys 20) = 181) by (vm_compute; reflexivity).
  assert (work : work_of_pairs 0 three_steps (first_keys (2 ^ 20)) = 381556290)
    by (vm_compute; reflexivity).
  change (15 * work_of_pairs 0 three_steps (first_keys 20)
          <= 2 * 26 * few + (15 * root 3 20 + 2 * (26 + 15)) * 20) in few_all.
  change (15 * work_of_pairs 0 three_steps (first_keys (2 ^ 20))
          <= 2 * 26 * roots + (15 * root 3 (2 ^ 20) + 2 * (26 + 15)) * 2 ^ 20) in all.
  assert (few_anchors : root 3 20 = 2) by (vm_compute; reflexivity).
  assert (anchors : root 3 (2 ^ 20) = 101) by (vm_compute; reflexivity).
  rewrite few_anchors in few_all. rewrite anchors in all.
  split; [split; [exact few_pairs | split; [exact few_work | lia]] |].
  split; [exact all_pairs | split; [exact work | lia]].
Qed.

Print Assumptions nstep_mean_work.
Print Assumptions nstep3_mean_work.

(** ** In the limit *)

(** Any rational ratio above (1 + (N−1)·c·N/(N+1))/N has a stated n0 from which on the mean is at
    most that ratio times N·n^(1/N).
    SPEC 2.5.6, 2.5.8; `path_work`. *)
Theorem nstep_mean_limit : forall k (n : segment) c ratio,
  let N := Z.of_nat k + 2 in
  let ls := default_tight N :: repeat Even k in
  0 < den c -> 0 <= num c -> N * den c ^ (N - 1) <= num c ^ (N - 1) ->
  0 < den ratio ->
  let excess := num ratio * N * (N + 1) * den c
                - den ratio * ((N + 1) * den c + (N - 1) * N * num c) in
  0 < excess ->
  let constant := (N - 1) * ((4 * N + 1) * num c + (N + 1) * den c) in
  let n0 := ceil_div (den ratio * constant) excess ^ N in
  n0 <= n -> (den ratio * work_of_pairs 0 ls n) ^ N <= (num ratio * N) ^ N * n ^ (N + 1).
Proof. exact MeanLimit.nstep_mean_limit. Qed.

(** Three steps: at most 1.25 times the bound from [89^3] keys on, as at [2^20], where it is 1.194
    times, and at most 1.2 times from [7425^3] on; the limit is 1.1994. *)
Example nstep3_mean_limit :
  (4 * 381556290) ^ 3 <= (5 * 3) ^ 3 * (2 ^ 20) ^ 4 /\
  (forall n, 89 ^ 3 <= n ->
    (4 * work_of_pairs 0 three_steps (first_keys n)) ^ 3 <= (5 * 3) ^ 3 * n ^ 4) /\
  (forall n, 7425 ^ 3 <= n ->
    (5 * work_of_pairs 0 three_steps (first_keys n)) ^ 3 <= (6 * 3) ^ 3 * n ^ 4).
Proof.
  assert (at_5_4 : forall n, 89 ^ 3 <= n ->
    (4 * work_of_pairs 0 three_steps (first_keys n)) ^ 3 <= (5 * 3) ^ 3 * n ^ 4).
  { intros n large. apply (nstep_mean_limit 1 (first_keys n) (Ratio 26 15) (Ratio 5 4) eq_refl
      ltac:(discriminate) ltac:(discriminate) eq_refl eq_refl large). }
  split; [| split; [exact at_5_4 |]].
  - rewrite <- (proj1 (proj2 (proj2 nstep3_mean_work))). apply at_5_4. discriminate.
  - intros n large. apply (nstep_mean_limit 1 (first_keys n) (Ratio 97 56) (Ratio 6 5) eq_refl
      ltac:(discriminate) ltac:(discriminate) eq_refl eq_refl large).
Qed.

Print Assumptions nstep_mean_limit.
Print Assumptions nstep3_mean_limit.
