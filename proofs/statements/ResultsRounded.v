(** * What is proved: schedules whose stripes are not powers

    As in Results.v, each theorem with an example and with what both rest on.  [P] is any function:
    stripes as a program with floating point may compute them. *)

From Coq Require Import ZArith Lia.
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
