(** * Lists of spans and ranges of integers

    What the checker computes with: unions of spans, the oldest distance that a union lacks, and
    searches through a range in order. *)

From Coq Require Import ZArith List Lia Bool.
From Multistep Require Import Schedule.
Import ListNotations.
Open Scope Z_scope.

(** ** Unions of spans *)

Definition covers (spans : list span) (d : Z) : Prop := exists s, In s spans /\ within d s.

Definition holds (d : Z) (s : span) : bool := (near s <=? d) && (d <? far s).

(** One more span in front of a union: empty ones are dropped, and one that touches the foremost is
    made one with it, so that a union without holes is a single span. *)
Definition push (s : span) (spans : list span) : list span :=
  if far s <=? near s then spans
  else match spans with
       | h :: rest =>
           if (near h <=? far s) && (near s <=? far h)
           then Span (Z.min (near s) (near h)) (Z.max (far s) (far h)) :: rest
           else s :: spans
       | [] => [s]
       end.

Definition join (spans : list span) : list span := fold_right push [] spans.

(** [r], whose distances count from the newest key of [s], cut to [s]. *)
Definition inside (s r : span) : span :=
  Span (Z.max (near s) (near s + near r)) (Z.min (far s) (near s + far r)).

Lemma holds_within : forall d s, holds d s = true <-> within d s.
Proof.
  intros d s. unfold holds, within. rewrite andb_true_iff, Z.leb_le, Z.ltb_lt. tauto.
Qed.

Lemma covers_nil : forall d, ~ covers [] d.
Proof. intros d (s & [] & _). Qed.

Lemma covers_cons : forall s spans d, covers (s :: spans) d <-> within d s \/ covers spans d.
Proof.
  intros s spans d. split.
  - intros (r & [<- | member] & held); [now left | right; now exists r].
  - intros [held | (r & member & held)]; [exists s | exists r]; simpl; auto.
Qed.

Lemma covers_push : forall s spans d, covers (push s spans) d <-> within d s \/ covers spans d.
Proof.
  intros s spans d. unfold push.
  destruct (Z.leb_spec (far s) (near s)) as [empty | filled].
  - unfold within. intuition lia.
  - destruct spans as [| h rest]; [apply covers_cons |].
    destruct ((near h <=? far s) && (near s <=? far h)) eqn:touching; [| apply covers_cons].
    apply andb_true_iff in touching. rewrite !Z.leb_le in touching.
    rewrite !covers_cons. unfold within; simpl. intuition lia.
Qed.

Lemma covers_join : forall spans d, covers (join spans) d <-> covers spans d.
Proof.
  induction spans as [| s spans IH]; intros d; simpl; [reflexivity |].
  now rewrite covers_push, covers_cons, IH.
Qed.

Lemma covers_flat_map : forall (A : Type) (f : A -> list span) xs d,
  covers (flat_map f xs) d <-> exists x, In x xs /\ covers (f x) d.
Proof.
  intros A f xs d. unfold covers. split.
  - intros (s & member & held). apply in_flat_map in member.
    destruct member as (x & inx & ins). exists x. split; [| exists s]; auto.
  - intros (x & inx & s & ins & held). exists s. split; [| assumption].
    apply in_flat_map. now exists x.
Qed.

Lemma covers_inside : forall s spans d,
  covers (map (inside s) spans) d <-> within d s /\ covers spans (d - near s).
Proof.
  intros s spans d. unfold covers, within. split.
  - intros (r & member & held). apply in_map_iff in member.
    destruct member as (q & <- & inq). simpl in held.
    split; [lia |]. exists q. split; [assumption | lia].
  - intros (held & q & inq & heldq). exists (inside s q).
    split; [now apply in_map | simpl; lia].
Qed.

(** ** The oldest distance out of reach *)

(** From [d] on towards the window's [newest]: jumps over the spans that hold [d]; [None] where all
    of [newest ... d] is held.  Every jump passes one distance at least, so [fuel] of
    [d + 1 - newest] is enough. *)
Fixpoint oldest_missing (fuel : nat) (spans : list span) (newest d : Z) : option Z :=
  match fuel with
  | O => None
  | S fuel' =>
      if d <? newest then None
      else match find (holds d) spans with
           | None => Some d
           | Some s => oldest_missing fuel' spans newest (near s - 1)
           end
  end.

Lemma oldest_missing_none : forall fuel spans newest d,
  d + 1 - newest <= Z.of_nat fuel -> oldest_missing fuel spans newest d = None ->
  forall x, newest <= x <= d -> covers spans x.
