(** * What is proved: how little work a path takes on average

    As in Results.v: theorems to be read with Schedule.v alone, each with an example and with what
    both rest on. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule ResultsWork.
From Multistep Require MeanWork Checker.
Import ListNotations.
Open Scope Z_scope.

(** ** Any scheme (MeanWork.v)

    A scheme is anything that chooses step by step: [offered] are the states that a step can choose
    from.  How many ways lead through so many steps: *)
Fixpoint paths {state : Type} (offered : state -> list state) (steps : nat) (from : state) : Z :=
  match steps with
  | O => 1
  | S k => total (map (paths offered k) (offered from))
  end.

(** And how many choices their steps offer, of all paths together. *)
Fixpoint work {state : Type} (offered : state -> list state) (steps : nat) (from : state) : Z :=
  match steps with
  | O => 0
  | S k => total (map (fun next => work offered k next
                                   + Z.of_nat (length (offered from)) * paths offered k next)
                      (offered from))
  end.

(** P paths of any N-step scheme that are offered T choices on their way, all together, have
    N^N·P^(N+1) ≤ T^N: the mean T/P is at least N·P^(1/N).
    SPEC 2.5.8; `work_lower_bound`. *)
Theorem mean_work : forall state offered steps (from : state),
  let N := Z.of_nat steps in
  N ^ N * paths offered steps from ^ (N + 1) <= work offered steps from ^ N.
Proof. exact MeanWork.mean_work. Qed.

(** Two steps of three choices: nine paths, each with six choices on its way, which meets it. *)
Example nine_paths :
  paths next_digit 2 0 = 9 /\ work next_digit 2 0 = 54 /\ 2 ^ 2 * 9 ^ (2 + 1) <= 54 ^ 2.
Proof. split; [| split]; [reflexivity | reflexivity | exact (mean_work Z next_digit 2 0)]. Qed.

Print Assumptions mean_work.
Print Assumptions nine_paths.

(** ** The schedules of this project

    The stripes that a level searches. *)
Definition stripes (w M : Z) (l : level) (n : segment) : list Z :=
  map (fun k => first_stripe w l + Z.of_nat k)
    (seq 0 (Z.to_nat (last_searched w M l n + 1 - first_stripe w l))).

(** Pairs of a path and a key in its final span. *)
Fixpoint pairs (w : Z) (ls : list level) (n : segment) : Z :=
  match ls with
  | [] => Z.max 0 n
  | l :: rest =>
      total (map (fun i => pairs 0 rest (segment_of w (steps_of ls) l n i))
               (stripes w (steps_of ls) l n))
  end.

(** What a path scores, anchors level by level and the keys of its final span, of all pairs. *)
Fixpoint work_of_pairs (w : Z) (ls : list level) (n : segment) : Z :=
  match ls with
  | [] => Z.max 0 n * Z.max 0 n
  | l :: rest =>
      let anchors := Z.max 0 (last_searched w (steps_of ls) l n - first_stripe w l + 1) in
      total (map (fun i => let chosen := segment_of w (steps_of ls) l n i in
                           work_of_pairs 0 rest chosen + anchors * pairs 0 rest chosen)
               (stripes w (steps_of ls) l n))
  end.

(** A covering schedule of this project has at least as many pairs as keys outside its window, so
    that the mean is at least N·n^(1/N).
    SPEC 2.5.8; `path_work`. *)
Theorem mean_work_of_covering_schedules : forall s start stop,
  good s -> covered s start stop ->
  let N := Z.of_nat (S (length (levels s))) in
  let P := pairs (window_index s) (levels s) (seen start (stop - 1)) in
  let T := work_of_pairs (window_index s) (levels s) (seen start (stop - 1)) in
  stop - start - window_of s <= P /\ N ^ N * P ^ (N + 1) <= T ^ N.
Proof. exact MeanWork.mean_work_of_covering_schedules. Qed.

(** Two tight steps, 20 keys: each has one path; they score 9.4 on average, as `verify` says, and
    not less than 2 sqrt(20), 8.9. *)
Example two_tight_mean :
  pairs 0 (levels two_tight) (seen 0 (20 - 1)) = 20 /\
  work_of_pairs 0 (levels two_tight) (seen 0 (20 - 1)) = 188 /\
  20 <= 20 /\ 2 ^ 2 * 20 ^ (2 + 1) <= 188 ^ 2.
Proof.
  split; [reflexivity | split; [reflexivity |]].
  apply (mean_work_of_covering_schedules two_tight 0 20);
    [repeat constructor; vm_compute; congruence |].
  apply Checker.first_hole_none. vm_compute. reflexivity.
Qed.

Print Assumptions mean_work_of_covering_schedules.
Print Assumptions two_tight_mean.
