(** * What is proved: softmax in parts

    As in Results.v: theorems, each with an example and with what it rests on; the proofs are in
    Softmax.v.  A part is a list of (logit, value) pairs.  These theorems are about real numbers and
    rest on the axioms with which Coq's library builds them; no other file of results does. *)

From Coq Require Import Reals List Lra.
From Multistep Require Softmax.
Import ListNotations.
Open Scope R_scope.

Definition pair : Type := (R * R)%type.

Fixpoint weight (xs : list pair) : R :=
  match xs with
  | [] => 0
  | (x, _) :: rest => exp x + weight rest
  end.

Fixpoint moment (xs : list pair) : R :=
  match xs with
  | [] => 0
  | (x, v) :: rest => exp x * v + moment rest
  end.

Definition lse (xs : list pair) : R := ln (weight xs).
Definition out (xs : list pair) : R := moment xs / weight xs.

(** ** Two parts *)

(** Log-sum-exp and output of two parts together come from those of each.
    SPEC 4; `Join` in `reference/stages/softmax.hpp`, `join` in `cuda/device/softmax.cuh`. *)
Theorem two_parts : forall xs ys, xs <> [] -> ys <> [] ->
  lse (xs ++ ys) = ln (exp (lse xs) + exp (lse ys)) /\
  out (xs ++ ys) = (exp (lse xs) * out xs + exp (lse ys) * out ys) / (exp (lse xs) + exp (lse ys)).
Proof. intros xs ys. split; [now apply Softmax.lse_app | now apply Softmax.out_app]. Qed.

(** Weights 1 and 2 in one part, 3 in the other. *)
Example weights_1_2_and_3 :
  let a : list pair := [(0, 6); (ln 2, 3)] in
  let b : list pair := [(ln 3, 2)] in
  (lse a = ln 3 /\ out a = 4) /\ (lse b = ln 3 /\ out b = 2) /\
  lse (a ++ b) = ln 6 /\ out (a ++ b) = 3.
Proof.
  intros a b.
  assert (of_a : lse a = ln 3 /\ out a = 4).
  { unfold lse, out, a. cbn [moment weight]. rewrite exp_0, exp_ln by lra.
    split; [f_equal; lra | field]. }
  assert (of_b : lse b = ln 3 /\ out b = 2).
  { unfold lse, out, b. cbn [moment weight]. rewrite exp_ln by lra. split; [f_equal; lra | field]. }
  split; [exact of_a | split; [exact of_b |]].
  destruct (two_parts a b) as [-> ->]; [discriminate | discriminate |].
  destruct of_a as [-> ->]. destruct of_b as [-> ->]. rewrite exp_ln by lra.
  split; [f_equal; lra | field].
Qed.

Print Assumptions two_parts.
Print Assumptions weights_1_2_and_3.

(** ** Any number of parts *)

(** A part as one pair; an empty one, of weight 0, is no pair. *)
Definition summary (xs : list pair) : list pair :=
  match xs with
  | [] => []
  | _ :: _ => [(lse xs, out xs)]
  end.

(** The same for any number of parts; empty ones drop out.
    SPEC 4, 13; `cuda/attend/decode_join.cuh`, `cuda/merge/merge.cu`. *)
Theorem many_parts : forall parts,
  lse (concat parts) = lse (flat_map summary parts) /\
  out (concat parts) = out (flat_map summary parts).
Proof. intros parts. split; [apply Softmax.lse_parts | apply Softmax.out_parts]. Qed.

(** The same with a part that is empty. *)
Example three_parts :
  let a := [(0, 6); (ln 2, 3)] in
  let b := [(ln 3, 2)] in
  flat_map summary [a; []; b] = [(lse a, out a); (lse b, out b)] /\
  out [(lse a, out a); (lse b, out b)] = 3.
Proof.
  intros a b. split; [reflexivity |].
  rewrite <- (proj2 (proj2 (proj2 weights_1_2_and_3))). symmetry.
  exact (proj2 (many_parts [a; []; b])).
Qed.

Print Assumptions many_parts.
Print Assumptions three_parts.

(** ** Subtracting the largest logit *)

Definition shift (c : R) (xs : list pair) : list pair := map (fun '(x, v) => (x - c, v)) xs.

(** Subtracting c from all logits changes no output and lowers the log-sum-exp by c.
    SPEC 4; `softmax` in `reference/stages/attend_row.hpp`. *)
Theorem shifted : forall c xs, xs <> [] ->
  lse (shift c xs) = lse xs - c /\ out (shift c xs) = out xs.
Proof. intros c xs. split; [now apply Softmax.lse_shift | now apply Softmax.out_shift]. Qed.

Example shifted_by_1000 : out [(1000, 4); (1000, 8)] = 6.
Proof.
  rewrite <- (proj2 (shifted 1000 [(1000, 4); (1000, 8)] ltac:(discriminate))).
  unfold out. cbn [shift map moment weight].
  replace (1000 - 1000) with 0 by ring. rewrite exp_0. field.
Qed.

Print Assumptions shifted.
Print Assumptions shifted_by_1000.

(** Where c is the largest logit, the shifted sum lies between 1 and the number of keys.
    SPEC 4; `softmax` in `reference/stages/attend_row.hpp`. *)
Theorem shifted_by_largest : forall c xs,
  (forall x v, In (x, v) xs -> x <= c) -> (exists v, In (c, v) xs) ->
  1 <= weight (shift c xs) <= INR (length xs).
Proof. exact Softmax.shift_by_largest. Qed.

Example largest_of_three : 1 <= weight (shift 1000 [(1000, 4); (0, 8); (1000, 8)]) <= 3.
Proof.
  replace 3 with (INR (length [(1000, 4); (0, 8); (1000, 8)])) by (cbn; ring).
  apply shifted_by_largest; [| exists 4; left; reflexivity].
  intros x v [same | [same | [same | []]]]; injection same as <- _; lra.
Qed.

Print Assumptions shifted_by_largest.
Print Assumptions largest_of_three.
