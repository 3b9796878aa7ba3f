(** * What is proved: what all queries of a context cost together (SPEC 2.5.4, 2.5.10)

    As in Results.v: theorems, each with a sentence, an example and what both rest on, to be read
    with Schedule.v and with the definitions of ResultsWork.v and ResultsCost.v.

    The work of a query is what it is in ResultsCost.v: anchors and keys of whichever [top_k] paths
    the scores keep.  So the bounds here are of the most work that any scores can cause.
    In the sentences [F = N / (N + 1) (L + 1)^(1 + 1/N)], and a window of [W] keys adds [W L]; how
    far a bound lies above the worst is for three steps, one path and [L = 2^20]. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Results ResultsWork ResultsCost.
From Multistep Require SumsOfRoots Totals AlignedTotals.
Import ListNotations.
Open Scope Z_scope.

(** [x <= c N / (N + 1) L^(1 + 1/N)]: [c] times the integral of the [N]-th root from 0 to [L]. *)
Definition below_integral (c N L x : Z) : Prop :=
  0 <= x /\ ((N + 1) * x) ^ N <= (c * N) ^ N * L ^ (N + 1).

(** ** Sums of roots (SumsOfRoots.v) *)

(** m numbers, the n-th at most c·(n+j)^(1/N), add up to at most c·N/(N+1)·(m+j)^(1+1/N).
    SPEC 2.5.4; `random_routing_work`. *)
Theorem roots_add_up : forall N c j low x m,
  0 < N -> 0 <= c -> 0 <= j -> 0 <= m ->
  (forall n, 0 <= n < m -> 0 <= x (low + n) /\ x (low + n) ^ N <= c ^ N * (n + j)) ->
  below_integral c N (m + j) (total (map x (interval low (low + m)))).
Proof. exact SumsOfRoots.roots_add_up. Qed.

(** The square roots of 0 ... 8, rounded down: 13, and the integral from 0 to 9 is 18. *)
Definition root_below_nine (n : Z) : Z := nth (Z.to_nat n) [0; 1; 1; 1; 2; 2; 2; 2; 2] 0.

Example nine_roots :
  total (map root_below_nine (interval 0 (0 + 9))) = 13 /\
  below_integral 1 2 (9 + 0) (total (map root_below_nine (interval 0 (0 + 9)))) /\
  (forall x, below_integral 1 2 (9 + 0) x <-> 0 <= x <= 18).
Proof.
  split; [reflexivity | split; [| unfold below_integral; intros x; rewrite !Z.pow_2_r; nia]].
  apply roots_add_up; try lia. intros n range.
  assert (cases : n = 0 \/ n = 1 \/ n = 2 \/ n = 3 \/ n = 4 \/ n = 5 \/ n = 6 \/ n = 7 \/ n = 8)
    by lia.
  decompose [or] cases; subst n; computed.
Qed.

Print Assumptions roots_add_up.
Print Assumptions nine_roots.

(** ** The default rules (Totals.v) *)

(** The default rules, tight and then even: at most (1 + top_k·(N−1)·c)·F + top_k·(N−1)·(c+1)·L
    choices, c ≥ N^(1/(N−1)) rational, 2.7 % above the worst.
    SPEC 2.5.10; `random_routing_work`. *)
Theorem nstep_context_cost : forall top_k k w start L c work,
  0 <= top_k -> 0 <= w -> 0 <= L ->
  let N := Z.of_nat k + 2 in
  let s := Schedule (default_tight N :: repeat Even k) w in
  0 < den c -> 0 <= num c -> N * den c ^ (N - 1) <= num c ^ (N - 1) ->
  (forall t, start <= t < start + L -> query_work top_k s (seen start t) (work t)) ->
  exists roots, below_integral 1 N (L + 1) roots /\
    den c * total (map work (interval start (start + L)))
    <= (den c + top_k * (N - 1) * num c) * roots
       + (top_k * (N - 1) * (num c + den c) + den c * window_of s) * L.
Proof. exact Totals.nstep_context_cost. Qed.

(** The four queries of ResultsCost.v: 12, and at most 33.  [c = 2] is exact in two steps. *)
Example nstep_of_four_queries : total (map four_works (interval 0 (0 + 4))) = 12 /\ 12 <= 33.
Proof.
  split; [reflexivity |].
  destruct (nstep_context_cost 1 0 0 0 4 (Ratio 2 1) four_works ltac:(lia) ltac:(lia) ltac:(lia)
              eq_refl ltac:(discriminate) ltac:(discriminate) work_of_four_queries)
    as (roots & small & all).
  apply (SumsOfRoots.below_integral_at_most _ _ _ _ 7) in small; [| computed | computed | computed].
  vm_compute in all. lia.
Qed.

(** Three steps, [2^20] queries, one path each, and [c = 26/15]: 345.8 choices a query, whatever the
    scores; the worst scores, counted, cost 353 098 797 in all, 336.7 a query. *)
Example nstep_total_at_2_20 : forall work,
  (forall t, 0 <= t < 0 + 2 ^ 20 -> query_work 1 nstep3 (seen 0 t) (work t)) ->
  total (map work (interval 0 (0 + 2 ^ 20))) <= 362603749.
Proof.
  intros work works.
  destruct (nstep_context_cost 1 1 0 0 (2 ^ 20) (Ratio 26 15) work ltac:(lia) ltac:(lia) ltac:(lia)
              eq_refl ltac:(discriminate) ltac:(discriminate) works) as (roots & small & all).
  apply (SumsOfRoots.below_integral_at_most _ _ _ _ 79896612) in small;
    [| computed | computed | computed].
  change (15 * total (map work (interval 0 (0 + 2 ^ 20)))
          <= (15 + 1 * 2 * 26) * roots + (1 * 2 * (26 + 15) + 15 * 0) * 2 ^ 20) in all.
  lia.
Qed.

Print Assumptions nstep_context_cost.
Print Assumptions nstep_of_four_queries.
Print Assumptions nstep_total_at_2_20.

(** ** Even at every level *)

(** Even at every level: at most (1 + top_k·(N−1))·(N/(N+1)·L^(1+1/N) + L), 1.1 % above the worst.
    SPEC 2.5.4, 2.5.6; `random_routing_work`. *)
Theorem even_context_cost : forall top_k k w start L work,
  0 <= top_k -> 0 <= w -> 0 <= L ->
  let N := Z.of_nat k + 2 in
  let s := Schedule (repeat Even (S k)) w in
  (forall t, start <= t < start + L -> query_work top_k s (seen start t) (work t)) ->
  exists roots, below_integral 1 N L roots /\
    total (map work (interval start (start + L)))
    <= (1 + top_k * (N - 1)) * roots + (1 + top_k * (N - 1) + w) * L.
Proof. exact Totals.even_context_cost. Qed.

(** Two steps and four queries, each with its newest part: 1 anchor and 1 key, 1 and 2, 2 and 2,
    2 and 2.  The bound is 18. *)
Definition four_even_works (t : Z) : Z := nth (Z.to_nat t) [2; 3; 4; 4] 0.

Lemma works_of_four_even : forall t, 0 <= t < 0 + 4 ->
  query_work 1 (Schedule [Even] 0) (seen 0 t) (four_even_works t).
Proof.
  intros t range. exists (four_even_works t).
  assert (cases : t = 0 \/ t = 1 \/ t = 2 \/ t = 3) by lia.
  destruct cases as [-> | [-> | [-> | ->]]]; (split; [| reflexivity]);
    [exists [(seen 0 0, 1)], 1 | exists [(seen 0 1, 1)], 1 | exists [(seen 0 2, 1)], 2
    | exists [(seen 0 3, 1)], 2];
    (split; [computed | split; [| split; vm_compute; reflexivity]]);
    (constructor; [split; [left; reflexivity | computed] | constructor]).
Qed.

Example even_of_four_queries : total (map four_even_works (interval 0 (0 + 4))) = 13 /\ 13 <= 18.
Proof.
  split; [reflexivity |].
  destruct (even_context_cost 1 0 0 0 4 four_even_works ltac:(lia) ltac:(lia) ltac:(lia)
              works_of_four_even) as (roots & small & all).
  apply (SumsOfRoots.below_integral_at_most _ _ _ _ 5) in small; [| computed | computed | computed].
  vm_compute in all. lia.
Qed.

(** Three steps, [2^20] queries, one path each: 231.6 choices a query; the worst scores, counted,
    cost 240 217 277 in all, 229.1 a query. *)
Example even_total_at_2_20 : forall work,
  (forall t, 0 <= t < 0 + 2 ^ 20 -> query_work 1 (Schedule [Even; Even] 0) (seen 0 t) (work t)) ->
  total (map work (interval 0 (0 + 2 ^ 20))) <= 242835258.
Proof.
  intros work works.
  destruct (even_context_cost 1 1 0 0 (2 ^ 20) work ltac:(lia) ltac:(lia) ltac:(lia) works)
    as (roots & small & all).
  apply (SumsOfRoots.below_integral_at_most _ _ _ _ 79896510) in small;
    [| computed | computed | computed].
  change (total (map work (interval 0 (0 + 2 ^ 20)))
          <= (1 + 1 * 2) * roots + (1 + 1 * 2 + 0) * 2 ^ 20) in all.
  lia.
Qed.

Print Assumptions even_context_cost.
Print Assumptions works_of_four_even.
Print Assumptions even_of_four_queries.
Print Assumptions even_total_at_2_20.

(** ** Aligned at every level *)

(** Aligned at every level: at most (1 + top_k·(N−1))·c·F + 2·L, c ≥ 2^(1−1/(2N−2)) rational, 63 %
    above the worst.
    SPEC 2.5.4, 2.5.6; `random_routing_work`. *)
Theorem aligned_context_cost : forall top_k k w start L c work,
  0 <= top_k -> 0 <= w -> 0 <= L ->
  let N := Z.of_nat k + 2 in
  let s := Schedule (repeat Aligned (S k)) w in
  0 < den c -> 0 <= num c -> 2 ^ (2 * N - 3) * den c ^ (2 * N - 2) <= num c ^ (2 * N - 2) ->
  (forall t, start <= t < start + L -> query_work top_k s (seen start t) (work t)) ->
  exists roots, below_integral (num c) N (L + 1) roots /\
    den c * total (map work (interval start (start + L)))
    <= (1 + top_k * (N - 1)) * roots + den c * (2 + w) * L.
Proof. exact Totals.aligned_context_cost. Qed.

(** Two steps and four queries, each with its newest part: 1 anchor and 1 key, 2 and 1, 2 and 1,
    2 and 2. *)
Definition four_aligned_works (t : Z) : Z := nth (Z.to_nat t) [2; 3; 3; 4] 0.

Lemma works_of_four_aligned : forall t, 0 <= t < 0 + 4 ->
  query_work 1 (Schedule [Aligned] 0) (seen 0 t) (four_aligned_works t).
Proof.
  intros t range. exists (four_aligned_works t).
  assert (cases : t = 0 \/ t = 1 \/ t = 2 \/ t = 3) by lia.
  destruct cases as [-> | [-> | [-> | ->]]]; (split; [| reflexivity]);
    [exists [(seen 0 0, 1)], 1 | exists [(seen 0 1, 1)], 1 | exists [(seen 0 2, 1)], 1
    | exists [(seen 0 3, 1)], 2];
    (split; [computed | split; [| split; vm_compute; reflexivity]]);
    (constructor; [split; [left; reflexivity | computed] | constructor]).
Qed.

Example aligned_of_four_queries :
  total (map four_aligned_works (interval 0 (0 + 4))) = 12 /\ 12 <= 30.
Proof.
  split; [reflexivity |].
  destruct (aligned_context_cost 1 0 0 0 4 (Ratio 3 2) four_aligned_works ltac:(lia) ltac:(lia)
              ltac:(lia) eq_refl ltac:(discriminate) ltac:(discriminate) works_of_four_aligned)
    as (roots & small & all).
  apply (SumsOfRoots.below_integral_at_most _ _ _ _ 22) in small;
    [| computed | computed | computed].
  vm_compute in all. lia.
Qed.

(** Three steps, [2^20] queries, one path each, and [c = 27/16]: 387.8 choices a query; the worst
    scores, counted, cost 249 359 940 in all, 237.8 a query. *)
Example aligned_total_at_2_20 : forall work,
  (forall t, 0 <= t < 0 + 2 ^ 20 ->
    query_work 1 (Schedule [Aligned; Aligned] 0) (seen 0 t) (work t)) ->
  total (map work (interval 0 (0 + 2 ^ 20))) <= 406573753.
Proof.
  intros work works.
  destruct (aligned_context_cost 1 1 0 0 (2 ^ 20) (Ratio 27 16) work ltac:(lia) ltac:(lia)
              ltac:(lia) eq_refl ltac:(discriminate) ltac:(discriminate) works)
    as (roots & small & all).
  apply (SumsOfRoots.below_integral_at_most _ _ _ _ 2157208539) in small;
    [| computed | computed | computed].
  change (16 * total (map work (interval 0 (0 + 2 ^ 20)))
          <= (1 + 1 * 2) * roots + 16 * (2 + 0) * 2 ^ 20) in all.
  lia.
Qed.

Print Assumptions aligned_context_cost.
Print Assumptions works_of_four_aligned.
Print Assumptions aligned_of_four_queries.
Print Assumptions aligned_total_at_2_20.

(** Aligned in two, three and four steps, with start = 0 and one path a query: at most c·F + L, c =
    2.122, 3.24 and 4.326, 4.2 % above the worst.
    SPEC 2.5.4, 2.5.6; `random_routing_work`. *)
Theorem few_aligned_steps_context_cost : forall k p w L work,
  In (k, p) [(0%nat, 2122); (1%nat, 3240); (2%nat, 4326)] -> 0 <= w -> 0 <= L ->
  let N := Z.of_nat k + 2 in
  let s := Schedule (repeat Aligned (S k)) w in
  (forall t, 0 <= t < L -> query_work 1 s (seen 0 t) (work t)) ->
  exists roots, below_integral p N (L + 1) roots /\
    1000 * total (map work (interval 0 L)) <= roots + 1000 * (1 + w) * L.
Proof. exact AlignedTotals.few_aligned_steps_context_cost. Qed.

(** The four queries above: 12, and at most 19. *)
Example few_of_four_queries : total (map four_aligned_works (interval 0 4)) = 12 /\ 12 <= 19.
Proof.
  split; [reflexivity |].
  destruct (few_aligned_steps_context_cost 0 2122 0 4 four_aligned_works ltac:(now left) ltac:(lia)
              ltac:(lia) works_of_four_aligned) as (roots & small & all).
  apply (SumsOfRoots.below_integral_at_most _ _ _ _ 15816) in small;
    [| computed | computed | computed].
  vm_compute in all. lia.
Qed.

(** Three steps and [2^20] queries again: 247.9 choices a query. *)
Example few_total_at_2_20 : forall work,
  (forall t, 0 <= t < 2 ^ 20 -> query_work 1 (Schedule [Aligned; Aligned] 0) (seen 0 t) (work t)) ->
  total (map work (interval 0 (2 ^ 20))) <= 259913600.
Proof.
  intros work works.
  destruct (few_aligned_steps_context_cost 1 3240 0 (2 ^ 20) work ltac:(right; now left) ltac:(lia)
              ltac:(lia) works) as (roots & small & all).
  apply (SumsOfRoots.below_integral_at_most _ _ _ _ 258865024746) in small;
    [| computed | computed | computed].
  change (1000 * total (map work (interval 0 (2 ^ 20)))
          <= roots + 1000 * (1 + 0) * 2 ^ 20) in all.
  lia.
Qed.

Print Assumptions few_aligned_steps_context_cost.
Print Assumptions few_of_four_queries.
Print Assumptions few_total_at_2_20.
