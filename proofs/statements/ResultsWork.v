(** * What is proved: how few choices can reach every key

    As in Results.v: theorems to be read with Schedule.v alone, each with an example and with what
    both rest on. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Results.
From Multistep Require LowerBound ManySteps Optimality Checker.
Import ListNotations.
Open Scope Z_scope.

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

Definition product (cs : list Z) : Z := fold_right Z.mul 1 cs.

(** Any N-step scheme whose steps offer c_1 … c_N choices reaches at most c_1·…·c_N keys.
    SPEC 2.5.5; `work_lower_bound`. *)
Theorem at_most_product : forall state offered key cs (from : state) js,
  nonnegative cs -> offers_at_most offered cs from ->
  NoDup js -> (forall j, In j js -> reaches offered key (length cs) from j) ->
  Z.of_nat (length js) <= product cs.
Proof. exact LowerBound.distinct_at_most_product. Qed.

(** Two steps of three choices, two digits in base 3: at most nine keys. *)
Definition next_digit (x : Z) : list Z := [3 * x; 3 * x + 1; 3 * x + 2].

Lemma next_digit_offers : offers_at_most next_digit [3; 3] 0.
Proof. repeat split; vm_compute; congruence. Qed.

Example at_most_nine_keys : forall js,
  NoDup js -> (forall j, In j js -> reaches next_digit (fun x => x) 2 0 j) ->
  Z.of_nat (length js) <= 9.
Proof.
  exact (fun js => at_most_product Z next_digit (fun x => x) [3; 3] 0 js
                     ltac:(repeat constructor; computed) next_digit_offers).
Qed.

Print Assumptions at_most_product.
Print Assumptions next_digit_offers.
Print Assumptions at_most_nine_keys.

(** Any N-step scheme, however it chooses, whose steps offer c_1 … c_N choices and which reaches n
    keys has (Σ c_m)^N ≥ N^N·n.
    SPEC 2.5.5; `work_lower_bound`. *)
Theorem lower_bound : forall state offered key cs (from : state) n,
  nonnegative cs -> offers_at_most offered cs from ->
  (forall j, 0 <= j < n -> reaches offered key (length cs) from j) ->
  let N := Z.of_nat (length cs) in N ^ N * n <= total cs ^ N.
Proof. exact LowerBound.lower_bound. Qed.

(** All nine keys are reached: the bound is met.  Of ten keys one is out of reach. *)
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
    now apply (lower_bound Z next_digit (fun x => x) [3; 3] 0 10 ltac:(repeat constructor; computed)
                 next_digit_offers all_reached).
Qed.

Print Assumptions lower_bound.
Print Assumptions nine_keys.

(** In any number of steps n keys take at least 3·log_3 n choices: n^3 ≤ 3^(Σ c_m).
    SPEC 2.5.9; `work_lower_bound`. *)
Theorem any_number_of_steps : forall state offered key cs (from : state) n,
  0 <= n -> nonnegative cs -> offers_at_most offered cs from ->
  (forall j, 0 <= j < n -> reaches offered key (length cs) from j) ->
  n ^ 3 <= 3 ^ total cs.
Proof. exact ManySteps.any_number_of_steps. Qed.

(** Choices of three meet it: 9^3 = 3^6. *)
Example nine_keys_in_threes : 9 ^ 3 <= 3 ^ total [3; 3] /\ 9 ^ 3 = 3 ^ 6.
Proof.
  split; [| reflexivity].
  apply (any_number_of_steps Z next_digit (fun x => x) [3; 3] 0 9);
    [lia | repeat constructor; computed | |].
  - exact next_digit_offers.
  - exact (proj1 nine_keys).
Qed.

Print Assumptions any_number_of_steps.
Print Assumptions nine_keys_in_threes.

(** With k paths kept, which take k times the steps behind the first: N^N·k^(N−1)·n ≤ (c_1 + k·(c_2
    + … + c_N))^N.
    SPEC 2.5.9; `work_lower_bound`. *)
Theorem paths_pay : forall state offered key k c cs (from : state) n,
  0 <= k -> nonnegative (c :: cs) -> offers_at_most offered (c :: cs) from ->
  (forall j, 0 <= j < n -> reaches offered key (length (c :: cs)) from j) ->
  let N := Z.of_nat (length (c :: cs)) in
  N ^ N * (k ^ (N - 1) * n) <= (c + k * total cs) ^ N.
Proof. exact ManySteps.paths_pay. Qed.

(** Two paths: three choices, then twice three, and 72 <= 81. *)
Example nine_keys_by_two_paths : 2 ^ 2 * (2 ^ (2 - 1) * 9) <= (3 + 2 * total [3]) ^ 2.
Proof.
  apply (paths_pay Z next_digit (fun x => x) 2 3 [3] 0 9); [lia | repeat constructor; computed | |].
  - exact next_digit_offers.
  - exact (proj1 nine_keys).
Qed.

Print Assumptions paths_pay.
Print Assumptions nine_keys_by_two_paths.

(** What a schedule offers: the anchors of a segment, level by level, and a final span's keys. *)
Fixpoint costs_at_most (w : Z) (ls : list level) (n : segment) (cs : list Z) : Prop :=
  match ls, cs with
  | [], [c] => n <= c
  | l :: rest, c :: cs' =>
      Z.max 0 (last_searched w (steps_of ls) l n - first_stripe w l + 1) <= c /\
      forall i, is_stripe w (steps_of ls) l n i ->
        costs_at_most 0 rest (segment_of w (steps_of ls) l n i) cs'
  | _, _ => False
  end.

(** Every covering schedule of this project meets the lower bound (Σ c_m)^N ≥ N^N·n for the n keys
    outside its window.
    SPEC 2.5.5; `MostChoices`. *)
Theorem covering_schedules_pay : forall s start stop cs,
  good s -> covered s start stop -> nonnegative cs -> length cs = S (length (levels s)) ->
  costs_at_most (window_index s) (levels s) (seen start (stop - 1)) cs ->
  let N := Z.of_nat (length cs) in N ^ N * (stop - start - window_of s) <= total cs ^ N.
Proof. exact LowerBound.schedule_lower_bound. Qed.

(** Two tight steps, 20 keys: 4 anchors and at most 7 keys in a span, and 80 <= 121. *)
Definition two_tight : schedule := Schedule [default_tight 2] 0.

Lemma two_tight_costs : costs_at_most 0 (levels two_tight) (seen 0 (20 - 1)) [4; 7].
Proof.
  split; [computed |]. intros i [first last].
  assert (four : last_searched 0 2 (default_tight 2) (seen 0 19) = 4) by (vm_compute; reflexivity).
  change (i <= last_searched 0 2 (default_tight 2) (seen 0 19)) in last. rewrite four in last.
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
Print Assumptions two_tight_costs.
Print Assumptions two_tight_pay.

(** It also meets the bounds for k paths and for any number of steps.
    SPEC 2.5.9; `MostChoices`. *)
Theorem covering_schedules_pay_for_paths : forall s start stop k c cs,
  good s -> covered s start stop -> 0 <= k -> nonnegative (c :: cs) ->
  length (c :: cs) = S (length (levels s)) ->
  costs_at_most (window_index s) (levels s) (seen start (stop - 1)) (c :: cs) ->
  let N := Z.of_nat (length (c :: cs)) in
  let n := stop - start - window_of s in
  N ^ N * (k ^ (N - 1) * n) <= (c + k * total cs) ^ N /\ (0 <= n -> n ^ 3 <= 3 ^ (c + total cs)).
Proof. exact ManySteps.covering_schedules_pay_for_paths. Qed.

(** The 20 keys above by two paths: 160 <= 324, and 8000 <= 3^11. *)
Example two_tight_pay_for_paths :
  2 ^ 2 * (2 ^ (2 - 1) * 20) <= (4 + 2 * total [7]) ^ 2 /\
  (0 <= 20 -> 20 ^ 3 <= 3 ^ (4 + total [7])).
Proof.
  apply (covering_schedules_pay_for_paths two_tight 0 20 2 4 [7]);
    try (repeat constructor; computed).
  - apply Checker.first_hole_none. vm_compute. reflexivity.
  - exact two_tight_costs.
Qed.

Print Assumptions covering_schedules_pay_for_paths.
Print Assumptions two_tight_pay_for_paths.

(** ** The even rule is optimal but for rounding (Optimality.v) *)

(** The even rule at every level offers at most ceil(n^(1/N)) choices in each step, nested rounding
    included.
    SPEC 2.5.6; `MostChoices`. *)
Theorem even_offers : forall k (n : segment),
  0 < n ->
  let N := Z.of_nat (S k) in costs_at_most 0 (repeat Even k) n (repeat (ceil_root N n) (S k)).
Proof. exact Optimality.even_offers_ceil_root. Qed.

(** 100 keys in three steps of at most 5; 2^20 in two of 1024, which is the lower bound. *)
Example even_at_100_and_2_20 :
  costs_at_most 0 [Even; Even] (first_keys 100) [5; 5; 5] /\
  costs_at_most 0 [Even] (first_keys (2 ^ 20)) [1024; 1024] /\
  2 ^ 2 * 2 ^ 20 = total [1024; 1024] ^ 2.
Proof.
  split; [now apply (even_offers 2 (first_keys 100)) | split; [| reflexivity]].
  now apply (even_offers 1 (first_keys (2 ^ 20))).
Qed.

Print Assumptions even_offers.
Print Assumptions even_at_100_and_2_20.

(** With a window of w keys the same of the n − w keys outside it.
    SPEC 2.5.6; `MostChoices`. *)
Theorem even_offers_beyond_window : forall k w (n : segment),
  0 < n - w ->
  let N := Z.of_nat k + 2 in
  costs_at_most w (repeat Even (S k)) n (repeat (ceil_root N (n - w)) (S (S k))).
Proof. exact Optimality.even_offers_beyond_window. Qed.

(** 1000 keys, of which the window has 1000 - 27. *)
Example even_at_27_beyond_window : costs_at_most 973 [Even; Even] (first_keys 1000) [3; 3; 3].
Proof. now apply (even_offers_beyond_window 1 973 (first_keys 1000)). Qed.

Print Assumptions even_offers_beyond_window.
Print Assumptions even_at_27_beyond_window.

(** The default rules, R = floor(n^(1/N)): at most R anchors at level 1, and at most ceil(((R+1)^N −
    R^N)^(1/(N−1))) choices in each later step.
    SPEC 2.5.10; `MostChoices`. *)
Theorem nstep_offers : forall k (n : segment),
  0 < n ->
  let N := Z.of_nat k + 2 in
  let R := root N n in
  costs_at_most 0 (default_tight N :: repeat Even k) n
    (R :: repeat (ceil_root (N - 1) ((R + 1) ^ N - R ^ N)) (S k)).
Proof. exact Optimality.nstep_offers. Qed.

(** 2^20 keys: 3073 choices in two steps, 453 in three, 188 in four; the bound is 2048, 305, 128. *)
Example nstep_at_2_20 :
  costs_at_most 0 [default_tight 2] (first_keys (2 ^ 20)) [1024; 2049] /\
  costs_at_most 0 [default_tight 3; Even] (first_keys (2 ^ 20)) [101; 176; 176] /\
  costs_at_most 0 [default_tight 4; Even; Even] (first_keys (2 ^ 20)) [32; 52; 52; 52].
Proof.
  set (n := first_keys (2 ^ 20)).
  split; [| split]; [
    refine (eq_rect _ (costs_at_most 0 _ n) (nstep_offers 0 n eq_refl) _ _) |
    refine (eq_rect _ (costs_at_most 0 _ n) (nstep_offers 1 n eq_refl) _ _) |
    refine (eq_rect _ (costs_at_most 0 _ n) (nstep_offers 2 n eq_refl) _ _)];
    vm_compute; reflexivity.
Qed.

Print Assumptions nstep_offers.
Print Assumptions nstep_at_2_20.

(** A scheme that reaches n keys offers more than N·ceil(n^(1/N)) − N: the even rule is optimal but
    for rounding.
    SPEC 2.5.6; `work_lower_bound`. *)
Theorem even_is_optimal : forall state offered key cs (from : state) n,
  0 < n -> cs <> [] -> nonnegative cs -> offers_at_most offered cs from ->
  (forall j, 0 <= j < n -> reaches offered key (length cs) from j) ->
  let N := Z.of_nat (length cs) in N * ceil_root N n < total cs + N.
Proof. exact Optimality.even_is_optimal. Qed.

(** Ten keys in two steps: 4 + 4 choices of the even rule, and no scheme has less than 7. *)
Example even_at_10 : forall state offered key (from : state) c c',
  nonnegative [c; c'] -> offers_at_most offered [c; c'] from ->
  (forall j, 0 <= j < 10 -> reaches offered key 2 from j) -> 7 <= c + c'.
Proof.
  intros state offered key from c c' nonneg offers all_reached.
  pose proof (even_is_optimal state offered key [c; c'] from 10 eq_refl ltac:(discriminate)
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
Print Assumptions even_at_10.
Print Assumptions seven_for_ten_keys.
