(** * What is kept: the best of shards, and the best by inexact scores

    Of a set the best [k] are those that nothing outside them is better than.  Whoever keeps the
    best of the best of two shards has the best of both: what a shard drops, [k] of its own are
    better than.  Whoever chooses by scores that are off by [eps] keeps nothing that is worse than
    the worst of the true best by more than [2 eps]. *)

From Coq Require Import ZArith List Lia.
Import ListNotations.

(** [kept] are best [k] of the candidates, or all where they are fewer. *)
Definition best_of {A : Type} (better : A -> A -> Prop) (k : nat) (candidates kept : list A)
    : Prop :=
  NoDup kept /\ incl kept candidates /\ length kept = Nat.min k (length candidates) /\
  forall x y, In x kept -> In y candidates -> ~ In y kept -> better x y.

Lemma dropped_means_full : forall (A : Type) (better : A -> A -> Prop) k candidates kept y,
  best_of better k candidates kept -> NoDup candidates ->
  In y candidates -> ~ In y kept -> length kept = k.
Proof.
  intros A better k candidates kept y (distinct & among & size & _) all_distinct y_in dropped.
  assert (more : length (y :: kept) <= length candidates).
  { apply NoDup_incl_length; [now constructor |].
    intros x [<- | x_in]; [exact y_in | now apply among]. }
  cbn [length] in more. lia.
Qed.

(** Of [k] that one shard keeps and [k] that are kept in all, of which one is another shard's, one
    is not kept. *)
Lemma one_is_dropped : forall (A : Type) (own kept : list A) x,
  (forall a b : A, {a = b} + {a <> b}) ->
  NoDup own -> In x kept -> ~ In x own -> length kept <= length own ->
  exists a, In a own /\ ~ In a kept.
Proof.
  intros A own kept x decide distinct x_in foreign size.
  destruct (Forall_Exists_dec (fun a => In a kept) (fun a => in_dec decide a kept) own)
    as [all | some].
  - exfalso. rewrite Forall_forall in all.
    assert (more : length (x :: own) <= length kept).
    { apply NoDup_incl_length; [now constructor |].
      intros a [<- | a_in]; [exact x_in | now apply all]. }
    cbn [length] in more. lia.
  - apply Exists_exists in some. exact some.
Qed.

Theorem best_of_shards : forall (A : Type) (better : A -> A -> Prop) k left right of_left of_right
    kept,
  (forall a b : A, {a = b} + {a <> b}) ->
  (forall a b c, better a b -> better b c -> better a c) ->
  NoDup (left ++ right) ->
  best_of better k left of_left -> best_of better k right of_right ->
  best_of better k (of_left ++ of_right) kept ->
  best_of better k (left ++ right) kept.
