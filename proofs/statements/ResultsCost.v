(** * What is proved: what reaching every key costs

    As in Results.v: theorems, each with an example and with what both rest on, to be read with
    Schedule.v and with the definitions of ResultsWork.v. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Results ResultsWork.
From Multistep Require Powers Cost Exponents Checker.
Import ListNotations.
Open Scope Z_scope.

(** ** Cost: [O(n^(1/N))] a query, [O(L^(1 + 1/N))] a context (Cost.v)

    For the default exponents and factors of at most [K]; ResultsAligned.v is about the aligned
    rule. *)

Definition factor_at_most (K : Z) (c : ratio) : Prop := good_factor c /\ num c <= K * den c.

Definition standard_level (K M : Z) (l : level) : Prop :=
  good_level l /\
  match l with
  | Tight e => same_number e (Ratio M 1)
  | Power e b f q =>
      same_number e (Ratio M 1) /\ factor_at_most K b /\ factor_at_most K f /\
      same_number q (Ratio (M - 1) M)
  | Even => True
  | Aligned => False
  end.

Fixpoint standard (K : Z) (ls : list level) : Prop :=
  match ls with
  | [] => True
  | l :: rest => standard_level K (steps_of ls) l /\ standard K rest
  end.

Definition cost_constant (N K : Z) : Z := Z.max (2 ^ N) (5 * K) ^ (N * (N - 1)).

(** Default exponents, factors of at most K: on every path, each level scores at most (C·n)^(1/N)
    anchors and the final span has at most so many keys; C is stated.
    SPEC 2.5.4; `path_work`. *)
Theorem path_cost : forall K ls w (n : segment),
  1 <= K -> standard K ls -> 0 <= w -> 0 <= n ->
  let N := steps_of ls in
  costs_at_most w ls n (repeat (root N (cost_constant N K * n)) (S (length ls))).
Proof. exact Cost.path_cost. Qed.

(** Three steps and [n] keys: no step offers more than [64 n^(1/3)]. *)
Example path_cost_at_2_21 :
  costs_at_most 0 (levels nstep3) (first_keys (2 ^ 21)) [8192; 8192; 8192].
Proof. apply (path_cost 1 (levels nstep3) 0 (first_keys (2 ^ 21))); computed. Qed.

Print Assumptions path_cost.
Print Assumptions path_cost_at_2_21.

(** The work of a query with [n] keys.  A level scores the anchors of its segments, and keeps at
    most [top_k] of their spans, whichever the scores choose. *)
Fixpoint search_work (top_k w : Z) (ls : list level) (segments : list segment) (work : Z) : Prop :=
  match ls with
  | [] => work = total (map held segments)
  | l :: rest =>
      let M := steps_of ls in
      exists kept later,
        Z.of_nat (length kept) <= top_k /\
        Forall (fun choice => In (fst choice) segments /\
                              is_stripe w M l (fst choice) (snd choice)) kept /\
        search_work top_k 0 rest
          (map (fun choice => segment_of w M l (fst choice) (snd choice)) kept) later /\
        work = total (map (fun n => Z.max 0 (last_searched w M l n - first_stripe w l + 1))
                          segments) + later
  end.

Definition query_work (top_k : Z) (s : schedule) (n : segment) (work : Z) : Prop :=
  exists searched,
    search_work top_k (window_index s) (levels s) [n] searched /\
    work = searched + Z.min n (window_of s).

Definition interval (low high : Z) : list Z :=
  map (fun k => low + Z.of_nat k) (seq 0 (Z.to_nat (high - low))).

(** L queries, whatever top_k paths they keep: W·L + T with T^N ≤ C'·L^(N+1), which is O(L^(1+1/N))
    beyond the window.
    SPEC 2.5.4; `random_routing_work`. *)
Theorem context_cost : forall top_k K s start L work,
  1 <= K -> 0 <= top_k -> standard K (levels s) -> 0 <= window_index s -> 0 <= L ->
  (forall t, start <= t < start + L -> query_work top_k s (seen start t) (work t)) ->
  let N := steps_of (levels s) in
  exists beyond_window,
    total (map work (interval start (start + L))) <= beyond_window + L * window_of s /\
    0 <= beyond_window /\
    beyond_window ^ N <= (1 + top_k * (N - 1)) ^ N * cost_constant N K * L ^ (N + 1).
Proof. exact Cost.context_cost. Qed.

(** Two tight steps, 20 keys: 4 anchors scored, and the 5 keys [[12, 17)] of the second. *)
Example work_of_query_19 : query_work 1 two_tight (seen 0 19) 9.
Proof.
  exists 9. split; [| reflexivity]. exists [(seen 0 19, 2)], 5.
  repeat split; try (vm_compute; congruence).
  constructor; [| constructor]. split; [left; reflexivity | computed].
Qed.

(** The first four queries, each with its newest stripe but the last: 2 + 3 + 4 + 3, and the bound
    is 80. *)
Definition four_works (t : Z) : Z := nth (Z.to_nat t) [2; 3; 4; 3] 0.

Lemma work_of_four_queries : forall t, 0 <= t < 0 + 4 ->
  query_work 1 two_tight (seen 0 t) (four_works t).
Proof.
  intros t range. exists (four_works t).
  assert (cases : t = 0 \/ t = 1 \/ t = 2 \/ t = 3) by lia.
  destruct cases as [-> | [-> | [-> | ->]]]; (split; [| reflexivity]);
    [exists [(seen 0 0, 1)], 1 | exists [(seen 0 1, 1)], 2 | exists [(seen 0 2, 1)], 3
    | exists [(seen 0 3, 2)], 1];
    (split; [computed | split; [| split; vm_compute; reflexivity]]);
    (constructor; [split; [left; reflexivity | computed] | constructor]).
Qed.

Example cost_of_four_queries :
  total (map four_works (interval 0 4)) = 12 /\
  exists beyond_window, 12 <= beyond_window + 4 * 0 /\ 0 <= beyond_window /\
    beyond_window ^ 2 <= 80 ^ 2.
Proof.
  split; [reflexivity |].
  exact (context_cost 1 1 two_tight 0 4 four_works ltac:(lia) ltac:(lia)
           ltac:(repeat constructor; computed) ltac:(computed) ltac:(lia)
           work_of_four_queries).
Qed.

Print Assumptions context_cost.
Print Assumptions work_of_query_19.
Print Assumptions work_of_four_queries.
Print Assumptions cost_of_four_queries.

(** ** Two steps need [p + q >= 1] (Exponents.v)

    Any scheme of two steps, with [p = a/d], [q = b/d], and [x = O(n^p)] said as [x^d <= K n^a]. *)

(** Any two steps with O(n^p) anchors and spans of O(n^q) keys that reach every key for every n have
    p + q ≥ 1.
    SPEC 2.5.7; `work_lower_bound`. *)
Theorem two_step_exponents : forall state offered key (start : Z -> state) anchors spans a b d K K',
  0 <= a -> 0 <= b -> 0 <= K -> 0 <= K' ->
  forall (few_choices : forall n, 0 < n ->
      offers_at_most offered [anchors n; spans n] (start n) /\
      0 <= anchors n /\ anchors n ^ d <= K * n ^ a /\
      0 <= spans n /\ spans n ^ d <= K' * n ^ b)
    (all_reached : forall n j, 0 <= j < n -> reaches offered key 2 (start n) j),
  d <= a + b.
Proof. exact Exponents.coverage_needs_exponents. Qed.

(** [p = q = 1/2] is just enough: with [r = floor (n^(1/2)) + 1], first one of [r] parts, then one
    of the [r] keys in it.  A state is [n], the key or part, and whether a part has been chosen. *)
Definition part_then_key (state : Z * Z * bool) : list (Z * Z * bool) :=
  let '(n, x, chosen) := state in
  let r := root 2 n + 1 in
  if chosen then map (fun j => (n, j, true)) (interval (x * r) (x * r + r))
  else map (fun i => (n, i, true)) (interval 0 r).

Lemma part_then_key_offers : forall n, 0 < n ->
  let r := root 2 n + 1 in
  offers_at_most part_then_key [r; r] (n, 0, false) /\ 0 <= r /\ r ^ 2 <= 4 * n /\ n <= r * r.
Proof.
  intros n n_pos r. destruct (Powers.root_spec 2 n eq_refl ltac:(lia)) as (nonneg & below & above).
  assert (some : 1 <= root 2 n) by (apply Powers.root_ge_iff; lia).
  fold r in above. rewrite !Z.pow_2_r in *.
  assert (counted : forall low (f : Z -> Z * Z * bool),
            Z.of_nat (length (map f (interval low (low + r)))) <= r).
  { intros low f. unfold interval. rewrite !map_length, seq_length. lia. }
  split; [| split; [unfold r; lia | split; [unfold r; nia | lia]]].
  split; [exact (counted 0 _) |]. intros state found.
  apply in_map_iff in found. destruct found as (x & <- & _).
  split; [exact (counted (x * r) _) | easy].
Qed.

Example half_and_half :
  (forall n j, 0 <= j < n ->
     reaches part_then_key (fun '(_, j, _) => j) 2 (n, 0, false) j) /\ 2 <= 1 + 1.
Proof.
  assert (all_reached : forall n j, 0 <= j < n ->
            reaches part_then_key (fun '(_, j, _) => j) 2 (n, 0, false) j).
  { intros n j range. destruct (part_then_key_offers n ltac:(lia)) as (_ & r_nonneg & _ & large).
    set (r := root 2 n + 1) in *.
    assert (r_pos : 0 < r) by nia.
    assert (inside : forall x low high, low <= x < high -> In x (interval low high)).
    { intros x low high between. apply in_map_iff. exists (Z.to_nat (x - low)).
      split; [lia | apply in_seq; lia]. }
    pose proof (Z.div_mod j r ltac:(lia)). pose proof (Z.mod_pos_bound j r r_pos).
    assert (part : 0 <= j / r < r)
      by (split; [apply Z.div_pos | apply Z.div_lt_upper_bound]; lia).
    exists (n, j / r, true). split; [apply in_map_iff; exists (j / r); auto |].
    exists (n, j, true). split; [| reflexivity].
    apply in_map_iff. exists j. split; [reflexivity | apply inside]. fold r. lia. }
  split; [exact all_reached |].
  apply (two_step_exponents _ part_then_key (fun '(_, j, _) => j) (fun n => (n, 0, false))
           (fun n => root 2 n + 1) (fun n => root 2 n + 1) 1 1 2 4 4); try lia; try assumption.
  intros n n_pos. destruct (part_then_key_offers n n_pos) as (offers & nonneg & small & _).
  rewrite Z.pow_1_r. auto.
Qed.

Print Assumptions two_step_exponents.
Print Assumptions part_then_key_offers.
Print Assumptions half_and_half.

(** The power rule of this project: stripes [i^e] are about [n^(1/e)] anchors, [p = 1/e]. *)

(** Two steps of the power rule without a window and with p + q < 1 (stripes i^(1/p), spans n^q)
    exclude a key of every context longer than a stated bound.
    SPEC 2.5.7; `verify_all`. *)
Theorem low_exponents_exclude : forall e b f q K n,
  good_exponent e -> good_span_exponent q ->
  1 <= K -> factor_at_most K b -> factor_at_most K f ->
  forall (exponents_low : den e * den q + num q * num e < num e * den q)
    (long : 2 ^ (den e * den q) * (5 * K) ^ (num e * den q) < n),
  exists j, 0 <= j < n /\ ~ reachable (Schedule [Power e b f q] 0) 0 (n - 1) j.
Proof. exact Exponents.power_rule_needs_exponents. Qed.

(** [p + q = 2/5 + 1/2 < 1]: the oldest keys of a long context are out of reach, and the first that
    is belongs to query 83. *)
Definition low_exponents : schedule :=
  Schedule [Power (Ratio 5 2) (Ratio 3 1) (Ratio 0 1) (Ratio 1 2)] 0.

Example a_key_is_excluded : forall n, 2 ^ 4 * 15 ^ 10 < n ->
  exists j, 0 <= j < n /\ ~ reachable low_exponents 0 (n - 1) j.
Proof.
  intros n large. apply (low_exponents_exclude _ _ _ _ 3); try computed. exact large.
Qed.

Example first_excluded : Checker.first_hole low_exponents 0 200 = Some (83, 0).
Proof. vm_compute. reflexivity. Qed.

Print Assumptions low_exponents_exclude.
Print Assumptions a_key_is_excluded.
Print Assumptions first_excluded.
