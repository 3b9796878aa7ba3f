(** * What is proved: what the aligned rule costs (SPEC 2.3, 2.5)

    As in ResultsAligned.v: theorems, each with a sentence, an example and what both rest on, to be
    read with Schedule.v and with the definitions of ResultsWork.v.  In the sentences a
    part has [s = 2^c] keys. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Results ResultsWork.
From Multistep Require AlignedCost AlignedWork AlignedBound AlignedFour.
Import ListNotations.
Open Scope Z_scope.

(** ** What the steps offer (AlignedCost.v)

    Below an aligned level, [M] steps for the [2^c] keys of a part: the next one gets [c / M] of the
    [c] halvings, rounded to the nearest integer, and offers [2^d] parts; and so on. *)

Definition share (M c : Z) : Z := (2 * c + M) / (2 * M).

Fixpoint shares (steps : nat) (c : Z) : list Z :=
  match steps with
  | O => []
  | S k => let d := share (Z.of_nat steps) c in 2 ^ d :: shares k (c - d)
  end.

(** Below an aligned level a whole part of 2^c keys has exactly 2^d parts of 2^(c−d) keys, d = c/M
    rounded to the nearest integer.
    SPEC 2.3; `Cut::count`. *)
Theorem parts_divide_parts : forall M (n : segment) c q,
  0 < M -> 0 <= c -> n = Segment (2 ^ c) ((q + 1) * 2 ^ c) (2 ^ c) ->
  last_searched 0 M Aligned n = 2 ^ share M c /\
  forall i, is_stripe 0 M Aligned n i ->
    held (segment_of 0 M Aligned n i) = 2 ^ (c - share M c).
Proof. exact AlignedCost.parts_of_whole_part. Qed.

(** The part [[8192, 16384)] at level 2 of three steps: 128 parts of 64 keys. *)
Example part_of_8192 :
  let n := Segment 8192 16384 8192 in
  last_searched 0 2 Aligned n = 128 /\ held (segment_of 0 2 Aligned n 77) = 64 /\ share 2 13 = 7.
Proof.
  intros n.
  destruct (parts_divide_parts 2 n 13 1 ltac:(lia) ltac:(lia) ltac:(reflexivity)) as [many each].
  split; [exact many | split; [apply each; computed | reflexivity]].
Qed.

Print Assumptions parts_divide_parts.
Print Assumptions part_of_8192.

(** Aligned at every level, h keys outside the window: level 1 offers at most floor((h−2)/s) + 2
    parts, and the later steps share the c of its parts: 2^d choices each, the d adding up to c.
    SPEC 2.5.6; `MostChoices`. *)
Theorem aligned_offers : forall k w (n : segment),
  0 <= w -> 0 < n - w ->
  let c := part_exponent (Z.of_nat k + 2) (nominal n - w) in
  costs_at_most w (repeat Aligned (S k)) n ((n - w - 2) / 2 ^ c + 2 :: shares (S k) c).
Proof. exact AlignedCost.aligned_offers. Qed.

(** SPEC 14: three steps, 10^7 keys: 154, where the border is the worst, and 256 and 256. *)
Example offers_at_10_7 :
  costs_at_most 0 [Aligned; Aligned] (first_keys (10 ^ 7)) [154; 256; 256].
Proof. exact (aligned_offers 1 0 (first_keys (10 ^ 7)) ltac:(lia) ltac:(computed)). Qed.

Print Assumptions aligned_offers.
Print Assumptions offers_at_10_7.

(** Where the oldest key begins a part, as with start = 0, level 1 offers at most floor((h−1)/s) +
    1.
    SPEC 2.5.6; `MostChoices`. *)
Theorem aligned_offers_from_border : forall k w (n : segment),
  0 <= w -> 0 < n - w ->
  let c := part_exponent (Z.of_nat k + 2) (nominal n - w) in
  (2 ^ c | ends n - n) ->
  costs_at_most w (repeat Aligned (S k)) n ((n - w - 1) / 2 ^ c + 1 :: shares (S k) c).
Proof. exact AlignedCost.aligned_offers_from_border. Qed.

(** SPEC 14: three steps, 2^20 keys: 128, 128 and 64, met by level 1; 320 in all, and that is less
    than 1.05 times the lower bound.  And 10^7 keys. *)
Example offers_at_2_20 :
  costs_at_most 0 [Aligned; Aligned] (first_keys (2 ^ 20)) [128; 128; 64] /\
  last_searched 0 3 Aligned (first_keys (2 ^ 20)) = 128 /\
  total [128; 128; 64] = 320 /\ (20 * 320) ^ 3 < 21 ^ 3 * (3 ^ 3 * 2 ^ 20) /\
  costs_at_most 0 [Aligned; Aligned] (first_keys (10 ^ 7)) [153; 256; 256].
Proof.
  split; [| split; [computed | split; [computed | split; [computed |]]]].
  - apply (aligned_offers_from_border 1 0 (first_keys (2 ^ 20))); try computed. now exists 0.
  - apply (aligned_offers_from_border 1 0 (first_keys (10 ^ 7))); try computed. now exists 0.
Qed.

Print Assumptions aligned_offers_from_border.
Print Assumptions offers_at_2_20.

(** With c = qm + r the m steps below level 1 offer 2^q or 2^(q+1) each, (m + r)·2^q in all.
    SPEC 2.5.6; `MostChoices`. *)
Theorem shares_are_even : forall m c,
  (0 < m)%nat -> 0 <= c ->
  let q := c / Z.of_nat m in
  let r := c mod Z.of_nat m in
  Forall (fun x => x = 2 ^ q \/ x = 2 ^ (q + 1)) (shares m c) /\
  total (shares m c) = (Z.of_nat m + r) * 2 ^ q.
Proof. exact AlignedCost.shares_are_even. Qed.

(** 13 in two steps: 128 and 64, [(2 + 1) 2^6]. *)
Example shares_of_13 : shares 2 13 = [128; 64] /\ total (shares 2 13) = (2 + 1) * 2 ^ 6.
Proof. split; [reflexivity | apply (shares_are_even 2 13 ltac:(lia) ltac:(lia))]. Qed.

Print Assumptions shares_are_even.
Print Assumptions shares_of_13.

(** ** Against [h^(1/N)] (AlignedWork.v, AlignedBound.v,
    AlignedFour.v) *)

(** Besides the two parts at the ends level 1 offers at most √2·h^(1/N), and each later step at most
    2^(1−1/(2N−2))·h^(1/N).
    SPEC 2.5.4, 2.5.6; `MostChoices`. *)
Theorem steps_are_few : forall k h,
  0 < h ->
  let N := Z.of_nat k + 2 in
  let c := part_exponent N h in
  Z.max 0 ((h - 2) / 2 ^ c) ^ (2 * N) <= 2 ^ N * h ^ 2 /\
  Forall (fun x => x ^ (2 * N * (N - 1)) <= 2 ^ (N * (2 * N - 3)) * h ^ (2 * (N - 1)))
         (shares (S k) c).
Proof. exact AlignedWork.steps_are_few. Qed.

(** Three steps, 2^20 keys: [127^6 <= 2^3 2^40], and [128^12 <= 2^9 2^80]. *)
Example few_at_2_20 :
  Z.max 0 ((2 ^ 20 - 2) / 8192) = 127 /\ 127 ^ 6 <= 2 ^ 3 * (2 ^ 20) ^ 2 /\
  Forall (fun x => x ^ 12 <= 2 ^ 9 * (2 ^ 20) ^ 4) [128; 64].
Proof. split; [reflexivity | exact (steps_are_few 1 (2 ^ 20) ltac:(lia))]. Qed.

Print Assumptions steps_are_few.
Print Assumptions few_at_2_20.

(** In two steps floor(h/s) + s is at most 3/(2√2), 1.061, times the lower bound 2√h.
    SPEC 2.5.6; `MostChoices`. *)
Theorem two_steps_are_near : forall h,
  0 < h ->
  let s := 2 ^ part_exponent 2 h in 2 * (h / s + s) ^ 2 <= 9 * h.
Proof. exact AlignedWork.two_steps_are_near. Qed.

(** 2048 keys are the worst, [2 * 96^2 = 9 * 2048], and 2049 have parts of 64. *)
Example worst_of_two_steps :
  2 * (2048 / 32 + 32) ^ 2 = 9 * 2048 /\ 2 * (2049 / 64 + 64) ^ 2 <= 9 * 2049.
Proof. split; [reflexivity | exact (two_steps_are_near 2049 ltac:(lia))]. Qed.

Print Assumptions two_steps_are_near.
Print Assumptions worst_of_two_steps.

(** In two steps, from h = 2^10 on and with start = 0: less than 1.08 times the lower bound 2√h in
    all.
    SPEC 2.5.6; `MostChoices`. *)
Theorem two_steps_near_bound : forall w t,
  0 <= w -> 2 ^ 10 <= t + 1 - w ->
  exists cs,
    costs_at_most w [Aligned] (seen 0 t) cs /\ length cs = 2%nat /\
    (100 * total cs) ^ 2 < 108 ^ 2 * (2 ^ 2 * (t + 1 - w)).
Proof. exact AlignedBound.two_steps_near_bound. Qed.

Example two_steps_at_10_12 : exists cs,
  costs_at_most 64 [Aligned] (seen 0 (10 ^ 12 + 63)) cs /\ length cs = 2%nat /\
  (100 * total cs) ^ 2 < 108 ^ 2 * (2 ^ 2 * 10 ^ 12).
Proof. exact (two_steps_near_bound 64 (10 ^ 12 + 63) ltac:(lia) ltac:(computed)). Qed.

Print Assumptions two_steps_near_bound.
Print Assumptions two_steps_at_10_12.

(** In three, less than 1.10 times 3·h^(1/3).
    SPEC 2.5.6; `MostChoices`. *)
Theorem three_steps_near_bound : forall w t,
  0 <= w -> 2 ^ 10 <= t + 1 - w ->
  exists cs,
    costs_at_most w [Aligned; Aligned] (seen 0 t) cs /\ length cs = 3%nat /\
    (100 * total cs) ^ 3 < 110 ^ 3 * (3 ^ 3 * (t + 1 - w)).
Proof. exact AlignedBound.three_steps_near_bound. Qed.

Example three_steps_at_10_12 : exists cs,
  costs_at_most 64 [Aligned; Aligned] (seen 0 (10 ^ 12 + 63)) cs /\ length cs = 3%nat /\
  (100 * total cs) ^ 3 < 110 ^ 3 * (3 ^ 3 * 10 ^ 12).
Proof. exact (three_steps_near_bound 64 (10 ^ 12 + 63) ltac:(lia) ltac:(computed)). Qed.

Print Assumptions three_steps_near_bound.
Print Assumptions three_steps_at_10_12.

(** In four, less than 1.11 times 4·h^(1/4).
    SPEC 2.5.6; `MostChoices`. *)
Theorem four_steps_near_bound : forall w t,
  0 <= w -> 2 ^ 10 <= t + 1 - w ->
  exists cs,
    costs_at_most w [Aligned; Aligned; Aligned] (seen 0 t) cs /\ length cs = 4%nat /\
    (100 * total cs) ^ 4 < 111 ^ 4 * (4 ^ 4 * (t + 1 - w)).
Proof. exact AlignedFour.four_steps_near_bound. Qed.

Example four_steps_at_10_12 : exists cs,
  costs_at_most 64 [Aligned; Aligned; Aligned] (seen 0 (10 ^ 12 + 63)) cs /\ length cs = 4%nat /\
  (100 * total cs) ^ 4 < 111 ^ 4 * (4 ^ 4 * 10 ^ 12).
Proof. exact (four_steps_near_bound 64 (10 ^ 12 + 63) ltac:(lia) ltac:(computed)). Qed.

Print Assumptions four_steps_near_bound.
Print Assumptions four_steps_at_10_12.
