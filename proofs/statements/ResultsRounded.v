(** * What is proved: schedules whose stripes are not powers

    As in Results.v, each theorem with an example and with what both rest on.  [P] is any function:
    stripes as a program with floating point may compute them. *)

From Coq Require Import ZArith Lia Bool.
From Multistep Require Import Schedule.
From Multistep Require Rounded.
Open Scope Z_scope.

(** Stripes that begin with 1 and grow. *)
Definition grows (P : Z -> Z) : Prop := P 1 = 1 /\ forall i, 1 <= i -> P i < P (i + 1).

(** The tight rule partitions a segment with any stripes that begin with 1 and grow.
    SPEC 2.3; `rounded_coverage`. *)
Theorem any_stripes_partition : forall P n d,
  grows P -> 0 <= d < n ->
  exists i, (1 <= i /\ P i <= n /\ P i - 1 <= d < Z.min n (P (i + 1) - 1)) /\
    forall j, 1 <= j -> P j - 1 <= d < Z.min n (P (j + 1) - 1) -> j = i.
Proof. exact Rounded.any_stripes_partition. Qed.

(** Squares that are one too large from the second on: 1, 5, 10, 17, ... *)
Definition off_by_one (i : Z) : Z := if i <=? 1 then i * i else i * i + 1.

Lemma off_by_one_grows : grows off_by_one.
Proof.
  split; [reflexivity |]. intros i i_pos. unfold off_by_one.
  destruct (Z.leb_spec i 1); destruct (Z.leb_spec (i + 1) 1); nia.
Qed.

Example twelfth_key_of_twenty : exists i, (1 <= i /\ off_by_one i <= 20 /\
    off_by_one i - 1 <= 11 < Z.min 20 (off_by_one (i + 1) - 1)) /\
  forall j, 1 <= j -> off_by_one j - 1 <= 11 < Z.min 20 (off_by_one (j + 1) - 1) -> j = i.
Proof. apply (any_stripes_partition off_by_one 20 11 off_by_one_grows). lia. Qed.

Print Assumptions any_stripes_partition.
Print Assumptions off_by_one_grows.
Print Assumptions twelfth_key_of_twenty.

(** The power rule covers n keys with any such stripes whose gaps are at most B + F + 1, if the last
    is at most B from the oldest key.
    SPEC 2.3; `rounded_coverage`. *)
Theorem closed_gaps_cover : forall P B F n d,
  grows P -> 0 <= B -> 0 <= F ->
  (forall i, 1 <= i -> P (i + 1) <= n -> P (i + 1) - P i <= B + F + 1) ->
  (forall i, 1 <= i -> P i <= n < P (i + 1) -> n - P i <= B) ->
  0 <= d < n ->
  exists i, 1 <= i /\ P i <= n /\ Z.max 0 (P i - 1 - F) <= d < Z.min n (P i + B).
Proof. exact Rounded.closed_gaps_cover. Qed.

(** The squares above, 20 keys: with B = 2 sqrt(20) rounded up, 9, none is left out. *)
Example nine_back_suffices : forall d, 0 <= d < 20 ->
  exists i, 1 <= i /\ off_by_one i <= 20 /\
    Z.max 0 (off_by_one i - 1 - 0) <= d < Z.min 20 (off_by_one i + 9).
Proof.
  intros d. apply (closed_gaps_cover off_by_one 9 0 20 d off_by_one_grows); [lia | lia | |].
  - intros i i_pos inside. unfold off_by_one in *.
    destruct (Z.leb_spec i 1); destruct (Z.leb_spec (i + 1) 1); nia.
  - intros i i_pos last. unfold off_by_one in *.
    destruct (Z.leb_spec i 1); destruct (Z.leb_spec (i + 1) 1); nia.
Qed.

Print Assumptions closed_gaps_cover.
Print Assumptions nine_back_suffices.

(** ** Stripes that are off by a few keys *)

(** Such stripes within δ of exact ones, whose gaps B₀ back and F₀ forward close, need
    B ≥ B₀ + F₀ + 2δ; F is of no help to the oldest key.
    SPEC 2.1, 2.3; `RoundedCoverage::least_slack`. *)
Theorem spare_reach_covers : forall P exact delta B_exact F_exact B F n d,
  grows P -> 0 <= delta -> 0 <= B_exact -> 0 <= F_exact -> 0 <= F ->
  (forall i, 1 <= i -> P i <= n \/ exact i <= n -> Z.abs (P i - exact i) <= delta) ->
  (forall i, 1 <= i -> exact (i + 1) <= n -> exact (i + 1) - exact i <= B_exact + F_exact + 1) ->
  (forall i, 1 <= i -> exact i <= n < exact (i + 1) -> n - exact i <= B_exact) ->
  B_exact + F_exact + 2 * delta <= B ->
  0 <= d < n ->
  exists i, 1 <= i /\ P i <= n /\ Z.max 0 (P i - 1 - F) <= d < Z.min n (P i + B).
Proof. exact Rounded.spare_reach_covers. Qed.

(** The squares 1, 4, 9, 16 close the gaps of 20 keys with 4 back and 2 forward; off by one, 8 back
    do. *)
Example eight_back_suffices : forall d, 0 <= d < 20 ->
  exists i, 1 <= i /\ off_by_one i <= 20 /\
    Z.max 0 (off_by_one i - 1 - 0) <= d < Z.min 20 (off_by_one i + 8).
Proof.
  intros d. apply (spare_reach_covers off_by_one (fun i => i * i) 1 4 2 8 0 20 d off_by_one_grows);
    try lia.
  - intros i i_pos _. unfold off_by_one. destruct (Z.leb_spec i 1); lia.
  - intros i i_pos last. assert (4 <= i) by nia. nia.
