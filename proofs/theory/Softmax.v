(** * Softmax in parts (SPEC 4)

    Attention over many keys may be computed part by part, each part summarised by two numbers: the
    logarithm of its sum of exponentials and its output.  Here is why that is exact over the reals;
    what rounding does to it is in RoundedMean.v.  A part is a list of (logit, value) pairs.  A
    value is one coordinate: vectors go coordinate by coordinate, with the same weights.  So join
    the reference ([Join] in softmax.hpp) and the kernels ([join] in softmax.cuh, for pieces,
    windows and shards); [softmax] in attend_row.hpp shifts by the largest logit.

    The real numbers of Coq's library bring axioms, so that only ResultsSoftmax.v imports this
    file. *)

From Coq Require Import Reals List Lra.
Import ListNotations.
Open Scope R_scope.

(** ** Sums over a part *)

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

(** A part as one pair, with [lse] for its logit; an empty part is no pair at all: its weight is 0,
    its [lse] in the program minus infinity. *)
Definition summary (xs : list pair) : list pair :=
  match xs with
  | [] => []
  | _ :: _ => [(lse xs, out xs)]
  end.

Definition shift (c : R) (xs : list pair) : list pair := map (fun '(x, v) => (x - c, v)) xs.

Lemma weight_app : forall xs ys, weight (xs ++ ys) = weight xs + weight ys.
Proof.
  induction xs as [| (x, v) xs IH]; intros ys; simpl; [lra |]. rewrite IH. lra.
Qed.

Lemma moment_app : forall xs ys, moment (xs ++ ys) = moment xs + moment ys.
Proof.
  induction xs as [| (x, v) xs IH]; intros ys; simpl; [lra |]. rewrite IH. lra.
Qed.

Lemma weight_nonnegative : forall xs, 0 <= weight xs.
Proof.
  induction xs as [| (x, v) xs IH]; simpl; [lra |]. pose proof (exp_pos x). lra.
Qed.

Lemma weight_positive : forall xs, xs <> [] -> 0 < weight xs.
Proof.
  intros [| (x, v) xs] filled; [now contradiction filled |]. simpl.
  pose proof (exp_pos x). pose proof (weight_nonnegative xs). lra.
Qed.

Lemma exp_lse : forall xs, xs <> [] -> exp (lse xs) = weight xs.
Proof. intros xs filled. apply exp_ln. now apply weight_positive. Qed.

Lemma exp_lse_out : forall xs, xs <> [] -> exp (lse xs) * out xs = moment xs.
Proof.
  intros xs filled. rewrite exp_lse by assumption. unfold out. field.
  apply Rgt_not_eq. now apply weight_positive.
Qed.

(** ** Two parts

    The weight of a whole is the sum of the weights [exp (lse _)] of its parts, and the output their
    mean by those weights. *)

Theorem lse_app : forall xs ys, xs <> [] -> ys <> [] ->
  lse (xs ++ ys) = ln (exp (lse xs) + exp (lse ys)).
Proof.
  intros xs ys xs_filled ys_filled. rewrite !exp_lse by assumption.
  unfold lse. now rewrite weight_app.
Qed.

Theorem out_app : forall xs ys, xs <> [] -> ys <> [] ->
  out (xs ++ ys) = (exp (lse xs) * out xs + exp (lse ys) * out ys) / (exp (lse xs) + exp (lse ys)).
Proof.
  intros xs ys xs_filled ys_filled. rewrite !exp_lse_out, !exp_lse by assumption.
  unfold out. now rewrite moment_app, weight_app.
Qed.

(** ** Any number of parts

    A part and its summary have the same weight and the same moment, so a list of parts may be
    replaced by the list of their summaries.  Empty parts drop out. *)

Lemma summary_weight : forall xs, weight (summary xs) = weight xs.
Proof.
  intros [| x xs]; [reflexivity |].
  change (exp (lse (x :: xs)) + 0 = weight (x :: xs)). rewrite exp_lse by discriminate. ring.
Qed.

Lemma summary_moment : forall xs, moment (summary xs) = moment xs.
Proof.
  intros [| x xs]; [reflexivity |].
  change (exp (lse (x :: xs)) * out (x :: xs) + 0 = moment (x :: xs)).
  rewrite exp_lse_out by discriminate. ring.
Qed.

Lemma parts_weight : forall parts, weight (concat parts) = weight (flat_map summary parts).
Proof.
  induction parts as [| xs parts IH]; [reflexivity |].
  cbn [concat flat_map]. now rewrite !weight_app, summary_weight, IH.
Qed.

Lemma parts_moment : forall parts, moment (concat parts) = moment (flat_map summary parts).
Proof.
  induction parts as [| xs parts IH]; [reflexivity |].
  cbn [concat flat_map]. now rewrite !moment_app, summary_moment, IH.
Qed.

Theorem lse_parts : forall parts, lse (concat parts) = lse (flat_map summary parts).
Proof. intros parts. unfold lse. now rewrite parts_weight. Qed.

Theorem out_parts : forall parts, out (concat parts) = out (flat_map summary parts).
Proof. intros parts. unfold out. now rewrite parts_moment, parts_weight. Qed.

(** ** Shifting the logits

    Subtracting one number from every logit, as a program does with the largest so that no
    exponential overflows, divides weight and moment by the same factor. *)

Lemma shift_weight : forall c xs, weight (shift c xs) = exp (- c) * weight xs.
Proof.
  intros c. induction xs as [| (x, v) xs IH]; simpl; [ring |].
  fold (shift c xs). rewrite IH. unfold Rminus. rewrite exp_plus. ring.
Qed.

Lemma shift_moment : forall c xs, moment (shift c xs) = exp (- c) * moment xs.
Proof.
  intros c. induction xs as [| (x, v) xs IH]; simpl; [ring |].
  fold (shift c xs). rewrite IH. unfold Rminus. rewrite exp_plus. ring.
Qed.

Theorem out_shift : forall c xs, xs <> [] -> out (shift c xs) = out xs.
Proof.
  intros c xs filled. unfold out. rewrite shift_weight, shift_moment. field.
  split; apply Rgt_not_eq; [now apply weight_positive | apply exp_pos].
Qed.

Theorem lse_shift : forall c xs, xs <> [] -> lse (shift c xs) = lse xs - c.
Proof.
  intros c xs filled. unfold lse. rewrite shift_weight.
  rewrite ln_mult, ln_exp; [ring | apply exp_pos | now apply weight_positive].
Qed.

(** Shifted by a logit that none exceeds, no term exceeds 1 and the sum is at least 1. *)
Theorem shift_by_largest : forall c xs,
  (forall x v, In (x, v) xs -> x <= c) -> (exists v, In (c, v) xs) ->
  1 <= weight (shift c xs) <= INR (length xs).
Proof.
  assert (bound : forall c xs, (forall x v, In (x, v) xs -> x <= c) ->
    weight (shift c xs) <= INR (length xs)).
  { intros c. induction xs as [| (x, v) xs IH]; intros largest; [simpl; lra |].
    cbn [length]. rewrite S_INR. cbn [shift map weight]. fold (shift c xs).
    assert (term : exp (x - c) <= 1).
    { rewrite <- exp_0. pose proof (largest x v (or_introl eq_refl)) as below.
      destruct (Rle_lt_or_eq_dec _ _ below) as [less | same].
      - left. apply exp_increasing. lra.
      - right. f_equal. lra. }
    assert (weight (shift c xs) <= INR (length xs)); [| lra].
    apply IH. intros x' v' member. apply (largest x' v'). now right. }
  intros c xs largest (v & member). split; [| now apply bound].
  apply in_split in member. destruct member as (before & after & ->).
  unfold shift. rewrite map_app, weight_app. cbn [map weight].
  replace (c - c) with 0 by ring. rewrite exp_0.
  pose proof (weight_nonnegative (map (fun '(x, v) => (x - c, v)) before)).
  pose proof (weight_nonnegative (map (fun '(x, v) => (x - c, v)) after)). lra.
Qed.
