(** * The judge of selections: its rule (SPEC 8.2)

    A path is the list of the keys of its anchors, the last one first.  A search keeps, level by
    level, the best [k] children of what it kept before, by scores of its own.  The judge has the
    exact scores and a bound on how far each may be off, and goes down the levels as well.  Here are
    both as definitions, and what "the best [k]" means: paths are ranked by insertion, and the first
    [k] are as good as all behind them. *)

From Coq Require Import ZArith List Lia Bool Permutation.
From Multistep Require Import Selection.
Import ListNotations.
Open Scope Z_scope.

(** ** The search and the judge *)

Definition path : Type := list Z.

Definition children (offers : path -> list Z) (p : path) : list path :=
  map (fun key => key :: p) (offers p).

Definition right_search (k : nat) (offers : path -> list Z) (own : path -> Z) (levels : nat)
    (kept : nat -> list path) : Prop :=
  kept O = [[]] /\
  forall m, (m < levels)%nat ->
    best_of (fun p q => own q <= own p) k (flat_map (children offers) (kept m)) (kept (S m)).

Fixpoint place (score : path -> Z) (p : path) (ranked : list path) : list path :=
  match ranked with
  | [] => [p]
  | q :: rest => if score q <? score p then p :: ranked else q :: place score p rest
  end.

Definition best (k : nat) (score : path -> Z) (paths : list path) : list path :=
  firstn k (fold_right (place score) [] paths).

Definition largest (bound : path -> Z) (paths : list path) : Z :=
  fold_right (fun p => Z.max (bound p)) 0 paths.

Definition behind (k : nat) (score bound : path -> Z) (threshold : list path) (p : path) : bool :=
  (length threshold =? k)%nat &&
  forallb (fun y => largest bound threshold + bound p <? score y - score p) threshold.

Fixpoint possible_and_sure (k : nat) (offers : path -> list Z) (score bound : path -> Z) (m : nat)
    : list path * list path :=
  match m with
  | O => ([[]], [[]])
  | S before =>
      let (possible, sure) := possible_and_sure k offers score bound before in
      let of_sure := flat_map (children offers) sure in
      let near := filter (fun p => negb (behind k score bound (best k score of_sure) p)) in
      let still := near (flat_map (children offers) possible) in
      let rivals p := filter (fun q => score p - bound p <=? score q + bound q) still in
      (still, filter (fun p => (length (rivals p) <=? k)%nat) (near of_sure))
  end.

Definition sure k offers score bound m : list path :=
  snd (possible_and_sure k offers score bound m).

Definition threshold k offers score bound m : list path :=
  best k score (flat_map (children offers) (sure k offers score bound m)).

Fixpoint passes (k : nat) (offers : path -> list Z) (score bound : path -> Z) (p : path) : bool :=
  match p with
  | [] => true
  | key :: parent =>
      existsb (Z.eqb key) (offers parent) &&
      negb (behind k score bound (threshold k offers score bound (length parent)) p) &&
      passes k offers score bound parent
  end.

Definition among (p : path) (paths : list path) : bool :=
  if in_dec (list_eq_dec Z.eq_dec) p paths then true else false.

Fixpoint distinct (paths : list path) : bool :=
  match paths with
  | [] => true
  | p :: rest => negb (among p rest) && distinct rest
  end.

Fixpoint descending (score : path -> Z) (paths : list path) : bool :=
  match paths with
  | p :: (q :: _) as rest => (score q <=? score p) && descending score rest
  | _ => true
  end.

Definition accepts (k : nat) (offers : path -> list Z) (score bound : path -> Z) (levels : nat)
    (own : path -> Z) (chosen : list path) : bool :=
  forallb (fun p => (length p =? levels)%nat && passes k offers score bound p) chosen &&
  forallb (fun p => Z.abs (own p - score p) <=? bound p) chosen &&
  distinct chosen && descending own chosen &&
  (length (threshold k offers score bound (levels - 1)) <=? length chosen)%nat &&
  (length chosen <=? k)%nat &&
  forallb (fun p => among p chosen) (sure k offers score bound levels).

(** ** Lists *)

Lemma among_spec : forall p paths, among p paths = true <-> In p paths.
Proof.
  intros p paths. unfold among. destruct (in_dec (list_eq_dec Z.eq_dec) p paths); split; auto.
  discriminate.
Qed.

Lemma distinct_spec : forall paths, NoDup paths -> distinct paths = true.
Proof.
  induction paths as [| p rest IH]; intros unique; [reflexivity |].
  apply NoDup_cons_iff in unique. destruct unique as [fresh unique]. cbn [distinct].
  rewrite (IH unique), andb_true_r, negb_true_iff. apply not_true_is_false.
  now rewrite among_spec.
Qed.

Lemma in_children : forall offers p q,
  In q (children offers p) <-> exists key, q = key :: p /\ In key (offers p).
Proof.
  intros offers p q. unfold children. rewrite in_map_iff.
  split; intros (key & one & two); exists key; auto.
Qed.

Lemma children_incl : forall offers xs ys, incl xs ys ->
  incl (flat_map (children offers) xs) (flat_map (children offers) ys).
Proof.
  intros offers xs ys sub q q_in. apply in_flat_map in q_in. destruct q_in as (p & p_in & of_p).
  apply in_flat_map. exists p. auto.
Qed.

Lemma children_distinct : forall offers paths,
  (forall p, NoDup (offers p)) -> NoDup paths -> NoDup (flat_map (children offers) paths).