Proof.
  intros A better k left right of_left of_right kept decide transitive distinct left_best right_best
    merged.
  pose proof left_best as (_ & left_among & left_size & _).
  pose proof right_best as (_ & right_among & right_size & _).
  destruct merged as (kept_distinct & kept_among & kept_size & kept_better).
  assert (apart : forall a, In a left -> In a right -> False).
  { clear - distinct. intros a.
    induction left as [|x xs IH]; intros in_left in_right; [exact in_left|].
    cbn [app] in distinct. apply NoDup_cons_iff in distinct. destruct distinct as [fresh rest].
    destruct in_left as [-> | in_left]; [apply fresh, in_or_app; now right | now apply IH]. }
  assert (lefts : NoDup left).
  { clear - distinct. induction left as [|x xs IH]; [constructor|]. cbn [app] in distinct.
    apply NoDup_cons_iff in distinct. destruct distinct as [fresh rest].
    constructor; [intro among; apply fresh, in_or_app; now left | now apply IH]. }
  assert (rights : NoDup right).
  { clear - distinct. induction left as [|x xs IH]; [exact distinct|]. cbn [app] in distinct.
    apply NoDup_cons_iff in distinct. now apply IH. }
  repeat split.
  - exact kept_distinct.
  - intros x x_in. apply kept_among, in_app_or in x_in. apply in_or_app.
    destruct x_in as [x_in | x_in]; [left; now apply left_among | right; now apply right_among].
  - rewrite app_length in *. lia.
  - (* [mine] keep [of_mine], among them not [y]; [x] is kept in all. *)
    assert (side : forall mine of_mine other of_other x y,
      best_of better k mine of_mine -> NoDup mine -> incl of_other other ->
      (forall a, In a mine -> In a other -> False) ->
      (forall a, In a (of_left ++ of_right) <-> In a of_mine \/ In a of_other) ->
      In x kept -> In y mine -> ~ In y of_mine -> better x y).
    { intros mine of_mine other of_other x y best mine_distinct other_among disjoint all x_in y_in
        dropped.
      pose proof (dropped_means_full A better k mine of_mine y best mine_distinct y_in dropped)
        as full.
      destruct best as (of_distinct & of_among & _ & of_better).
      destruct (in_dec decide x of_mine) as [own | foreign]; [now apply of_better |].
      destruct (one_is_dropped A of_mine kept x decide of_distinct x_in foreign ltac:(lia))
        as (a & a_in & a_dropped).
      apply transitive with a.
      - apply kept_better; [exact x_in | apply all; now left | exact a_dropped].
      - now apply of_better. }
    intros x y x_in y_in y_dropped.
    destruct (in_dec decide y (of_left ++ of_right)) as [offered | lost].
    { now apply kept_better. }
    apply in_app_or in y_in. destruct y_in as [y_left | y_right].
    + apply (side left of_left right of_right); try assumption.
      * intros a. apply in_app_iff.
      * intro among. apply lost, in_or_app. now left.
    + apply (side right of_right left of_left); try assumption.
      * intros a in_right in_left. now apply (apart a).
      * intros a. rewrite in_app_iff. tauto.
      * intro among. apply lost, in_or_app. now right.
Qed.

Open Scope Z_scope.

(** [chosen] by inexact scores, [best] any as many: not all of these are better than one of those by
    more than twice the error. *)
Theorem regret_is_bounded : forall (A : Type) (score inexact : A -> Z) eps candidates chosen best x,
  (forall y, In y candidates -> Z.abs (inexact y - score y) <= eps) ->
  NoDup best -> incl chosen candidates -> incl best candidates ->
  (length chosen <= length best)%nat ->
  (forall a b, In a chosen -> In b candidates -> ~ In b chosen -> inexact b <= inexact a) ->
  (forall a b : A, {a = b} + {a <> b}) ->
  In x chosen -> exists y, In y best /\ score y - score x <= 2 * eps.
Proof.
  intros A score inexact eps candidates chosen best x near distinct among best_among size better
    decide x_in.
  destruct (Exists_dec (fun y => score y - score x <= 2 * eps) best
              (fun y => Z_le_dec (score y - score x) (2 * eps))) as [found | none].
  { now apply Exists_exists in found. }
  exfalso.
  assert (x_near := near x (among x x_in)).
  assert (far : forall y, In y best -> 2 * eps < score y - score x).
  { intros y y_in. destruct (Z.le_gt_cases (score y - score x) (2 * eps)); [| lia].
    exfalso. apply none, Exists_exists. now exists y. }
  assert (more : (length (x :: best) <= length chosen)%nat).
  { apply NoDup_incl_length.
    - constructor; [| exact distinct]. intro own. specialize (far x own). lia.
    - intros y [<- | y_in]; [exact x_in |].
      destruct (in_dec decide y chosen) as [kept | dropped]; [exact kept | exfalso].
      specialize (better x y x_in (best_among y y_in) dropped).
      specialize (far y y_in). pose proof (near y (best_among y y_in)). lia. }
  cbn [length] in more. lia.
Qed.
