(** * What is proved: what is kept of shards, and by scores with errors

    As in Results.v, each theorem with an example and with what both rest on.  Nothing of Schedule.v
    is needed: candidates are anything. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Selection.
Import ListNotations.

(** [kept] are the best [k] of the candidates, or all where they are fewer: none of them is worse
    than one that is not kept. *)
Definition best_of {A : Type} (better : A -> A -> Prop) (k : nat) (candidates kept : list A)
    : Prop :=
  NoDup kept /\ incl kept candidates /\ length kept = Nat.min k (length candidates) /\
  forall x y, In x kept -> In y candidates -> ~ In y kept -> better x y.

(** In a total order, which breaks ties, the best k of what two shards keep are the best k of both.
    SPEC 3, 13; `merge_paths`. *)
Theorem best_of_shards : forall (A : Type) (better : A -> A -> Prop) k left right of_left of_right
    kept
  (equality_decided : forall a b : A, {a = b} + {a <> b})
  (transitive : forall a b c, better a b -> better b c -> better a c)
  (distinct : NoDup (left ++ right)),
  best_of better k left of_left -> best_of better k right of_right ->
  best_of better k (of_left ++ of_right) kept ->
  best_of better k (left ++ right) kept.
Proof. exact Selection.best_of_shards. Qed.

(** Decide statements about a few numbers. *)
Ltac distinct := repeat (apply NoDup_cons; [cbn; intuition lia |]); apply NoDup_nil.
Ltac few :=
  split; [distinct | split; [intros a; cbn; intuition lia | split; [reflexivity |]]];
  intros x y; cbn; intuition lia.

(** The best two of 5, 1, 3 and of 4, 2, and of all. *)
Example five_and_four : best_of Z.gt 2 ([5; 1; 3] ++ [4; 2])%Z [5; 4]%Z.
Proof.
  apply (best_of_shards Z Z.gt 2 [5; 1; 3] [4; 2] [5; 3] [4; 2])%Z.
  - exact Z.eq_dec.
  - intros. lia.
  - cbn [app]. distinct.
  - few.
  - few.
  - few.
Qed.

Print Assumptions best_of_shards.
Print Assumptions five_and_four.

Open Scope Z_scope.

(** Scores off by at most ε: what they keep of a segment is at most 2ε worse than the worst of the
    true best.
    SPEC 8; `JudgeReport`. *)
Theorem regret_is_bounded : forall (A : Type) (score inexact : A -> Z) eps candidates chosen best x
  (errors_small : forall y, In y candidates -> Z.abs (inexact y - score y) <= eps)
  (best_distinct : NoDup best) (chosen_among : incl chosen candidates)
  (best_among : incl best candidates) (as_many : (length chosen <= length best)%nat)
  (chosen_by_inexact :
     forall a b, In a chosen -> In b candidates -> ~ In b chosen -> inexact b <= inexact a)
  (equality_decided : forall a b : A, {a = b} + {a <> b}),
  In x chosen -> exists y, In y best /\ score y - score x <= 2 * eps.
Proof. exact Selection.regret_is_bounded. Qed.

(** Scores 10, 8, 0, read as 9, 9, 0: the second may be chosen, 2 below the best. *)
Definition score (i : Z) : Z := if i =? 0 then 10 else if i =? 1 then 8 else 0.
Definition as_read (i : Z) : Z := if i =? 2 then 0 else 9.

Example two_below : exists y, In y [0] /\ score y - score 1 <= 2 * 1.
Proof.
  apply (regret_is_bounded Z score as_read 1 [0; 1; 2] [1] [0] 1).
  - intros y [<- | [<- | [<- | []]]]; vm_compute; discriminate.
  - repeat constructor. intros [].
  - intros y [<- | []]. cbn. lia.
  - intros y [<- | []]. cbn. lia.
  - apply le_n.
  - intros a b [<- | []] [<- | [<- | [<- | []]]] _; vm_compute; discriminate.
  - exact Z.eq_dec.
  - now left.
Qed.

Print Assumptions regret_is_bounded.
Print Assumptions two_below.