Proof.
  induction fuel as [| fuel IH]; intros spans newest d enough; cbn [oldest_missing]; [lia |].
  destruct (Z.ltb_spec d newest) as [below | above]; [lia |].
  destruct (find (holds d) spans) as [s |] eqn:found; [| discriminate].
  apply find_some in found. destruct found as (member & held).
  apply holds_within in held. unfold within in held. intros none x inx.
  destruct (Z.le_gt_cases (near s) x) as [in_s | beyond].
  - exists s. unfold within. split; [assumption | lia].
  - apply (IH spans newest (near s - 1)); auto; lia.
Qed.

Lemma oldest_missing_some : forall fuel spans newest d y,
  oldest_missing fuel spans newest d = Some y ->
  newest <= y <= d /\ ~ covers spans y /\ forall x, y < x <= d -> covers spans x.
Proof.
  induction fuel as [| fuel IH]; intros spans newest d y; cbn [oldest_missing]; [discriminate |].
  destruct (Z.ltb_spec d newest) as [below | above]; [discriminate |].
  destruct (find (holds d) spans) as [s |] eqn:found.
  - apply find_some in found. destruct found as (member & held).
    apply holds_within in held. unfold within in held. intros some.
    apply IH in some. destruct some as (iny & missing & older).
    split; [lia | split; [assumption |]]. intros x inx.
    destruct (Z.le_gt_cases (near s) x) as [in_s | beyond]; [| apply older; lia].
    exists s. unfold within. split; [assumption | lia].
  - intros some. injection some as <-. split; [lia | split; [| lia]].
    intros (s & member & held). apply holds_within in held.
    apply (find_none _ _ found) in member. congruence.
Qed.

(** ** Ranges of integers *)

Fixpoint range (a : Z) (k : nat) : list Z :=
  match k with
  | O => []
  | S k' => a :: range (a + 1) k'
  end.

Lemma in_range : forall k a x, In x (range a k) <-> a <= x < a + Z.of_nat k.
Proof.
  induction k as [| k IH]; intros a x; cbn [range In]; [lia |].
  rewrite IH. lia.
Qed.

Lemma nth_range : forall k a i, (i < k)%nat -> nth_error (range a k) i = Some (a + Z.of_nat i).
Proof.
  induction k as [| k IH]; intros a i below; [lia |].
  destruct i as [| i]; cbn [range nth_error]; [f_equal; lia |].
  rewrite IH by lia. f_equal. lia.
Qed.

Lemma nth_range_beyond : forall k a i, (k <= i)%nat -> nth_error (range a k) i = None.
Proof.
  induction k as [| k IH]; intros a [| i] beyond; cbn; auto; [lia |]. apply IH. lia.
Qed.

(** The first answer that [f] gives along [xs]. *)
Fixpoint first_some {A : Type} (f : Z -> option A) (xs : list Z) : option A :=
  match xs with
  | [] => None
  | x :: rest =>
      match f x with
      | Some a => Some a
      | None => first_some f rest
      end
  end.

Lemma first_some_none : forall (A : Type) (f : Z -> option A) k a,
  first_some f (range a k) = None <-> forall x, a <= x < a + Z.of_nat k -> f x = None.
Proof.
  intros A f. induction k as [| k IH]; intros a; cbn [range first_some].
  - split; [lia | reflexivity].
  - destruct (f a) as [b |] eqn:here.
    + split; [discriminate |]. intros none. rewrite none in here; [discriminate | lia].
    + rewrite IH. split; intros none x inx; [| apply none; lia].
      destruct (Z.eq_dec x a) as [-> | other]; [assumption | apply none; lia].
Qed.

Lemma first_some_some : forall (A : Type) (f : Z -> option A) k a b,
  first_some f (range a k) = Some b ->
  exists x, a <= x < a + Z.of_nat k /\ f x = Some b /\ forall y, a <= y < x -> f y = None.
Proof.
  intros A f. induction k as [| k IH]; intros a b; cbn [range first_some]; [discriminate |].
  destruct (f a) as [c |] eqn:here; intros some.
  - injection some as <-. exists a. split; [lia | split; [assumption | lia]].
  - apply IH in some. destruct some as (x & inx & fx & earlier).
    exists x. split; [lia | split; [assumption |]]. intros y iny.
    destruct (Z.eq_dec y a) as [-> | other]; [assumption | apply earlier; lia].
Qed.
