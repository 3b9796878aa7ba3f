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

Definition among (p : path) (paths : list path) : bool :=
  if in_dec (list_eq_dec Z.eq_dec) p paths then true else false.

Definition parents (sure : list path) (p : path) : list path :=
  if among (tl p) sure then sure else tl p :: sure.

Definition threshold (k : nat) (offers : path -> list Z) (score : path -> Z) (sure : list path)
    (p : path) : list path :=
  best k score (flat_map (children offers) (parents sure p)).

Fixpoint possible_and_sure (k : nat) (offers : path -> list Z) (score bound : path -> Z) (m : nat)
    : list path * list path :=
  match m with
  | O => ([[]], [[]])
  | S before =>
      let (possible, sure) := possible_and_sure k offers score bound before in
      let near :=
        filter (fun p => negb (behind k score bound (threshold k offers score sure p) p)) in
      let still := near (flat_map (children offers) possible) in
      let rivals p := filter (fun q => score p - bound p <=? score q + bound q) still in
      (still, filter (fun p => (length (rivals p) <=? k)%nat)
                (near (flat_map (children offers) sure)))
  end.

Definition possible k offers score bound m : list path :=
  fst (possible_and_sure k offers score bound m).

Definition sure k offers score bound m : list path :=
  snd (possible_and_sure k offers score bound m).

Definition fewest (offers : path -> list Z) (n : nat) (paths : list path) : list path :=
  best n (fun p => - Z.of_nat (length (offers p))) paths.

Fixpoint count (k : nat) (offers : path -> list Z) (score bound : path -> Z) (m : nat) : nat :=
  match m with
  | O => 1
  | S before =>
      let known := sure k offers score bound before in
      let others := filter (fun p => negb (among p known)) (possible k offers score bound before) in
      let more := fewest offers (count k offers score bound before - length known) others in
      Nat.min k (length (flat_map (children offers) (known ++ more)))
  end.

Fixpoint passes (k : nat) (offers : path -> list Z) (score bound : path -> Z) (p : path) : bool :=
  match p with
  | [] => true
  | key :: parent =>
      existsb (Z.eqb key) (offers parent) &&
      negb (behind k score bound
              (threshold k offers score (sure k offers score bound (length parent)) p) p) &&
      passes k offers score bound parent
  end.

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
  (count k offers score bound levels <=? length chosen)%nat &&
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

Lemma app_distinct : forall xs ys : list path,
  NoDup xs -> NoDup ys -> (forall p, In p xs -> ~ In p ys) -> NoDup (xs ++ ys).
