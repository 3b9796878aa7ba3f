(** * A sum over pairs by rows and by keys is the same sum (SPEC 6)

    The pairs are a table of how often each is listed; a list's sum is the sum over all keys, each
    as often as it is listed, and the order of two sums over a table does not matter. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import AmGm.
Import ListNotations.
Open Scope Z_scope.

Lemma total_map_same : forall (A : Type) (f g : A -> Z) xs,
  (forall x, In x xs -> f x = g x) -> total (map f xs) = total (map g xs).
Proof. intros A f g xs same. f_equal. apply map_ext_in, same. Qed.

(** Rows, then columns, or columns, then rows. *)
Lemma total_exchanged : forall (A B : Type) (f : A -> B -> Z) xs ys,
  total (map (fun x => total (map (f x) ys)) xs)
  = total (map (fun y => total (map (fun x => f x y) xs)) ys).
Proof.
  intros A B f xs ys. induction ys as [|y ys IH].
  - cbn [map total fold_right]. induction xs as [|x xs IH]; [reflexivity | exact IH].
  - cbn [map total fold_right]. fold (total (map (fun y => total (map (fun x => f x y) xs)) ys)).
    rewrite <- IH, <- total_map_add. reflexivity.
Qed.

Definition times (xs : list Z) (x : Z) : Z := Z.of_nat (count_occ Z.eq_dec xs x).

(** One number among different ones. *)
Lemma total_of_one : forall (f : Z -> Z) x ys,
  NoDup ys -> In x ys -> total (map (fun y => if Z.eq_dec x y then f y else 0) ys) = f x.
Proof.
  intros f x ys distinct. induction distinct as [|y ys not_in distinct IH]; [intros [] |].
  assert (others : ~ In x ys -> total (map (fun y => if Z.eq_dec x y then f y else 0) ys) = 0).
  { clear. intros absent. induction ys as [|y ys IH]; [reflexivity |].
    cbn [map total fold_right]. destruct (Z.eq_dec x y) as [same | other].
    - contradiction absent. left. now symmetry.
    - apply IH. intros x_in. apply absent. now right. }
  intros x_in. cbn [map total fold_right].
  fold (total (map (fun y => if Z.eq_dec x y then f y else 0) ys)).
  destruct (Z.eq_dec x y) as [same | other].
  - subst y. rewrite others by exact not_in. lia.
  - destruct x_in as [same | x_in]; [congruence |]. rewrite IH by exact x_in. lia.
Qed.

Lemma total_by_times : forall (f : Z -> Z) ys xs,
  NoDup ys -> incl xs ys -> total (map f xs) = total (map (fun y => times xs y * f y) ys).
Proof.
  intros f ys xs distinct. induction xs as [|x xs IH]; intros inside.
  - symmetry. rewrite (total_map_same _ _ (fun y => 0 * f y)) by reflexivity.
    rewrite total_map_times. reflexivity.
  - cbn [map total fold_right]. fold (total (map f xs)).
    rewrite IH by (intros y y_in; apply inside; now right).
    rewrite <- (total_of_one f x ys distinct) by (apply inside; now left).
    rewrite <- total_map_add. apply total_map_same. intros y _.
    unfold times. cbn [count_occ]. destruct (Z.eq_dec x y); lia.
Qed.

Theorem key_major_is_row_major : forall rows keys keys_of rows_of (f : Z -> Z -> Z),
  NoDup rows -> NoDup keys ->
  (forall i, In i rows -> incl (keys_of i) keys) ->
  (forall j, In j keys -> incl (rows_of j) rows) ->
  (forall i j, In i rows -> In j keys ->
    count_occ Z.eq_dec (keys_of i) j = count_occ Z.eq_dec (rows_of j) i) ->
  total (map (fun i => total (map (f i) (keys_of i))) rows)
  = total (map (fun j => total (map (fun i => f i j) (rows_of j))) keys).
Proof.
  intros rows keys keys_of rows_of f rows_distinct keys_distinct keys_in rows_in transposed.
  rewrite (total_map_same _ _ (fun i => total (map (fun j => times (keys_of i) j * f i j) keys)))
    by (intros i i_in; now apply total_by_times, keys_in).
  rewrite total_exchanged. apply total_map_same. intros j j_in.
  rewrite (total_by_times (fun i => f i j) rows (rows_of j)) by (assumption || now apply rows_in).
  apply total_map_same. intros i i_in. unfold times. now rewrite transposed.
Qed.