Qed.

(** With [2 delta] to spare but for the reach forward it is not so: 1, 6, 11, ... cover 6 keys with
    4 forward and none back, 1, 7, 12, ... leave out the oldest with 4 forward and 2 back. *)
Definition one_late (i : Z) : Z := if i <=? 1 then 1 else 5 * i - 3.

Example forward_does_not_help :
  (grows one_late /\ forall i, 1 <= i -> Z.abs (one_late i - (5 * i - 4)) <= 1) /\
  (forall d, 0 <= d < 6 -> exists i, 1 <= i /\ 5 * i - 4 <= 6 /\
     Z.max 0 (5 * i - 4 - 1 - 4) <= d < Z.min 6 (5 * i - 4 + 0)) /\
  ~ exists i, 1 <= i /\ one_late i <= 6 /\
    Z.max 0 (one_late i - 1 - 4) <= 5 < Z.min 6 (one_late i + 2).
Proof.
  unfold grows, one_late. repeat split.
  - intros i i_pos. destruct (Z.leb_spec i 1); destruct (Z.leb_spec (i + 1) 1); lia.
  - intros i i_pos. destruct (Z.leb_spec i 1); lia.
  - intros d range. destruct (Z.eq_dec d 0); [exists 1; lia | exists 2; lia].
  - intros (i & i_pos & inside & reached). destruct (Z.leb_spec i 1); lia.
Qed.

Print Assumptions spare_reach_covers.
Print Assumptions eight_back_suffices.
Print Assumptions forward_does_not_help.

(** Within δ of floor(i^e), E = ceil(e): n keys are covered with B ≥ 2δ + E·(n+1)^(1−1/e).
    SPEC 2.1, 2.3; `rounded_coverage`. *)
Theorem near_powers_cover : forall P e delta B F n d,
  good_exponent e -> grows P -> 0 <= delta -> 0 <= F -> 2 * delta <= B ->
  (forall i, 1 <= i -> P i <= n \/ floor_power i e <= n ->
     Z.abs (P i - floor_power i e) <= delta) ->
  ceil_div (num e) (den e) ^ num e * (n + 1) ^ (num e - den e) <= (B - 2 * delta) ^ num e ->
  0 <= d < n ->
  exists i, 1 <= i /\ P i <= n /\ Z.max 0 (P i - 1 - F) <= d < Z.min n (P i + B).
Proof. exact Rounded.near_powers_cover. Qed.

(** The stripes of [released], i^(20/11), up to 10^7: [audit] finds those of single precision off by
    up to 24.  A query of 10^7 keys without a window reaches all, 21239 back and 7080 forward. *)
Example released_in_single_precision : forall P,
  grows P ->
  (forall i, 1 <= i -> P i <= 10 ^ 7 \/ floor_power i (Ratio 20 11) <= 10 ^ 7 ->
     Z.abs (P i - floor_power i (Ratio 20 11)) <= 24) ->
  let B := ceil_power (Ratio 3 1) (10 ^ 7) (Ratio 11 20) in
  let F := ceil_power (Ratio 1 1) (10 ^ 7) (Ratio 11 20) in
  (B = 21239 /\ F = 7080) /\ forall d, 0 <= d < 10 ^ 7 ->
  exists i, 1 <= i /\ P i <= 10 ^ 7 /\ Z.max 0 (P i - 1 - F) <= d < Z.min (10 ^ 7) (P i + B).
Proof.
  intros P growing near B F.
  assert (reach : B = 21239 /\ F = 7080) by (split; vm_compute; reflexivity).
  split; [exact reach |]. destruct reach as [-> ->]. intros d.
  apply (near_powers_cover P (Ratio 20 11) 24); try assumption; try lia.
  - split; cbn; lia.
  - apply Z.leb_le. vm_compute. reflexivity.
Qed.

Print Assumptions near_powers_cover.
Print Assumptions released_in_single_precision.

(** Squares off by at most one: every n is covered with the reach of `paper`.
    SPEC 2.1, 2.3; `rounded_coverage`. *)
Theorem squares_off_by_one_cover : forall P B F n d,
  grows P -> 0 <= B -> 0 <= F -> 4 * n <= B * B ->
  (forall i, 1 <= i -> P i <= n \/ i * i <= n -> Z.abs (P i - i * i) <= 1) ->
  0 <= d < n ->
  exists i, 1 <= i /\ P i <= n /\ Z.max 0 (P i - 1 - F) <= d < Z.min n (P i + B).
Proof. exact Rounded.squares_off_by_one_cover. Qed.

(** The squares of [audit]'s method "float exp(log)", of 400 keys: those of 7, 13 and 19 are one
    short.  The reach is 40. *)
Definition is_short (i : Z) : bool := (i =? 7) || (i =? 13) || (i =? 19).
Definition float_square (i : Z) : Z := if is_short i then i * i - 1 else i * i.

Example squares_in_single_precision : forall d, 0 <= d < 400 ->
  exists i, 1 <= i /\ float_square i <= 400 /\
    Z.max 0 (float_square i - 1 - 0) <= d < Z.min 400 (float_square i + 40).
Proof.
  intros d. apply (squares_off_by_one_cover float_square 40 0 400 d); try lia.
  - split; [reflexivity |]. intros i i_pos. unfold float_square.
    destruct (is_short i), (is_short (i + 1)); lia.
  - intros i i_pos _. unfold float_square. destruct (is_short i); lia.
Qed.

Print Assumptions squares_off_by_one_cover.
Print Assumptions squares_in_single_precision.