Proof.
  intros offers paths keys_distinct unique. induction paths as [| p rest IH]; [constructor |].
  apply NoDup_cons_iff in unique. destruct unique as [fresh unique]. cbn [flat_map].
  assert (own : NoDup (children offers p)).
  { unfold children. apply FinFun.Injective_map_NoDup; [| apply keys_distinct].
    intros a b same. now injection same. }
  revert own. assert (only : forall q, In q (children offers p) -> exists key, q = key :: p).
  { intros q q_in. apply in_children in q_in. destruct q_in as (key & -> & _). now exists key. }
  revert only. induction (children offers p) as [| q qs IHq]; intros only own; [now apply IH |].
  apply NoDup_cons_iff in own. destruct own as [q_fresh own]. cbn [app]. constructor.
  - intros twice. apply in_app_iff in twice. destruct twice as [here | there]; [contradiction |].
    destruct (only q (or_introl eq_refl)) as (key & ->).
    apply in_flat_map in there. destruct there as (other & other_in & of_other).
    apply in_children in of_other. destruct of_other as (key' & same & _).
    injection same as _ <-. contradiction.
  - apply IHq; [intros x x_in; apply only; now right | exact own].
Qed.

(** ** The best [k] *)

Lemma place_permutes : forall score p ranked, Permutation (p :: ranked) (place score p ranked).
Proof.
  intros score p. induction ranked as [| q rest IH]; [apply Permutation_refl |]. cbn [place].
  destruct (score q <? score p); [apply Permutation_refl |].
  eapply perm_trans; [apply perm_swap | now constructor].
Qed.

Lemma rank_permutes : forall score paths, Permutation paths (fold_right (place score) [] paths).
Proof.
  intros score. induction paths as [| p rest IH]; [constructor |]. cbn [fold_right].
  eapply perm_trans; [now constructor; apply IH | apply place_permutes].
Qed.

(** Every path is at least as good as those behind it. *)
Fixpoint falls (score : path -> Z) (ranked : list path) : Prop :=
  match ranked with
  | [] => True
  | p :: rest => (forall q, In q rest -> score q <= score p) /\ falls score rest
  end.

Lemma place_falls : forall score p ranked, falls score ranked -> falls score (place score p ranked).
Proof.
  intros score p. induction ranked as [| q rest IH]; intros sorted.
  { split; [intros x [] | exact I]. }
  destruct sorted as [first sorted]. cbn [place]. destruct (Z.ltb_spec (score q) (score p)).
  - split; [| now split]. intros x [<- | x_in]; [lia |]. specialize (first x x_in). lia.
  - split; [| now apply IH]. intros x x_in.
    apply (Permutation_in _ (Permutation_sym (place_permutes score p rest))) in x_in.
    destruct x_in as [<- | x_in]; [assumption | now apply first].
Qed.

Lemma falls_split : forall score k ranked x y, falls score ranked ->
  In x (firstn k ranked) -> In y (skipn k ranked) -> score y <= score x.
Proof.
  intros score. induction k as [| k IH]; intros ranked x y sorted x_in y_in; [destruct x_in |].
  destruct ranked as [| p rest]; [destruct x_in |]. destruct sorted as [first sorted].
  cbn [firstn skipn] in *. destruct x_in as [<- | x_in]; [| now apply (IH rest)].
  apply first. rewrite <- (firstn_skipn k rest). apply in_app_iff. now right.
Qed.

Lemma best_is_best : forall k score paths, NoDup paths ->
  best_of (fun p q => score q <= score p) k paths (best k score paths).
Proof.
  intros k score paths unique. unfold best. pose proof (rank_permutes score paths) as same.
  assert (sorted : falls score (fold_right (place score) [] paths)).
  { clear. induction paths; [exact I |]. now apply place_falls. }
  set (ranked := fold_right (place score) [] paths) in *.
  apply (Permutation_NoDup same) in unique.
  pose proof (firstn_skipn k ranked) as parts.
  repeat split.
  - rewrite <- parts in unique. revert unique. generalize (firstn k ranked). clear.
    induction l as [| x xs IH]; intros unique; [constructor |]. cbn [app] in unique.
    apply NoDup_cons_iff in unique. destruct unique as [fresh unique].
    constructor; [intros x_in; apply fresh, in_app_iff; now left | now apply IH].
  - intros x x_in. apply (Permutation_in _ (Permutation_sym same)). rewrite <- parts.
    apply in_app_iff. now left.
  - now rewrite firstn_length, (Permutation_length same).
  - intros x y x_in y_in dropped. apply (Permutation_in _ same) in y_in.
    rewrite <- parts in y_in. apply in_app_iff in y_in.
    destruct y_in as [y_in | y_in]; [contradiction | now apply (falls_split score k ranked)].
Qed.

Lemma largest_bounds : forall bound paths p, In p paths -> bound p <= largest bound paths.
Proof.
  intros bound. unfold largest. induction paths as [| q rest IH]; intros p p_in; [destruct p_in |].
  cbn [fold_right]. destruct p_in as [<- | p_in]; [lia |]. specialize (IH p p_in). lia.
Qed.

Lemma largest_bounded : forall bound paths eps, 0 <= eps ->
  (forall p, In p paths -> bound p <= eps) -> largest bound paths <= eps.
Proof.
  intros bound paths eps eps_nonneg all. unfold largest.
  induction paths as [| q rest IH]; [assumption |]. cbn [fold_right]. apply Z.max_lub.
  - apply all. now left.
  - apply IH. intros p p_in. apply all. now right.
Qed.
