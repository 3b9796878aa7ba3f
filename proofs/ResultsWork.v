(** * What is proved: what reaching every key costs

    As in Results.v: theorems to be read with Schedule.v alone, each with an example and with what
    it rests on. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule.
From Multistep Require Powers AmGm LowerBound Optimality Cost Exponents Checker.
Import ListNotations.
Open Scope Z_scope.

(** Decides a statement about numbers by computing it. *)
Ltac computed := vm_compute; repeat split; congruence.

(** ** No scheme does with less work (LowerBound.v)

    A scheme is anything that chooses step by step: [offered] are the states that a step can choose
    from, and after the last step [key] is the key found. *)

Fixpoint reaches {state : Type} (offered : state -> list state) (key : state -> Z)
    (steps : nat) (from : state) (j : Z) : Prop :=
  match steps with
  | O => key from = j
  | S k => exists next, In next (offered from) /\ reaches offered key k next j
  end.

(** Step [m] offers at most the [m]-th of [cs], whatever was chosen before. *)
Fixpoint offers_at_most {state : Type} (offered : state -> list state)
    (cs : list Z) (from : state) : Prop :=
  match cs with
  | [] => True
  | c :: rest =>
      Z.of_nat (length (offered from)) <= c /\
      forall next, In next (offered from) -> offers_at_most offered rest next
  end.

Definition total (cs : list Z) : Z := fold_right Z.add 0 cs.
Definition nonnegative (cs : list Z) : Prop := Forall (fun c => 0 <= c) cs.

Lemma same_reaches : forall state offered key steps (from : state) j,
  LowerBound.reaches (LowerBound.Scheme state offered key) steps from j <->
  reaches offered key steps from j.
Proof.
  intros state offered key. induction steps as [| k IH]; intros from j; [reflexivity |].
  split; intros (next & chosen & found); exists next; split; try apply IH; assumption.
Qed.

Lemma same_offers : forall state offered key cs (from : state),
  offers_at_most offered cs from ->
  LowerBound.offers_at_most (LowerBound.Scheme state offered key) cs from.
Proof.
  intros state offered key. induction cs as [| c rest IH]; intros from offers; [exact I |].
  split; [apply offers | intros next chosen; apply IH, offers, chosen].
Qed.

Theorem lower_bound : forall state offered key (from : state) cs n,
  nonnegative cs -> offers_at_most offered cs from ->
  (forall j, 0 <= j < n -> reaches offered key (length cs) from j) ->
  let N := Z.of_nat (length cs) in N ^ N * n <= total cs ^ N.
Proof.
  intros state offered key from cs n nonneg offers all_reached.
  apply (LowerBound.lower_bound (LowerBound.Scheme state offered key) cs from n nonneg).
  - now apply same_offers.
  - intros j range. now apply same_reaches, all_reached.
Qed.

(** Nine keys with two steps of three choices, two digits in base 3: the bound is met.  Of ten keys
    one is out of reach. *)
Definition next_digit (x : Z) : list Z := [3 * x; 3 * x + 1; 3 * x + 2].

Lemma next_digit_offers : offers_at_most next_digit [3; 3] 0.
Proof. repeat split; vm_compute; congruence. Qed.

Example nine_keys :
  (forall j, 0 <= j < 9 -> reaches next_digit (fun x => x) 2 0 j) /\
  2 ^ 2 * 9 = total [3; 3] ^ 2 /\
  ~ forall j, 0 <= j < 10 -> reaches next_digit (fun x => x) 2 0 j.
Proof.
  split; [| split; [reflexivity |]].
  - intros j range. pose proof (Z.div_mod j 3). pose proof (Z.mod_pos_bound j 3).
    exists (j / 3). split; [cbn [next_digit In]; lia |].
    exists j. split; [cbn [next_digit In]; lia | reflexivity].
  - intros all_reached.
    now apply (lower_bound Z next_digit (fun x => x) 0 [3; 3] 10 ltac:(repeat constructor; computed)
                 next_digit_offers all_reached).
Qed.

Print Assumptions lower_bound.

(** What a schedule offers: the anchors of a segment, level by level, and a final span's keys. *)
Fixpoint costs_at_most (w : Z) (ls : list level) (n : Z) (cs : list Z) : Prop :=
  match ls, cs with
  | [], [c] => n <= c
  | l :: rest, c :: cs' =>
      Z.max 0 (last_searched w (steps_of ls) l n - first_stripe w l + 1) <= c /\
      forall i, is_stripe w (steps_of ls) l n i ->
        costs_at_most 0 rest (size (span_of w (steps_of ls) l n i)) cs'
  | _, _ => False
  end.

Theorem covering_schedules_pay : forall s start len cs,
  good s -> covered s start len -> nonnegative cs -> length cs = S (length (levels s)) ->
  costs_at_most (window_index s) (levels s) (len - start) cs ->
  let N := Z.of_nat (length cs) in N ^ N * (len - start - window_of s) <= total cs ^ N.
Proof. exact LowerBound.schedule_lower_bound. Qed.

(** Two tight steps, 20 keys: 4 anchors and at most 7 keys in a span, and 80 <= 121. *)
Definition two_tight : schedule := Schedule [default_tight 2] 0.

Lemma two_tight_costs : costs_at_most 0 (levels two_tight) (20 - 0) [4; 7].
Proof.
  split; [computed |]. intros i [first last].
  assert (four : last_searched 0 2 (default_tight 2) 20 = 4) by (vm_compute; reflexivity).
  change (i <= last_searched 0 2 (default_tight 2) 20) in last. rewrite four in last.
  cbn [first_stripe default_tight] in first.
  assert (cases : i = 1 \/ i = 2 \/ i = 3 \/ i = 4) by lia.
  destruct cases as [-> | [-> | [-> | ->]]]; computed.
Qed.

Example two_tight_pay : 2 ^ 2 * (20 - 0 - window_of two_tight) <= total [4; 7] ^ 2.
Proof.
  apply (covering_schedules_pay two_tight 0 20 [4; 7]); try (repeat constructor; computed).
  - apply Checker.first_hole_none. vm_compute. reflexivity.
  - exact two_tight_costs.
Qed.

Print Assumptions covering_schedules_pay.

(** ** The even rule is optimal but for rounding (Optimality.v) *)

Theorem even_offers : forall k n,
  0 < n ->
  let N := Z.of_nat (S k) in costs_at_most 0 (repeat Even k) n (repeat (ceil_root N n) (S k)).
Proof. exact Optimality.even_offers_ceil_root. Qed.

(** 100 keys in three steps of at most 5; 2^20 in two of 1024, which is the lower bound. *)
Example even_at_100_and_2_20 :
  costs_at_most 0 [Even; Even] 100 [5; 5; 5] /\
  costs_at_most 0 [Even] (2 ^ 20) [1024; 1024] /\ 2 ^ 2 * 2 ^ 20 = total [1024; 1024] ^ 2.
Proof.
  split; [now apply (even_offers 2 100) | split; [now apply (even_offers 1 (2 ^ 20)) |]].
  reflexivity.
Qed.

Print Assumptions even_offers.

Theorem even_is_optimal : forall state offered key (from : state) cs n,
  0 < n -> cs <> [] -> nonnegative cs -> offers_at_most offered cs from ->
  (forall j, 0 <= j < n -> reaches offered key (length cs) from j) ->
  let N := Z.of_nat (length cs) in N * ceil_root N n < total cs + N.
Proof.
  intros state offered key from cs n n_pos some nonneg offers all_reached N.
  assert (N_pos : 0 < N) by (destruct cs; [contradiction | unfold N; cbn [length]; lia]).
  apply Optimality.total_near_ceil_root; [exact N_pos | exact n_pos | |].
  - now apply AmGm.total_nonneg.
  - now apply (lower_bound state offered key from cs n).
Qed.

(** Ten keys in two steps: 4 + 4 choices of the even rule, and no scheme has less than 7. *)
Example even_at_10 : forall state offered key (from : state) c c',
  nonnegative [c; c'] -> offers_at_most offered [c; c'] from ->
  (forall j, 0 <= j < 10 -> reaches offered key 2 from j) -> 7 <= c + c'.
Proof.
  intros state offered key from c c' nonneg offers all_reached.
  pose proof (even_is_optimal state offered key from [c; c'] 10 eq_refl ltac:(discriminate)
                nonneg offers all_reached) as near.
  change (2 * ceil_root 2 10 < c + (c' + 0) + 2) in near.
  assert (four : ceil_root 2 10 = 4) by reflexivity. lia.
Qed.

(** Some scheme has 7: first one of four, then a digit. *)
Definition four_then_three (x : Z) : list Z := if x <? 0 then [0; 1; 2; 3] else next_digit x.

Example seven_for_ten_keys :
  offers_at_most four_then_three [4; 3] (-1) /\
  forall j, 0 <= j < 10 -> reaches four_then_three (fun x => x) 2 (-1) j.
Proof.
  split.
  - split; [computed |]. intros x chosen. cbn in chosen.
    destruct chosen as [<- | [<- | [<- | [<- | []]]]]; repeat split; computed.
  - intros j range. pose proof (Z.div_mod j 3). pose proof (Z.mod_pos_bound j 3).
    exists (j / 3). split; [cbn; lia |].
    exists j. unfold four_then_three. destruct (Z.ltb_spec (j / 3) 0); [lia |].
    split; [cbn [next_digit In]; lia | reflexivity].
Qed.

Print Assumptions even_is_optimal.

(** ** Cost: [O(n^(1/N))] a query, [O(L^(1 + 1/N))] a context (Cost.v)

    For the default exponents and factors of at most [K]. *)

Definition factor_at_most (K : Z) (c : ratio) : Prop := good_factor c /\ num c <= K * den c.

Definition standard_level (K M : Z) (l : level) : Prop :=
  match l with
  | Tight e => e = Ratio M 1
  | Power e b f q =>
      e = Ratio M 1 /\ factor_at_most K b /\ factor_at_most K f /\ q = Ratio (M - 1) M
  | Even => True
  end.

Fixpoint standard (K : Z) (ls : list level) : Prop :=
  match ls with
  | [] => True
  | l :: rest => standard_level K (steps_of ls) l /\ standard K rest
  end.

Definition cost_constant (N K : Z) : Z := Z.max (2 ^ N) (5 * K) ^ (N * (N - 1)).

Theorem path_cost : forall K ls w n,
  1 <= K -> standard K ls -> 0 <= w -> 0 <= n ->
  let N := steps_of ls in
  costs_at_most w ls n (repeat (root N (cost_constant N K * n)) (S (length ls))).
Proof. exact Cost.path_cost. Qed.

Definition nstep3 : list level := [default_tight 3; Even].

(** Three steps and [n] keys: no step offers more than [64 n^(1/3)]. *)
Example path_cost_at_2_21 : costs_at_most 0 nstep3 (2 ^ 21) [8192; 8192; 8192].
Proof. apply (path_cost 1 nstep3 0 (2 ^ 21)); computed. Qed.

Print Assumptions path_cost.

(** The work of a query with [n] keys.  A level scores the anchors of its segments, given by their
    lengths, and keeps at most [top_k] of their spans, whichever the scores choose. *)
Fixpoint search_work (top_k w : Z) (ls : list level) (segments : list Z) (work : Z) : Prop :=
  match ls with
  | [] => work = total segments
  | l :: rest =>
      let M := steps_of ls in
      exists kept later,
        Z.of_nat (length kept) <= top_k /\
        Forall (fun choice => In (fst choice) segments /\
                              is_stripe w M l (fst choice) (snd choice)) kept /\
        search_work top_k 0 rest
          (map (fun choice => size (span_of w M l (fst choice) (snd choice))) kept) later /\
        work = total (map (fun n => Z.max 0 (last_searched w M l n - first_stripe w l + 1))
                          segments) + later
  end.

Definition query_work (top_k : Z) (s : schedule) (n work : Z) : Prop :=
  exists searched,
    search_work top_k (window_index s) (levels s) [n] searched /\
    work = searched + Z.min n (window_of s).

Definition interval (low high : Z) : list Z :=
  map (fun k => low + Z.of_nat k) (seq 0 (Z.to_nat (high - low))).

(** [work t] is the work of query [t]: the window's, and beyond that [O(len^(1 + 1/N))] in all. *)
Theorem context_cost : forall top_k K s start len work,
  1 <= K -> 0 <= top_k -> standard K (levels s) -> 0 <= window_index s -> 0 <= len ->
  (forall t, start <= t < start + len -> query_work top_k s (t + 1 - start) (work t)) ->
  let N := steps_of (levels s) in
  exists beyond_window,
    total (map work (interval start (start + len))) <= beyond_window + len * window_of s /\
    0 <= beyond_window /\
    beyond_window ^ N <= (1 + top_k * (N - 1)) ^ N * cost_constant N K * len ^ (N + 1).
Proof. exact Cost.context_cost. Qed.

(** Two tight steps, 20 keys: 4 anchors scored, and the 5 keys [[12, 17)] of the second. *)
Example work_of_query_19 : query_work 1 two_tight 20 9.
Proof.
  exists 9. split; [| reflexivity]. exists [(20, 2)], 5.
  repeat split; try (vm_compute; congruence).
  constructor; [| constructor]. split; [left; reflexivity | computed].
Qed.

(** The first four queries, each with its newest stripe but the last: 2 + 3 + 4 + 3, and the bound
    is 80. *)
Definition four_works (t : Z) : Z := nth (Z.to_nat t) [2; 3; 4; 3] 0.

Lemma work_of_four_queries : forall t, 0 <= t < 0 + 4 ->
  query_work 1 two_tight (t + 1 - 0) (four_works t).
Proof.
  intros t range. exists (four_works t).
  assert (cases : t = 0 \/ t = 1 \/ t = 2 \/ t = 3) by lia.
  destruct cases as [-> | [-> | [-> | ->]]]; (split; [| reflexivity]);
    [exists [(1, 1)], 1 | exists [(2, 1)], 2 | exists [(3, 1)], 3 | exists [(4, 2)], 1];
    repeat split; try (vm_compute; congruence);
    (constructor; [| constructor]); (split; [left; reflexivity | computed]).
Qed.

Example cost_of_four_queries :
  total (map four_works (interval 0 4)) = 12 /\
  exists beyond_window, 12 <= beyond_window + 4 * 0 /\ 0 <= beyond_window /\
    beyond_window ^ 2 <= 80 ^ 2.
Proof.
  split; [reflexivity |].
  exact (context_cost 1 1 two_tight 0 4 four_works ltac:(lia) ltac:(lia)
           ltac:(repeat constructor) ltac:(computed) ltac:(lia) work_of_four_queries).
Qed.

Print Assumptions context_cost.

(** ** Two steps need [p + q >= 1] (Exponents.v)

    Any scheme of two steps, with [p = a/d], [q = b/d], and [x = O(n^p)] said as [x^d <= K n^a]. *)

Theorem two_step_exponents : forall state offered key (start : Z -> state) anchors spans a b d K K',
  0 <= a -> 0 <= b -> 0 <= K -> 0 <= K' ->
  (forall n, 0 < n ->
     offers_at_most offered [anchors n; spans n] (start n) /\
     0 <= anchors n /\ anchors n ^ d <= K * n ^ a /\
     0 <= spans n /\ spans n ^ d <= K' * n ^ b) ->
  (forall n j, 0 <= j < n -> reaches offered key 2 (start n) j) ->
  d <= a + b.
Proof.
  intros state offered key start anchors spans a b d K K'
    a_nonneg b_nonneg K_nonneg K'_nonneg small all_reached.
  apply (Exponents.coverage_needs_exponents (LowerBound.Scheme state offered key)
           start anchors spans a b d K K' a_nonneg b_nonneg K_nonneg K'_nonneg).
  - intros n n_pos. destruct (small n n_pos) as (offers & rest).
    split; [now apply same_offers | exact rest].
  - intros n j range. now apply same_reaches, all_reached.
Qed.

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

(** The power rule of this project: stripes [i^e] are about [n^(1/e)] anchors, [p = 1/e]. *)

Theorem low_exponents_exclude : forall e b f q K n,
  good_exponent e -> good_span_exponent q ->
  1 <= K -> factor_at_most K b -> factor_at_most K f ->
  den e * den q + num q * num e < num e * den q ->
  2 ^ (den e * den q) * (5 * K) ^ (num e * den q) < n ->
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