Proof.
  intros xs ys xs_distinct ys_distinct apart. induction xs as [| p xs IH]; [assumption |].
  apply NoDup_cons_iff in xs_distinct. destruct xs_distinct as [fresh xs_distinct].
  cbn [app]. constructor.
  - intros twice. apply in_app_iff in twice. destruct twice as [here | there]; [contradiction |].
    apply (apart p); [now left | assumption].
  - apply IH; [assumption |]. intros q q_in. apply apart. now right.
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
  apply NoDup_cons_iff in unique. destruct unique as [fresh unique].
  assert (own : NoDup (children offers p)).
  { unfold children. apply FinFun.Injective_map_NoDup; [| apply keys_distinct].
    intros a b same. now injection same. }
  cbn [flat_map]. apply app_distinct; [exact own | now apply IH |]. intros q here there.
  apply in_children in here. destruct here as (key & -> & _).
  apply in_flat_map in there. destruct there as (other & other_in & of_other).
  apply in_children in of_other. destruct of_other as (key' & same & _).
  injection same as _ <-. contradiction.
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

(** ** The fewest children

    A list that is no longer than another, and none of whose own paths has more children than a
    path that the other has over it, has no more children in all: take the paths away in pairs. *)

Lemma fewer_children : forall offers few some,
  NoDup few -> NoDup some -> (length few <= length some)%nat ->
  (forall x, In x few -> In x some \/ forall y, In y some -> ~ In y few ->
     (length (offers x) <= length (offers y))%nat) ->
  (length (flat_map (children offers) few) <= length (flat_map (children offers) some))%nat.
Proof.
  intros offers. induction few as [| x few IH]; intros some few_distinct some_distinct size fewer.
  { cbn. lia. }
  apply NoDup_cons_iff in few_distinct. destruct few_distinct as [fresh few_distinct].
  assert (pair : exists y, In y some /\ (length (offers x) <= length (offers y))%nat /\
    ~ In y few /\ forall z, In z some -> z <> y -> z <> x).
  { destruct (in_dec (list_eq_dec Z.eq_dec) x some) as [here | foreign].
    - exists x. auto.
    - destruct (Exists_dec (fun y => ~ In y (x :: few)) some) as [found | none].
      { intros y. destruct (in_dec (list_eq_dec Z.eq_dec) y (x :: few)); [right | left]; tauto. }
      + apply Exists_exists in found. destruct found as (y & y_in & y_other). exists y.
        destruct (fewer x (or_introl eq_refl)) as [| few_of_x]; [contradiction |].
        split; [assumption |]. split; [now apply few_of_x |].
        split; [intros y_few; apply y_other; now right |]. intros z z_in _ ->. contradiction.
      + exfalso. assert (sub : incl some few).
        2: { apply NoDup_incl_length in sub; [| assumption]. cbn [length] in size. lia. }
        intros y y_in. destruct (in_dec (list_eq_dec Z.eq_dec) y (x :: few)) as [[<- |] | y_other];
          [contradiction | assumption |].
        exfalso. apply none, Exists_exists. now exists y. }
  destruct pair as (y & y_in & few_of_x & y_other & not_x).
  apply in_split in y_in. destruct y_in as (before & behind & ->).
  assert (rest : (length (flat_map (children offers) few) <=
    length (flat_map (children offers) (before ++ behind)))%nat).
  { apply NoDup_remove in some_distinct. destruct some_distinct as [rest_distinct y_fresh].
    apply IH; [assumption | assumption | |].
    { rewrite app_length in *. cbn [length] in *. lia. }
    assert (whole : forall z, In z (before ++ behind) <-> In z (before ++ y :: behind) /\ z <> y).
    { intros z. rewrite !in_app_iff. cbn [In]. split; [| intuition congruence].
      intros z_in. split; [tauto |]. intros ->. now apply y_fresh, in_app_iff. }
    intros x' x'_in. destruct (fewer x' (or_intror x'_in)) as [here | above].
    - left. apply whole. split; [assumption |]. congruence.
    - right. intros z z_in z_other. apply whole in z_in. destruct z_in as [z_in not_y].
      apply above; [assumption |]. intros [<- |]; [| contradiction]. now apply (not_x x). }
  assert (offered : forall p, length (children offers p) = length (offers p)).
  { intros p. apply map_length. }
  revert rest. rewrite !flat_map_app. cbn [flat_map]. rewrite !app_length, !offered. lia.
Qed.

Lemma fewest_are_fewest : forall offers n known kept possible,
  NoDup known -> NoDup kept -> NoDup possible ->
  incl known kept -> incl kept possible -> (n <= length kept)%nat ->
  let others := filter (fun p => negb (among p known)) possible in
  (length (flat_map (children offers) (known ++ fewest offers (n - length known) others)) <=
    length (flat_map (children offers) kept))%nat.
Proof.
  intros offers n known kept possible known_distinct kept_distinct possible_distinct known_kept
    kept_possible enough others.
  assert (others_distinct : NoDup others) by now apply NoDup_filter.
  destruct (best_is_best (n - length known) (fun p => - Z.of_nat (length (offers p))) others
              others_distinct) as (few_distinct & few_others & size & better).
  fold (fewest offers (n - length known) others) in *.
  pose proof (NoDup_incl_length known_distinct known_kept) as known_size.
  assert (other : forall p, In p others <-> In p possible /\ ~ In p known).
  { intros p. unfold others. now rewrite filter_In, negb_true_iff, <- not_true_iff_false,
      among_spec. }
  apply fewer_children; [| assumption | rewrite app_length; lia |].
  - apply app_distinct; [assumption | assumption |]. intros p p_known p_few.
    now apply few_others, other in p_few.
  - intros x x_in. apply in_app_iff in x_in. destruct x_in as [x_known | x_few].
    + left. now apply known_kept.
    + right. intros y y_in y_other. rewrite in_app_iff in y_other.
      specialize (better x y x_few). cbn beta in better.
      enough (- Z.of_nat (length (offers y)) <= - Z.of_nat (length (offers x))) by lia.
      apply better; [| tauto]. apply other. split; [now apply kept_possible | tauto].
Qed.
