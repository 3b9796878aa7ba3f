(** * What is proved: what the presets of the power rule cost, [paper] and [released]

    As in Results.v: theorems, each with a sentence, an example and what both rest on, to be read
    with Schedule.v, with the two presets in Results.v, and with the definitions of ResultsWork.v,
    ResultsCost.v and ResultsTotals.v.

    Both presets have two steps, stripes [i^e] and spans of about [n^q] keys with [q = 1/e].  As in
    ResultsTotals.v the bounds are of the most work that any scores can cause, and how far one lies
    above the worst is for one path and [L = 2^20].  In the sentences [W] is the number of keys of a
    window of [w] stripes. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Results ResultsWork ResultsCost ResultsTotals.
From Multistep Require SumsOfRoots PowerTotals.
Import ListNotations.
Open Scope Z_scope.

(** ** One query (PowerTotals.v) *)

(** Two steps of the power rule, n keys: at most R − w anchors, R the last i with i^e < n + 1, and
    spans of at most ceil(b·n^q) + ceil(f·n^q) + 1 keys.
    SPEC 2.3, 2.5.4; `MostChoices`. *)
Theorem power_offers : forall e b f q w (n : segment),
  0 < n ->
  let R := root (num e) ((n + 1) ^ den e - 1) in
  costs_at_most w [Power e b f q] n
    [Z.max 0 (R - w); ceil_power b n q + ceil_power f n q + 1].
Proof. exact PowerTotals.power_offers. Qed.

(** 2^20 keys: 3073 choices for [paper], as for the default rules, and 10176 for [released]. *)
Example presets_at_2_20 :
  costs_at_most 0 (levels (paper (Ratio 2 1) (Ratio 0 1))) (first_keys (2 ^ 20)) [1024; 2049] /\
  costs_at_most 65 (levels released) (first_keys (2 ^ 20)) [1983; 8193].
Proof.
  set (n := first_keys (2 ^ 20)). split; [
    refine (eq_rect _ (costs_at_most 0 _ n) (power_offers _ _ _ _ 0 n eq_refl) _ _) |
    refine (eq_rect _ (costs_at_most 65 _ n) (power_offers _ _ _ _ 65 n eq_refl) _ _)];
    vm_compute; reflexivity.
Qed.

(** The scores of the last of 2^20 queries can cost all of it, here by stripe 1000, and the 2032 keys
    of the window. *)
Example work_of_last_query : query_work 1 released (seen 0 (2 ^ 20 - 1)) (1983 + 8193 + 2032).
Proof.
  exists (1983 + 8193). split; [| vm_compute; reflexivity].
  exists [(seen 0 (2 ^ 20 - 1), 1000)], 8193.
  split; [computed | split; [| split; vm_compute; reflexivity]].
  constructor; [split; [left; reflexivity | computed] | constructor].
Qed.

Print Assumptions power_offers.
Print Assumptions presets_at_2_20.
Print Assumptions work_of_last_query.

(** ** All queries of a context: [paper] *)

(** L queries by the rule of `paper`, F = 2/3·(L+1)^(3/2): at most (1 + 2·top_k)·F + 2·top_k·L
    choices, and (W − w)·L for a window; 0.05 % above the worst.
    SPEC 2.5.4, 2.7; `random_routing_work`. *)
Theorem paper_context_cost : forall top_k w start L work,
  0 <= top_k -> 0 <= w -> 0 <= L ->
  let s := Schedule (levels (paper (Ratio 2 1) (Ratio 0 1))) w in
  (forall t, start <= t < start + L -> query_work top_k s (seen start t) (work t)) ->
  exists roots, below_integral (1 + 2 * top_k) 2 (L + 1) roots /\
    total (map work (interval start (start + L)))
    <= roots + (2 * top_k + window_of s - w) * L.
Proof. exact PowerTotals.paper_context_cost. Qed.

(** Four queries, each with all its keys by stripe 1: 1 + 1, 1 + 2, 1 + 3, 2 + 4, and at most 30. *)
Definition four_paper_works (t : Z) : Z := nth (Z.to_nat t) [2; 3; 4; 6] 0.

Lemma works_of_four_paper : forall t, 0 <= t < 0 + 4 ->
  query_work 1 (paper (Ratio 2 1) (Ratio 0 1)) (seen 0 t) (four_paper_works t).
Proof.
  intros t range. exists (four_paper_works t).
  assert (cases : t = 0 \/ t = 1 \/ t = 2 \/ t = 3) by lia.
  destruct cases as [-> | [-> | [-> | ->]]]; (split; [| reflexivity]);
    [exists [(seen 0 0, 1)], 1 | exists [(seen 0 1, 1)], 2 | exists [(seen 0 2, 1)], 3
    | exists [(seen 0 3, 1)], 4];
    (split; [computed | split; [| split; vm_compute; reflexivity]]);
    (constructor; [split; [left; reflexivity | computed] | constructor]).
Qed.

Example paper_of_four_queries : total (map four_paper_works (interval 0 (0 + 4))) = 15 /\ 15 <= 30.
Proof.
  split; [reflexivity |].
  destruct (paper_context_cost 1 0 0 4 four_paper_works ltac:(lia) ltac:(lia) ltac:(lia)
              works_of_four_paper) as (roots & small & all).
  apply (SumsOfRoots.below_integral_at_most _ _ _ _ 22) in small; [| computed | computed | computed].
  vm_compute in all. lia.
Qed.

(** [2^20] queries, one path each: 2050.0 choices a query; the worst scores, counted, cost
    2 148 533 240 in all, 2049.0 a query. *)
Example paper_total_at_2_20 : forall work,
  (forall t, 0 <= t < 0 + 2 ^ 20 ->
    query_work 1 (paper (Ratio 2 1) (Ratio 0 1)) (seen 0 t) (work t)) ->
  total (map work (interval 0 (0 + 2 ^ 20))) <= 2149583872.
Proof.
  intros work works.
  destruct (paper_context_cost 1 0 0 (2 ^ 20) work ltac:(lia) ltac:(lia) ltac:(lia) works)
    as (roots & small & all).
  apply (SumsOfRoots.below_integral_at_most _ _ _ _ 2147486720) in small;
    [| computed | computed | computed].
  change (total (map work (interval 0 (0 + 2 ^ 20))) <= roots + (2 * 1 + 0 - 0) * 2 ^ 20) in all.
  lia.
Qed.

Print Assumptions paper_context_cost.
Print Assumptions works_of_four_paper.
Print Assumptions paper_of_four_queries.
Print Assumptions paper_total_at_2_20.

(** ** All queries of a context: [released] *)

(** [x <= c d / (d + a) L^(1 + a/d)]: [c] times the integral of [n^(a/d)] from 0 to [L]. *)
Definition below_power_integral (c a d L x : Z) : Prop :=
  0 <= x /\ ((d + a) * x) ^ d <= (c * d) ^ d * L ^ (d + a).

(** m numbers, the n-th at most c·(n+j)^(a/d), add up to at most c·d/(d+a)·(m+j)^(1+a/d).
    SPEC 2.5.4; `random_routing_work`. *)
Theorem powers_add_up : forall a d c j low x m,
  0 <= a -> 0 < d -> 0 <= c -> 0 <= j -> 0 <= m ->
  (forall n, 0 <= n < m -> 0 <= x (low + n) /\ x (low + n) ^ d <= c ^ d * (n + j) ^ a) ->
  below_power_integral c a d (m + j) (total (map x (interval low (low + m)))).
Proof. exact SumsOfRoots.powers_add_up. Qed.

(** [n^(2/3)] for 0 ... 8, rounded down: 18, and the integral from 0 to 9 is 23.4. *)
Definition two_thirds_below_nine (n : Z) : Z := nth (Z.to_nat n) [0; 1; 1; 2; 2; 2; 3; 3; 4] 0.

Example nine_two_thirds :
  total (map two_thirds_below_nine (interval 0 (0 + 9))) = 18 /\
  below_power_integral 1 2 3 (9 + 0) (total (map two_thirds_below_nine (interval 0 (0 + 9)))) /\
  below_power_integral 1 2 3 (9 + 0) 23 /\ ~ below_power_integral 1 2 3 (9 + 0) 24.
Proof.
  split; [reflexivity | split; [| split; [computed |]]].
  - apply powers_add_up; try lia. intros n range.
    assert (cases : n = 0 \/ n = 1 \/ n = 2 \/ n = 3 \/ n = 4 \/ n = 5 \/ n = 6 \/ n = 7 \/ n = 8)
      by lia.
    decompose [or] cases; subst n; computed.
  - intros [_ small]. now vm_compute in small.
Qed.

Print Assumptions powers_add_up.
Print Assumptions nine_two_thirds.

(** L queries by the rule of `released`: at most (1 + 4·top_k)·20/31·(L+2)^(31/20) + 3·top_k·L
    choices, and (W − w)·L for the window; 0.04 % above the worst.
    SPEC 2.5.4, 2.7; `random_routing_work`. *)
Theorem released_context_cost : forall top_k w start L work,
  0 <= top_k -> 0 <= w -> 0 <= L ->
  let s := Schedule [released_level] w in
  (forall t, start <= t < start + L -> query_work top_k s (seen start t) (work t)) ->
  exists powers, below_power_integral (1 + 4 * top_k) 11 20 (L + 2) powers /\
    total (map work (interval start (start + L)))
    <= powers + (3 * top_k + window_of s - w) * L.
Proof. exact PowerTotals.released_context_cost. Qed.

(** [2^20] queries, one path each, and the window of the preset, 65 stripes and 2032 keys: 8576.5
    choices a query; the worst scores, counted, cost 8 989 089 749 in all, 8572.7 a query. *)
Example released_total_at_2_20 : forall work,
  (forall t, 0 <= t < 0 + 2 ^ 20 -> query_work 1 released (seen 0 t) (work t)) ->
  total (map work (interval 0 (0 + 2 ^ 20))) <= 8993081806.
Proof.
  intros work works.
  destruct (released_context_cost 1 65 0 (2 ^ 20) work ltac:(lia) ltac:(lia) ltac:(lia) works)
    as (powers & small & all).
  apply (SumsOfRoots.below_power_integral_at_most _ _ _ _ _ 6927387086) in small;
    [| computed | computed | computed | computed].
  change (Schedule [released_level] 65) with released in all.
  replace (window_of released) with 2032 in all by computed. lia.
Qed.

Print Assumptions released_context_cost.
Print Assumptions released_total_at_2_20.
