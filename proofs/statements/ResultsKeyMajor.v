(** * What is proved: sums by rows and sums by keys are the same sums (SPEC 6)

    As in Results.v: a theorem, with a sentence, an example and what both rest on, to be read with
    the definitions of ResultsWork.v.

    A row is a query, and lists the keys of its spans; a key lists the rows that have it.  What is
    summed over all pairs can be summed row by row, or key by key as the gradients of keys are.  The
    terms here are integers, whose sums have no rounding. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import ResultsWork.
From Multistep Require Transpose.
Import ListNotations.
Open Scope Z_scope.

(** If each row lists a key as often as the key lists the row, the sum over all pairs is the same
    row by row and key by key, for any function of the pair, in any order.
    SPEC 6; `cuda/attend/backward_keys_sm90.cu`. *)
Theorem key_major_is_row_major : forall rows keys keys_of rows_of (f : Z -> Z -> Z)
  (rows_distinct : NoDup rows) (keys_distinct : NoDup keys)
  (rows_list_keys : forall i, In i rows -> incl (keys_of i) keys)
  (keys_list_rows : forall j, In j keys -> incl (rows_of j) rows)
  (same_pairs : forall i j, In i rows -> In j keys ->
     count_occ Z.eq_dec (keys_of i) j = count_occ Z.eq_dec (rows_of j) i),
  total (map (fun i => total (map (f i) (keys_of i))) rows)
  = total (map (fun j => total (map (fun i => f i j) (rows_of j))) keys).
Proof. exact Transpose.key_major_is_row_major. Qed.

(** Three queries and four keys; query 2 has key 0 in two spans, and key 3 is in none. *)
Definition keys_of_query (i : Z) : list Z := nth (Z.to_nat i) [[0]; [1; 0]; [0; 2; 0]] [].
Definition queries_of_key (j : Z) : list Z := nth (Z.to_nat j) [[2; 0; 1; 2]; [1]; [2]; []] [].

Example three_queries_four_keys : forall f,
  f 0 0 + (f 1 1 + f 1 0) + (f 2 0 + f 2 2 + f 2 0)
  = (f 2 0 + f 0 0 + f 1 0 + f 2 0) + f 1 1 + f 2 2 /\
  total (map (fun i => total (map (f i) (keys_of_query i))) [0; 1; 2])
  = total (map (fun j => total (map (fun i => f i j) (queries_of_key j))) [3; 0; 1; 2]).
Proof.
  intros f. split; [ring |]. apply key_major_is_row_major.
  - repeat constructor; cbn [In]; lia.
  - repeat constructor; cbn [In]; lia.
  - cbn [In]. intros i [<- | [<- | [<- | []]]] j among; vm_compute in among |- *; lia.
  - cbn [In]. intros j [<- | [<- | [<- | [<- | []]]]] i among; vm_compute in among |- *; lia.
  - cbn [In]. intros i j [<- | [<- | [<- | []]]] [<- | [<- | [<- | [<- | []]]]]; reflexivity.
Qed.

Print Assumptions key_major_is_row_major.
Print Assumptions three_queries_four_keys.
